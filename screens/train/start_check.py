"""Looks up what the start card shows: files, memory, tokens, speed, and what would make the run fail."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from screens.session import dataset_key
from screens.shell.cost_view import refusal_and_fix
from workbench.data.facts import DataFacts
from workbench.data.open_source import needs_hub, remote_sources
from workbench.data.sources import load_records
from workbench.engine.client.requests import facts_request
from workbench.errors import WorkbenchError
from workbench.estimate import price
from workbench.planning.expected_time import Speed, Workload, computed_speed, past_speed, workload
from workbench.planning.launch import gpus_of
from workbench.planning.model_files import ModelFiles, model_files
from workbench.runs.folder import next_run_id
from workbench.units import gib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from textual.worker import Worker

    from screens.session import Session
    from screens.widgets.pane import Pane
    from workbench.data.facts import Lengths
    from workbench.estimate import Price, TraceStore
    from workbench.machine.memory_budget import MemoryBudget
    from workbench.models.skeleton import Skeleton
    from workbench.recipe.schema import Recipe
    from workbench.storage.paths import Home

# The share of the memory by which its free part must change to be looked at again.
_DEAD_BAND = 0.01

# The cures, with their actions in the place of the keys.
_MODELS, _ADAPTER, _DATA = "{tab.models} Models", "{tab.adapter} Adapter", "{tab.data} Data"
_FIT = "{train.fit}"


@dataclass(frozen=True)
class Trouble:
    """Something wrong with a start: what it is, and what to press.

    Attributes:
        cure: the action, whose key is named in its place, and what it does, as in ``{tab.data} Data``.
        tone: ``error`` if the run would fail, ``warning`` if it would only be worse than it could be.
    """

    text: str
    cure: str
    tone: Literal["error", "warning"] = "error"


@dataclass(frozen=True)
class Findings:
    """What is known about a start.

    Attributes:
        next_id: the id that the run will get.
        files: where the weights are; None if the model source is wrong.
        price: what the recipe costs; None if it cannot be priced.
        fix: the changes to the recipe that make it work, applied by F; None if none is needed or known.
        work: the steps and tokens; None until the records were counted.
        speed: the expected speed; None if nothing is known to derive it from.
    """

    next_id: str = ""
    files: ModelFiles | None = None
    price: Price | None = None
    fix: Mapping[str, object] | None = None
    facts: DataFacts | None = None
    work: Workload | None = None
    speed: Speed | None = None
    troubles: tuple[Trouble, ...] = ()

    @property
    def is_clear(self) -> bool:
        """Whether nothing is known that would make the run fail."""
        return all(trouble.tone != "error" for trouble in self.troubles)


@dataclass(frozen=True)
class _Question:
    """A copy of the session's state, to be looked at in a thread."""

    home: Home
    recipe: Recipe
    skeleton: Skeleton | None
    skeleton_error: WorkbenchError | None
    budget: MemoryBudget
    lengths: Lengths | None
    facts: DataFacts | None
    traces: TraceStore
    gpu: str
    processes: int
    data_error: WorkbenchError | None


class StartCheck:
    """Keeps the findings about the current recipe up to date while the start card is shown.

    Args:
        pane: runs the work.
        changed: called after the findings have changed.
    """

    def __init__(self, pane: Pane, changed: Callable[[], None]) -> None:
        self._pane = pane
        self._changed = changed
        self._asked: tuple[object, ...] = ()
        self._free: int | None = None
        self._counted: object = None
        self._data_error: WorkbenchError | None = None
        self._found_for: Recipe | None = None
        self._found = Findings()

    @property
    def findings(self) -> Findings:
        """What is known about the current recipe; empty while it is being looked up for the first time."""
        return self._found if self._found_for is self._session.recipe else Findings()

    @property
    def _session(self) -> Session:
        return self._pane.session

    def look_again(self) -> None:
        """Forget what was looked up: files may have changed while another tab was in front."""
        self._asked, self._counted, self._data_error = (), None, None

    def update(self) -> None:
        """Look again at what has changed since the last call; does nothing if nothing has."""
        session = self._session
        budget, facts = session.run_budget, session.facts_of(session.recipe)
        asked = (session.recipe, session.skeleton, session.skeleton_error, budget.place, budget.is_typed,
                 session.launch, facts, self._data_error)  # fmt: skip
        if not _same(asked, self._asked) or self._differs(budget):
            self._asked, self._free = asked, budget.free_bytes
            # A function and not its coroutine: a worker that the next one replaces before it began never awaits that.
            _: Worker[None] = self._pane.run_worker(self._look, group="start check", exclusive=True)
        if session.status is not None and session.status.state == "idle" and (facts is None or not facts.exact):
            key = dataset_key(session.recipe)
            if key != self._counted:
                self._counted, self._data_error = key, None
                work = partial(self._count, session.recipe)
                __: Worker[None] = self._pane.run_worker(work, group="start count", exclusive=True)

    def _differs(self, budget: MemoryBudget) -> bool:
        if budget.free_bytes is None or self._free is None:
            return budget.free_bytes != self._free
        return abs(budget.free_bytes - self._free) > _DEAD_BAND * (budget.total_bytes or budget.free_bytes)

    async def _look(self) -> None:
        session = self._session
        recipe, launch = session.recipe, session.launch
        gpus = gpus_of(launch, session.gpus)
        question = _Question(
            session.home, recipe, session.skeleton, session.skeleton_error, session.run_budget,
            session.lengths_of(recipe), session.facts_of(recipe), session.traces,
            gpus[0].name if gpus and session.run_budget.device.kind == "cuda" else "",
            launch.processes if launch else 1, self._data_error,
        )  # fmt: skip
        found = await asyncio.to_thread(examine, question)
        self._found, self._found_for = found, recipe
        self._changed()

    async def _count(self, recipe: Recipe) -> None:
        """Let the engine count the tokens of the records, unless that needs a download."""
        session = self._session
        try:
            async with aclosing(session.engine.facts(facts_request(recipe))) as answers:
                async for answer in answers:
                    if isinstance(answer, DataFacts):
                        session.dataset_facts = dataset_key(recipe), answer
                        self._changed()
        except WorkbenchError as error:
            self._data_error = error
            self._changed()


def _same(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    """Whether both have the same objects: comparing whole module trees would take long."""
    return len(one) == len(other) and all(a is b or (isinstance(a, str) and a == b) for a, b in zip(one, other))  # noqa: B905


def examine(question: _Question) -> Findings:
    """Look up everything about a start. Reads the disk and prices the recipe; call it in a thread."""
    troubles: list[Trouble] = []
    recipe, skeleton, facts = question.recipe, question.skeleton, question.facts
    files, priced, fix = None, None, None
    try:
        files = model_files(question.home, recipe.model)
    except WorkbenchError as error:
        troubles.append(Trouble(f"{error.message} {error.cure}", _MODELS))
    if files is not None and files.problem:
        troubles.append(Trouble(files.problem, _MODELS))
    if question.skeleton_error is not None and files is not None:
        troubles.append(Trouble(str(question.skeleton_error), _MODELS))
    if skeleton is not None:
        try:
            priced = price(
                skeleton, recipe, question.budget,
                longest=question.lengths.max if question.lengths else None,
                median=question.lengths.p50 if question.lengths else None,
                traced=question.traces,
            )  # fmt: skip
        except WorkbenchError as error:
            change = refusal_and_fix(skeleton, recipe)[1]
            fix = change.changes if change else None
            troubles.append(Trouble(error.message, f"{_FIT} apply {change.short}" if change else _ADAPTER))
    if priced is not None:
        if priced.stored_refusal is not None:
            troubles.append(Trouble(str(priced.stored_refusal), _ADAPTER))
        if priced.fit == "does not fit":
            fix, trouble = _does_not_fit(priced)
            troubles.append(trouble)
    troubles += _troubles_of_data(question)
    return Findings(
        next_id=_next_id(question),
        files=files,
        price=priced,
        fix=fix,
        facts=facts,
        work=workload(facts, recipe, question.processes) if facts is not None else None,
        speed=_speed(question),
        troubles=tuple(troubles),
    )


def _does_not_fit(priced: Price) -> tuple[Mapping[str, object] | None, Trouble]:
    text = f"Does not fit: needs {gib(priced.peak.device_bytes)}, {priced.budget.free_text}."
    if not priced.suggestions:
        return None, Trouble(f"{text} No single change makes it fit.", _ADAPTER)
    cheapest = priced.suggestions[0]
    return cheapest.changes, Trouble(text, f"{_FIT} apply {cheapest.label} ({gib(cheapest.peak_bytes)})")


def _troubles_of_data(question: _Question) -> Iterator[Trouble]:
    error = question.data_error
    if error is None and question.facts is None:
        error = _local_data_error(question)
    # What has to be downloaded is downloaded by the run.
    if error is not None and error.kind not in ("data_elsewhere", "tokenizer_elsewhere"):
        yield Trouble(error.message, _DATA)
    if question.facts is not None:
        for text in question.facts.questions:
            yield Trouble(text, _DATA, "warning")
    training = question.recipe.training
    if training.eval_steps == 0 and (training.keep == "best" or training.early_stopping_patience):
        what = "keep: best" if training.keep == "best" else "Early stopping"
        yield Trouble(f"{what} needs evaluations during the run: set training.eval_steps.", _ADAPTER, "warning")


def _local_data_error(question: _Question) -> WorkbenchError | None:
    """Why the records cannot be opened, found without the engine; None if they can, or are on the hub."""
    data = question.recipe.data
    try:
        if not any(needs_hub(name) for name in remote_sources(data.source)):
            load_records(data, question.home, kind=question.recipe.objective.spec.records)
    except WorkbenchError as error:
        return error
    return None


def _next_id(question: _Question) -> str:
    with suppress(OSError):
        return next_run_id(question.home, question.recipe)
    return ""


def _speed(question: _Question) -> Speed | None:
    if speed := past_speed(question.home, question.recipe):
        return speed
    if question.skeleton is None or question.facts is None or not question.gpu:
        return None
    with suppress(WorkbenchError):
        return computed_speed(question.skeleton, question.recipe, question.gpu, question.facts, question.processes)
    return None
