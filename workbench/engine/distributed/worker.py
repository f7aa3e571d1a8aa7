"""``python -m workbench.engine.distributed.worker --home DIR RUN_FOLDER [--resume]``: one of the processes of a run.

``accelerate launch`` starts one for each GPU. The first writes the journal. Under an engine (``--engine SOCKET``) it
takes its orders from there and all end with it; without one, on a cluster, SIGTERM stops the run and saves it.
"""

import argparse
import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType

from workbench.engine.distributed.link import EngineLink
from workbench.engine.model.libraries import import_libraries
from workbench.engine.steering.ranks import Ranks
from workbench.engine.training.training import Training
from workbench.errors import WorkbenchError
from workbench.failures.diagnose import diagnose
from workbench.runs.folder import RunFolder
from workbench.storage.paths import Home


def main() -> None:
    """Train; the exit code is 0 where the run came to an end that the user wanted."""
    parser = argparse.ArgumentParser(prog="python -m workbench.engine.distributed.worker")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument(
        "--resume", action="store_true", help="resume from the newest complete checkpoint, if there is one"
    )
    parser.add_argument("--engine", type=Path, metavar="SOCKET", help=argparse.SUPPRESS)
    parser.add_argument("run_folder", type=Path)
    asked = parser.parse_args()
    home, run = Home(asked.home.absolute()), RunFolder(asked.run_folder.absolute())
    link = EngineLink(asked.engine, int(os.environ.get("RANK", "0"))) if asked.engine else None
    error: WorkbenchError | None
    try:
        error = train(home, run, link, resume=asked.resume)
    except Exception as problem:
        traceback.print_exc()
        error = diagnose(problem, f"training run {run.id}", run.log)
    if link is not None:
        link.say_done() if error is None else link.say_failed(error)
    if error is not None:
        print(error, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    # The group's threads may crash while the interpreter is taken down; there is nothing left to save.
    os._exit(0 if error is None else 1)


def train(home: Home, run: RunFolder, link: EngineLink | None, *, resume: bool) -> WorkbenchError | None:
    """Train in this process, together with the others; returns what ended the run early.

    Raises:
        WorkbenchError: the recipe cannot be read.
    """
    recipe = run.recipe()
    import_libraries()
    ranks = Ranks.join()
    training = Training(home, run, recipe, resume=resume, ranks=ranks, watched=link is not None)
    if link is not None:
        link.follow(training)
    else:
        _stop_on_signals(training)
    training.run()
    return training.error


def _stop_on_signals(training: Training) -> None:
    """What a cluster sends before it takes the machine away; every process gets it, and the first one counts."""

    def stop(number: int, frame: FrameType | None) -> None:
        training.controls.local.stop(save=True)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


if __name__ == "__main__":
    main()
