"""Run folders (recipe, journal, adapter, checkpoints, log): made, found, summed up."""

import os
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import psutil

from workbench.errors import WorkbenchError
from workbench.recipe.resolved import ResolvedRecipe, is_left_open, resolved
from workbench.recipe.schema import Recipe
from workbench.recipe.text import to_yaml
from workbench.runs.history import read_history
from workbench.runs.journal import Event, JournalReader
from workbench.runs.journal_sample import glance, is_long
from workbench.runs.label import Label, read_label
from workbench.runs.run_recipe import read_run_recipe
from workbench.runs.summary_cache import keep, kept
from workbench.storage.folders import entries
from workbench.storage.paths import Home


@dataclass(frozen=True)
class RunFolder:
    """One run on disk. Its id is the folder's name."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def recipe_file(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def journal(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def adapter(self) -> Path:
        """A standard PEFT folder: ``adapter_config.json``, ``adapter_model.safetensors``, tokenizer and template."""
        return self.path / "adapter"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """The adapter of the best evaluation so far, where the recipe keeps that one."""
        return self.path / "best"

    @property
    def log(self) -> Path:
        """All that libraries printed while the run had the engine."""
        return self.path / "engine.log"

    @property
    def label(self) -> Label:
        """What people call it; read anew each time."""
        return read_label(self.path)

    @property
    def name(self) -> str:
        """The name that somebody gave it, else its id."""
        return self.label.name or self.id

    @property
    def title(self) -> str:
        """Its name with its id: ``Low rank (pirate-03)``; the id alone where it has no other name."""
        return f"{name} ({self.id})" if (name := self.label.name) else self.id

    @property
    def made(self) -> float:
        """Unix time at which it was made; 0 where its recipe is gone."""
        try:
            return self.recipe_file.stat().st_mtime
        except OSError:
            return 0.0

    def recipe(self) -> Recipe:
        """The recipe the run was started with.

        Raises:
            WorkbenchError: it is missing or was changed into something unusable.
        """
        return read_run_recipe(self.recipe_file, self.journal)

    def recipe_as_run(self) -> ResolvedRecipe:
        """The recipe with what it left to the machine as the run decided it, by its journal.

        Raises:
            WorkbenchError: as :meth:`recipe`; what the journal says was decided cannot be.
        """
        recipe = self.recipe()
        return resolved(recipe, read_history(self.journal, 0).chosen if is_left_open(recipe) else None)


def create_run(home: Home, recipe: Recipe) -> RunFolder:
    """Make the folder ``<output.name>-<NN>`` with the recipe in it; two engines never get the same one.

    Raises:
        WorkbenchError: the folder cannot be made.
    """
    parent = Path(recipe.output.dir).expanduser().absolute() if recipe.output.dir else home.runs
    try:
        parent.mkdir(parents=True, exist_ok=True)
        taken = re.compile(re.escape(recipe.output.name) + r"-(\d+)")
        # Ids are of the whole home: a run elsewhere gets none that the home has already.
        home.runs.mkdir(parents=True, exist_ok=True)
        names = {entry.name for folder in (parent, home.runs) for entry in entries(folder)}
        names |= _trashed(home) | {run.label.name for run in all_runs(home)}
        numbers = [int(match[1]) for name in names if (match := taken.fullmatch(name))]
        number = max(numbers, default=0) + 1
        while True:
            path = parent / f"{recipe.output.name}-{number:02d}"
            try:
                path.mkdir()
            except FileExistsError:
                number += 1
                continue
            # A run may have been thrown away since; it comes back under its own id only.
            if path.name not in _trashed(home):
                break
            path.rmdir()
            number += 1
        run = RunFolder(path)
        run.recipe_file.write_text(to_yaml(recipe), encoding="utf-8")
        if not parent.samefile(home.runs):
            _remember(home, run)
    except OSError as error:
        raise WorkbenchError(
            f"Cannot make a run folder in {parent}: {error.strerror or error}.",
            "Free some disk space, or set output.dir to a folder you may write to.",
            kind="disk",
        ) from None
    return run


def _trashed(home: Home) -> set[str]:
    return {entry.name for entry in entries(home.trash)}


def _remember(home: Home, run: RunFolder) -> None:
    """A run outside the home is linked into it, so that history and ids find it."""
    (home.runs / run.id).symlink_to(run.path, target_is_directory=True)


def all_runs(home: Home) -> list[RunFolder]:
    """Every run of this home, newest first."""
    # A folder without a recipe is no run, or one that was deleted just now.
    made = [(run.made, run) for run in map(RunFolder, entries(home.runs))]
    return [run for at, run in sorted(made, key=lambda pair: pair[0], reverse=True) if at]


def find_run(home: Home, name: str) -> RunFolder:
    """The run with this id or name, unique beginning of either, or folder.

    Raises:
        WorkbenchError: there is none, or the name or its beginning fits several.
    """
    folder = Path(name).expanduser()
    if os.sep in name and (folder / "recipe.yaml").is_file():
        return RunFolder(folder.absolute())
    runs = all_runs(home)
    if exact := [run for run in runs if run.id == name]:
        return exact[0]
    named = [run for run in runs if name and run.name == name]
    fitting = named or [run for run in runs if name and (run.id.startswith(name) or run.name.startswith(name))]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        some = ", ".join(run.id for run in fitting[:6])
        raise WorkbenchError(f"{name} fits {len(fitting)} runs: {some}.", "Write more of the id.", kind="run_ambiguous")
    if (folder / "recipe.yaml").is_file():
        return RunFolder(folder.absolute())
    raise WorkbenchError(
        f"There is no run {name} in {home.runs}.", "`loraworkbench runs` lists them.", kind="run_not_found"
    )


# Bytes of a journal that are read in less time than what was kept of it.
_READ_AT_ONCE = 1 << 15

RunState = Literal["new", "running", "finished", "stopped", "failed", "interrupted"]


@dataclass
class RunSummary:
    """What the journal says of a run so far. :meth:`add` takes further events, so that a live view need not reread.

    Attributes:
        predicted_peak: ``allocated_bytes``, ``reserved_bytes``, ``terms``, ``method`` and the ``length`` they are for.
        is_unpriced: its steps were compiled or computed by fused kernels, and those are not what was predicted.
        measured_peak: ``allocated``, ``reserved``, ``resting`` and ``nvml`` in bytes; None without a GPU.
        is_rough: the middle of a long journal is not in it yet. What it tells is so, but there may be more: an
            evaluation, a higher peak; and whether a run without an end goes on is told only where it is known.
    """

    id: str
    state: RunState = "new"
    model: str = ""
    started: float | None = None
    ended: float | None = None
    step: int = 0
    max_steps: int = 0
    phase: str = ""
    loss: float | None = None
    perplexity: dict[str, Any] = field(default_factory=dict)
    tokens: int = 0
    peak_vram: int = 0
    eta_seconds: float | None = None
    tokens_per_second: float | None = None
    reason: str = ""
    cure: str = ""
    predicted_peak: dict[str, Any] | None = None
    is_unpriced: bool = False
    measured_peak: dict[str, Any] | None = None
    writer: tuple[int, float] | None = None
    is_rough: bool = False

    def add(self, event: Event) -> None:
        """Take one event of the journal into account."""
        match event["event"]:
            case "step":
                self.step = event["step"]
                self.phase = "training"  # an evaluation in between does not tell when it is over
                self.max_steps = event.get("max_steps", self.max_steps)
                self.loss = event.get("loss")
                self.tokens = event.get("tokens", self.tokens)
                self.eta_seconds = event.get("eta_seconds")
                self.tokens_per_second = event.get("tokens_per_second")
                self.peak_vram = max(self.peak_vram, (event.get("vram") or {}).get("peak") or 0)
            case "run_started":
                self.state = "running"
                self.model = event.get("model", "")
                self.started = self.started or event["time"]
                self.ended = None
                self.writer = (event.get("pid", 0), event.get("process_started", 0.0))
            case "run_resumed":
                self.state = "running"
                self.ended, self.reason, self.cure = None, "", ""
                self.step, self.phase = event.get("step", 0), ""
                self.writer = (event.get("pid", 0), event.get("process_started", 0.0))
            case "phase":
                self.phase = event.get("phase", "")
                self.max_steps = event.get("max_steps", self.max_steps)
                self.predicted_peak = event.get("predicted", self.predicted_peak)
                self.is_unpriced |= bool(event.get("compiled") or event.get("kernels"))
            case "eval":
                # Before the first step the adapter changes nothing: that figure is the base's own.
                self.perplexity["tuned" if event.get("step") else "base"] = event.get("perplexity")
            case "error":
                self.reason, self.cure = event.get("message", ""), event.get("cure", "")
            case "run_ended":
                self.ended = event["time"]
                self.measured_peak = event.get("measured")
                self.peak_vram = max(self.peak_vram, (self.measured_peak or {}).get("allocated") or 0)
                reason = event.get("reason", "finished")
                self.state = {"finished": "finished", "early_stopping": "finished", "error": "failed"}.get(
                    reason, "stopped"
                )  # type: ignore[assignment]
                self.reason = self.reason if reason == "error" else reason

    def leap(self) -> None:
        """Events are left out here, up to some step: what they may have changed counts no more."""
        self.is_rough = True
        self.state, self.writer = "running", None
        self.ended, self.reason, self.cure = None, "", ""
        self.perplexity.pop("tuned", None)

    @property
    def is_open(self) -> bool:
        """Whether the run goes on is not known: it has no end, and who writes it stands in a part that was not read."""
        return self.is_rough and self.state == "running" and self.writer is None

    @property
    def predicted_allocated(self) -> int | None:
        """Bytes that PyTorch was to have handed out at the peak."""
        return (self.predicted_peak or {}).get("allocated_bytes")

    @property
    def peak_error(self) -> float | None:
        """(predicted − measured) / measured of the allocated peak; None unless the run has both, of the same steps."""
        predicted, measured = self.predicted_allocated, (self.measured_peak or {}).get("allocated")
        return predicted / measured - 1 if predicted and measured and not self.is_unpriced else None

    def settle(self) -> None:
        """A run whose writer is gone without an end was interrupted."""
        if self.state == "running" and not self.is_open and not _is_alive(self.writer):
            self.state = "interrupted"
            self.reason = "the process that trained it is gone"


def summarise(run: RunFolder, *, soon: bool = False) -> RunSummary:
    """The state of a run, from its journal alone; what was added up of it before is not read again.

    Args:
        soon: where much is to be read, only its beginning and its end are, and the summary is rough.
    """
    summary, known = _added_up(run)
    if soon and is_long(run.journal, known):
        _add_at_a_glance(summary, run, known)
    else:
        reader = JournalReader(run.journal, known)
        for events in reader.blocks():
            for event in events:
                summary.add(event)
        if reader.offset - known > _READ_AT_ONCE:
            keep_sums(run, summary, reader.offset)
    summary.settle()
    return summary


def keep_sums(run: RunFolder, summary: RunSummary, offset: int) -> None:
    """Keep what was added up of the first bytes of a run's journal, before it is settled: that is of the moment."""
    keep(run.journal, {name: value for name, value in asdict(summary).items() if name != "id"}, offset)


def _added_up(run: RunFolder) -> tuple[RunSummary, int]:
    """What is known already, and of how many bytes of the journal."""
    sums, offset = kept(run.journal)
    if sums.keys() | {"id"} != {one.name for one in fields(RunSummary)}:
        return RunSummary(run.id), 0
    writer = sums.pop("writer")
    return RunSummary(run.id, **sums, writer=tuple(writer) if writer else None), offset


def _add_at_a_glance(summary: RunSummary, run: RunFolder, known: int) -> None:
    look = glance(run.journal, places=0)
    for event in look.head if not known else ():
        summary.add(event)
    summary.leap()
    for event in look.tail:
        summary.add(event)


def _is_alive(writer: tuple[int, float] | None) -> bool:
    """Whether the very process lives: a process id is used again after a while, its start time is not."""
    if not writer or not writer[0]:
        return False
    try:
        process = psutil.Process(writer[0])
        # A zombie is dead; only its parent, perhaps this very terminal, has not asked for its exit code.
        return abs(process.create_time() - writer[1]) < 2.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
