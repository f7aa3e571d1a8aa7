"""Reply targets of Chat: a model, a run's adapter or checkpoint, or a combination of adapters."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from screens.shell.header import short_name
from workbench.engine.client.protocol import AdapterPart, Message, ReplyRequest, Sampling
from workbench.errors import WorkbenchError
from workbench.runs.checkpoints import checkpoints
from workbench.runs.folder import all_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from screens.run_names import RunNames
    from workbench.storage.paths import Home

_RUNS_OFFERED = 100
SCALE_STEP = 0.1
"""By how much a key changes the scale of an adapter."""


@dataclass(frozen=True)
class ReplyTarget:
    """A model, or an adapter on its base.

    Attributes:
        target: as in :class:`~workbench.engine.client.protocol.ReplyRequest`.
        is_model: whether it is a model without an adapter, not a run.
        adapter: whether the run's adapter is on.
        scale: of the adapter.
        combine: the adapters that are added up, with their weights.
        merged: whether the adapter is merged into a 16-bit base.
    """

    target: str
    is_model: bool = False
    adapter: bool = True
    scale: float = 1.0
    combine: tuple[AdapterPart, ...] = ()
    merged: bool = False

    @property
    def is_tuned(self) -> bool:
        return self.adapter and not self.is_model

    @property
    def name(self) -> str:
        """The name by ids, which never changes."""
        return self._called(short_name)

    @property
    def who(self) -> str:
        """The signature of a reply, as it is saved: by ids, which stay when a run is renamed."""
        return self._signed(self.name)

    def named(self, names: RunNames) -> str:
        """Return the name to show, with the current names of runs."""
        return short_name(self.target) if self.is_model else self._called(partial(_name_of, names))

    def signed(self, names: RunNames) -> str:
        """Return the signature with the current names of runs."""
        return self._signed(self.named(names))

    def _called(self, word: Callable[[str], str]) -> str:
        if self.combine:
            return " + ".join(f"{part.weight:g}·{word(part.target)}" for part in self.combine)
        return word(self.target)

    def _signed(self, name: str) -> str:
        if self.is_model:
            return f"{name} (base)"
        if not self.adapter:
            return f"{name} (base, adapter off)"
        how = "merged" if self.merged else "combined" if self.combine else "tuned"
        return f"{name} ({how}{self.strength})"

    @property
    def strength(self) -> str:
        """The scale in words; empty if it is 1."""
        return "" if self.scale == 1 else f" × {self.scale:.1f}"

    def request(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        on: str,
        tools: Sequence[dict[str, Any]] = (),
        base: str = "",
    ) -> ReplyRequest:
        """Return the request to the engine.

        Args:
            on: the target whose base is used.
            base: the source of that base, in the place of the one that the target names; empty for that one.
        """
        return ReplyRequest(
            target=self.target,
            messages=list(messages),
            tools=list(tools),
            adapter=self.is_tuned,
            scale=self.scale if self.is_tuned else 1.0,
            combine=list(self.combine) if self.is_tuned else [],
            merged=self.merged and self.is_tuned,
            on="" if on == self.target else on,
            base="" if self.is_model else base,
            sampling=sampling,
        )


@dataclass(frozen=True)
class Candidate:
    """A run's adapter (``is_final``) or a checkpoint that can be chosen; ``model`` is the source of its base."""

    target: str
    label: str
    model: str
    is_final: bool = True


def _name_of(names: RunNames, target: str) -> str:
    """Return the name of a run, given its id or folder; the step of a checkpoint is kept."""
    run, at, step = target.rstrip("/").partition("@")
    return f"{names.of(run)}{at}{step}" if run else target


def runs_with_adapters(home: Home) -> list[str]:
    """Return the ids of the runs that have an adapter, newest first."""
    return [run.id for run in all_runs(home) if (run.adapter / "adapter_config.json").is_file()]


def candidates(home: Home) -> list[Candidate]:
    """Return the adapters and checkpoints of all runs, newest first."""
    found = []
    for run in all_runs(home)[:_RUNS_OFFERED]:
        try:
            model = run.recipe().model.source
        except WorkbenchError:
            continue
        if (run.adapter / "adapter_config.json").is_file():
            found.append(Candidate(run.id, run.title, model))
        found += [
            Candidate(f"{run.id}@{checkpoint.step}", f"{run.title} at step {checkpoint.step}", model, is_final=False)
            for checkpoint in checkpoints(run.checkpoints)
        ]
    return found
