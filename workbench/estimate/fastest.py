"""The fastest set-up that fits: what ``auto`` comes to for gradient checkpointing and for the micro-batch.

How long a step takes is not predicted; which of two set-ups takes longer is, by two facts:

- Checkpointing runs the forward pass twice: about a quarter on top.
- Each micro-batch has costs of its own, however few tokens are in it: kernels to launch, weights to read and, in
  4 bits, to unpack. They come to about what :data:`FILL` tokens take.

So a token costs ``(1 + FILL / tokens of a micro-batch) · (1¼ with checkpointing)``. On a GPU, four records of 1,024
tokens without checkpointing are as fast as any number with it; two are slower than eight with it. Of what fits, the
smallest micro-batch within :data:`CLOSE` of the fastest is taken: a larger one pads more, and gains next to nothing.

Fits means *fits*, not *tight*, and with :data:`DOUBT` to spare where the peak is a formula's, or the memory a host's: a
process that takes more than a host has is ended, while on a GPU the micro-batch is halved.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from workbench.estimate.fit import fit_of, last_where
from workbench.estimate.peak import Peak, on_device
from workbench.estimate.step import Device
from workbench.recipe.resolved import (
    ACCUMULATION,
    CHECKPOINTING,
    MICRO_BATCH,
    ResolvedRecipe,
    auto_keys,
    resolved,
)
from workbench.recipe.schema import AUTO, Recipe
from workbench.recipe.text import edit
from workbench.units import part_of

RECOMPUTING = 1.25
"""Time of a step with checkpointing, by that of one without: the least that is to be expected.

By arithmetic LoRA makes three passes instead of two, since frozen weights have no gradient; on a processor 1.44 was
measured (eight Llama layers, LoRA on all linear layers). On GPUs usually less is reported.
"""

FILL = {"cuda": 1024, "cpu": 128}
"""Tokens that take as long as what a micro-batch costs however few are in it. A processor is full much sooner."""

CLOSE = 1.05
"""A set-up that takes up to this many times as long as the fastest one is as good."""

DOUBT = 0.8
"""Share of the free memory that a peak may take which is known roughly."""

Predict = Callable[[ResolvedRecipe], Peak]


@dataclass(frozen=True)
class Choice:
    """A recipe with what was left open decided.

    Attributes:
        chosen: what was decided, by dotted keys; empty where the recipe left nothing open.
        reasons: why, in sentences.
        guessed: the set-ups whose peak had to be a formula's, and which a followed step might let through.
    """

    recipe: ResolvedRecipe
    chosen: Mapping[str, Any]
    reasons: tuple[str, ...] = ()
    guessed: tuple[ResolvedRecipe, ...] = ()


@dataclass(frozen=True)
class Faster:
    """The fastest set-up at the same effective batch.

    ``before`` names the set-up that the recipe has; ``changes`` is empty where that is as fast already.
    """

    sentence: str
    before: str
    changes: Mapping[str, Any]


def worth_following(choice: Choice, peak: Peak) -> tuple[ResolvedRecipe, ...]:
    """The set-ups whose peak is a formula's: the one that was chosen, and those that it was weighed against."""
    own = (choice.recipe,) if peak.method == "closed-form" else ()
    return own + tuple(recipe for recipe in choice.guessed if recipe not in own)


class Chooser:
    """Weighs set-ups for one memory.

    Args:
        predict: the peak of a recipe; None where the step cannot be estimated.
        free_bytes: None where it is not known.
        usual_length: tokens of a usual record, where that is known; what it fills decides how fast a micro-batch is.
        lacking: why there is nothing to decide by, for a memory or a model that is not known.
    """

    def __init__(
        self,
        predict: Predict | None,
        free_bytes: int | None,
        device: Device | None = None,
        usual_length: int | None = None,
        lacking: str = "",
    ) -> None:
        self._predict = predict
        self._free = free_bytes
        self._device = device or Device()
        self._usual = usual_length
        self._lacking = lacking or (
            "the free memory is unknown" if free_bytes is None else "the step cannot be estimated"
        )
        self._guessed: dict[bool, ResolvedRecipe] = {}

    def choose(self, recipe: Recipe) -> Choice:
        """Decide what the recipe leaves open: fastest that fits, else what takes the least memory.

        Raises:
            WorkbenchError: PEFT would refuse the adapter.
        """
        least = resolved(recipe)
        if not auto_keys(recipe.training):
            return Choice(least, {})
        self._guessed = {}
        found = None if self._is_blind else self._fastest(recipe)
        best = found or least
        chosen = {path: best.get(path) for path in auto_keys(recipe.training)}
        return Choice(best, chosen, tuple(self._reasons(recipe, best, found)), tuple(self._guessed.values()))

    def faster(self, recipe: Recipe) -> Faster | None:
        """The changes that make a recipe as fast as its effective batch allows; None where the memory is not known.

        What the recipe leaves to the machine stays so.

        Raises:
            WorkbenchError: PEFT would refuse the adapter.
        """
        if self._is_blind:
            return None
        batch = recipe.training.effective_batch
        wanted = {CHECKPOINTING: AUTO, MICRO_BATCH: AUTO, "training.effective_batch_size": batch}
        best = self._fastest(edit(recipe, wanted))
        now = self.choose(recipe).recipe
        before = ", ".join(_parts(now))
        if best is None:
            return Faster("No settings fit at this effective batch.", before, {})
        gain, fits = self.time_of(now) / self.time_of(best), self._fits(now)
        if fits and gain <= CLOSE:
            words = f"These are already the fastest settings that fit: {before}, {self._figures(now)}."
            return Faster(words, before, {})
        stays = auto_keys(recipe.training)
        keys = (CHECKPOINTING, MICRO_BATCH, ACCUMULATION)
        changes = {path: best.get(path) for path in keys if path not in stays and best.get(path) != now.get(path)}
        speed = f"about {100 * (gain - 1):.0f} % faster" if fits else "fastest that fits"
        changed = ", ".join(new for new, old in zip(_parts(best), _parts(now), strict=True) if new != old)
        words = f"{_capital(changed)}: {self._figures(best)}, {speed}."
        return Faster(words, before, changes)

    def time_of(self, recipe: ResolvedRecipe) -> float:
        """Time a token, in units of one on a full device without checkpointing; to compare, not to predict."""
        length = recipe.data.max_length
        if self._usual and not recipe.data.packing:
            length = min(length, self._usual)
        fill = FILL[self._device.kind] / (recipe.training.per_device_train_batch_size * length)
        return (1 + fill) * (RECOMPUTING if recipe.training.gradient_checkpointing else 1)

    # -- the search -----------------------------------------------------------------------------------------------

    @property
    def _is_blind(self) -> bool:
        return self._predict is None or self._free is None

    def _fastest(self, recipe: Recipe) -> ResolvedRecipe | None:
        """The fastest that fits; None where nothing does. Without checkpointing is looked at first, and often alone."""
        found: list[ResolvedRecipe] = []
        ladders = _ladders(recipe)
        for ladder in ladders:
            if found and self.time_of(found[-1]) <= self.time_of(ladder[-1]):
                continue
            largest = last_where(ladder, self._fits)
            if largest is not None:
                found.append(largest)
        best = min(found, key=self.time_of, default=None)
        if best is None:
            return None
        ladder = next(ladder for ladder in ladders if ladder[0].get(CHECKPOINTING) == best.get(CHECKPOINTING))
        return next(one for one in ladder if self.time_of(one) <= CLOSE * self.time_of(best))

    def _fits(self, recipe: ResolvedRecipe) -> bool:
        peak = self._peak(recipe)
        if peak.method == "closed-form" and DOUBT * peak.device_bytes <= (self._free or 0):
            self._guessed.setdefault(recipe.training.gradient_checkpointing, recipe)
        return fit_of(peak, int(self._room(peak))) == "fits"

    def _peak(self, recipe: ResolvedRecipe) -> Peak:
        assert self._predict is not None
        return on_device(self._device, self._predict(recipe))

    def _room(self, peak: Peak) -> float:
        assert self._free is not None
        is_rough = peak.method == "closed-form" or self._device.kind == "cpu"
        return self._free * (DOUBT if is_rough else 1)

    # -- the words ------------------------------------------------------------------------------------------------

    def _reasons(self, recipe: Recipe, best: ResolvedRecipe, found: ResolvedRecipe | None) -> Sequence[str]:
        if self._is_blind:
            return [f"{_decided(recipe, best)} (least memory): {self._lacking}."]
        if found is None:
            peak = self._peak(best)
            verdict = {"fits": "may not fit", "tight": "is tight"}.get(fit_of(peak, self._free or 0), "does not fit")
            return [f"{_decided(recipe, best)} (least memory) {verdict}: {self._figures(best)}."]
        reasons = []
        if recipe.training.gradient_checkpointing == AUTO:
            reasons.append(self._why_checkpointing(recipe, best))
        if recipe.training.per_device_train_batch_size == AUTO:
            reasons.append(self._why_micro_batch(best))
        return reasons

    def _why_checkpointing(self, recipe: Recipe, best: ResolvedRecipe) -> str:
        if not best.training.gradient_checkpointing:
            return f"Checkpointing off: {self._figures(best)}, about {100 * (RECOMPUTING - 1):.0f} % faster."
        without = edit(best, {CHECKPOINTING: False})
        if recipe.training.per_device_train_batch_size == AUTO and self._fits_less_of(without):
            batch = best.training.per_device_train_batch_size
            return f"Checkpointing on: micro-batch {batch} with it is faster than what fits without it."
        return f"Checkpointing on: without it the step needs {self._figures(without)}."

    def _fits_less_of(self, recipe: ResolvedRecipe) -> bool:
        return self._fits(edit(recipe, {MICRO_BATCH: 1, ACCUMULATION: recipe.training.effective_batch}))

    def _why_micro_batch(self, best: ResolvedRecipe) -> str:
        training = best.training
        size, times = training.per_device_train_batch_size, training.gradient_accumulation_steps
        words = f"Micro-batch {size} × {times} = {size * times}: {self._figures(best)}"
        if times == 1:
            return f"{words}, no accumulation."
        larger = next(n for n in _divisors(training.effective_batch) if n > size)
        more = edit(best, {MICRO_BATCH: larger, ACCUMULATION: training.effective_batch // larger})
        if self._fits(more):
            return f"{words}; {larger} is hardly faster."
        return f"{words}; {larger} {'may' if self._peak(more).method == 'closed-form' else 'would'} not fit."

    def _figures(self, recipe: ResolvedRecipe) -> str:
        """``18.20 of 22.40 GiB``; a rough peak says that it is, and how much of the memory it may take."""
        assert self._free is not None
        peak = self._peak(recipe)
        about = "≈ " if peak.method == "closed-form" else ""
        kept = self._room(peak) < self._free
        spare = f" ({100 * (1 - DOUBT):.0f} % headroom)" if kept and not self._is_comfortable(peak) else ""
        return f"{about}{part_of('GiB', peak.device_bytes, self._free, 2)}{spare}"

    def _is_comfortable(self, peak: Peak) -> bool:
        return fit_of(peak, int(self._room(peak))) == "fits"


def _ladders(recipe: Recipe) -> list[list[ResolvedRecipe]]:
    """The set-ups that a recipe leaves open: without checkpointing and with it, micro-batches from small to large."""
    training = recipe.training
    switches = [False, True] if training.gradient_checkpointing == AUTO else [training.gradient_checkpointing]
    sizes = _divisors(training.effective_batch) if training.per_device_train_batch_size == AUTO else (0,)
    return [
        [
            resolved(recipe, {CHECKPOINTING: on, MICRO_BATCH: n, ACCUMULATION: training.effective_batch // max(n, 1)})
            for n in sizes
        ]
        for on in switches
    ]


@cache
def _divisors(number: int) -> tuple[int, ...]:
    return tuple(n for n in range(1, number + 1) if number % n == 0)


def _decided(recipe: Recipe, best: ResolvedRecipe) -> str:
    """What was decided: ``Checkpointing on, micro-batch 1 × 16``."""
    training = recipe.training
    parts = _parts(best)
    wanted = (training.gradient_checkpointing == AUTO, training.per_device_train_batch_size == AUTO)
    return _capital(", ".join(part for part, is_open in zip(parts, wanted, strict=True) if is_open))


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _parts(recipe: ResolvedRecipe) -> tuple[str, str]:
    training = recipe.training
    return (
        f"checkpointing {'on' if training.gradient_checkpointing else 'off'}",
        f"micro-batch {training.per_device_train_batch_size} × {training.gradient_accumulation_steps}",
    )
