"""Whether the frozen base has to be spread over the GPUs of a run because one cannot hold it."""

import os

from workbench.engine.libraries import import_libraries
from workbench.errors import WorkbenchError
from workbench.gpu import gpus_now
from workbench.launch import Launch, largest_base
from workbench.paths import Home
from workbench.recipe import Recipe


def is_sharded() -> bool:
    """Whether this process is one of those that hold a part of the base each (FSDP)."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def is_spread() -> bool:
    """Whether no process may hold all of the base: under FSDP, and DeepSpeed, whose third stage parts weights."""
    return is_sharded() or os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true"


def needs_sharding(home: Home, recipe: Recipe, launch: Launch) -> bool:
    """Whether the smallest of a launch's GPUs is too small for the base. Without GPUs, or a known size, it is not."""
    if launch.processes < 2:
        return False
    limit = largest_base(launch, gpus_now())
    if limit is None:
        return False
    from workbench.estimate import estimate
    from workbench.models.trees import skeleton_of

    import_libraries()
    try:
        base = estimate(skeleton_of(home, recipe.model), recipe).base.allocated_bytes
    except WorkbenchError:
        return False
    return base > limit
