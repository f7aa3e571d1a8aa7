"""What a command that has to fetch or convert a model says meanwhile, and where."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from tests.command_line import call, call_process
from tests.models.test_gguf import write_gguf
from workbench.commands.output import fetching
from workbench.commands.output.fetching import FetchBar
from workbench.progress import Progress
from workbench.storage.paths import Home


@pytest.mark.parametrize("command", ["inspect", "estimate"])
def test_a_conversion_is_told_on_stderr_and_the_answer_stays_alone(
    command: str, tiny_llama: Path, tmp_path: Path
) -> None:
    home, model = Home(tmp_path / "home"), write_gguf(tiny_llama, tmp_path / "tiny.gguf")
    line = [command, model, "--json", *["--no-trace"] * (command == "estimate")]
    done = call(home, *line)
    assert json.loads(done.stdout)
    assert "convert" in done.stderr
    again = call_process(home, *line)
    assert again.stdout == done.stdout
    assert again.stderr == ""


def test_on_a_terminal_it_is_a_bar_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(fetching, "errors", Console(file=screen, force_terminal=True, width=100))
    with FetchBar() as bar:
        assert screen.getvalue() == ""
        bar.show(Progress(phase="downloading", fraction=0.5, detail="a\x1b[2Jb of 2 GB"))
        bar._bars.refresh()
    assert "downloading a␛[2Jb of 2 GB" in screen.getvalue()
    assert " 50%" in screen.getvalue()
