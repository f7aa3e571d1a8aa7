"""Chat: who answers, how a reply streams and ends, and what happens when there is none."""

from functools import partial
from pathlib import Path

import pytest
from textual.events import Paste
from textual.widgets import Input

from screens.chat import pane as chat_pane
from screens.chat.dialogs import ColumnsDialog, ConversationsDialog
from screens.chat.pane import ChatPane
from screens.chat.reply_view import Reply
from screens.chat.settings import ChatSettings
from screens.chat.transcript import Transcript
from screens.dialogs.pick import PickDialog
from screens.dialogs.questions import LineDialog
from tests.screens.piloting import NARROW, WIDE, Opened, opened
from tests.screens.scripted import ScriptedEngine
from workbench.engine.client.conversations import Chats
from workbench.engine.client.protocol import MISSING_BASE, AdapterPart, Message, Sampling
from workbench.errors import WorkbenchError
from workbench.evaluation.preferences import read_ratings
from workbench.recipe.schema import Recipe
from workbench.storage.paths import Home

at_chat = partial(opened, tab="chat")


def with_run(root: Path, *, runs: int = 1) -> ScriptedEngine:
    """An engine whose home holds finished runs with adapters."""
    engine = ScriptedEngine(Home(root))
    for _ in range(runs):
        run = engine.begin(Recipe())
        engine.finish(step=5)
        (run.adapter / "adapter_config.json").write_text("{}")
    return engine


async def chat(screen: Opened) -> ChatPane:
    pane = await screen.tab("chat")
    assert isinstance(pane, ChatPane)
    await screen.until(lambda: "chatting with" in screen.words, "who answers")
    return pane


def said(pane: ChatPane) -> list[str]:
    """All that was said in the selected conversation, in order."""
    turns = pane._conversation.turns
    return [text for turn in turns for text in (turn.question, *(reply.text for reply in turn.replies))]


async def answered(screen: Opened, text: str) -> None:
    """The engine answers what it was asked, to the end."""
    pane = screen.app.pane_in_front
    assert isinstance(pane, ChatPane)
    screen.engine.say(text)
    screen.engine.end()
    await screen.until(lambda: not pane._is_replying, "the end of the reply")
    await screen.until(lambda: pane._conversation.turns[-1].replies[-1].text == text, "the reply in the conversation")


async def ask(screen: Opened, text: str) -> None:
    requests = len(screen.engine.backend.requests)
    pane = screen.app.query_one(ChatPane)
    await screen.until(lambda: not pane._is_replying, "the end of the reply before")
    screen.app.query_one("#prompt", Input).value = text
    screen.app.query_one("#prompt", Input).focus()
    await screen.press("enter")
    await screen.until(lambda: len(screen.engine.backend.requests) == requests + 1, "the engine is asked")


async def test_without_a_run_the_base_answers_and_it_says_so(tmp_path: Path) -> None:
    async with at_chat(tmp_path, size=NARROW) as screen:
        await chat(screen)
        await screen.sees("No adapter yet")
        await screen.sees("Enter to type.")
        await screen.press("enter", *"Hi there", "enter")
        await screen.until(lambda: screen.engine.backend.requests, "the engine is asked")
        request = screen.engine.backend.requests[0]
        assert request.target == "HuggingFaceTB/SmolLM2-135M-Instruct"
        assert not request.adapter
        assert request.messages == [Message(role="user", content="Hi there")]


async def test_a_reply_streams_and_ends_with_its_figures(tmp_path: Path) -> None:
    async with at_chat(tmp_path, engine=with_run(tmp_path)) as screen:
        await chat(screen)
        await screen.until(lambda: "run-01" in screen.words, "the run is found")
        await ask(screen, "How do ships float?")
        engine = screen.engine
        assert (engine.backend.requests[0].target, engine.backend.requests[0].adapter) == ("run-01", True)
        engine.load("loading", 0.42, "the base in nf4")
        await screen.until(lambda: "42 %" in screen.words, "how far the model is loaded")
        engine.say("Aye, **matey**")
        await screen.until(lambda: "Aye, matey" in screen.words, "its first words")
        await screen.sees("run-01 (tuned)")
        await screen.until(lambda: "42 %" not in screen.words, "as it should stand")
        engine.say("! They push water.")
        engine.end(tokens=42)
        await screen.until(lambda: "42 tokens · 21.5 tok/s · first token after 0.25 s" in screen.words, "its figures")
        await screen.sees("Aye, matey! They push water.")
        await ask(screen, "And stones?")
        assert [message.content for message in engine.backend.requests[1].messages] == [
            "How do ships float?",
            "Aye, **matey**! They push water.",
            "And stones?",
        ]


async def test_base_and_tuned_at_a_key_also_while_writing(tmp_path: Path) -> None:
    async with at_chat(tmp_path, engine=with_run(tmp_path)) as screen:
        await chat(screen)
        await screen.until(lambda: "● tuned" in screen.words, "tuned at first")
        await screen.press("b")
        await screen.sees("○ base")
        await ask(screen, "Hi")
        assert not screen.engine.backend.requests[0].adapter
        screen.engine.say("Hello.")
        screen.engine.end()
        await screen.until(lambda: "run-01 (base, adapter off)" in screen.words, "who answered")
        await screen.press("ctrl+t")
        await screen.sees("● tuned")


async def test_escape_ends_a_reply_and_keeps_what_was_said(tmp_path: Path) -> None:
    async with at_chat(tmp_path, engine=with_run(tmp_path)) as screen:
        pane = await chat(screen)
        await ask(screen, "Tell me all")
        screen.engine.say("It began")
        await screen.until(lambda: "It began" in screen.words, "its first words")
        await screen.press("escape")
        await screen.until(lambda: "cancel" in screen.engine.asked, "the engine is asked to stop")
        await screen.until(lambda: "stopped" in screen.words, "it says so")
        assert said(pane)[-1] == "It began"
        # With nothing to stop, escape leaves the line.
        screen.app.query_one("#prompt", Input).focus()
        await screen.press("escape")
        assert screen.app.focused is pane


async def test_a_busy_engine_is_a_sentence_and_the_words_are_given_back(tmp_path: Path) -> None:
    engine = with_run(tmp_path)
    engine.begin(Recipe())
    async with at_chat(tmp_path, engine=engine) as screen:
        pane = await chat(screen)
        prompt = screen.app.query_one("#prompt", Input)
        prompt.value = "Are you there?"
        prompt.focus()
        await screen.press("enter")
        await screen.until(lambda: "The engine is busy training a run." in screen.words, "a sentence")
        assert prompt.value == "Are you there?"
        assert said(pane) == []


async def test_a_reply_that_breaks_off_says_why(tmp_path: Path) -> None:
    async with at_chat(tmp_path, engine=with_run(tmp_path)) as screen:
        pane = await chat(screen)
        await ask(screen, "Hi")
        screen.engine.say("Hel")
        screen.engine.break_off(WorkbenchError("The engine does not answer.", "Start it again.", kind="engine_gone"))
        await screen.until(lambda: "The engine does not answer. Start it again." in screen.words, "a sentence")
        await screen.until(lambda: not pane._is_replying, "the end of the reply")
        assert said(pane) == []
        assert pane.check_action("stop", ()) is False


async def test_settings_reach_the_engine_and_mistakes_do_not(tmp_path: Path) -> None:
    async with at_chat(tmp_path, size=WIDE) as screen:
        pane = await chat(screen)
        for name, value in (("system", "Be brief."), ("temperature", "0"), ("top_p", "0.5"), ("max_new_tokens", "7")):
            pane.query_one(f"#{name}", Input).value = value
        await screen.pilot.pause()
        await ask(screen, "Hi")
        request = screen.engine.backend.requests[0]
        assert request.messages[0] == Message(role="system", content="Be brief.")
        assert request.sampling == Sampling(temperature=0, top_p=0.5, max_new_tokens=7)
        screen.engine.end()
        pane.query_one("#top_p", Input).value = "2"
        await screen.until(lambda: "above 0, at most 1" in screen.words, "what is allowed")
        assert pane.query_one(ChatSettings).sampling.top_p == 0.5


async def test_another_run_can_be_picked(tmp_path: Path) -> None:
    async with at_chat(tmp_path, engine=with_run(tmp_path, runs=2)) as screen:
        await chat(screen)
        await screen.press("c")
        await screen.until(lambda: isinstance(screen.app.screen, PickDialog), "the list")
        await screen.press("down", "down", "enter")
        await screen.until(lambda: "base model, no adapter" in screen.words, "the base alone")
        await ask(screen, "Hi")
        assert "/" in screen.engine.backend.requests[0].target


async def test_clear_forgets_the_conversation(tmp_path: Path) -> None:
    async with at_chat(tmp_path, engine=with_run(tmp_path)) as screen:
        pane = await chat(screen)
        await ask(screen, "Hi")
        screen.engine.say("Hello.")
        screen.engine.end()
        await screen.until(lambda: "42 tokens" in screen.words, "a reply")
        await screen.press("escape", "y")
        assert screen.app.clipboard == "Hello."
        await screen.press("ctrl+n")
        await screen.until(lambda: "Enter to type." in screen.words, "the empty screen")
        assert said(pane) == []
        assert not pane.query_one(Transcript).children


async def test_a_long_reply_stays_in_view_and_one_scrolled_back_stays_put(tmp_path: Path) -> None:
    async with at_chat(tmp_path, size=NARROW, engine=with_run(tmp_path)) as screen:
        pane = await chat(screen)
        transcript = pane.query_one(Transcript)
        await ask(screen, "Count")
        screen.engine.say("\n\n".join(f"line {number}" for number in range(60)))
        await screen.until(lambda: "line 59" in screen.words, "its end")
        assert transcript.scroll_y == transcript.max_scroll_y > 0
        await screen.press("pageup")
        await screen.until(lambda: "line 59" not in screen.words, "scrolled back")
        await screen.until(lambda: transcript.scroll_y == transcript.scroll_target_y, "the end of the scrolling")
        at = transcript.scroll_y
        screen.engine.say("\n\nlast line")
        screen.engine.end()
        await screen.until(lambda: "last line" in pane.query_one(Reply).text, "more of it")
        await screen.pilot.pause()
        assert transcript.scroll_y == at


async def test_side_by_side_is_one_prompt_to_base_and_tuned_at_one_seed(tmp_path: Path) -> None:
    async with at_chat(tmp_path, engine=with_run(tmp_path)) as screen:
        pane = await chat(screen)
        await screen.press("o")
        await screen.sees("side by side run-01 (base, adapter off) · run-01 (tuned)")
        await ask(screen, "Hi")
        screen.engine.say("Hello.")
        screen.engine.end()
        await screen.until(lambda: len(screen.engine.backend.requests) == 2, "the second is asked")
        await answered(screen, "Ahoy.")
        base, tuned = screen.engine.backend.requests
        assert (base.adapter, tuned.adapter) == (False, True)
        assert base.sampling == tuned.sampling
        assert base.sampling.seed is not None
        assert base.messages == tuned.messages
        assert said(pane) == ["Hi", "Hello.", "Ahoy."]
        row = next(line for line in screen.words.splitlines() if "Hello." in line)
        assert "Ahoy." in row
        await screen.sees(f"{base.sampling.seed}")
        # Each goes on from its own words.
        await ask(screen, "And?")
        screen.engine.say("1")
        screen.engine.end()
        await screen.until(lambda: len(screen.engine.backend.requests) == 4, "the second is asked")
        assert [request.messages[1].content for request in screen.engine.backend.requests[2:]] == ["Hello.", "Ahoy."]
        await answered(screen, "2")
        await screen.press("escape", "o")
        await screen.sees("chatting with run-01")


async def test_columns_stand_below_each_other_where_it_is_narrow(tmp_path: Path) -> None:
    async with at_chat(tmp_path, size=NARROW, engine=with_run(tmp_path)) as screen:
        await chat(screen)
        await screen.press("o")
        await ask(screen, "Hi")
        screen.engine.say("Hello.")
        screen.engine.end()
        await screen.until(lambda: len(screen.engine.backend.requests) == 2, "the second is asked")
        await answered(screen, "Ahoy.")
        await screen.sees("Ahoy.")
        lines = screen.words.splitlines()
        places = [next(y for y, line in enumerate(lines) if text in line) for text in ("Hello.", "Ahoy.")]
        assert places[0] < places[1]
        assert max(len(line.rstrip()) for line in lines) <= NARROW[0]


async def test_escape_ends_all_columns(tmp_path: Path) -> None:
    async with at_chat(tmp_path, engine=with_run(tmp_path)) as screen:
        pane = await chat(screen)
        await screen.press("o")
        await ask(screen, "Hi")
        screen.engine.say("It began")
        await screen.sees("It began")
        await screen.press("escape")
        await screen.until(lambda: not pane._is_replying, "the end")
        assert len(screen.engine.backend.requests) == 1
        await screen.sees("not generated")


async def test_columns_can_be_runs_and_checkpoints(tmp_path: Path) -> None:
    engine = with_run(tmp_path, runs=2)
    (tmp_path / "runs" / "run-01" / "checkpoints" / "checkpoint-3").mkdir(parents=True)
    async with at_chat(tmp_path, engine=engine) as screen:
        pane = await chat(screen)
        await screen.until(lambda: "run-02" in screen.words, "the newest run")
        await screen.press("|")
        await screen.until(lambda: isinstance(screen.app.screen, ColumnsDialog), "the list")
        await screen.sees("run-01 at step 3")
        # run-02 is marked; run-01 and its checkpoint too.
        await screen.press("down", "space", "down", "space", "enter")
        await screen.sees("side by side run-02 (tuned) · run-01 (tuned) · run-01@3 (tuned)")
        await ask(screen, "Hi")
        for number in range(3):
            await screen.until(lambda n=number: len(screen.engine.backend.requests) == n + 1, "the next is asked")  # type: ignore[misc]
            screen.engine.say(f"reply {number}")
            screen.engine.end()
        await screen.until(lambda: not pane._is_replying, "the end")
        assert [(r.target, r.on) for r in screen.engine.backend.requests] == [
            ("run-02", ""),
            ("run-01", "run-02"),
            ("run-01@3", "run-02"),
        ]
        # Four are too many.
        await screen.press("escape", "|")
        await screen.until(lambda: isinstance(screen.app.screen, ColumnsDialog), "the list")
        await screen.press("up", "space", "enter")
        await screen.sees("Select 1 to 3; 4 selected.")


async def test_one_column_may_fail_and_the_others_stand(tmp_path: Path) -> None:
    async with at_chat(tmp_path, engine=with_run(tmp_path)) as screen:
        pane = await chat(screen)
        await screen.press("o")
        await ask(screen, "Hi")
        screen.engine.break_off(WorkbenchError("It was trained on A; the base is B.", "Talk to it alone.", kind="x"))
        await screen.until(lambda: len(screen.engine.backend.requests) == 2, "the second is asked")
        await answered(screen, "Ahoy.")
        await screen.sees("It was trained on A; the base is B.")
        assert said(pane) == ["Hi", "Ahoy."]


async def test_the_next_adapter_stronger_weaker_and_sums(tmp_path: Path) -> None:
    async with at_chat(tmp_path, engine=with_run(tmp_path, runs=2)) as screen:
        await chat(screen)
        await screen.until(lambda: "run-02" in screen.words, "the newest run")
        await screen.press("n")
        await screen.sees("chatting with run-01")
        await screen.press("minus", "minus")
        await screen.sees("tuned × 0.8")
        await ask(screen, "Hi")
        request = screen.engine.backend.requests[0]
        assert (request.target, request.on, request.scale) == ("run-01", "run-02", 0.8)
        await answered(screen, "a")
        await screen.press("escape", *["plus"] * 15)
        await screen.sees("tuned × 2.0")
        await screen.press("&")
        await screen.until(lambda: isinstance(screen.app.screen, LineDialog), "the line")
        screen.app.screen.query_one(Input).value = "run-01=0.7, run-02=-0.3"
        await screen.press("enter")
        await screen.sees("chatting with 0.7·run-01 + -0.3·run-02")
        await ask(screen, "Hi")
        request = screen.engine.backend.requests[1]
        assert request.combine == [AdapterPart(target="run-01", weight=0.7), AdapterPart(target="run-02", weight=-0.3)]
        await answered(screen, "b")
        await screen.press("escape", "&")
        await screen.until(lambda: isinstance(screen.app.screen, LineDialog), "the line")
        screen.app.screen.query_one(Input).value = "run-01=lots"
        await screen.press("enter")
        await screen.sees("run-01=lots is not of the form adapter=weight.")


async def test_a_question_is_changed_and_what_followed_is_forgotten(tmp_path: Path) -> None:
    async with at_chat(tmp_path, engine=with_run(tmp_path)) as screen:
        pane = await chat(screen)
        prompt = pane.query_one("#prompt", Input)
        for question, reply in (("one", "first"), ("two", "second")):
            await ask(screen, question)
            await answered(screen, reply)
        await screen.press("escape", "u")
        assert prompt.value == "two"
        await screen.press("escape")
        assert prompt.value == ""
        assert said(pane) == ["one", "first", "two", "second"]
        await screen.press("u")
        pane.action_edit()
        assert prompt.value == "one"
        prompt.value = "three"
        await screen.press("enter")
        await screen.until(lambda: len(screen.engine.backend.requests) == 3, "the engine is asked")
        assert [message.content for message in screen.engine.backend.requests[2].messages] == ["three"]
        await answered(screen, "third")
        assert said(pane) == ["three", "third"]
        await screen.until(lambda: "second" not in screen.words, "what followed is gone")


async def test_a_reply_is_made_again_and_kept_where_that_fails(tmp_path: Path) -> None:
    async with at_chat(tmp_path, engine=with_run(tmp_path)) as screen:
        pane = await chat(screen)
        await ask(screen, "one")
        await answered(screen, "first")
        await screen.press("escape", "R")
        await screen.until(lambda: len(screen.engine.backend.requests) == 2, "the engine is asked")
        assert screen.engine.backend.requests[1].messages == screen.engine.backend.requests[0].messages
        await answered(screen, "other")
        assert said(pane) == ["one", "other"]
        await screen.press("R")
        await screen.until(lambda: len(screen.engine.backend.requests) == 3, "the engine is asked")
        screen.engine.break_off(WorkbenchError("The engine does not answer.", "Start it again.", kind="engine_gone"))
        await screen.sees("The engine does not answer.")
        await screen.until(lambda: not pane._is_replying, "the end")
        assert said(pane) == ["one", "other"]
        await screen.sees("other")


async def test_a_reply_made_again_leaves_the_turns_before_it_in_view(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_pane, "_TURNS_SHOWN", 2)
    async with at_chat(tmp_path, engine=with_run(tmp_path)) as screen:
        pane = await chat(screen)
        for number in range(4):
            await ask(screen, f"question {number}")
            await answered(screen, f"reply {number}")
        await screen.press("escape", "R")
        await screen.until(lambda: len(screen.engine.backend.requests) == 5, "the engine is asked")
        await answered(screen, "other")
        assert [reply.text for reply in pane.query(Reply)] == ["reply 0", "reply 1", "reply 2", "other"]


async def test_conversations_are_listed_opened_renamed_and_removed(tmp_path: Path) -> None:
    async with at_chat(tmp_path, engine=with_run(tmp_path)) as screen:
        pane = await chat(screen)
        pane.query_one("#system", Input).value = "Be brief."
        await ask(screen, "first question")
        await answered(screen, "first *reply*")
        await screen.press("escape", "ctrl+n")
        pane.query_one("#system", Input).value = ""
        await ask(screen, "second question")
        await answered(screen, "second reply")
        kept = Chats.of(Home(tmp_path), "run-01")
        assert [one.name for one in kept.all()] == ["second question", "first question"]

        async def listed() -> None:
            await screen.until(lambda: isinstance(screen.app.screen, ConversationsDialog), "the list")
            await screen.pilot.pause()

        await screen.press("escape", "h")
        await listed()
        await screen.press("down", "enter")
        await screen.sees("first reply")
        assert said(pane) == ["first question", "first *reply*"]
        assert pane.query_one("#system", Input).value == "Be brief."
        await ask(screen, "more")
        assert [m.content for m in screen.engine.backend.requests[-1].messages] == [
            "Be brief.",
            "first question",
            "first *reply*",
            "more",
        ]
        await answered(screen, "indeed")
        assert len(kept.all()) == 2
        await screen.press("escape", "h")
        await listed()
        await screen.press("N")
        await screen.until(lambda: isinstance(screen.app.screen, LineDialog), "the name")
        screen.app.screen.query_one(Input).value = "[red]Ships"
        await screen.press("enter")
        await listed()
        await screen.sees("[red]Ships")
        await screen.press("d")
        await screen.sees("This cannot be undone.")
        await screen.press("y")
        await screen.until(lambda: len(kept.all()) == 1, "one is gone")
        await screen.until(lambda: said(pane) == [], "a new one in its place")
        assert kept.all()[0].name == "second question"


async def test_the_context_is_counted_and_what_is_left_out_is_told(tmp_path: Path) -> None:
    async with at_chat(tmp_path, engine=with_run(tmp_path)) as screen:
        pane = await chat(screen)
        await ask(screen, "Hi")
        screen.engine.say("Hello.")
        screen.engine.end(tokens=42, context=2048)
        await screen.sees("context 72 of 2,048 tokens")
        await screen.until(lambda: not pane._is_replying, "the end")
        await ask(screen, "And?")
        screen.engine.say("Well.")
        screen.engine.end(tokens=2000, context=2048, left_out=1)
        await screen.sees("The context is full: the oldest question and its reply are no longer sent")
        await screen.sees("context 2,030 of 2,048 tokens")


async def test_a_paused_run_answers_as_it_is_now(tmp_path: Path) -> None:
    engine = with_run(tmp_path)
    async with at_chat(tmp_path, engine=engine) as screen:
        await chat(screen)
        await screen.until(lambda: "chatting with run-01" in screen.words, "the finished run")
        engine.begin(Recipe())
        engine.stand("Paused; model kept in memory.")
        await screen.sees("chatting with run-02  ● tuned, paused: current weights")
        await ask(screen, "Hi")
        assert (engine.backend.requests[0].target, engine.backend.requests[0].on) == ("run-02", "")
        engine.say("Half an aye.")
        engine.end()
        await screen.sees("run-02 (tuned)")
        await screen.sees("42 tokens")
        assert engine.paused
        kept = Chats.of(Home(tmp_path), "run-02")
        await screen.until(lambda: [one.name for one in kept.all()] == ["Hi"], "the chat on disk")


async def test_greedy_at_a_key_and_all_of_the_sampling(tmp_path: Path) -> None:
    async with at_chat(tmp_path, size=WIDE) as screen:
        pane = await chat(screen)
        pane.query_one("#temperature", Input).value = "1.1"
        await screen.press("D")
        await screen.until(lambda: pane.query_one(ChatSettings).sampling.temperature == 0, "greedy")
        await screen.press("D")
        await screen.until(lambda: pane.query_one(ChatSettings).sampling.temperature == 1.1, "drawn again")
        for name, value in (("top_k", "40"), ("min_p", "0.1"), ("repetition_penalty", "1.2"), ("seed", "7")):
            pane.query_one(f"#{name}", Input).value = value
        pane.query_one("#merged").value = True  # type: ignore[attr-defined]
        await screen.pilot.pause()
        await ask(screen, "Hi")
        assert screen.engine.backend.requests[0].sampling == Sampling(
            temperature=1.1, top_k=40, min_p=0.1, repetition_penalty=1.2, seed=7
        )
        assert not screen.engine.backend.requests[0].merged  # a bare model has nothing to merge
        screen.engine.end()
        pane.query_one("#seed", Input).value = "-1"
        await screen.sees("Seed: a whole number")


async def test_the_whole_conversation_is_copied_as_markdown(tmp_path: Path) -> None:
    async with at_chat(tmp_path, engine=with_run(tmp_path)) as screen:
        await chat(screen)
        await ask(screen, "Hi")
        await answered(screen, "Hello.\x1b[2J")
        await screen.press("escape", "C")
        assert screen.app.clipboard == "**You:** Hi\n\n**run-01 (tuned):** Hello.␛[2J"


async def test_what_is_pasted_keeps_its_lines(tmp_path: Path) -> None:
    async with at_chat(tmp_path, engine=with_run(tmp_path)) as screen:
        pane = await chat(screen)
        await screen.press("enter", *"See ")
        pane.query_one("#prompt").post_message(Paste("a = 1\r\n\n  b = 2\x1b[2J"))
        await screen.sees("See a = 1↵↵  b = 2␛[2J")
        await screen.press("enter")
        await screen.until(lambda: screen.engine.backend.requests, "the engine is asked")
        assert screen.engine.backend.requests[0].messages[-1].content == "See a = 1\n\n  b = 2␛[2J"
        await answered(screen, "Three.")
        await screen.sees("b = 2␛[2J")
        await screen.press("escape", "u")
        assert pane.query_one("#prompt", Input).value == "See a = 1↵↵  b = 2␛[2J"


async def test_a_new_line_is_begun_by_key_and_an_editor_that_fails_leaves_the_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISUAL", "'")
    async with at_chat(tmp_path, engine=with_run(tmp_path)) as screen:
        pane = await chat(screen)
        await screen.press("enter", *"one", "ctrl+j", *"two")
        assert pane.query_one("#prompt", Input).value == "one↵two"
        await screen.press("ctrl+g")
        await screen.is_asked("$VISUAL cannot be read")
        await screen.press("escape", "enter")
        await screen.until(lambda: screen.engine.backend.requests, "the engine is asked")
        assert screen.engine.backend.requests[0].messages[-1].content == "one\ntwo"


async def side_by_side(screen: Opened, question: str) -> tuple[str, str]:
    """Two replies to a question: which of base and tuned stands on the left, and on the right."""
    requests = screen.engine.backend.requests
    await ask(screen, question)
    left = "tuned" if requests[-1].adapter else "base"
    screen.engine.say(f"The {left}'s words.")
    screen.engine.end()
    await screen.until(lambda: len(requests) % 2 == 0, "the second is asked")
    right = "tuned" if requests[-1].adapter else "base"
    screen.engine.say(f"The {right}'s words.")
    screen.engine.end()
    pane = screen.app.query_one(ChatPane)
    await screen.until(lambda: pane._blind.is_waiting and not pane._is_replying, "the question for a rating")
    return left, right


async def test_a_blind_comparison_hides_the_names_until_it_is_rated(tmp_path: Path) -> None:
    engine = with_run(tmp_path)
    async with at_chat(tmp_path, engine=engine) as screen:
        pane = await chat(screen)
        await screen.until(lambda: "● tuned" in screen.words, "the run is found")
        await screen.press("B")
        await screen.sees("blind run-01 (base, adapter off) · run-01 (tuned)")
        run = engine.run
        assert run is not None
        wins = []
        for number, key in enumerate(("less_than_sign", "greater_than_sign", "equals_sign")):
            left, _ = await side_by_side(screen, f"Question {number}?")
            await screen.sees("Which reply is better?")
            columns = pane.query("TurnView").last().query("Column .who")
            assert [str(column.render()) for column in columns] == ["left", "right"]  # type: ignore[attr-defined]
            assert "first token" not in screen.words.rpartition(f"Question {number}?")[2]
            assert pane.check_action("copy", ()) is False
            await screen.press(key)
            await screen.until(lambda n=number: len(read_ratings(run)) == n + 1, "the rating")  # type: ignore[misc]
            await screen.until(lambda: not pane._blind.is_waiting, "its end")
            names = ["run-01 (base, adapter off)", "run-01 (tuned)"]
            shown = [str(column.render()) for column in columns]  # type: ignore[attr-defined]
            assert shown == (names if left == "base" else names[::-1])
            better = {"less_than_sign": left == "tuned", "greater_than_sign": left == "base"}
            wins.append(float(better.get(key, 0.5)))
        ratings = read_ratings(run)
        assert [rating.score for rating in ratings] == wins
        assert {rating.names for rating in ratings} == {("base", "run-01")}
        assert {rating.replies for rating in ratings} == {("The base's words.", "The tuned's words.")}
        await screen.sees("You preferred run-01 to the base: win rate")
        # As they are kept, the base comes first.
        assert [reply.who for reply in pane._conversation.turns[-1].replies] == names
        # With another pair it ends; "=" scales the adapter again.
        await screen.press("escape", "o")
        await screen.sees("chatting with run-01")
        await screen.press("equals_sign")
        await screen.sees("tuned × 1.1")
        assert len(read_ratings(run)) == 3


async def test_no_rating_of_half_a_comparison(tmp_path: Path) -> None:
    engine = with_run(tmp_path)
    async with at_chat(tmp_path, engine=engine) as screen:
        pane = await chat(screen)
        await screen.until(lambda: "● tuned" in screen.words, "the run is found")
        await screen.press("B")
        await ask(screen, "Hi")
        engine.say("Hello.")
        engine.break_off(WorkbenchError("The GPU is gone.", "", kind="x"))
        await screen.until(lambda: len(engine.backend.requests) == 2, "the second is asked")
        await answered(screen, "Ahoy.")
        assert not pane._blind.is_waiting
        # The names are shown, and signs are text.
        await screen.sees("run-01 (base, adapter off)")
        await screen.press("less_than_sign")
        assert pane._prompt.value == "<"


async def test_a_base_alone_cannot_be_compared_blind(tmp_path: Path) -> None:
    async with at_chat(tmp_path) as screen:
        await chat(screen)
        await screen.press("B")
        await screen.is_asked("at least one of them a run's adapter")


async def test_a_base_that_is_not_here_is_asked_for_and_the_question_sent_again(tmp_path: Path) -> None:
    async with at_chat(tmp_path, engine=with_run(tmp_path)) as screen:
        pane = await chat(screen)
        await ask(screen, "Hi")
        missing = WorkbenchError("run-01 was trained on /gone/llama. No model at /gone/llama.", kind=MISSING_BASE)
        screen.engine.break_off(missing)
        await screen.is_asked("/gone/llama")
        (tmp_path / "here").mkdir()
        screen.app.screen.query_one(Input).value = str(tmp_path / "here")
        await screen.press("enter")
        await screen.until(lambda: len(screen.engine.backend.requests) == 2, "the question is sent again")
        first, second = screen.engine.backend.requests
        assert (first.base, second.base) == ("", str(tmp_path / "here"))
        assert second.messages == first.messages
        # A base of another shape is asked for again; Esc leaves the question in the prompt.
        screen.engine.break_off(WorkbenchError("It does not fit.", kind="adapter_of_another_base"))
        await screen.is_asked("It does not fit.")
        await screen.press("escape")
        await screen.until(lambda: not pane._is_replying, "the end")
        assert screen.app.query_one("#prompt", Input).value == "Hi"
        # The base of a model by itself is never another one.
        await screen.press("escape", "c", "end", "up", "enter")
        await ask(screen, "Hi")
        assert (screen.engine.backend.requests[-1].adapter, screen.engine.backend.requests[-1].base) == (False, "")


async def test_an_adapter_folder_is_chosen_by_its_path(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere" / "lora"
    folder.mkdir(parents=True)
    async with at_chat(tmp_path, engine=with_run(tmp_path)) as screen:
        await chat(screen)
        await screen.press("c", "end", "enter")
        await screen.is_asked("made elsewhere")
        screen.app.screen.query_one(Input).value = str(folder)
        await screen.press("enter")
        await screen.is_asked("has no adapter_config.json")
        (folder / "adapter_config.json").write_text("{}")
        await screen.press("enter")
        await screen.until(lambda: "chatting with lora" in screen.words, "the adapter is chosen")
        await ask(screen, "Hi")
        assert screen.engine.backend.requests[0].target == str(folder)
