"""What a model is given of a conversation, and how its tokens become text."""

import threading

import pytest

from tests.engine.voices_of_tiny import answered, run_with_adapter
from workbench.data.templates.template import Template
from workbench.engine.client.protocol import Message, ReplyRequest, Sampling
from workbench.engine.daemon.engine import Engine
from workbench.engine.generation.context import fit_prompt
from workbench.engine.generation.generation import generate_reply
from workbench.errors import WorkbenchError
from workbench.recipe.text import edit


@pytest.fixture(scope="module")
def template(tiny_llama):
    from transformers import AutoTokenizer

    return Template.for_model(AutoTokenizer.from_pretrained(tiny_llama))


def talk(turns: int, *, system: str = "") -> list[Message]:
    said = [Message(role="system", content=system)] if system else []
    for number in range(turns):
        said.append(Message(role="user", content=f"Question {number}: " + "why do ships float? " * 3))
        if number < turns - 1:
            said.append(Message(role="assistant", content=f"Answer {number}: they push water away. " * 3))
    return said


def test_a_conversation_that_fits_is_given_whole(template):
    messages = talk(3, system="Be brief.")
    prompt = fit_prompt(template, messages, 4096, 64)
    assert prompt.left_out == 0
    assert prompt.ids == template.encode_prompt([message.model_dump() for message in messages])
    assert fit_prompt(template, messages, None, 64).max_reply(64) == 64


@pytest.mark.parametrize("system", ["", "Be brief."])
@pytest.mark.parametrize("limit", [256, 384, 512])
def test_the_oldest_whole_turns_make_room_for_the_reply(template, limit, system):
    messages = talk(8, system=system)
    prompt = fit_prompt(template, messages, limit, 100)
    assert 0 < prompt.left_out < 8
    assert len(prompt.ids) + min(100, limit // 4) <= limit
    assert prompt.max_reply(100) >= min(100, limit // 4)
    text = template.tokenizer.decode(prompt.ids)
    head = 1 if system else 0
    kept = messages[:head] + messages[head + 2 * prompt.left_out :]
    assert text == template.render([message.model_dump() for message in kept], True)
    assert kept[head].role == "user"
    # One more turn would have been too much.
    more = messages[:head] + messages[head + 2 * (prompt.left_out - 1) :]
    assert len(template.encode_prompt([m.model_dump() for m in more])) + min(100, limit // 4) > limit


def test_the_last_question_always_stays_and_one_too_long_is_refused(template):
    question = talk(1)
    length = len(template.encode_prompt([message.model_dump() for message in question]))
    assert fit_prompt(template, [*talk(3)[:-1], *question], length + 1, 100).max_reply(100) == 1
    with pytest.raises(WorkbenchError, match=f"{length} tokens long; .* is {length} tokens"):
        fit_prompt(template, [*talk(3)[:-1], *question], length, 100)


def test_a_long_conversation_is_answered_and_what_went_out_is_told(home, recipe):
    run = run_with_adapter(home, edit(recipe, {"quantization.method": "none"}), 0)
    messages = talk(12, system="Be brief.")
    request = ReplyRequest(target=run.id, messages=messages, sampling=Sampling(temperature=0, max_new_tokens=64))
    text, end, _ = answered(Engine(home), request)
    assert text
    assert end.context_tokens == 512
    assert end.left_out > 0
    assert end.prompt_tokens + 64 <= 512
    # The same as if those turns had never been.
    kept = [messages[0], *messages[1 + 2 * end.left_out :]]
    again, short, _ = answered(Engine(home), request.model_copy(update={"messages": kept}))
    assert (again, short.left_out) == (text, 0)


def test_pieces_add_up_to_the_reply(home, recipe, monkeypatch):
    """Text comes in pieces that end between characters, also where every token is told at once."""
    from workbench.engine.generation import generation

    monkeypatch.setattr(generation, "_SECONDS_BETWEEN_PIECES", 0.0)
    run = run_with_adapter(home, edit(recipe, {"quantization.method": "none"}), 0)
    engine = Engine(home)
    answered(engine, ReplyRequest(target=run.id, messages=talk(1), sampling=Sampling(max_new_tokens=1)))
    base = engine.backend.base
    template = Template.load(run.adapter, base.tokenizer)
    several = 0
    for seed in range(6):
        pieces = []
        sampling = Sampling(temperature=3, max_new_tokens=60, seed=seed)
        whole = generate_reply(base, template, talk(1), sampling, pieces.append, threading.Event())
        assert "".join(piece.text for piece in pieces) == whole
        assert pieces[0].text == ""
        assert pieces[0].prompt_tokens == pieces[-1].prompt_tokens > 0
        assert pieces[-1].done
        several += sum(bool(piece.text) for piece in pieces) > 10
    assert several


def test_every_way_to_draw_reaches_the_draw(home, recipe):
    run = run_with_adapter(home, edit(recipe, {"quantization.method": "none"}), 0)
    engine = Engine(home)

    def said(**sampling):
        fields = {"temperature": 1.5, "top_p": 1.0, "max_new_tokens": 24, "seed": 3, **sampling}
        return answered(engine, ReplyRequest(target=run.id, messages=talk(1), sampling=Sampling(**fields)))[0]

    greedy, drawn = said(temperature=0), said()
    assert drawn == said() != greedy
    assert drawn != said(seed=4)
    # Each of these leaves the likeliest token only.
    assert said(top_k=1) == said(min_p=1.0) == said(top_p=1e-6) == greedy
    assert said(temperature=0, repetition_penalty=3.0) != greedy
