"""float16 with autocast and its loss scaler, against bfloat16."""

from bench.gpu.part import Work
from bench.gpu.parts.runs import largest_difference, trained


def measure(work: Work) -> None:
    found = {}
    for dtype in ("bfloat16", "float16"):
        found[dtype] = trained(work, {"quantization.compute_dtype": dtype})
        work.note(**{dtype: found[dtype].told})
    differs = largest_difference(found["float16"].losses, found["bfloat16"].losses)
    work.check("losses as in bfloat16", differs < 0.02, differs)
    work.verdict()
