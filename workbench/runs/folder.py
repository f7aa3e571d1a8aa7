"""Creates, finds and summarizes run folders: recipe, journal, adapter, checkpoints and log of one run each."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.recipe.resolved import ResolvedRecipe, resolved
from workbench.recipe.schema import Recipe
from workbench.recipe.text import to_yaml
from workbench.runs.history import read_history
from workbench.runs.journal import JournalReader
from workbench.runs.journal_sample import JournalSample, is_long, sample_journal
from workbench.runs.label import Label, read_label
from workbench.runs.replay import Replay, fold, read_on
from workbench.runs.run_recipe import read_run_recipe
from workbench.runs.summary import RunSummary
from workbench.runs.summary_cache import read_cached_summary, write_cached_summary
from workbench.storage.folders import entries
from workbench.storage.paths import Home


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run. The folder's name is the run's id."""

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
    def start(self) -> Path:
        """A copy of the adapter that the run started from; there is none if it started with a new one."""
        return self.path / "start"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """The adapter of the best evaluation so far, if the recipe asks to keep it."""
        return self.path / "best"

    @property
    def log(self) -> Path:
        """Everything that libraries printed during the run."""
        return self.path / "engine.log"

    @property
    def label(self) -> Label:
        """The user's name and tags for the run; read from disk each time."""
        return read_label(self.path)

    @property
    def name(self) -> str:
        """The name that the user gave it, else its id."""
        return self.label.name or self.id

    @property
    def title(self) -> str:
        """Name and id, as in ``Low rank (pirate-03)``; the id alone if it has no other name."""
        return f"{name} ({self.id})" if (name := self.label.name) else self.id

    @property
    def made(self) -> float:
        """Unix time of its creation; 0 if its recipe is missing."""
        try:
            return self.recipe_file.stat().st_mtime
        except OSError:
            return 0.0

    def recipe(self) -> Recipe:
        """The recipe the run was started with.

        Raises:
            WorkbenchError: the file is missing or not a valid recipe.
        """
        return read_run_recipe(self.recipe_file, self.journal)

    def recipe_as_run(self) -> ResolvedRecipe:
        """The recipe with each ``auto`` setting replaced by the value that the run chose, from its journal.

        Raises:
            WorkbenchError: as :meth:`recipe`, or the chosen values are not valid.
        """
        recipe = self.recipe()
        return resolved(recipe, read_history(self.journal, 0).chosen)


def create_run(home: Home, recipe: Recipe) -> RunFolder:
    """Create the folder ``<output.name>-<NN>`` with the recipe in it; safe against other processes doing the same.

    Raises:
        WorkbenchError: the folder cannot be created.
    """
    parent = _parent(home, recipe)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        # Ids are unique in the home, also those of runs whose folder is outside it.
        home.runs.mkdir(parents=True, exist_ok=True)
        number = _next_number(home, recipe, parent)
        while True:
            path = parent / f"{recipe.output.name}-{number:02d}"
            try:
                path.mkdir()
            except FileExistsError:
                number += 1
                continue
            # A run may have been deleted meanwhile; restoring it needs its old id.
            if path.name not in _trashed(home):
                break
            path.rmdir()
            number += 1
        run = RunFolder(path)
        run.recipe_file.write_text(to_yaml(recipe), encoding="utf-8")
        if not parent.samefile(home.runs):
            _link_into_home(home, run)
    except OSError as error:
        raise WorkbenchError(
            f"Cannot create a run folder in {parent}: {error.strerror or error}.",
            "Free some disk space, or set output.dir to a writable folder.",
            kind="disk",
        ) from None
    return run


def next_run_id(home: Home, recipe: Recipe) -> str:
    """The id that :func:`create_run` would give a run of this recipe now."""
    return f"{recipe.output.name}-{_next_number(home, recipe, _parent(home, recipe)):02d}"


def _parent(home: Home, recipe: Recipe) -> Path:
    return Path(recipe.output.dir).expanduser().absolute() if recipe.output.dir else home.runs


def _next_number(home: Home, recipe: Recipe, parent: Path) -> int:
    numbered = re.compile(re.escape(recipe.output.name) + r"-(\d+)")
    names = {entry.name for folder in (parent, home.runs) for entry in entries(folder)}
    names |= _trashed(home) | {run.label.name for run in all_runs(home)}
    return max((int(match[1]) for name in names if (match := numbered.fullmatch(name))), default=0) + 1


def _trashed(home: Home) -> set[str]:
    return {entry.name for entry in entries(home.trash)}


def _link_into_home(home: Home, run: RunFolder) -> None:
    """Link a run outside the home into it, so that the list of runs and ids include it."""
    (home.runs / run.id).symlink_to(run.path, target_is_directory=True)


def all_runs(home: Home) -> list[RunFolder]:
    """Every run of this home, newest first."""
    # A folder without a recipe is not a run, or was deleted just now.
    made = [(run.made, run) for run in map(RunFolder, entries(home.runs))]
    return [run for at, run in sorted(made, key=lambda pair: pair[0], reverse=True) if at]


def find_run(home: Home, name: str) -> RunFolder:
    """Find a run by id, by name, by a unique prefix of either, or by folder.

    Raises:
        WorkbenchError: no run matches, or several do.
    """
    folder = Path(name).expanduser()
    if os.sep in name and (folder / "recipe.yaml").is_file():
        return RunFolder(folder.absolute())
    runs = all_runs(home)
    if exact := [run for run in runs if run.id == name]:
        return exact[0]
    named = [run for run in runs if name and run.name == name]
    matching = named or [run for run in runs if name and (run.id.startswith(name) or run.name.startswith(name))]
    if len(matching) == 1:
        return matching[0]
    if matching:
        some = ", ".join(run.id for run in matching[:6])
        raise WorkbenchError(
            f"{name} matches {len(matching)} runs: {some}.", "Give more of the id.", kind="run_ambiguous"
        )
    if (folder / "recipe.yaml").is_file():
        return RunFolder(folder.absolute())
    raise WorkbenchError(
        f"There is no run {name} in {home.runs}.", "`loraworkbench runs` lists them.", kind="run_not_found"
    )


# A journal of fewer bytes is read faster than its cached summary.
_NOT_WORTH_CACHING = 1 << 15


def summarise(run: RunFolder, *, quick: bool = False, sample: JournalSample | None = None) -> RunSummary:
    """Summarize a run from its journal; only the part after the cached summary is read.

    Args:
        quick: of a long unread part, read only the beginning and the end; the summary is then partial.
        sample: a sample of the journal to use for a quick summary; None to take one.
    """
    summary, known = read_cached_summary(run.journal)
    replay = Replay(run.id, summary=summary)
    if quick and is_long(run.journal, known):
        sample = sample or sample_journal(run.journal, places=0)
        fold(sample.head if not known else (), replay)
        replay.skip_middle()
        fold(sample.tail, replay)
        reader = JournalReader(run.journal, sample.end)
    else:
        reader = JournalReader(run.journal, known)
        read_on(reader, replay)
        if reader.offset - known > _NOT_WORTH_CACHING:
            write_cached_summary(run.journal, summary, reader.offset)
    summary.settle(lambda: read_on(reader, replay))
    return summary
