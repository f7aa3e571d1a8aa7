"""Compiles the layers of a run's model before its first step, and checks with one micro-batch that it works.

Imports torch: only for the process that trains.
"""

import time
import traceback
from pathlib import Path

import torch

from workbench.engine.kernels.compiled_layers import CompiledLayers
from workbench.engine.kernels.padding_free import PER_RECORD
from workbench.engine.model.hardware import free_cached_memory
from workbench.engine.model.memory_errors import is_out_of_memory
from workbench.engine.steering.ranks import Ranks
from workbench.engine.training.trainers.trainer import WorkbenchTrainer


def compile_layers(trainer: WorkbenchTrainer, ranks: Ranks, cache: Path) -> tuple[float, str]:
    """Make the trainer use compiled layers for its steps, in all processes of a run or in none.

    Args:
        cache: folder for the compiled code.

    Returns:
        Seconds that compiling took in the slowest process, and why the layers could not be compiled (empty if they
        were).
    """
    started = time.perf_counter()
    problem = next(filter(None, ranks.gather(_compile(trainer, cache))), "")
    if problem:
        trainer.compiled = None
    free_cached_memory()
    return max(ranks.gather(time.perf_counter() - started)), problem


def _compile(trainer: WorkbenchTrainer, cache: Path) -> str:
    """Compile in this process; returns why it failed, empty if it did not."""
    try:
        layers = trainer.compiled = CompiledLayers(trainer.model, cache, [PER_RECORD])
        trainer.dry_step(range(min(int(trainer.args.per_device_train_batch_size), len(trainer.train_dataset))))
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    except Exception as error:
        if is_out_of_memory(error):
            return "a whole micro-batch does not fit in memory"
        traceback.print_exc()
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
    # Later shapes that cannot be compiled run uncompiled.
    layers.is_strict = False
    return ""
