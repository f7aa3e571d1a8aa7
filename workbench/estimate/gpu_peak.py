"""What a GPU could compute at most, by its name: ``presets/gpu_peaks.json``, from NVIDIA's data sheets."""

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_FILE = Path(__file__).resolve().parents[2] / "presets" / "gpu_peaks.json"
# Words of a name that say nothing of how fast it is. A laptop's, a slice's (MIG) or another edition's name keeps what
# sets it apart, and so is not taken for the whole GPU of that name.
_BESIDE = re.compile(r"nvidia|geforce|tesla|generation|\d+gb")


@dataclass(frozen=True)
class GpuPeak:
    """FLOP/s of matrix products in a 16-bit type; None where they are not known, and then ``why``."""

    flops: float | None
    why: str = ""


def gpu_peak(name: str, compute: str) -> GpuPeak:
    """The dense peak of a GPU.

    Args:
        name: as the driver tells it. compute: type of the matrix products.
    """
    found = _peaks().get(_essence(name))
    if found is None:
        return GpuPeak(None, f"the peak FLOP/s of {name} is unknown")
    if compute not in ("bfloat16", "float16") or found.get("only", compute) != compute:
        return GpuPeak(None, f"the peak FLOP/s of {name} is known only for 16-bit types that it supports")
    return GpuPeak(found["tflops"] * 1e12)


def _essence(name: str) -> tuple[str, ...]:
    return tuple(word for word in re.split(r"[\s-]+", name.casefold()) if not _BESIDE.fullmatch(word))


@cache
def _peaks() -> dict[tuple[str, ...], dict[str, Any]]:
    return {_essence(peak["name"]): peak for peak in json.loads(_FILE.read_text(encoding="utf-8"))["peaks"]}
