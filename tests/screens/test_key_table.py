"""A letter has one meaning on all tabs, and the documentation has the keys that there are."""

from pathlib import Path

import pytest

from screens.dialogs.questions import YES, Choice, ChoiceDialog
from screens.shell import key_table
from tests.screens.piloting import opened

_DOCS = Path(__file__).parents[2] / "docs" / "app.md"


def test_a_letter_means_one_thing_on_all_tabs() -> None:
    """`python -m tests.screens.test_key_table` writes the tables again."""
    letters = key_table.letters()
    several = {key for key, by_tab in letters.items() if key_table.ambiguous(by_tab)}
    assert several == key_table.EXCEPTIONS.keys()
    assert {"e", "g", "s", "K", "z"} <= letters.keys()


def test_meanings_are_told_apart() -> None:
    assert key_table.ambiguous({"Train": ["Stop"], "Runs": ["Sort"]})
    assert not key_table.ambiguous({"Train": ["Copy error"], "Chat": ["Copy"]})
    assert not key_table.ambiguous({"Data": ["Download", "Stop counting"], "Models": ["Download"]})


def test_the_documentation_has_the_keys() -> None:
    before, _, rest = _DOCS.read_text(encoding="utf-8").partition("<!-- keys -->\n")
    assert before
    assert rest.partition("\n<!-- /keys -->")[0] == key_table.tables()


@pytest.mark.parametrize(("keys", "answer"), [("y", "do"), ("n", None), ("escape", None), ("enter", None)])
async def test_a_question_is_answered_with_yes_or_no(tmp_path: Path, keys: str, answer: str | None) -> None:
    answers: list[str | None] = []
    async with opened(tmp_path) as screen:
        question = ChoiceDialog("Remove?", "It is gone then.", [Choice(YES, "Remove", "do")], is_risky=True)
        screen.app.push_screen(question, answers.append)
        await screen.until(lambda: screen.app.screen is question, "the question")
        await screen.press(keys)
        await screen.until(lambda: answers, "the answer")
    assert answers == [answer]


async def test_what_loses_nothing_is_preselected(tmp_path: Path) -> None:
    answers: list[str | None] = []
    async with opened(tmp_path) as screen:
        question = ChoiceDialog("Quit?", "It keeps running.", [Choice(YES, "Leave it running", "leave")], no="Stay")
        screen.app.push_screen(question, answers.append)
        await screen.until(lambda: screen.app.screen is question, "the question")
        await screen.press("enter")
        await screen.until(lambda: answers, "the answer")
    assert answers == ["leave"]


if __name__ == "__main__":
    before, _, rest = _DOCS.read_text(encoding="utf-8").partition("<!-- keys -->\n")
    _, _, after = rest.partition("<!-- /keys -->")
    _DOCS.write_text(f"{before}<!-- keys -->\n{key_table.tables()}\n<!-- /keys -->{after}", encoding="utf-8")
