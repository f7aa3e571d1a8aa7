"""Chat: who answers, how a reply streams and ends, and what happens when there is none."""

from pathlib import Path

from textual.widgets import Input

from screens.chat import ChatPane
from screens.widgets.pick import PickDialog
from screens.widgets.transcript import Reply, Transcript
from tests.screens.piloting import NARROW, WIDE, Opened, opened
from tests.screens.scripted import ScriptedEngine
from workbench.engine.protocol import Message, Sampling
from workbench.errors import WorkbenchError
from workbench.paths import Home
from workbench.recipe import Recipe


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
    await screen.until(lambda: "talking to" in screen.words, "who answers")
    return pane


async def ask(screen: Opened, text: str) -> None:
    requests = len(screen.engine.requests)
    screen.app.query_one("#prompt", Input).value = text
    screen.app.query_one("#prompt", Input).focus()
    await screen.press("enter")
    await screen.until(lambda: len(screen.engine.requests) == requests + 1, "the engine is asked")


async def test_without_a_run_the_base_answers_and_it_says_so(tmp_path: Path) -> None:
    async with opened(tmp_path, size=NARROW) as screen:
        await chat(screen)
        await screen.sees("No run has kept an adapter yet")
        await screen.sees("Press Enter and write.")
        await screen.press("enter", *"Hi there", "enter")
        await screen.until(lambda: screen.engine.requests, "the engine is asked")
        request = screen.engine.requests[0]
        assert request.target == "HuggingFaceTB/SmolLM2-135M-Instruct"
        assert not request.adapter
        assert request.messages == [Message(role="user", content="Hi there")]


async def test_a_reply_streams_and_ends_with_its_figures(tmp_path: Path) -> None:
    async with opened(tmp_path, engine=with_run(tmp_path)) as screen:
        await chat(screen)
        await screen.until(lambda: "run-01" in screen.words, "the run is found")
        await ask(screen, "How do ships float?")
        engine = screen.engine
        assert (engine.requests[0].target, engine.requests[0].adapter) == ("run-01", True)
        engine.load("loading", 0.42, "the base in nf4")
        await screen.until(lambda: "42 %" in screen.words, "how far the model is loaded")
        engine.say("Aye, **matey**")
        await screen.until(lambda: "Aye, matey" in screen.words, "its first words")
        await screen.sees("run-01 (tuned)")
        await screen.until(lambda: "42 %" not in screen.words, "as it should stand")
        engine.say("! They push water.")
        engine.end(tokens=42)
        await screen.until(lambda: "42 tokens · 21.5 tok/s · first after 0.25 s" in screen.words, "its figures")
        await screen.sees("Aye, matey! They push water.")
        await ask(screen, "And stones?")
        assert [message.content for message in engine.requests[1].messages] == [
            "How do ships float?",
            "Aye, **matey**! They push water.",
            "And stones?",
        ]


async def test_base_and_tuned_at_a_key_also_while_writing(tmp_path: Path) -> None:
    async with opened(tmp_path, engine=with_run(tmp_path)) as screen:
        await chat(screen)
        await screen.until(lambda: "● tuned" in screen.words, "tuned at first")
        await screen.press("b")
        await screen.sees("○ base")
        await ask(screen, "Hi")
        assert not screen.engine.requests[0].adapter
        screen.engine.say("Hello.")
        screen.engine.end()
        await screen.until(lambda: "run-01 (base, adapter off)" in screen.words, "who answered")
        await screen.press("ctrl+t")
        await screen.sees("● tuned")


async def test_escape_ends_a_reply_and_keeps_what_was_said(tmp_path: Path) -> None:
    async with opened(tmp_path, engine=with_run(tmp_path)) as screen:
        pane = await chat(screen)
        await ask(screen, "Tell me all")
        screen.engine.say("It began")
        await screen.until(lambda: "It began" in screen.words, "its first words")
        await screen.press("escape")
        await screen.until(lambda: "cancel" in screen.engine.asked, "the engine is asked to stop")
        await screen.until(lambda: "stopped" in screen.words, "it says so")
        assert pane._messages[-1] == Message(role="assistant", content="It began")
        # With nothing to stop, escape leaves the line.
        screen.app.query_one("#prompt", Input).focus()
        await screen.press("escape")
        assert screen.app.focused is pane


async def test_a_busy_engine_is_a_sentence_and_the_words_are_given_back(tmp_path: Path) -> None:
    engine = with_run(tmp_path)
    engine.begin(Recipe())
    async with opened(tmp_path, engine=engine) as screen:
        pane = await chat(screen)
        prompt = screen.app.query_one("#prompt", Input)
        prompt.value = "Are you there?"
        prompt.focus()
        await screen.press("enter")
        await screen.until(lambda: "The engine is busy training a run." in screen.words, "a sentence")
        assert prompt.value == "Are you there?"
        assert pane._messages == []


async def test_a_reply_that_breaks_off_says_why(tmp_path: Path) -> None:
    async with opened(tmp_path, engine=with_run(tmp_path)) as screen:
        pane = await chat(screen)
        await ask(screen, "Hi")
        screen.engine.say("Hel")
        screen.engine.break_off(WorkbenchError("The engine does not answer.", "Start it again.", kind="engine_gone"))
        await screen.until(lambda: "The engine does not answer. Start it again." in screen.words, "a sentence")
        assert pane._messages == []
        assert pane.check_action("stop", ()) is False


async def test_settings_reach_the_engine_and_mistakes_do_not(tmp_path: Path) -> None:
    async with opened(tmp_path, size=WIDE) as screen:
        pane = await chat(screen)
        for name, value in (("system", "Be brief."), ("temperature", "0"), ("top_p", "0.5"), ("max_new_tokens", "7")):
            pane.query_one(f"#{name}", Input).value = value
        await screen.pilot.pause()
        await ask(screen, "Hi")
        request = screen.engine.requests[0]
        assert request.messages[0] == Message(role="system", content="Be brief.")
        assert request.sampling == Sampling(temperature=0, top_p=0.5, max_new_tokens=7)
        screen.engine.end()
        pane.query_one("#top_p", Input).value = "2"
        await screen.until(lambda: "above 0 and at most 1" in screen.words, "what is allowed")
        assert pane._sampling.top_p == 0.5


async def test_another_run_can_be_picked(tmp_path: Path) -> None:
    async with opened(tmp_path, engine=with_run(tmp_path, runs=2)) as screen:
        await chat(screen)
        await screen.press("m")
        await screen.until(lambda: isinstance(screen.app.screen, PickDialog), "the list")
        await screen.press("down", "down", "enter")
        await screen.until(lambda: "base model, no adapter" in screen.words, "the base alone")
        await ask(screen, "Hi")
        assert "/" in screen.engine.requests[0].target


async def test_clear_forgets_the_conversation(tmp_path: Path) -> None:
    async with opened(tmp_path, engine=with_run(tmp_path)) as screen:
        pane = await chat(screen)
        await ask(screen, "Hi")
        screen.engine.say("Hello.")
        screen.engine.end()
        await screen.until(lambda: "42 tokens" in screen.words, "a reply")
        await screen.press("escape", "y")
        assert screen.app.clipboard == "Hello."
        await screen.press("x")
        await screen.until(lambda: "Press Enter" in screen.words, "the empty screen")
        assert pane._messages == []
        assert not pane.query_one(Transcript).children


async def test_a_long_reply_stays_in_view_and_one_scrolled_back_stays_put(tmp_path: Path) -> None:
    async with opened(tmp_path, size=NARROW, engine=with_run(tmp_path)) as screen:
        pane = await chat(screen)
        transcript = pane.query_one(Transcript)
        await ask(screen, "Count")
        screen.engine.say("\n\n".join(f"line {number}" for number in range(60)))
        await screen.until(lambda: "line 59" in screen.words, "its end")
        assert transcript.scroll_y == transcript.max_scroll_y > 0
        await screen.press("pageup")
        await screen.until(lambda: "line 59" not in screen.words, "scrolled back")
        at = transcript.scroll_y
        screen.engine.say("\n\nlast line")
        screen.engine.end()
        await screen.until(lambda: "last line" in pane.query_one(Reply).text, "more of it")
        await screen.pilot.pause()
        assert transcript.scroll_y == at
