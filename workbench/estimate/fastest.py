"""Resolves ``auto``: the fastest gradient checkpointing and micro-batch that fit in memory, and why.

Checkpoints are kept in host memory (``offload``) only on a GPU where nothing else fits: how fast its link is, and what
else the host is to hold, is not known beforehand.

This does not predict how long a step takes, only which of two setups takes longer, from two facts:

- Checkpointing runs the forward pass twice, which takes about 25% longer.
- Each micro-batch has a fixed overhead: kernels are launched, and weights are read and, in 4 bits, unpacked. It takes
  as long as processing :data:`OVERHEAD_TOKENS` tokens.

So a token costs ``(1 + OVERHEAD_TOKENS / tokens per micro-batch) * (1.25 if checkpointing else 1)``. On a GPU,
4 × 1,024 tokens without checkpointing are at least as fast as any micro-batch with it, and 2 × 1,024 are slower than
8 × 1,024 with it. Of the micro-batches that fit, the smallest within :data:`NEAR_FASTEST` of the fastest is chosen,
since a larger one adds padding and hardly any speed.

A setup fits only if the verdict is *fits*, not *tight*. If its peak is known roughly (from a formula), or the memory
is a host's, it may use only :data:`ROUGH_PEAK_SHARE` of the free memory: running out of host memory kills the process,
while on a GPU the micro-batch is split.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from workbench.estimate.fit import Predict, fit_of, fits_in, last_accepted
from workbench.estimate.host_memory import is_within
from workbench.estimate.peak import Peak
from workbench.estimate.setup import Setup
from workbench.machine.device import Device
from workbench.machine.memory_budget import MemoryBudget
from workbench.recipe.resolved import ACCUMULATION, CHECKPOINTING, MICRO_BATCH
from workbench.recipe.sections.section import OFFLOAD, Offload
from workbench.recipe.sections.training import CHECKPOINTING_TEXTS, MAX_MICRO_BATCHES
from workbench.units import gib, part_of

CHECKPOINTING_SLOWDOWN = 1.25
"""Step time with checkpointing divided by step time without it; a lower bound.

In theory LoRA makes three passes instead of two, since frozen weights have no gradient. On a CPU 1.44 was measured
(eight Llama layers, LoRA on all linear layers); reports for GPUs are usually lower than 1.5.
"""

OVERHEAD_TOKENS = {"cuda": 1024, "cpu": 128}
"""Overhead per micro-batch, in tokens that take as long. A CPU is saturated much earlier than a GPU."""

NEAR_FASTEST = 1.05
"""A setup that takes up to this many times as long as the fastest counts as equally fast."""

ROUGH_PEAK_SHARE = 0.8
"""Share of the free memory that a roughly known peak may use; the rest is headroom."""

ALL_AUTO = (CHECKPOINTING, MICRO_BATCH, ACCUMULATION)


@dataclass(frozen=True)
class Choice:
    """A setup with its ``auto`` settings resolved.

    Attributes:
        chosen: the resolved settings by dotted key; empty if none was on auto.
        reasons: why, in sentences.
        untraced: setups judged by a formula alone; tracing a step of them might show that they fit.
    """

    setup: Setup
    chosen: Mapping[str, Any]
    reasons: tuple[str, ...] = ()
    untraced: tuple[Setup, ...] = ()


@dataclass(frozen=True)
class SpeedAdvice:
    """What would make the recipe's setup faster at the same effective batch.

    ``before`` describes the recipe's setup. ``changes`` is empty if that is already the fastest, or if nothing fits.
    """

    sentence: str
    before: str
    changes: Mapping[str, Any]


class Chooser:
    """Compares setups against one memory budget.

    Args:
        predict: the peak of a setup on the budget's device; None if the step cannot be estimated.
        unknown_reason: why no choice can be made, if the memory or the model is unknown.
    """

    def __init__(self, predict: Predict | None, budget: MemoryBudget, unknown_reason: str = "") -> None:
        self._predict = predict
        self._budget = budget
        self._free = budget.free_bytes
        self._device: Device = budget.device
        self._unknown_reason = unknown_reason or (
            "the free memory is unknown" if budget.free_bytes is None else "the step cannot be estimated"
        )
        self._untraced: dict[object, Setup] = {}

    def choose(self, setup: Setup) -> Choice:
        """Resolve the settings on auto: the fastest setup that fits, or else the one that needs the least memory.

        Raises:
            WorkbenchError: PEFT would refuse the adapter.
        """
        if not setup.auto_keys:
            return Choice(setup, {})
        self._untraced = {}
        found = None if self._cannot_choose else self._fastest(setup)
        best = found or self.least_memory(setup)
        chosen = {path: best.get(path) for path in setup.auto_keys}
        return Choice(best, chosen, tuple(self._reasons(setup, best, found)), tuple(self._untraced.values()))

    def least_memory(self, setup: Setup) -> Setup:
        """The setup with the values of its settings on auto that need the least memory of this budget.

        Raises:
            WorkbenchError: PEFT would refuse the adapter.
        """
        least = replace(setup, auto_keys=())
        if CHECKPOINTING not in setup.auto_keys or self._cannot_choose or self._device.kind == "cpu":
            return least
        offloading = replace(least, checkpointing=OFFLOAD)
        return offloading if is_within(self._peak(offloading).host_bytes, self._budget.host_bytes) else least

    def faster(self, setup: Setup) -> SpeedAdvice | None:
        """The changes that make a setup as fast as its effective batch allows.

        Settings on auto stay on auto. Returns None if the memory is unknown, or if the effective batch exceeds
        ``MAX_MICRO_BATCHES``.

        Raises:
            WorkbenchError: PEFT would refuse the adapter.
        """
        if self._cannot_choose or setup.effective_batch > MAX_MICRO_BATCHES:
            return None
        best = self._fastest(replace(setup, auto_keys=ALL_AUTO))
        now = self.choose(setup).setup
        before = ", ".join(_parts(now))
        if best is None:
            return SpeedAdvice("No settings fit at this effective batch.", before, {})
        gain, fits = self.time_of(now) / self.time_of(best), self._fits(now)
        if fits and gain <= NEAR_FASTEST:
            message = f"These are already the fastest settings that fit: {before}, {self._figures(now)}."
            return SpeedAdvice(message, before, {})
        changes = {
            path: best.get(path) for path in ALL_AUTO if path not in setup.auto_keys and best.get(path) != now.get(path)
        }
        speed = f"about {100 * (gain - 1):.0f} % faster" if fits else "fastest that fits"
        changed = ", ".join(new for new, old in zip(_parts(best), _parts(now), strict=True) if new != old)
        message = f"{_capital(changed)}: {self._figures(best)}, {speed}."
        return SpeedAdvice(message, before, changes)

    def time_of(self, setup: Setup) -> float:
        """Relative time per token (1: saturated device, no checkpointing); for comparisons only."""
        length = setup.length
        if setup.median and not setup.is_packed:
            length = min(length, setup.median)
        overhead = OVERHEAD_TOKENS[self._device.kind] / (setup.micro_batch * setup.texts * length)
        return (1 + overhead) * (CHECKPOINTING_SLOWDOWN if setup.checkpointing else 1)

    # -- the search -----------------------------------------------------------------------------------------------

    @property
    def _cannot_choose(self) -> bool:
        return self._predict is None or self._free is None

    def _fastest(self, setup: Setup) -> Setup | None:
        """The fastest setup that fits, or None. Setups without checkpointing are tried first and often suffice."""
        found: list[Setup] = []
        ladders = _ladders(setup, self._device)
        for ladder in ladders:
            if found and ladder[0].checkpointing == OFFLOAD:
                continue
            # Even the largest micro-batch with checkpointing would be slower than what was found without it.
            if found and self.time_of(found[-1]) <= self.time_of(ladder[-1]):
                continue
            largest = last_accepted(ladder, self._fits)
            if largest is not None:
                found.append(largest)
        best = min(found, key=self.time_of, default=None)
        if best is None:
            return None
        ladder = next(ladder for ladder in ladders if ladder[0].checkpointing == best.checkpointing)
        return next(one for one in ladder if self.time_of(one) <= NEAR_FASTEST * self.time_of(best))

    def _fits(self, setup: Setup) -> bool:
        """Whether a setup fits; remembers the first one of each kind that only a traced step could decide."""
        peak = self._peak(setup)
        # A formula's peak may be too high by a quarter: such a setup is worth tracing.
        if peak.method == "closed-form" and ROUGH_PEAK_SHARE * peak.device_bytes <= (self._free or 0):
            self._untraced.setdefault(setup.checkpointing, setup)
        return self._is_comfortable(peak)

    def _peak(self, setup: Setup) -> Peak:
        assert self._predict is not None
        return self._predict(setup)

    def _share(self, peak: Peak) -> float:
        """The share of the free memory that a peak may use."""
        return ROUGH_PEAK_SHARE if peak.method == "closed-form" or self._device.kind == "cpu" else 1

    # -- messages ------------------------------------------------------------------------------------------------

    def _reasons(self, setup: Setup, best: Setup, found: Setup | None) -> Sequence[str]:
        if self._cannot_choose:
            return [f"{_decided(setup, best)} (least memory): {self._unknown_reason}."]
        if found is None:
            peak = self._peak(best)
            # Within all of the memory, but not within the share that a rough peak may use.
            verdict = {"fits": "fits with little headroom", "tight": "is tight"}.get(
                fit_of(peak, self._free or 0), "does not fit"
            )
            return [f"{_decided(setup, best)} (least memory) {verdict}: {self._figures(best)}."]
        reasons = []
        if CHECKPOINTING in setup.auto_keys:
            reasons.append(self._why_checkpointing(setup, best))
        if MICRO_BATCH in setup.auto_keys:
            reasons.append(self._why_micro_batch(best))
        return reasons

    def _why_checkpointing(self, setup: Setup, best: Setup) -> str:
        if not best.checkpointing:
            return f"Checkpointing off: {self._figures(best)}, about {100 * (CHECKPOINTING_SLOWDOWN - 1):.0f} % faster."
        if best.checkpointing == OFFLOAD:
            where = f"Checkpoints in host memory ({gib(self._peak(best).host_bytes)})"
            return f"{where}: with them on the GPU the step needs {self._figures(replace(best, checkpointing=True))}."
        without = replace(best, checkpointing=False)
        if MICRO_BATCH in setup.auto_keys and self._fits_at_micro_batch_1(without):
            return f"Checkpointing on: micro-batch {best.micro_batch} with it is faster than what fits without it."
        return f"Checkpointing on: without it the step needs {self._figures(without)}."

    def _fits_at_micro_batch_1(self, setup: Setup) -> bool:
        return self._fits(_divided(setup, setup.least_micro_batch))

    def _why_micro_batch(self, best: Setup) -> str:
        size, times = best.micro_batch, best.accumulation
        message = f"Micro-batch {size} × {times} = {size * times}: {self._figures(best)}"
        if times == 1:
            return f"{message}, no accumulation."
        larger = next(n for n in _divisors(best.effective_batch) if n > size)
        more = _divided(best, larger)
        if self._fits(more):
            return f"{message}; {larger} is hardly faster."
        return f"{message}; {larger} {'may' if self._peak(more).method == 'closed-form' else 'would'} not fit."

    def _figures(self, setup: Setup) -> str:
        """``18.20 of 22.40 GiB``, with ``≈`` for a rough peak, and the headroom if that is what the setup exceeds."""
        assert self._free is not None
        peak = self._peak(setup)
        about = "≈ " if peak.method == "closed-form" else ""
        is_limited = self._share(peak) < 1
        headroom = (
            f" ({100 * (1 - ROUGH_PEAK_SHARE):.0f} % headroom)" if is_limited and not self._is_comfortable(peak) else ""
        )
        return f"{about}{part_of('GiB', peak.device_bytes, self._free, 2)}{headroom}"

    def _is_comfortable(self, peak: Peak) -> bool:
        return fits_in(peak, self._budget, self._share(peak))


def _ladders(setup: Setup, device: Device) -> list[list[Setup]]:
    """Candidate setups: without checkpointing, with it, and on a GPU with checkpoints in host memory.

    Each has its micro-batches from small to large.
    """
    switches: tuple[bool | Offload, ...] = (setup.checkpointing,)
    if CHECKPOINTING in setup.auto_keys:
        switches = (False, True, OFFLOAD) if device.kind == "cuda" else (False, True)
    divisors = _divisors(setup.effective_batch) if MICRO_BATCH in setup.auto_keys else ()
    sizes = [size for size in divisors if size >= setup.least_micro_batch]
    resolved = [replace(setup, checkpointing=on, auto_keys=()) for on in switches]
    return [[_divided(one, size) for size in sizes] or [one] for one in resolved]


def _divided(setup: Setup, micro_batch: int) -> Setup:
    """The setup with another micro-batch, which divides the effective batch."""
    return replace(setup, micro_batch=micro_batch, accumulation=setup.effective_batch // micro_batch)


@cache
def _divisors(number: int) -> tuple[int, ...]:
    return tuple(n for n in range(1, number + 1) if number % n == 0)


def _decided(setup: Setup, best: Setup) -> str:
    """The resolved settings in message: ``Checkpointing on, micro-batch 1 × 16``."""
    wanted = (CHECKPOINTING in setup.auto_keys, MICRO_BATCH in setup.auto_keys)
    return _capital(", ".join(part for part, is_auto in zip(_parts(best), wanted, strict=True) if is_auto))


def _capital(message: str) -> str:
    return message[:1].upper() + message[1:]


def _parts(setup: Setup) -> tuple[str, str]:
    return (
        CHECKPOINTING_TEXTS[setup.checkpointing],
        f"micro-batch {setup.micro_batch} × {setup.accumulation}",
    )
