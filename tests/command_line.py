"""``loraworkbench`` as a person calls it: in a process of its own, or by the same entry point in this one."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from typing import Any
from unittest import mock

from rich.console import Console

from tests.json_outputs import assert_documented
from workbench.storage.paths import Home

Done = subprocess.CompletedProcess[str]


def start(home: Home, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """Start a command in a process and a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "workbench.cli", "--home", str(home.root), *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "160", **environment},
        start_new_session=True,
    )


def call_process(home: Home, *arguments: object, **environment: str) -> Done:
    """Call a command in a process of its own."""
    process = start(home, *arguments, **environment)
    out, err = process.communicate(timeout=300)
    return _checked(arguments, Done(process.args, process.returncode, out, err))


def call(home: Home, *arguments: object, **environment: str) -> Done:
    """Call a command in this process, which saves a start of Python; not within an event loop."""
    from workbench.commands.app import run
    from workbench.commands.common import console, errors

    line = ["--home", str(home.root), *map(str, arguments)]
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    code = 0
    with (
        # A command sets the home for the processes that it starts.
        mock.patch.dict(os.environ, {"COLUMNS": "160", **environment}),
        mock.patch.object(sys, "stdin", io.StringIO()),
        redirect_stdout(out),
        redirect_stderr(err),
        # Their width and colors are those of the first test that imported them otherwise.
        mock.patch.dict(vars(console), vars(Console(highlight=False))),
        mock.patch.dict(vars(errors), vars(Console(stderr=True, highlight=False))),
    ):
        try:
            run(line)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    printed = (stream.buffer.getvalue().decode() for stream in (out, err))  # type: ignore[attr-defined]
    return _checked(arguments, Done(line, code, *printed))


def _checked(arguments: tuple[object, ...], done: Done) -> Done:
    """What the command did, after a check of the JSON that it printed."""
    if "--json" in arguments and done.returncode == 0:
        assert_documented(arguments, done.stdout)
    return done


def facts(home: Home, *arguments: object, by: Callable[..., Done] = call) -> list[Any]:
    """What a command prints as JSON, a value a line."""
    done = by(home, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_a_sentence(done: Done, *words: str) -> None:
    """A user's mistake: exit code 1, something to read, no traceback."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
