"""Whether a run fits the memory that is free, asked before it starts; and the cheapest changes that make it fit."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from workbench.data.facts import DataFacts
from workbench.errors import WorkbenchError
from workbench.estimate import Device, Pricing, Tracer
from workbench.estimate.fastest import Chooser
from workbench.estimate.fit import Fit, Suggestion, fit_of, suggest
from workbench.estimate.peak import Peak, on_device
from workbench.machine.gpu import GpuSample, HostSample, computes_bfloat16
from workbench.models.skeleton import Skeleton
from workbench.planning.launch import Launch, gpus_of, largest_base
from workbench.progress import Progress
from workbench.recipe.resolved import ResolvedRecipe, limit_to_longest, resolved
from workbench.recipe.schema import ModelSection, Recipe
from workbench.units import gib

if TYPE_CHECKING:
    from workbench.engine.client.protocol import EngineStatus

# A run is not kept waiting longer for a look at its model, and at the lengths of its records.
_TREE_SECONDS = 30.0
_FACTS_SECONDS = 20.0


@dataclass(frozen=True)
class Room:
    """The memory that a run may take, or each process of it: where it is, its free bytes, and what computes in it.

    Attributes:
        largest_base: bytes of the largest base that each process holds whole; None where that is any.
    """

    place: str
    free_bytes: int
    device: Device
    largest_base: int | None = None


def room_for(
    gpus: Sequence[GpuSample],
    host: HostSample | None,
    status: "EngineStatus | None" = None,
    launch: Launch | None = None,
) -> Room | None:
    """The memory of the GPU that a run takes, or of the host where no GPU is, or where the engine can use none.

    Of several GPUs, one for each process, the fullest decides; on a processor all processes share the host's memory.
    What the engine itself holds counts as free: it is given back before a run, or is the very base that it needs.

    Args:
        launch: the processes; None where the engine's own trains, on the first GPU.

    Returns:
        None where it is not known, or no single memory decides: the base is spread over several.
    """
    if launch is not None and launch.may_be_sharded:
        return None
    computes_here = status is not None and status.device is not None and status.device.kind == "cpu"
    if gpus and not computes_here:
        return _room_on(gpus_of(launch, gpus), gpus[0], status.reserved if status else 0, largest_base(launch, gpus))
    if host is None:
        return None
    held = status.model.bytes if status and status.model else 0
    processes = launch.processes if launch else 1
    free = min(host.available_bytes + held, host.total_bytes) // processes
    place = "this machine (CPU training)"
    if processes > 1:
        place = f"this machine for each of {processes} processes (CPU training)"
    return Room(place, free, Device("cpu", bfloat16=computes_bfloat16(None)))


def _room_on(taken: Sequence[GpuSample], first: GpuSample, held: int, largest: int | None) -> Room | None:
    """The fullest of the GPUs that tell their memory; the engine holds some of the first one of the machine."""
    known: list[tuple[int, GpuSample]] = []
    for gpu in taken:
        if gpu.free_bytes is not None:
            free = gpu.free_bytes + (held if gpu.index == first.index else 0)
            known.append((min(free, gpu.total_bytes or free), gpu))
    if not known:
        return None
    free, gpu = min(known, key=lambda pair: pair[0])
    place = f"GPU {gpu.index} ({gpu.name})" + (f", the fullest of {len(taken)} GPUs" if len(taken) > 1 else "")
    return Room(place, free, Device("cuda", bfloat16=computes_bfloat16(gpu)), largest)


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
        needed, free = (gib(size, 2) for size in (self.needed_bytes, self.room.free_bytes))
        return f"Needs {about}{needed} (records of {self.length} tokens); {free} free on {self.room.place}."


def judge(
    skeleton: Skeleton, recipe: Recipe, room: Room, traced: Tracer | None = None, longest: int | None = None
) -> Verdict | None:
    """Predict the peak of a recipe and hold it against the memory that is free.

    Args:
        traced: where followed steps are kept.
        longest: tokens of the longest record, where it is known: batches are no longer than that.

    Returns:
        None where PEFT would refuse the recipe, which the run says better, and where the base is too large to lie
        whole on each GPU: what a share of it comes to is not predicted.
    """
    pricing = Pricing(skeleton, room.device, traced)

    def predict(changed: ResolvedRecipe) -> Peak:
        return on_device(room.device, pricing.peak(limit_to_longest(changed, longest)))

    limit = room.largest_base
    if limit is not None and pricing.base(resolved(recipe)).allocated_bytes > limit:
        return None
    try:
        choice = Chooser(predict, room.free_bytes, room.device).choose(recipe)
        peak = predict(choice.recipe)
    except WorkbenchError:
        return None
    fit = fit_of(peak, room.free_bytes)
    suggestions = suggest(choice.recipe, room.free_bytes, predict) if fit == "does not fit" else ()
    length = limit_to_longest(recipe, longest).data.max_length
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
