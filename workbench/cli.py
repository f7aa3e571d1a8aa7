"""``loraworkbench``: with no command the app, else a command of :mod:`workbench.commands`.

The app must paint at once, so that nothing but its own modules is imported on the way to it.
"""

import os
import sys
from pathlib import Path

from workbench.paths import ENVIRONMENT_VARIABLE, Home


def main() -> None:
    """Entry point of the console script."""
    arguments = sys.argv[1:]
    if home := _home_alone(arguments):
        _open_app(home)
    else:
        from workbench.commands.app import run

        run(arguments)


def _home_alone(arguments: list[str]) -> Home | None:
    """The home, where the arguments say nothing but which one: the app is wanted."""
    match arguments:
        case []:
            return Home.find()
        case ["--home", folder]:
            return Home.find(Path(folder))
        case [option] if option.startswith("--home="):
            return Home.find(Path(option.removeprefix("--home=")))
    return None


def _open_app(home: Home) -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        print("loraworkbench needs a terminal. `loraworkbench --help` lists the commands that do not.", file=sys.stderr)
        raise SystemExit(2)
    os.environ[ENVIRONMENT_VARIABLE] = str(home.root)
    from screens.app import run_app

    run_app(home)


if __name__ == "__main__":
    main()
