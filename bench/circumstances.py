"""When, on what, with what and how exactly something was measured: written beside every figure that is kept."""

import math
import os
import statistics
from contextlib import suppress
from datetime import date
from typing import Any

from workbench.engine.model.hardware import hardware_facts, library_versions


def circumstances() -> dict[str, Any]:
    """Date, hardware, versions of the libraries, and how busy the machine was in the last minute."""
    load = None
    with suppress(OSError):
        load = round(os.getloadavg()[0], 2)
    return {
        "date": date.today().isoformat(),
        "hardware": hardware_facts(),
        "versions": library_versions(),
        "load": load,
    }


def error_of_median(values: list[float]) -> float:
    """The standard error of the median of values that are spread as a normal distribution is: √(π/2)·σ/√n."""
    return math.sqrt(math.pi / 2 / len(values)) * statistics.stdev(values)
