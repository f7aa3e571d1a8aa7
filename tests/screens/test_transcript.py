"""A conversation on screen, of which only the last turns are shown."""

from textual.app import App, ComposeResult

from screens.chat.transcript import Transcript, TurnView
from workbench.engine.client.conversations import Conversation, Said, Turn

_NOTICE = "3 earlier turns are not shown."


class TranscriptApp(App[None]):
    def compose(self) -> ComposeResult:
        yield Transcript()


async def test_the_notice_of_hidden_turns_stays_while_they_are_hidden() -> None:
    turns = tuple(Turn(question=f"q{n}", replies=(Said(text=f"a{n}"),)) for n in range(5))
    app = TranscriptApp()
    async with app.run_test():
        transcript = app.query_one(Transcript)
        await transcript.show(Conversation(id="20261130-120000-0a1b2c", turns=turns), most=2)
        for first, in_view in ((5, 2), (4, 1), (3, 0)):
            await transcript.keep_first(first)
            assert len(transcript.query(TurnView)) == in_view
            assert str(transcript.children[0].render()) == _NOTICE
