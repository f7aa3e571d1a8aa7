"""Lets a run's layers need less memory, as its recipe says: checkpoints on the host, MLPs in pieces."""

from workbench.engine.model.base import LoadedBase
from workbench.engine.model.sharded import is_spread
from workbench.engine.training.session.context import Context
from workbench.engine.training.trainers.trainer import WorkbenchTrainer
from workbench.errors import WorkbenchError
from workbench.machine.host import host_memory
from workbench.recipe.sections.section import OFFLOAD
from workbench.units import gib, size_in


def keep_checkpoints_on_host(context: Context, base: LoadedBase, trainer: WorkbenchTrainer, needed: int) -> str:
    """Let the trainer keep checkpoints in host memory; returns where they lie as a sentence, empty if nowhere else.

    Args:
        needed: bytes of host memory, as predicted; 0 if unknown.

    Raises:
        WorkbenchError: the host has less memory free.
    """
    if context.recipe.training.gradient_checkpointing != OFFLOAD:
        return ""
    if is_spread():
        context.warnings.warn_skipped("Checkpoints in host memory are")
        return ""
    from workbench.layers.host_checkpoints import HostCheckpoints, link_speed

    trainer.host_checkpoints = HostCheckpoints(base.model)
    if base.device.type == "cpu":
        return "Checkpoints are copied within host memory, which saves nothing on a CPU."
    free = host_memory()[1] // context.ranks.count
    if needed > free:
        raise WorkbenchError(
            f"Checkpoints in host memory need {gib(needed)} of it; {gib(free)} are available.",
            "Set training.gradient_checkpointing to true, or lower the micro-batch or data.max_length.",
            kind="host_memory",
        )
    speed = size_in("GB", link_speed(base.device))
    return f"Checkpoints lie in host memory ({gib(needed)} reserved), over a link of {speed}/s as measured."


def compute_mlps_in_pieces(context: Context, base: LoadedBase, trainer: WorkbenchTrainer) -> str:
    """Let the trainer compute MLPs in pieces of the sequence; returns how many as a sentence, empty for none."""
    if not context.recipe.training.tiled_mlp:
        return ""
    if is_spread():
        context.warnings.warn_skipped("MLPs in pieces are")
        return ""
    from workbench.layers.tiled_mlp import PIECES, TiledMlps

    mlps = TiledMlps(base.model)
    problem = "" if mlps.modules else "none of them takes hidden states alone, as plain MLPs do"
    if not problem and (name := mlps.differing()):
        problem = f"the output of {name} differs in pieces"
    if problem:
        context.warnings.warn(f"MLPs are computed whole: {problem}.", kind="tiled_mlp")
        return ""
    trainer.tiled_mlps = mlps
    return f"{len(mlps.modules)} MLPs run in {PIECES} pieces of the sequence each."
