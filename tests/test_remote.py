"""``--host``: through an ssh that runs the command line as sshd would, in a shell of this machine."""

import json
import os
import subprocess
import sys

import pytest

from tests.command_line import assert_a_sentence, call_process
from workbench import __version__
from workbench.commands.remote import RemoteCall, remote_call, ssh_command
from workbench.errors import WorkbenchError
from workbench.storage.paths import Home

# As sshd does, the words after the host are joined and given to a shell, which has another home and another path.
SSH = """\
import json, os, sys
from pathlib import Path

options, (host, *command) = sys.argv[1:3], sys.argv[3:]
root = Path(__file__).parent
(root / "called.json").write_text(json.dumps([options, host]))
if host == "down":
    sys.stderr.write("ssh: connect to host down port 22: Connection refused\\n")
    sys.exit(255)
os.chdir(root / "there")
environment = {**os.environ, "HOME": str(root / "there"), "PATH": "/usr/bin:/bin"}
os.execve("/bin/sh", ["sh", "-c", " ".join(command)], environment)
"""


@pytest.fixture
def there(tmp_path, monkeypatch):
    """The other machine's home, in which the program is installed as uv does."""
    bin_here, there = tmp_path / "bin", tmp_path / "bin" / "there"
    program = there / ".local" / "bin" / "loraworkbench"
    program.parent.mkdir(parents=True)
    _executable(bin_here / "ssh", f"#!{sys.executable}\n{SSH}")
    _executable(program, f'#!/bin/sh\nexec "{sys.executable}" -m workbench.cli "$@"\n')
    monkeypatch.setenv("PATH", f"{bin_here}:{os.environ['PATH']}")
    monkeypatch.setenv("COLUMNS", "300")
    return there


def _executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def _call(*arguments):
    """Call the program without a ``--home`` of this machine, which it would pass on."""
    return subprocess.run(
        [sys.executable, "-m", "workbench.cli", *arguments], capture_output=True, text=True, check=False, timeout=120
    )


def test_a_command_runs_there_with_its_home_and_its_exit_code(there, monkeypatch):
    home = Home(there / "state")
    done = _call("--host", "me@server", "--home", str(home.root), "runs", "--json")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    options, host = json.loads((there.parent / "called.json").read_text())
    assert (options, host) == (["-T", "--"], "me@server"), "without a terminal none is asked for"
    # What was typed arrives as it was typed, and nothing of it is run.
    odd = "a'; touch pwned; $(touch pwned) `touch pwned` *"
    refused = _call("--host=me@server", "--home", str(home.root), "presets", odd)
    assert_a_sentence(refused, odd)
    assert not (there / "pwned").exists()
    recipe = there.parent / "mine.yaml"
    recipe.write_text("training: {max_steps: 1}\n")
    # A file of this machine is said to be one.
    monkeypatch.chdir(recipe.parent)
    lacking = _call("--host", "me@server", "--home", str(home.root), "train", "mine.yaml")
    assert_a_sentence(lacking, "mine.yaml: found here, but read on me@server", "scp")


def test_what_is_wrong_with_the_other_machine_is_a_sentence(there, tmp_path, monkeypatch):
    program = there / ".local" / "bin" / "loraworkbench"
    assert_a_sentence(_call("--host", "down", "runs"), "Connection refused", "could not connect to down", "`ssh down`")

    _executable(program, '#!/bin/sh\necho "loraworkbench 0.0.1"\n')
    other = _call("--host", "server", "runs")
    assert_a_sentence(other, "loraworkbench 0.0.1", "another version", __version__, "--any-version")
    assert _call("--host", "server", "--any-version", "runs").stdout == "loraworkbench 0.0.1\n"

    program.rename(there / "elsewhere")
    assert_a_sentence(_call("--host", "server", "runs"), "not installed", f"loraworkbench=={__version__}")
    found = _call("--host", "server", "--any-version", "--host-program", "~/elsewhere", "runs")
    assert found.stdout == "loraworkbench 0.0.1\n"

    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert_a_sentence(_call("--host", "server", "runs"), "ssh, which is not installed")


@pytest.mark.parametrize(
    ("words", "call"),
    [
        ([], None),
        (["runs", "--host", "x"], None),
        (["--home", "/h", "runs"], None),
        (["--host"], None),
        (["--host", "a@b"], RemoteCall("a@b", ())),
        (["--home", "/h", "--host=b", "chat", "--host", "x"], RemoteCall("b", ("--home", "/h", "chat", "--host", "x"))),
        (["--host", "b", "--version"], RemoteCall("b", ("--version",))),
        (["--any-version", "--host-program=p", "--host", "b"], RemoteCall("b", (), "p", any_version=True)),
    ],
)
def test_only_options_before_the_command_say_where(words, call):
    assert remote_call(words) == call


@pytest.mark.parametrize("host", ["", "-oProxyCommand=touch x", "a b"])
def test_a_host_is_no_option_of_ssh(host):
    with pytest.raises(WorkbenchError, match="not a host"):
        remote_call([f"--host={host}", "runs"])


def test_the_app_gets_a_terminal():
    options = ssh_command(RemoteCall("b", ()), has_terminal=True)
    assert options[:4] == ["ssh", "-t", "--", "b"]


def test_its_options_without_a_host_are_refused(tmp_path):
    assert_a_sentence(call_process(Home(tmp_path), "--any-version", "runs"), "belong to --host")
