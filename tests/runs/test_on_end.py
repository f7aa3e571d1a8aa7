"""The user's command at the end of a run: what it is given, and what is said if it fails."""

import json
import shlex
import sys

import pytest

from tests.runs.told import finished
from workbench.runs.folder import RunFolder, summarise
from workbench.runs.on_end import call_on_end, last_line
from workbench.runs.summary import RunSummary
from workbench.storage.paths import Home


def python(code: str) -> str:
    return f"{sys.executable} -c {shlex.quote(code)}"


def test_the_command_gets_the_last_event_and_the_runs_folder(tmp_path) -> None:
    run = finished(Home(tmp_path))
    code = "import sys, pathlib; pathlib.Path('told').write_text(sys.stdin.read())"
    assert call_on_end(python(code), run) == ""
    event = json.loads((run.path / "told").read_text())
    assert (event["event"], event["reason"], event["run"]) == ("run_ended", "finished", run.id)
    # A line that is still being written is not an event yet.
    with run.journal.open("ab") as journal:
        journal.write(b'{"event": "ru')
    assert json.loads(last_line(run)) == event


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("'unclosed", "cannot be split into words"),
        ("/no/such/command", "could not start '/no/such/command': No such file or directory."),
        (python("import sys; sys.exit('the mail server is away')"), "exit code 1: the mail server is away"),
        ("false", "ended with exit code 1."),
    ],
)
def test_a_failure_is_said_and_changes_nothing(tmp_path, command, words) -> None:
    run = finished(Home(tmp_path))
    before: RunSummary = summarise(run)
    assert words in call_on_end(command, run)
    assert summarise(run) == before


def test_no_shell_reads_the_command(tmp_path) -> None:
    run = finished(Home(tmp_path))
    assert (
        call_on_end(python("import sys; sys.exit(0 if sys.argv[1:] == ['>', '$HOME'] else 3)") + " '>' '$HOME'", run)
        == ""
    )
    assert call_on_end(" ", run) == ""
    assert last_line(RunFolder(tmp_path / "gone")) == b""
