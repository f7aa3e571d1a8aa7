"""Run folders (recipe, journal, adapter, checkpoints, log): made, found, summed up."""

import os
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.recipe.resolved import ResolvedRecipe, has_auto, resolved
from workbench.recipe.schema import Recipe
from workbench.recipe.text import to_yaml
from workbench.runs.history import read_history
from workbench.runs.journal import JournalReader
from workbench.runs.journal_sample import glance, is_long
from workbench.runs.label import Label, read_label
from workbench.runs.replay import Replay, fold
from workbench.runs.run_recipe import read_run_recipe
from workbench.runs.summary import RunSummary
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
        return resolved(recipe, read_history(self.journal, 0).chosen if has_auto(recipe) else None)


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
            f"Cannot create a run folder in {parent}: {error.strerror or error}.",
            "Free some disk space, or set output.dir to a writable folder.",
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
        raise WorkbenchError(
            f"{name} matches {len(fitting)} runs: {some}.", "Give more of the id.", kind="run_ambiguous"
        )
    if (folder / "recipe.yaml").is_file():
        return RunFolder(folder.absolute())
    raise WorkbenchError(
        f"There is no run {name} in {home.runs}.", "`loraworkbench runs` lists them.", kind="run_not_found"
    )


# Bytes of a journal that are read in less time than what was kept of it.
_READ_AT_ONCE = 1 << 15


def summarise(run: RunFolder, *, soon: bool = False) -> RunSummary:
    """The state of a run, from its journal alone; what was added up of it before is not read again.

    Args:
        soon: where much is to be read, only its beginning and its end are, and the summary is rough.
    """
    summary, known = _added_up(run)
    replay = Replay(run.id, summary=summary)
    if soon and is_long(run.journal, known):
        _add_at_a_glance(replay, run, known)
    else:
        reader = JournalReader(run.journal, known)
        for events in reader.blocks():
            fold(events, replay)
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
    writer, perplexities = sums.pop("writer"), sums.pop("perplexities")
    summary = RunSummary(run.id, **sums, writer=tuple(writer) if writer else None)
    summary.perplexities = [tuple(one) for one in perplexities]
    return summary, offset


def _add_at_a_glance(replay: Replay, run: RunFolder, known: int) -> None:
    look = glance(run.journal, places=0)
    fold(look.head if not known else (), replay)
    replay.leap()
    fold(look.tail, replay)
