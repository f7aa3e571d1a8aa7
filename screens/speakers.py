"""Who can answer in Chat: a model, a run's adapter or one of its checkpoints, a sum of adapters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from screens.widgets.header import short_name
from workbench.engine.protocol import AdapterPart, Message, ReplyRequest, Sampling
from workbench.errors import WorkbenchError
from workbench.runs.checkpoints import checkpoints
from workbench.runs.folder import all_runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.paths import Home

_RUNS_OFFERED = 100
SMALLEST_STEP = 0.1
"""What a key changes the scale of an adapter by."""


@dataclass(frozen=True)
class Speaker:
    """One that answers.

    ``target`` is as in :class:`~workbench.engine.protocol.ReplyRequest`; ``bare`` says that it is a model and no run,
    ``adapter`` whether the run's adapter works.
    """

    target: str
    bare: bool = False
    adapter: bool = True
    scale: float = 1.0
    combine: tuple[AdapterPart, ...] = ()
    merged: bool = False

    @property
    def is_tuned(self) -> bool:
        return self.adapter and not self.bare

    @property
    def name(self) -> str:
        if self.combine:
            return " + ".join(f"{part.weight:g}·{short_name(part.target)}" for part in self.combine)
        return short_name(self.target)

    @property
    def who(self) -> str:
        """How a reply is signed."""
        if self.bare:
            return f"{self.name} (base)"
        if not self.adapter:
            return f"{self.name} (base, adapter off)"
        how = "merged" if self.merged else "sum" if self.combine else "tuned"
        return f"{self.name} ({how}{self.strength})"

    @property
    def strength(self) -> str:
        """The scale in words, nothing where it is the usual one."""
        return "" if self.scale == 1 else f" × {self.scale:.1f}"

    def request(self, messages: Sequence[Message], sampling: Sampling, on: str) -> ReplyRequest:
        """What the engine is asked; ``on`` names the one whose base serves."""
        return ReplyRequest(
            target=self.target,
            messages=list(messages),
            adapter=self.is_tuned,
            scale=self.scale if self.is_tuned else 1.0,
            combine=list(self.combine) if self.is_tuned else [],
            merged=self.merged and self.is_tuned,
            on="" if on == self.target else on,
            sampling=sampling,
        )


@dataclass(frozen=True)
class Candidate:
    """One that can be chosen; ``model`` is the source of its base, ``whole`` tells a run from its checkpoints."""

    target: str
    label: str
    model: str
    whole: bool = True


def runs_with_adapters(home: Home) -> list[str]:
    """Ids of the runs that kept an adapter, newest first."""
    return [run.id for run in all_runs(home) if (run.adapter / "adapter_config.json").is_file()]


def candidates(home: Home) -> list[Candidate]:
    """Every run's adapter and checkpoints, newest first."""
    found = []
    for run in all_runs(home)[:_RUNS_OFFERED]:
        try:
            model = run.recipe().model.source
        except WorkbenchError:
            continue
        if (run.adapter / "adapter_config.json").is_file():
            found.append(Candidate(run.id, run.title, model))
        found += [
            Candidate(f"{run.id}@{checkpoint.step}", f"{run.title} at step {checkpoint.step}", model, whole=False)
            for checkpoint in checkpoints(run.checkpoints)
        ]
    return found
