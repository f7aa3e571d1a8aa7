"""Conversations on disk: private, whole or absent, and never outside their folder."""

import json
import os
import stat

import pytest

from workbench.engine.client.conversations import Chats, Conversation, Said, Turn, new_conversation, parse_parts
from workbench.engine.client.protocol import AdapterPart, Message
from workbench.errors import WorkbenchError
from workbench.recipe.schema import Recipe
from workbench.runs.folder import create_run
from workbench.storage.paths import Home


def talk(*questions: str, **fields) -> Conversation:
    turns = tuple(
        Turn(question=q, replies=(Said(who="a", text=f"{q}!"), Said(who="b", text=f"{q}?"))) for q in questions
    )
    return new_conversation().model_copy(update={"turns": turns, **fields})


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


def test_conversations_are_kept_renamed_and_removed(home):
    chats = Chats.of(home, "some/model")
    assert chats.all() == []
    first, second = chats.save(talk("one")), chats.save(talk("two", system="Be brief."))
    assert [kept.name for kept in chats.all()] == ["two", "one"]
    first = chats.save(first.model_copy(update={"title": "The first"}))
    assert [kept.name for kept in chats.all()] == ["The first", "two"]
    assert chats.all()[1] == second
    chats.remove(first)
    assert chats.all() == [second]


def test_files_are_their_owners_alone(home):
    before = os.umask(0)
    try:
        chats = Chats.of(home, "some/model")
        kept = chats.save(talk("secret"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(chats.folder.stat().st_mode) == 0o700
    (file,) = chats.folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.name == f"{kept.id}.json"


def test_a_run_keeps_its_own_and_each_model_too(home):
    run = create_run(home, Recipe())
    assert Chats.of(home, run.id).folder == run.path / "chats"
    assert Chats.of(home, f"{run.id}@40").folder == run.path / "chats"
    checkpoint = run.checkpoints / "checkpoint-3"
    checkpoint.mkdir(parents=True)
    (checkpoint / "adapter_config.json").write_text("{}")
    assert Chats.of(home, str(checkpoint)).folder == run.path / "chats"
    others = [Chats.of(home, name).folder for name in ("a/b", "a-b", "../../etc", "/", "x" * 200)]
    assert len(set(others)) == 5
    assert all(folder.parent == home.root / "chats" for folder in others)


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"id": "../../x"}', "\xff", '{"id": "20260101-000000-abcdef", "turns": 3}']
)
def test_what_is_damaged_is_left_out(home, content):
    chats = Chats.of(home, "some/model")
    kept = chats.save(talk("one"))
    (chats.folder / "20260101-000000-abcdef.json").write_text(content, encoding="latin-1")
    (chats.folder / "notes.json").write_text("{}")
    # Another's words under a name of its own would be written over them.
    (chats.folder / "20260101-000000-aaaaaa.json").write_text(json.dumps(kept.model_dump()))
    (chats.folder / "20260101-000000-bbbbbb.json").symlink_to(chats.folder / f"{kept.id}.json")
    assert chats.all() == [kept]


def test_a_link_in_the_folders_place_is_refused(home, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    chats = Chats.of(home, "some/model")
    chats.folder.parent.mkdir(parents=True)
    chats.folder.symlink_to(elsewhere)
    with pytest.raises(WorkbenchError, match="cannot be saved"):
        chats.save(talk("one"))
    assert not list(elsewhere.iterdir())


def test_each_column_has_heard_its_own_replies():
    conversation = talk("one", "two", system="Be brief.")
    assert [message.content for message in conversation.messages("b")] == ["Be brief.", "one", "one?", "two", "two?"]
    assert conversation.messages("nobody")[2] == Message(role="assistant", content="one!")
    assert "**a:** one!" in conversation.as_markdown()


def test_a_long_first_question_is_a_short_name():
    assert len(talk("word " * 50).name) == 60
    assert talk("two\nlines").name == "two lines"


def test_sums_are_read():
    assert parse_parts("run-01=0.7, run-02=-0.3,run-03") == [
        AdapterPart(target="run-01", weight=0.7),
        AdapterPart(target="run-02", weight=-0.3),
        AdapterPart(target="run-03", weight=1),
    ]
    for wrong in ("", "a=b", "=1", "a=3", "a=nan", ",".join("abcdefghijklmnopq")):
        with pytest.raises(WorkbenchError):
            parse_parts(wrong)


def call(city: str) -> dict:
    return {"type": "function", "function": {"name": "weather", "arguments": {"city": city}}}


def test_calls_stay_open_until_each_has_its_result():
    reply = Said(who="a", text="", reasoning="I look.", calls=(call("Oslo"), call("Bergen")))
    asked = new_conversation().model_copy(update={"turns": (Turn(question="Rain?", replies=(reply,)),)})
    assert asked.open_calls == reply.calls
    result = Turn(question="dry", role="tool", name="weather")
    half = asked.model_copy(update={"turns": (*asked.turns, result)})
    assert half.open_calls == reply.calls[1:]
    assert [message.model_dump() for message in half.messages("a")] == [
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "content": "", "reasoning_content": "I look.", "tool_calls": list(reply.calls)},
        {"role": "tool", "content": "dry", "name": "weather"},
    ]
    last = result.model_copy(update={"replies": (Said(who="a", text="It is dry."),)})
    assert half.model_copy(update={"turns": (*half.turns, last)}).open_calls == ()
