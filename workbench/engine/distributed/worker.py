"""One of the processes of a run: ``python -m workbench.engine.distributed.worker --home DIR RUN_FOLDER [--resume]``.

``accelerate launch`` starts one per GPU. The first one writes the journal. With an engine (``--engine SOCKET``), it
gets requests from the engine, and all end when the engine ends; without one, on a cluster, SIGTERM stops and saves the
run.
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
    """Train; the exit code is 0 if the run finished or the user stopped it."""
    parser = argparse.ArgumentParser(prog="python -m workbench.engine.distributed.worker")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument(
        "--resume", action="store_true", help="resume from the newest complete checkpoint, if there is one"
    )
    parser.add_argument("--engine", type=Path, metavar="SOCKET", help=argparse.SUPPRESS)
    parser.add_argument("run_folder", type=Path)
    options = parser.parse_args()
    home, run = Home(options.home.absolute()), RunFolder(options.run_folder.absolute())
    link = EngineLink(options.engine, int(os.environ.get("RANK", "0"))) if options.engine else None
    error: WorkbenchError | None
    try:
        error = train(home, run, link, resume=options.resume)
    except Exception as problem:
        traceback.print_exc()
        error = diagnose(problem, f"training run {run.id}", run.log)
    if link is not None:
        link.report_done() if error is None else link.report_failure(error)
    if error is not None:
        print(error, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    # The process group's threads may crash while the interpreter shuts down; everything is saved by now.
    os._exit(0 if error is None else 1)


def train(home: Home, run: RunFolder, link: EngineLink | None, *, resume: bool) -> WorkbenchError | None:
    """Train in this process, together with the others; returns the error that ended the run, if any.

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
    """Stop and save when the cluster sends SIGTERM to all processes; the first process decides for all."""

    def stop(number: int, frame: FrameType | None) -> None:
        training.controls.local.stop(save=True)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


if __name__ == "__main__":
    main()
