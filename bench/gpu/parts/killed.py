"""Whether a killed run ends as an uninterrupted one, bit for bit: by the engine, and with deterministic kernels.

PyTorch's attention adds up gradients in an order that changes from run to run on a GPU. So two whole runs are compared
first: where they differ, a resumed one may differ as much. With deterministic kernels it must be the same.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
from typing import Any

from bench.endurance import enduring, kill_the_engine, whole_run
from bench.gpu.part import Work
from bench.gpu.parts.runs import adapter_digest
from tests.journals import read_events
from workbench.engine.client.process import stop_engine
from workbench.recipe.schema import Recipe
from workbench.runs.folder import RunFolder, create_run, summarise

_STEPS, _TOY_STEPS = 60, 20


def measure(work: Work) -> None:
    # What is exact does not depend on the model's size; records are longer than a block of the attention's kernel.
    tiny = {"model.source": str(work.tiny_model()), "data.max_length": 64 if work.toy else 512}
    recipe = enduring(work.recipe(tiny), _TOY_STEPS if work.toy else _STEPS)
    try:
        whole, again = whole_run(work.home, recipe), whole_run(work.home, recipe)
        same = adapter_digest(whole) == adapter_digest(again)
        work.note(two_whole_runs_are_the_same=same, whole=_losses(whole)[-3:], again=_losses(again)[-3:])
        problem = kill_the_engine(work.home, recipe, random.Random(5), whole)
    finally:
        asyncio.run(stop_engine(work.home))
    work.note(killed_engine=problem or "resumed to the same adapter")
    work.check("a killed engine's run is resumed", not problem or (not same and "another adapter" in problem), problem)
    _deterministic(work, recipe)
    work.verdict()


def _deterministic(work: Work, recipe: Recipe) -> None:
    """A whole run and a killed one, in processes of their own, with PyTorch's deterministic kernels."""
    whole, killed = create_run(work.home, recipe), create_run(work.home, recipe)
    _train(work, whole)
    code = _train(work, killed, "--die-after", str(recipe.training.max_steps // 2))
    work.check("the run was killed", code == -signal.SIGKILL and summarise(killed).state == "interrupted", code)
    _train(work, killed, "--resume")
    work.note(deterministic={"whole": _losses(whole)[-3:], "resumed": _losses(killed)[-3:]})
    work.check("deterministic: the same losses", _losses(whole) == _losses(killed), _losses(killed)[-3:])
    work.check("deterministic: the same adapter", adapter_digest(whole) == adapter_digest(killed), "another one")


def _train(work: Work, run: RunFolder, *options: str) -> int:
    command = [sys.executable, "-m", "bench.gpu.deterministic", str(work.home.root), str(run.path), *options]
    return subprocess.run(command, env={**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}, check=False).returncode


def _losses(run: RunFolder) -> list[tuple[int, Any]]:
    """Step and loss; a step that was trained again counts as the last time."""
    return sorted(
        {event["step"]: event["loss"] for event in read_events(run.journal) if event["event"] == "step"}.items()
    )
