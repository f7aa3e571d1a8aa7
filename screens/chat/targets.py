"""Who can answer in Chat: a model, a run's adapter or one of its checkpoints, a sum of adapters."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

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
SMALLEST_STEP = 0.1
"""What a key changes the scale of an adapter by."""


@dataclass(frozen=True)
class ReplyTarget:
    """One that answers.

    ``target`` is as in :class:`~workbench.engine.client.protocol.ReplyRequest`; ``bare`` says that it is a model and no
    run, ``adapter`` whether the run's adapter works.
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
        """What it is known by for good."""
        return self._called(short_name)

    @property
    def who(self) -> str:
        """How a reply is signed, and kept: by ids, which stay when a run is given another name."""
        return self._signed(self.name)

    def named(self, names: RunNames) -> str:
        """What it is called now: runs by the names that people gave them."""
        return short_name(self.target) if self.bare else self._called(partial(_name_of, names))

    def signed(self, names: RunNames) -> str:
        """As :attr:`who`, with the names of now."""
        return self._signed(self.named(names))

    def _called(self, word: Callable[[str], str]) -> str:
        if self.combine:
            return " + ".join(f"{part.weight:g}·{word(part.target)}" for part in self.combine)
        return word(self.target)

    def _signed(self, name: str) -> str:
        if self.bare:
            return f"{name} (base)"
        if not self.adapter:
            return f"{name} (base, adapter off)"
        how = "merged" if self.merged else "combined" if self.combine else "tuned"
        return f"{name} ({how}{self.strength})"

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


def _name_of(names: RunNames, target: str) -> str:
    """A run's name for its id or folder; a checkpoint's step stays behind it."""
    run, at, step = target.rstrip("/").partition("@")
    return f"{names.of(run)}{at}{step}" if run else target


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
