"""Whether the frozen base has to be spread over the GPUs of a run because one cannot hold it."""

import os

from workbench.engine.libraries import import_libraries
from workbench.errors import WorkbenchError
from workbench.gpu import gpus_now
from workbench.launch import Launch
from workbench.paths import Home
from workbench.recipe import Recipe

# The rest is for the adapter, its gradients, one layer unsharded and the activations of the smallest batch.
_SHARE_FOR_BASE = 0.85


def is_sharded() -> bool:
    """Whether this process is one of those that hold a part of the base each (FSDP)."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def is_spread() -> bool:
    """Whether no process may hold all of the base: under FSDP, and DeepSpeed, whose third stage parts weights."""
    return is_sharded() or os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true"


def needs_sharding(home: Home, recipe: Recipe, launch: Launch) -> bool:
    """Whether the smallest of a launch's GPUs is too small for the base. Without GPUs, or a known size, it is not."""
    if launch.processes < 2 or launch.config_file:
        return False
    sizes = [
        gpu.total_bytes for gpu in gpus_now() if gpu.total_bytes and (gpu.index in launch.devices or not launch.devices)
    ]
    if not sizes:
        return False
    from workbench.estimate import estimate
    from workbench.models.trees import skeleton_of

    import_libraries()
    try:
        base = estimate(skeleton_of(home, recipe.model), recipe).base.allocated_bytes
    except WorkbenchError:
        return False
    return base > _SHARE_FOR_BASE * min(sizes)
