"""A run with Liger's kernels against one without."""

from bench.gpu.part import Work
from bench.gpu.parts.runs import largest_difference, trained


def measure(work: Work) -> None:
    found = {}
    for kernels in ("none", "liger"):
        done = found[kernels] = trained(work, {"training.kernels": kernels, "training.max_steps": 12})
        work.note(**{kernels: done.told})
    told = found["liger"].told["prepared"].get("kernels", "")
    work.check("kernels were applied", "norm" in told and "MLP" in told, told)
    differs = largest_difference(found["liger"].losses, found["none"].losses)
    work.check("the same losses to rounding", differs < 0.02, differs)
    work.verdict()
