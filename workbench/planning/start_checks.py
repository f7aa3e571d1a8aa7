"""Whether a run fits the memory that is free, asked before it starts; and the cheapest changes that make it fit."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Protocol

from workbench.data.facts import DataFacts
from workbench.errors import WorkbenchError
from workbench.estimate import Setup, Tracer, price
from workbench.estimate.adapter.suggested_fix import with_fix
from workbench.estimate.fit import Fit, Suggestion
from workbench.machine.memory_budget import MemoryBudget
from workbench.models.local import read_config
from workbench.models.skeleton import Skeleton
from workbench.models.sources import find_config
from workbench.models.stored_quantization import stored_quantization
from workbench.models.stored_weights import check_stored_weights
from workbench.progress import Progress
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.model import ModelSection
from workbench.storage.paths import Home
from workbench.units import gib

# A run is not kept waiting longer for a look at its model, and at the lengths of its records.
# On a busy machine an engine that has just started needs most of this to import its libraries.
_TREE_SECONDS = 120.0
_FACTS_SECONDS = 20.0


@dataclass(frozen=True)
class Verdict:
    """What a run is predicted to need at its peak, in bytes, and what is there.

    Attributes:
        length: tokens of the longest record that this is for.
        is_by_formula: the peak is a formula's and not that of a traced step.
        suggestions: single changes that make it fit, cheapest first; empty where it fits.
    """

    needed_bytes: int
    budget: MemoryBudget
    fit: Fit
    length: int
    is_by_formula: bool
    suggestions: tuple[Suggestion, ...]

    @property
    def may_start(self) -> bool:
        return self.fit != "does not fit"

    @property
    def sentence(self) -> str:
        """``Needs 26.10 GiB (records of 1024 tokens); 22.40 GiB free on GPU 0 (NVIDIA H200).``"""
        about = "about " if self.is_by_formula else ""
        needed = gib(self.needed_bytes, 2)
        return f"Needs {about}{needed} (records of {self.length} tokens); {self.budget.free_text}."


def judge(
    skeleton: Skeleton,
    recipe: Recipe,
    budget: MemoryBudget,
    traced: Tracer | None = None,
    longest: int | None = None,
    median: int | None = None,
) -> Verdict | None:
    """Predict the peak of a recipe and hold it against the memory that is free.

    Args:
        traced: where traced steps are kept.
        longest: tokens of the longest record, where it is known: batches are no longer than that.
        median: tokens of the median record, where it is known.

    Returns:
        None where no single memory decides: it is unknown, or the base is sharded.

    Raises:
        WorkbenchError: PEFT would refuse the adapter for this model; with a change that helps, if one is known.
    """
    try:
        priced = price(skeleton, recipe, budget, longest=longest, median=median, traced=traced)
    except WorkbenchError as error:
        raise with_fix(error, skeleton, Setup.of(recipe).adapter) from error
    if priced.fit is None:
        return None
    suggestions = priced.suggestions if priced.fit == "does not fit" else ()
    return Verdict(priced.peak.device_bytes, budget, priced.fit, priced.setup.length, priced.is_by_formula, suggestions)


def check_stored_base(home: Home, recipe: Recipe) -> None:
    """Check that a base that its files quantize can be trained as the recipe asks, if they are on this machine.

    Raises:
        WorkbenchError: it cannot, or its weights are not quantized; kind ``stored_quantization``.
    """
    try:
        folder = find_config(home, recipe.model)
        config = read_config(folder) if folder is not None else {}
    except WorkbenchError:
        return  # the run says what is wrong with its model
    stored = stored_quantization(config)
    if stored is None or folder is None:
        return
    if refusal := stored.refusal(recipe.quantization, recipe.adapter):
        raise refusal
    check_stored_weights(folder, stored)


class Informant(Protocol):
    """What is asked of the engine; raises :class:`WorkbenchError` where it has no answer."""

    async def tree(self, model: ModelSection) -> Skeleton: ...

    def facts(self, recipe: Recipe, *, fetch: bool = False, show: int = 3) -> AsyncGenerator[Progress | DataFacts]: ...


async def foresee(
    engine: Informant,
    recipe: Recipe,
    budget: MemoryBudget,
    traced: Tracer | None = None,
    skeleton: Skeleton | None = None,
) -> Verdict | None:
    """Judge a recipe by records of its maximal length and, only where that does not fit, by those that there are.

    Returns:
        None where the free memory is unknown, or the model's module tree cannot be had in time; a run says itself
        what is wrong with its model.

    Raises:
        WorkbenchError: as :func:`judge`.
    """
    if budget.free_bytes is None:
        return None
    skeleton = skeleton or await _tree(engine, recipe.model)
    if skeleton is None:
        return None
    verdict = await asyncio.to_thread(judge, skeleton, recipe, budget, traced)
    if verdict is None or verdict.may_start or recipe.data.packing:
        return verdict
    facts = await _exact_facts(engine, recipe)
    if facts is None or not facts.lengths.max:
        return verdict
    return await asyncio.to_thread(judge, skeleton, recipe, budget, traced, facts.lengths.max, facts.lengths.p50)


async def foresee_all(
    engine: Informant, recipes: Sequence[Recipe], budget: MemoryBudget, traced: Tracer | None = None
) -> list[Verdict | None]:
    """Judge several recipes, each as :func:`foresee` does; a model's tree is asked for once."""
    if budget.free_bytes is None:
        return [None] * len(recipes)
    trees: dict[ModelSection, Skeleton | None] = {}
    verdicts: list[Verdict | None] = []
    for recipe in recipes:
        if recipe.model not in trees:
            trees[recipe.model] = await _tree(engine, recipe.model)
        tree = trees[recipe.model]
        verdicts.append(await foresee(engine, recipe, budget, traced, tree) if tree else None)
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
