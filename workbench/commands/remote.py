"""``loraworkbench --host user@server``: runs the app or a command there, over the user's own ssh.

Nothing of this machine's installation takes part: the other machine's runs, with its home, its files and its GPU.
"""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from workbench import __version__
from workbench.errors import WorkbenchError

PROGRAM: Final = "loraworkbench"
# Exit codes of the script below; the program itself has none above 2 but 130.
_NOT_INSTALLED, _OTHER_VERSION = 91, 92
# What ssh returns if it cannot connect.
_SSH_FAILED = 255

# Run by sh there, whatever the login shell is: one connection for the check and the command, as each may ask for a
# password. Commands over ssh do not read the profile, which has the folder of uv and pipx in the path.
_SCRIPT = f"""\
case $1 in '~/'*) program=$HOME/${{1#??}} ;; *) program=$1 ;; esac
PATH=$HOME/.local/bin:$PATH
found=$("$program" --version 2>/dev/null) || exit {_NOT_INSTALLED}
[ "$2" = any ] || [ "$found" = "{PROGRAM} $2" ] || {{ echo "$found" >&2; exit {_OTHER_VERSION}; }}
shift 2
exec "$program" "$@"
"""


@dataclass(frozen=True)
class RemoteCall:
    """What to run where.

    Attributes:
        host: as ssh takes it: ``user@server``, a name of its configuration, or ``ssh://user@server:port``.
        arguments: of the program there; empty for the app.
        program: its name or path there.
        any_version: run it also if it has another version than this one.
    """

    host: str
    arguments: tuple[str, ...]
    program: str = PROGRAM
    any_version: bool = False


def remote_call(arguments: Sequence[str]) -> RemoteCall | None:
    """The call if the options before the command have ``--host``; else None.

    Raises:
        WorkbenchError: an option lacks its value, or the host is none.
    """
    given: dict[str, str] = {}
    passed: list[str] = []
    rest = list(arguments)
    while rest and rest[0].startswith("--") and rest[0] != "--":
        option, equals, value = rest.pop(0).partition("=")
        if option in ("--host", "--host-program", "--home"):
            if not equals and not rest:
                return None  # Typer says that the value is missing.
            value = value if equals else rest.pop(0)
            if option == "--home":
                passed += [option, value]
            else:
                given[option] = value
        elif option == "--any-version" and not equals:
            given[option] = "yes"
        else:
            passed.append(option + equals + value)
    if "--host" not in given:
        return None
    host = given["--host"]
    if not host or host.startswith("-") or any(character.isspace() for character in host):
        raise WorkbenchError(
            f"{host!r} is not a host.", "Give it as for ssh: user@server, or a name of ~/.ssh/config.", kind="host"
        )
    return RemoteCall(host, (*passed, *rest), given.get("--host-program", PROGRAM), "--any-version" in given)


def ssh_command(call: RemoteCall, *, has_terminal: bool) -> list[str]:
    """The command line of ssh. All that a user typed is quoted for the shell there."""
    version = "any" if call.any_version else __version__
    words = ["sh", "-c", _SCRIPT, "sh", call.program, version, *call.arguments]
    return ["ssh", "-t" if has_terminal else "-T", "--", call.host, shlex.join(words)]


def run_remotely(call: RemoteCall) -> int:
    """Run it in this terminal and return its exit code.

    Raises:
        WorkbenchError: ssh is missing or cannot connect; the program is not there, or has another version.
    """
    has_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    try:
        code = subprocess.run(ssh_command(call, has_terminal=has_terminal), check=False).returncode
    except FileNotFoundError:
        raise WorkbenchError(
            "--host needs ssh, which is not installed here.",
            "Install OpenSSH's client, or log in to the other machine and run the program there.",
            kind="ssh",
        ) from None
    except KeyboardInterrupt:
        return 130
    if code == _SSH_FAILED:
        raise WorkbenchError(
            f"ssh could not connect to {call.host}, or lost the connection; its message is above.",
            f"Try `ssh {shlex.quote(call.host)}` by itself. A run that trains there continues.",
            kind="ssh",
        )
    if code == _NOT_INSTALLED:
        raise WorkbenchError(
            f"{call.program} does not run on {call.host}: it is not installed there, or not in the path of ssh.",
            f"Install it there (`uv tool install loraworkbench=={__version__}`), or give its path with "
            "--host-program, such as ~/venv/bin/loraworkbench.",
            kind="not_installed",
        )
    if code == _OTHER_VERSION:
        raise WorkbenchError(
            f"{call.host} has another version than this machine ({__version__}); it is above.",
            f"Install the same there (`uv tool install loraworkbench=={__version__}`), or add --any-version.",
            kind="version",
        )
    if code:
        _name_local_files(call)
    return code


def _name_local_files(call: RemoteCall) -> None:
    """After a failure, name the arguments that are files of this machine, which the other one cannot read."""
    here = [word for word in call.arguments if "." in word and Path(word).expanduser().is_file()]
    if here:
        names = ", ".join(here)
        sys.stderr.write(f"{names}: found here, but read on {call.host}. Copy it there with scp first.\n")
