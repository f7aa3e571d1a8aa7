"""Replies in a batch are those that a chat gives one by one; memory that ends halves the batch."""

import threading

import pytest
import torch
from datasets import Dataset

from workbench.data.sample import IGNORED
from workbench.data.templates.template import Template
from workbench.engine.client.protocol import Message, Sampling
from workbench.engine.generation.batched import greedy_replies
from workbench.engine.generation.evaluation import record_losses
from workbench.engine.generation.generation import end_tokens, generate_reply
from workbench.engine.generation.samples import sample_replies
from workbench.engine.kernels.loss_path import PATHS
from workbench.engine.model.adapters import ActiveAdapters, use_adapters
from workbench.engine.model.load_base import load_base

QUESTIONS = [
    "Why?",
    "Question 3?",
    "Tell me all that you know about the sea, the wind and the ships on it.",
    "a\nb",
    "9",
]


@pytest.fixture(scope="module")
def base(home, run):
    recipe = run.recipe()
    return load_base(home, recipe.model, recipe.quantization, lambda progress: None, lambda: False)


@pytest.fixture(scope="module")
def template(base):
    return Template.for_model(base.tokenizer)


def one_by_one(base, template, most):
    sampling = Sampling(temperature=0, max_new_tokens=most)
    return [
        generate_reply(
            base, template, [Message(role="user", content=text)], sampling, lambda piece: None, threading.Event()
        )
        for text in QUESTIONS
    ]


def at_once(base, template, most, tokens_at_once=10_000, questions=QUESTIONS):
    return greedy_replies(
        base,
        [template.encode_prompt([{"role": "user", "content": text}]) for text in questions],
        ends=end_tokens(base, template),
        max_new_tokens=most,
        tokens_at_once=tokens_at_once,
        report=lambda progress: None,
        cancelled=threading.Event(),
    )


@pytest.mark.parametrize("tuned", [False, True])
@pytest.mark.parametrize("tokens_at_once", [1, 150, 10_000])
def test_batched_is_unbatched(base, template, run, tuned, tokens_at_once):
    voice = ActiveAdapters(((run.adapter, 1.0),)) if tuned else ActiveAdapters()
    with use_adapters(base, voice):
        alone = one_by_one(base, template, 40)
        assert at_once(base, template, 40, tokens_at_once) == alone
    assert len(set(alone)) > 1


def test_a_sample_in_a_run_is_the_greedy_reply_of_a_chat(base, template, run, monkeypatch):
    # A model whose own settings would end no reply, and would draw other tokens.
    monkeypatch.setattr(base.model.generation_config, "eos_token_id", None)
    monkeypatch.setattr(base.model.generation_config, "repetition_penalty", 1.8)
    prompts = [template.encode_prompt([{"role": "user", "content": text}]) for text in QUESTIONS[:3]]
    records = Dataset.from_list(
        [{"input_ids": [*ids, 5, 6], "labels": [*[IGNORED] * len(ids), 5, 6]} for ids in prompts]
    )
    generated = []
    with use_adapters(base, ActiveAdapters(((run.adapter, 1.0),))):
        plain = base.active.generate

        def noted(**options):
            generated.append(plain(**options))
            return generated[-1]

        monkeypatch.setattr(base.active, "generate", noted)
        replies = one_by_one(base, template, 64)[:3]
        in_chat = [tokens[0].tolist() for tokens in generated[:3]]
        generated.clear()
        samples = sample_replies(base, template, records)
    assert [tokens[0].tolist() for tokens in generated] == in_chat
    assert [sample.reply for sample in samples] == replies
    assert any(tokens[-1] in end_tokens(base, template) for tokens in in_chat)


def test_batches_keep_to_their_tokens(base, template, monkeypatch):
    seen = []
    plain = base.model.generate

    def counted(**inputs):
        seen.append((tuple(inputs["input_ids"].shape), inputs["max_new_tokens"]))
        return plain(**inputs)

    monkeypatch.setattr(base.model, "generate", counted)
    with use_adapters(base, ActiveAdapters()):
        monkeypatch.setattr(base, "peft", None)
        at_once(base, template, 10, tokens_at_once=80)
    assert len(seen) > 1
    assert all(rows == 1 or rows * (width + room) <= 80 for (rows, width), room in seen)
    assert sum(rows for (rows, _), _ in seen) == len(QUESTIONS)


def test_a_batch_that_does_not_fit_is_halved(base, template, monkeypatch):
    whole = at_once(base, template, 12)
    plain, sizes = base.active.generate, []

    def small(**inputs):
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return plain(**inputs)

    monkeypatch.setattr(base.active, "generate", small)
    assert at_once(base, template, 12) == whole
    assert sizes[0] == 5
    assert max(sizes[1:]) == 3  # the larger half, halved again
    assert sorted(size for size in sizes if size <= 2) == [1, 2, 2]


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_losses_that_do_not_fit_are_halved_and_stay_in_order(base, monkeypatch, path):
    rows = [{"input_ids": list(range(3, 3 + n)), "labels": [-100, *range(4, 3 + n)]} for n in (9, 4, 30, 7, 12)]
    whole = record_losses(base, rows, 5, lambda progress: None, lambda: False, path=path)
    assert [one.tokens for one in whole] == [8, 3, 29, 6, 11]
    plain, fed = type(base.model.model).forward, []

    def small(self, input_ids=None, **inputs):
        fed.append(input_ids.numel())
        if fed[-1] > 42:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return plain(self, input_ids=input_ids, **inputs)

    monkeypatch.setattr(type(base.model.model), "forward", small)
    halved = record_losses(base, rows, 5, lambda progress: None, lambda: False, path=path)
    assert (max(fed) > 42) != path.one_record
    assert [one.tokens for one in halved] == [one.tokens for one in whole]
    assert [one.loss for one in halved] == pytest.approx([one.loss for one in whole], rel=1e-5)


def test_one_alone_that_does_not_fit_is_told(base, template, monkeypatch):
    def never(**inputs):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(base.active, "generate", never)
    with pytest.raises(torch.OutOfMemoryError):
        at_once(base, template, 4)


def test_prompts_near_the_end_of_the_context_get_what_room_there_is(base, template):
    prompt = template.encode_prompt([{"role": "user", "content": "why " * 500}])[:509]
    replies = greedy_replies(
        base, [prompt, prompt + prompt[:3], prompt[:40]], ends=[], max_new_tokens=20, tokens_at_once=10_000,
        report=lambda progress: None, cancelled=threading.Event(),
    )  # fmt: skip
    assert replies[1] is None
    # Tokens are not characters, but three of them make less text than twenty.
    assert len(base.tokenizer.encode(replies[0])) <= 2 * 3
    assert len(replies[2]) > len(replies[0])
