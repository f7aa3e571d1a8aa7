"""The fastest setup that fits: what ``auto`` comes to for gradient checkpointing and for the micro-batch.

How long a step takes is not predicted; which of two setups takes longer is, by two facts:

- Checkpointing runs the forward pass twice: about a quarter on top.
- Each micro-batch has costs of its own, however few tokens are in it: kernels to launch, weights to read and, in
  4 bits, to unpack. They come to about what :data:`FILL` tokens take.

So a token costs ``(1 + FILL / tokens of a micro-batch) · (1¼ with checkpointing)``. On a GPU, four records of 1,024
tokens without checkpointing are as fast as any number with it; two are slower than eight with it. Of what fits, the
smallest micro-batch within :data:`CLOSE` of the fastest is taken: a larger one pads more, and gains next to nothing.

Fits means *fits*, not *tight*, and with :data:`DOUBT` to spare where the peak is a formula's, or the memory a host's: a
process that takes more than a host has is ended, while on a GPU the micro-batch is halved.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from workbench.estimate.fit import Predict, fit_of, last_where
from workbench.estimate.peak import Peak
from workbench.estimate.setup import Setup
from workbench.machine.device import Device
from workbench.machine.memory_budget import MemoryBudget
from workbench.recipe.resolved import ACCUMULATION, CHECKPOINTING, MICRO_BATCH
from workbench.recipe.schema import MAX_MICRO_BATCHES
from workbench.units import part_of

RECOMPUTING = 1.25
"""Time of a step with checkpointing, by that of one without: the least that is to be expected.

By arithmetic LoRA makes three passes instead of two, since frozen weights have no gradient; on a processor 1.44 was
measured (eight Llama layers, LoRA on all linear layers). On GPUs usually less is reported.
"""

FILL = {"cuda": 1024, "cpu": 128}
"""Tokens that take as long as what a micro-batch costs however few are in it. A processor is full much sooner."""

CLOSE = 1.05
"""A setup that takes up to this many times as long as the fastest one is as good."""

DOUBT = 0.8
"""Share of the free memory that a peak may take which is known roughly."""

ALL_OPEN = (CHECKPOINTING, MICRO_BATCH, ACCUMULATION)


@dataclass(frozen=True)
class Choice:
    """A setup with what was left open decided.

    Attributes:
        chosen: what was decided, by dotted keys; empty where nothing was left open.
        reasons: why, in sentences.
        guessed: the setups whose peak had to be a formula's, and which a traced step might let through.
    """

    setup: Setup
    chosen: Mapping[str, Any]
    reasons: tuple[str, ...] = ()
    guessed: tuple[Setup, ...] = ()


@dataclass(frozen=True)
class Faster:
    """The fastest setup at the same effective batch.

    ``before`` names the setup that the recipe has; ``changes`` is empty where that is as fast already.
    """

    sentence: str
    before: str
    changes: Mapping[str, Any]


class Chooser:
    """Weighs setups for one memory.

    Args:
        predict: the peak of a setup on the budget's device; None where the step cannot be estimated.
        lacking: why there is nothing to decide by, for a memory or a model that is not known.
    """

    def __init__(self, predict: Predict | None, budget: MemoryBudget, lacking: str = "") -> None:
        self._predict = predict
        self._free = budget.free_bytes
        self._device: Device = budget.device
        self._lacking = lacking or (
            "the free memory is unknown" if budget.free_bytes is None else "the step cannot be estimated"
        )
        self._guessed: dict[bool, Setup] = {}

    def choose(self, setup: Setup) -> Choice:
        """Decide what the setup leaves open: the fastest that fits, else what takes the least memory.

        Raises:
            WorkbenchError: PEFT would refuse the adapter.
        """
        if not setup.left_open:
            return Choice(setup, {})
        self._guessed = {}
        found = None if self._is_blind else self._fastest(setup)
        best = found or replace(setup, left_open=())
        chosen = {path: best.get(path) for path in setup.left_open}
        return Choice(best, chosen, tuple(self._reasons(setup, best, found)), tuple(self._guessed.values()))

    def faster(self, setup: Setup) -> Faster | None:
        """The changes that make a setup as fast as its effective batch allows.

        What the recipe leaves to the machine stays so. None where the memory is not known, or the effective batch is
        larger than the machine may divide.

        Raises:
            WorkbenchError: PEFT would refuse the adapter.
        """
        if self._is_blind or setup.effective_batch > MAX_MICRO_BATCHES:
            return None
        best = self._fastest(replace(setup, left_open=ALL_OPEN))
        now = self.choose(setup).setup
        before = ", ".join(_parts(now))
        if best is None:
            return Faster("No settings fit at this effective batch.", before, {})
        gain, fits = self.time_of(now) / self.time_of(best), self._fits(now)
        if fits and gain <= CLOSE:
            words = f"These are already the fastest settings that fit: {before}, {self._figures(now)}."
            return Faster(words, before, {})
        changes = {
            path: best.get(path) for path in ALL_OPEN if path not in setup.left_open and best.get(path) != now.get(path)
        }
        speed = f"about {100 * (gain - 1):.0f} % faster" if fits else "fastest that fits"
        changed = ", ".join(new for new, old in zip(_parts(best), _parts(now), strict=True) if new != old)
        words = f"{_capital(changed)}: {self._figures(best)}, {speed}."
        return Faster(words, before, changes)

    def time_of(self, setup: Setup) -> float:
        """Time a token, in units of one on a full device without checkpointing; to compare, not to predict."""
        length = setup.length
        if setup.median and not setup.is_packed:
            length = min(length, setup.median)
        fill = FILL[self._device.kind] / (setup.micro_batch * length)
        return (1 + fill) * (RECOMPUTING if setup.checkpointing else 1)

    # -- the search -----------------------------------------------------------------------------------------------

    @property
    def _is_blind(self) -> bool:
        return self._predict is None or self._free is None

    def _fastest(self, setup: Setup) -> Setup | None:
        """The fastest that fits; None where nothing does. Without checkpointing is looked at first, and often alone."""
        found: list[Setup] = []
        ladders = _ladders(setup)
        for ladder in ladders:
            if found and self.time_of(found[-1]) <= self.time_of(ladder[-1]):
                continue
            largest = last_where(ladder, self._fits)
            if largest is not None:
                found.append(largest)
        best = min(found, key=self.time_of, default=None)
        if best is None:
            return None
        ladder = next(ladder for ladder in ladders if ladder[0].checkpointing == best.checkpointing)
        return next(one for one in ladder if self.time_of(one) <= CLOSE * self.time_of(best))

    def _fits(self, setup: Setup) -> bool:
        peak = self._peak(setup)
        if peak.method == "closed-form" and DOUBT * peak.device_bytes <= (self._free or 0):
            self._guessed.setdefault(setup.checkpointing, setup)
        return fit_of(peak, int(self._room(peak))) == "fits"

    def _peak(self, setup: Setup) -> Peak:
        assert self._predict is not None
        return self._predict(setup)

    def _room(self, peak: Peak) -> float:
        assert self._free is not None
        is_rough = peak.method == "closed-form" or self._device.kind == "cpu"
        return self._free * (DOUBT if is_rough else 1)

    # -- the words ------------------------------------------------------------------------------------------------

    def _reasons(self, setup: Setup, best: Setup, found: Setup | None) -> Sequence[str]:
        if self._is_blind:
            return [f"{_decided(setup, best)} (least memory): {self._lacking}."]
        if found is None:
            peak = self._peak(best)
            verdict = {"fits": "may not fit", "tight": "is tight"}.get(fit_of(peak, self._free or 0), "does not fit")
            return [f"{_decided(setup, best)} (least memory) {verdict}: {self._figures(best)}."]
        reasons = []
        if CHECKPOINTING in setup.left_open:
            reasons.append(self._why_checkpointing(setup, best))
        if MICRO_BATCH in setup.left_open:
            reasons.append(self._why_micro_batch(best))
        return reasons

    def _why_checkpointing(self, setup: Setup, best: Setup) -> str:
        if not best.checkpointing:
            return f"Checkpointing off: {self._figures(best)}, about {100 * (RECOMPUTING - 1):.0f} % faster."
        without = replace(best, checkpointing=False)
        if MICRO_BATCH in setup.left_open and self._fits_less_of(without):
            return f"Checkpointing on: micro-batch {best.micro_batch} with it is faster than what fits without it."
        return f"Checkpointing on: without it the step needs {self._figures(without)}."

    def _fits_less_of(self, setup: Setup) -> bool:
        return self._fits(_divided(setup, 1))

    def _why_micro_batch(self, best: Setup) -> str:
        size, times = best.micro_batch, best.accumulation
        words = f"Micro-batch {size} × {times} = {size * times}: {self._figures(best)}"
        if times == 1:
            return f"{words}, no accumulation."
        larger = next(n for n in _divisors(best.effective_batch) if n > size)
        more = _divided(best, larger)
        if self._fits(more):
            return f"{words}; {larger} is hardly faster."
        return f"{words}; {larger} {'may' if self._peak(more).method == 'closed-form' else 'would'} not fit."

    def _figures(self, setup: Setup) -> str:
        """``18.20 of 22.40 GiB``; a rough peak says that it is, and how much of the memory it may take."""
        assert self._free is not None
        peak = self._peak(setup)
        about = "≈ " if peak.method == "closed-form" else ""
        kept = self._room(peak) < self._free
        spare = f" ({100 * (1 - DOUBT):.0f} % headroom)" if kept and not self._is_comfortable(peak) else ""
        return f"{about}{part_of('GiB', peak.device_bytes, self._free, 2)}{spare}"

    def _is_comfortable(self, peak: Peak) -> bool:
        return fit_of(peak, int(self._room(peak))) == "fits"


def _ladders(setup: Setup) -> list[list[Setup]]:
    """The setups that are open: without checkpointing and with it, micro-batches from small to large."""
    switches = (False, True) if CHECKPOINTING in setup.left_open else (setup.checkpointing,)
    sizes = _divisors(setup.effective_batch) if MICRO_BATCH in setup.left_open else ()
    closed = [replace(setup, checkpointing=on, left_open=()) for on in switches]
    return [[_divided(one, size) for size in sizes] or [one] for one in closed]


def _divided(setup: Setup, micro_batch: int) -> Setup:
    """The same effective batch in micro-batches of another size, which divides it."""
    return replace(setup, micro_batch=micro_batch, accumulation=setup.effective_batch // micro_batch)


@cache
def _divisors(number: int) -> tuple[int, ...]:
    return tuple(n for n in range(1, number + 1) if number % n == 0)


def _decided(setup: Setup, best: Setup) -> str:
    """What was decided: ``Checkpointing on, micro-batch 1 × 16``."""
    wanted = (CHECKPOINTING in setup.left_open, MICRO_BATCH in setup.left_open)
    return _capital(", ".join(part for part, is_open in zip(_parts(best), wanted, strict=True) if is_open))


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _parts(setup: Setup) -> tuple[str, str]:
    return (
        f"checkpointing {'on' if setup.checkpointing else 'off'}",
        f"micro-batch {setup.micro_batch} × {setup.accumulation}",
    )
