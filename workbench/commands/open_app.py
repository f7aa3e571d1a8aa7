"""``loraworkbench`` without a command: open the app."""

import os
import sys

from workbench.storage.paths import ENVIRONMENT_VARIABLE, Home


def open_app(home: Home) -> None:
    """Open the app on this terminal.

    Raises:
        SystemExit: standard input or output is not a terminal.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        print("loraworkbench needs a terminal. `loraworkbench --help` lists the commands that do not.", file=sys.stderr)
        raise SystemExit(2)
    os.environ[ENVIRONMENT_VARIABLE] = str(home.root)
    from screens.app import run_app

    run_app(home)
