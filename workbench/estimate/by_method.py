"""The same settings on a 16-bit, an 8-bit and a 4-bit base, side by side."""

from collections.abc import Mapping
from typing import Any

from workbench.errors import WorkbenchError
from workbench.estimate.fastest import Chooser
from workbench.estimate.peak import Peak
from workbench.estimate.pricing import Pricing
from workbench.estimate.setup import Setup
from workbench.machine.memory_budget import MemoryBudget

METHODS: Mapping[str, Mapping[str, Any]] = {
    "16-bit LoRA": {"quantization.method": "none"},
    "int8": {"quantization.method": "int8"},
    "QLoRA": {"quantization.method": "nf4"},
}
"""Changes to a recipe by the name of the method."""


def peaks_by_method(pricing: Pricing, setup: Setup, budget: MemoryBudget) -> Mapping[str, Peak]:
    """Peaks of the same settings with each of :data:`METHODS`, where they are not refused."""
    peaks = {name: peak_with(pricing, setup, budget, changes) for name, changes in METHODS.items()}
    return {name: peak for name, peak in peaks.items() if peak is not None}


def peak_with(pricing: Pricing, setup: Setup, budget: MemoryBudget, changes: Mapping[str, Any]) -> Peak | None:
    """The peak of a setup with changes, what it leaves open decided; None where the settings are refused."""
    try:
        return pricing.peak(Chooser(pricing.peak, budget).choose(setup.varied(changes)).setup, all_phases=True)
    except WorkbenchError:
        return None
