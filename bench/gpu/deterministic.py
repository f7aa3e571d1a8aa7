"""Trains a run with PyTorch's deterministic kernels: ``python -m bench.gpu.deterministic HOME RUN [--resume]``."""

import argparse
import os
import signal
from pathlib import Path
from typing import Any
from unittest import mock

from workbench.engine.model.libraries import import_libraries
from workbench.engine.training.training import Training
from workbench.runs.folder import RunFolder
from workbench.storage.paths import Home


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--die-after", type=int, metavar="STEP", help="SIGKILL in the step after this one")
    options = parser.parse_args()
    import_libraries()
    import torch

    from workbench.engine.training.trainers.trainer import WorkbenchTrainer

    torch.use_deterministic_algorithms(True, warn_only=True)
    home, run = Home(options.home), RunFolder(options.run)
    compute = WorkbenchTrainer.training_step

    def until_killed(self: Any, *arguments: Any, **keywords: Any) -> Any:
        if options.die_after is not None and self.state.global_step >= options.die_after:
            os.kill(os.getpid(), signal.SIGKILL)
        return compute(self, *arguments, **keywords)

    with mock.patch.object(WorkbenchTrainer, "training_step", until_killed):
        training = Training(home, run, run.recipe(), resume=options.resume)
        training.run()
    if training.error is not None:
        raise SystemExit(str(training.error))


if __name__ == "__main__":
    main()
