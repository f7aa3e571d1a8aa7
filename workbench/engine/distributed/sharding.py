"""Decides whether the frozen base must be sharded across the GPUs of a run because one GPU cannot hold it."""

from workbench.engine.model.libraries import import_libraries
from workbench.errors import WorkbenchError
from workbench.machine.gpu import gpus_now
from workbench.planning.launch import Launch, largest_base
from workbench.recipe.schema import Recipe
from workbench.storage.paths import Home


def needs_sharding(home: Home, recipe: Recipe, launch: Launch) -> bool:
    """Whether the base does not fit on the smallest GPU of a launch; False without GPUs, or if its size is unknown."""
    if launch.processes < 2:
        return False
    limit = largest_base(launch, gpus_now())
    if limit is None:
        return False
    from workbench.estimate import price
    from workbench.models.trees import skeleton_of

    import_libraries()
    try:
        base = price(skeleton_of(home, recipe.model), recipe).base.allocated_bytes
    except WorkbenchError:
        return False
    return base > limit
