"""Whether a run fits the memory that is free, asked before it starts; and the cheapest changes that make it fit."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Protocol

from workbench.data.facts import DataFacts
from workbench.engine.protocol import EngineStatus, Progress
from workbench.errors import WorkbenchError
from workbench.estimate import Device, Pricing, Tracer
from workbench.estimate.fastest import Chooser
from workbench.estimate.fit import Fit, Suggestion, fit_of, suggest
from workbench.estimate.peak import Peak, on_device
from workbench.gpu import GpuSample, HostSample, computes_bfloat16
from workbench.models.skeleton import Skeleton
from workbench.recipe import ModelSection, Recipe
from workbench.resolved import ResolvedRecipe, as_fed

# A run is not kept waiting longer for a look at its model, and at the lengths of its records.
_TREE_SECONDS = 30.0
_FACTS_SECONDS = 20.0


@dataclass(frozen=True)
class Room:
    """The memory that a run may take: where it is, its free bytes, and the device that computes in it."""

    place: str
    free_bytes: int
    device: Device


def room_for(gpus: Sequence[GpuSample], host: HostSample | None, status: EngineStatus | None = None) -> Room | None:
    """The memory of the first GPU, or of the host where no GPU is, or where the engine can use none.

    What the engine itself holds counts as free: it is given back before a run, or is the very base that it needs.

    Returns:
        None where it is not known.
    """
    computes_here = status is not None and status.device is not None and status.device.kind == "cpu"
    if gpus and not computes_here:
        gpu = gpus[0]
        if gpu.free_bytes is None:
            return None
        free = gpu.free_bytes + (status.reserved if status else 0)
        place = f"GPU {gpu.index} ({gpu.name})"
        return Room(place, min(free, gpu.total_bytes or free), Device("cuda", bfloat16=computes_bfloat16(gpu)))
    if host is None:
        return None
    held = status.model.bytes if status and status.model else 0
    free = min(host.available_bytes + held, host.total_bytes)
    return Room("this machine, which trains without a GPU", free, Device("cpu", bfloat16=computes_bfloat16(None)))


@dataclass(frozen=True)
class Verdict:
    """What a run is predicted to need at its peak, in bytes, and what is there.

    Attributes:
        length: tokens of the longest record that this is for.
        is_rough: the peak is a formula's and not that of a followed step.
        suggestions: single changes that make it fit, cheapest first; empty where it fits.
    """

    needed_bytes: int
    room: Room
    fit: Fit
    length: int
    is_rough: bool
    suggestions: tuple[Suggestion, ...]

    @property
    def may_start(self) -> bool:
        return self.fit != "does not fit"

    @property
    def sentence(self) -> str:
        """``Needs 26.1 GiB (records of 1024 tokens); 22.4 GiB are free on GPU 0 (NVIDIA H200).``"""
        about = "about " if self.is_rough else ""
        needed, free = (f"{size / 2**30:.2f} GiB" for size in (self.needed_bytes, self.room.free_bytes))
        return f"Needs {about}{needed} (records of {self.length} tokens); {free} are free on {self.room.place}."


def judge(
    skeleton: Skeleton, recipe: Recipe, room: Room, traced: Tracer | None = None, longest: int | None = None
) -> Verdict | None:
    """Predict the peak of a recipe and hold it against the memory that is free.

    Args:
        traced: where followed steps are kept.
        longest: tokens of the longest record, where it is known: batches are no longer than that.

    Returns:
        None where PEFT would refuse the recipe, which the run says better.
    """
    pricing = Pricing(skeleton, room.device, traced)

    def predict(changed: ResolvedRecipe) -> Peak:
        return on_device(room.device, pricing.peak(as_fed(changed, longest)))

    try:
        choice = Chooser(predict, room.free_bytes, room.device).choose(recipe)
        peak = predict(choice.recipe)
    except WorkbenchError:
        return None
    fit = fit_of(peak, room.free_bytes)
    suggestions = suggest(choice.recipe, room.free_bytes, predict) if fit == "does not fit" else ()
    length = as_fed(recipe, longest).data.max_length
    return Verdict(peak.device_bytes, room, fit, length, peak.method == "closed-form", suggestions)


class Informant(Protocol):
    """What is asked of the engine; raises :class:`WorkbenchError` where it has no answer."""

    async def tree(self, model: ModelSection) -> Skeleton: ...

    def facts(self, recipe: Recipe, *, fetch: bool = False, show: int = 3) -> AsyncGenerator[Progress | DataFacts]: ...


async def foresee(
    engine: Informant, recipe: Recipe, room: Room, traced: Tracer | None = None, skeleton: Skeleton | None = None
) -> Verdict | None:
    """Judge a recipe by records of its maximal length and, only where that does not fit, by those that there are.

    Returns:
        None where the model's module tree cannot be had in time; a run says itself what is wrong with its model.
    """
    skeleton = skeleton or await _tree(engine, recipe.model)
    if skeleton is None:
        return None
    verdict = await asyncio.to_thread(judge, skeleton, recipe, room, traced)
    if verdict is None or verdict.may_start or recipe.data.packing:
        return verdict
    facts = await _exact_facts(engine, recipe)
    if facts is None or not facts.lengths.max:
        return verdict
    return await asyncio.to_thread(judge, skeleton, recipe, room, traced, facts.lengths.max)


async def foresee_all(
    engine: Informant, recipes: Sequence[Recipe], room: Room, traced: Tracer | None = None
) -> list[Verdict | None]:
    """Judge several recipes, each as :func:`foresee` does; a model's tree is asked for once."""
    trees: dict[ModelSection, Skeleton | None] = {}
    verdicts: list[Verdict | None] = []
    for recipe in recipes:
        if recipe.model not in trees:
            trees[recipe.model] = await _tree(engine, recipe.model)
        tree = trees[recipe.model]
        verdicts.append(await foresee(engine, recipe, room, traced, tree) if tree else None)
    return verdicts


async def _tree(engine: Informant, model: ModelSection) -> Skeleton | None:
    with suppress(WorkbenchError, TimeoutError):
        async with asyncio.timeout(_TREE_SECONDS):
            return await engine.tree(model)
    return None


async def _exact_facts(engine: Informant, recipe: Recipe) -> DataFacts | None:
    with suppress(WorkbenchError, TimeoutError):
        async with asyncio.timeout(_FACTS_SECONDS), aclosing(engine.facts(recipe)) as answers:
            async for answer in answers:
                if isinstance(answer, DataFacts) and answer.exact:
                    return answer
    return None
