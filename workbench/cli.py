"""Entry point of ``loraworkbench``: opens the app, or runs a command of :mod:`workbench.commands`.

To open the app fast, the command line's modules are only imported for a command.
"""

import sys
from pathlib import Path

from workbench.commands.open_app import open_app
from workbench.storage.paths import Home


def main() -> None:
    """Entry point of the console script."""
    arguments = sys.argv[1:]
    if home := _home_alone(arguments):
        try:
            open_app(home)
        except Exception as error:
            from workbench.commands.common import exit_with

            exit_with(error, "opening the app", home)
    else:
        from workbench.commands.app import run

        run(arguments)


def _home_alone(arguments: list[str]) -> Home | None:
    """The home if the arguments only select one, so that the app is to be opened; None for a command."""
    match arguments:
        case []:
            return Home.find()
        case ["--home", folder]:
            return Home.find(Path(folder))
        case [option] if option.startswith("--home="):
            return Home.find(Path(option.removeprefix("--home=")))
    return None


if __name__ == "__main__":
    main()
