"""Chat with tools and reasoning: what is folded, what is shown of a call, and what goes back to the model."""

import json
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Input, Static

from screens.chat.pane import ChatPane
from screens.chat.settings import ChatSettings
from tests.screens.piloting import NARROW, opened
from tests.screens.test_chat_pane import ask, chat, said, with_run
from workbench.engine.client.conversations import Chats
from workbench.engine.client.protocol import Message
from workbench.storage.paths import Home

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"name": "weather", "parameters": PARAMETERS}


def call(city: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "weather", "arguments": {"city": city}}}


async def test_reasoning_is_folded_and_sent_back(tmp_path: Path) -> None:
    async with opened(tmp_path, engine=with_run(tmp_path), size=NARROW) as screen:
        pane = await chat(screen)
        assert not pane.check_action("reasoning", ())
        await ask(screen, "Rain?")
        screen.engine.say("", "I must [b]look[/b]\x1b[2J at the sky.")
        await screen.sees("reasoning, 6 words")
        assert "look" not in screen.words
        screen.engine.say("It rains.")
        message = Message(role="assistant", content="It rains.", reasoning_content="I must look.")
        screen.engine.end(message=message)
        await screen.sees("42 tokens")
        await screen.press("escape", "z")
        await screen.sees("I must [b]look[/b]␛[2J at the sky.")
        await screen.press("z")
        await screen.until(lambda: "look" not in screen.words, "folded again")
        await ask(screen, "And now?")
        assert screen.engine.backend.requests[1].messages[1] == message
        screen.engine.end()
        await screen.until(lambda: not pane._is_replying, "the end of the reply")
        # A saved conversation is shown with it.
        await pane._open(Chats.of(Home(tmp_path), "run-01").all()[0], None)
        await screen.sees("reasoning, 3 words")


async def test_a_call_is_shown_and_its_result_is_typed(tmp_path: Path) -> None:
    tools = tmp_path / "tools.json"
    tools.write_text(json.dumps([WEATHER]))
    async with opened(tmp_path / "home", engine=with_run(tmp_path / "home")) as screen:
        pane = await chat(screen)
        pane.query_one("#tools", Input).value = str(tools)
        await screen.sees("tools: weather")
        await ask(screen, "Rain?")
        assert screen.engine.backend.requests[0].tools == [{"type": "function", "function": WEATHER}]
        screen.engine.say('I look.<tool_call>{"name": "weather"}')
        await screen.sees("tool_call")
        calls = [call("Oslo"), call("Bergen")]
        asked = Message(role="assistant", content="I look.", tool_calls=calls)
        screen.engine.end(message=asked)
        await screen.sees('calls weather(city="Oslo")')
        await screen.sees('calls weather(city="Bergen")')
        await screen.until(lambda: "tool_call" not in screen.words, "the text of the call is replaced")
        await screen.sees("I look.")
        prompt = pane.query_one("#prompt", Input)
        await screen.until(lambda: prompt.placeholder == 'Type the result of weather(city="Oslo")', "the first call")
        await screen.press("enter", *"dry", "enter")
        await screen.until(lambda: "Bergen" in prompt.placeholder, "the second call")
        await screen.sees("result of weather")
        assert len(screen.engine.backend.requests) == 1
        await screen.press("ctrl+r")
        assert prompt.placeholder == "Type a message, Enter to send"
        await screen.press("ctrl+r", *"wet", "enter")
        await screen.until(lambda: len(screen.engine.backend.requests) == 2, "the engine is asked")
        assert screen.engine.backend.requests[1].messages == [
            Message(role="user", content="Rain?"),
            asked,
            Message(role="tool", content="dry", name="weather"),
            Message(role="tool", content="wet", name="weather"),
        ]
        screen.engine.say("Only in Bergen.")
        screen.engine.end()
        await screen.sees("Only in Bergen.")
        await screen.until(lambda: prompt.placeholder == "Type a message, Enter to send", "no call is open")
        pane.query_one("#tools", Input).value = ""
        await screen.sees("tools (JSON file; empty: none)")
        await _is_saved_and_opened_again(pane, tmp_path / "home")


async def _is_saved_and_opened_again(pane: ChatPane, home: Path) -> None:
    kept = Chats.of(Home(home), "run-01").all()[0]
    assert kept.tools == ({"type": "function", "function": WEATHER},)
    settings = pane.query_one(ChatSettings)
    await pane._open_saved(kept, Chats.of(Home(home), "run-01"))
    assert settings.tools == kept.tools
    assert said(pane) == ["Rain?", "I look.", "dry", "wet", "Only in Bergen."]
    assert 'calls weather(city="Oslo")' in kept.as_markdown()


@pytest.mark.parametrize(
    ("content", "mistake"),
    [("{", "it is not JSON"), ("[]", "it has no tools"), ('[{"title": 1}]', "has a tool without a name")],
)
async def test_a_file_that_holds_no_tools_says_why(tmp_path: Path, content: str, mistake: str) -> None:
    (tmp_path / "tools.json").write_text(content)
    async with opened(tmp_path / "home") as screen:
        pane = await chat(screen)
        pane.query_one("#tools", Input).value = str(tmp_path / "tools.json")
        await screen.until(lambda: mistake in str(pane.query_one("#mistake", Static).content), mistake)
        assert pane.query_one(ChatSettings).tools == ()
