"""Nothing from outside styles or steers the terminal, neither on a screen nor by a command."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from screens.widgets.plain import plain_content
from workbench.commands.common import print_json, printable
from workbench.plain_text import plain


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("ordinary text", "ordinary text"),
        ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
        ("bell\x07 delete\x7f c1\x9b2J", "bell␇ delete␡ c1\ufffd2J"),
        ("two\nlines\tand a tab", "two lines and a tab"),
        ("abc\u202edcba\u2066x", "abcdcbax"),
        ("family \U0001f468\u200d\U0001f469", "family \U0001f468\u200d\U0001f469"),
        ("half a pair \ud83d", "half a pair \ufffd"),
    ],
)
def test_what_is_dangerous_is_shown_instead_of_done(given: str, shown: str) -> None:
    assert plain(given) == shown


def test_line_breaks_stay_where_lines_are_wanted() -> None:
    assert plain("one\ntwo\u2028three\tfour", lines=True) == "one\ntwo\nthree\tfour"


def test_brackets_are_only_brackets() -> None:
    content = plain_content("[bold red]not bold[/] [@click=app.quit]x[/]")
    assert content.plain == "[bold red]not bold[/] [@click=app.quit]x[/]"
    assert not content.spans


@given(st.text())
def test_no_control_character_survives(text: str) -> None:
    kept = {unicodedata.category(character) for character in plain(text)}
    assert not kept & {"Cc", "Cs", "Zl", "Zp"}
    plain(text).encode("utf-8")


@given(st.text())
def test_a_command_prints_by_the_same_rule(text: str) -> None:
    shown = printable(text)
    assert shown == plain(text, lines=True)
    assert not {unicodedata.category(character) for character in shown if character not in "\n\t"} & {"Cc", "Cs"}


def test_json_keeps_every_character_and_sends_none_that_steers(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    value = {"name": "a\x1b[2J\x9b2J\u202eb\u2066 half \ud83d, whole \U0001f468\u200d\U0001f469"}
    print_json(value)
    sent = capsysbinary.readouterr().out.decode("utf-8")
    assert json.loads(sent) == value
    assert not set("\x1b\x9b\u202e\u2066") & set(sent)
