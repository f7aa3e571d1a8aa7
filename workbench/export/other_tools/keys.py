"""Helpers to convert between recipes and other tools' configurations: settings by name, and what is unsupported."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from workbench.errors import Problem, WorkbenchError
from workbench.objectives.objective import Objective, OtherTool
from workbench.recipe.fields import setting_of
from workbench.recipe.schema import Recipe, known_paths
from workbench.recipe.sections.training import TrainingSection
from workbench.recipe.text import RecipeError, as_yaml, parse_usable

_SCIENTIFIC = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
_MAX_CHARACTERS = 1_000_000


class ImportedSettings:
    """Another tool's settings while they are converted to a recipe.

    ``recipe`` collects the values by dotted key. ``unsupported`` collects what a recipe cannot express, as text for the
    user; settings that are never taken or ignored are added at the end.
    """

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = {str(key): _number(value) for key, value in values.items()}
        self._seen: set[str] = set()
        # Their name of each dotted key that was copied as it is.
        self._names: dict[str, str] = {}
        self.recipe: dict[str, object] = {}
        self.unsupported: list[str] = []

    def take(self, key: str, default: object = None) -> object:
        """Return a setting's value and mark it as understood."""
        self._seen.add(key)
        value = self._values.get(key)
        return default if value is None else value

    def move(self, names: Mapping[str, str]) -> None:
        """Copy the settings that a recipe has under another name: ``{their name: dotted key}``."""
        for theirs, path in names.items():
            value = self.take(theirs)
            if value is not None:
                self.recipe[path] = value
                self._names[path] = theirs

    def ignore(self, keys: Iterable[str]) -> None:
        """Mark settings as understood that have no effect on a recipe."""
        self._seen.update(keys)

    def take_warmup(self) -> None:
        """Take a warm-up in steps: as a share of the run where its length is known, else as unsupported."""
        steps, total = self.take("warmup_steps"), self._values.get("max_steps")
        if not isinstance(steps, int | float) or not steps:
            return
        if steps < 1:
            self.recipe["training.warmup_ratio"] = steps
        elif isinstance(total, int | float) and total > 0:
            self.recipe["training.warmup_ratio"] = min(1.0, steps / total)
        else:
            self.unsupported.append(f"warmup_steps: {_short(steps)}; a recipe has warmup_ratio, a share of all steps")

    def take_objective(self, objective: Objective, other: OtherTool, choice: str) -> None:
        """Make the recipe one of preference training.

        Args:
            other: how the tool names the objective; ``choice`` is its value there.
        """
        self.recipe["objective.kind"] = objective.kind
        self.recipe |= {f"objective.{key}": value for key, value in other.choices[choice].items()}
        self.move({theirs: f"objective.{key}" for theirs, key in other.keys.items()})
        if other.note:
            self.unsupported.append(other.note)
        # Neither can be used with responses that are compared, and no tool does.
        self.recipe["data.completion_only"] = True
        if self.recipe.pop("data.packing", False):
            self.unsupported.append("packing: responses that are compared are not packed")
        size = "training.per_device_train_batch_size"
        if objective.records == "unpaired" and self.recipe.get(size) == 1:
            steps = self.recipe.get(path := "training.gradient_accumulation_steps", 1)
            halved = -(-steps // 2) if isinstance(steps, int) else steps
            self.recipe |= {size: 2, path: halved}
            self.unsupported.append(
                f"{self._names[size]}: 1; {objective.kind} compares the responses of a micro-batch: 2 × {halved}"
            )

    def take_checkpoints(self) -> None:
        """Take how often checkpoints are saved, and which adapter is kept, from transformers' names."""
        if self.take("save_strategy") == "no":
            self.ignore(["save_steps"])
            self.recipe["training.save_steps"] = 0
        else:
            self.move({"save_steps": "training.save_steps"})
        metric = self.take("metric_for_best_model", "eval_loss")
        self.ignore(["greater_is_better"])
        if self.take("load_best_model_at_end"):
            if metric in ("eval_loss", "loss"):
                self.recipe["training.keep"] = "best"
            else:
                self.unsupported.append(f"metric_for_best_model: {_short(metric)}")

    def set_sources(
        self, entries: Sequence[Mapping[str, object]], stopping: str = "all_exhausted_without_replacement"
    ) -> None:
        """Set ``data.source``: joined as text if no entry has more than a name, else as a list.

        Args:
            entries: fields of :class:`~workbench.recipe.sections.data_source.SourceEntry`.
            stopping: how a list is interleaved.
        """
        if len(entries) == 1:
            (entry,) = entries
            self.recipe |= {f"data.{name}": value for name, value in entry.items() if name != "weight"}
        elif entries and all(entry.keys() == {"source"} for entry in entries):
            self.recipe["data.source"] = " + ".join(str(entry["source"]) for entry in entries)
        elif entries:
            self.recipe |= {"data.source": [dict(entry) for entry in entries], "data.stopping": stopping}

    def check_held_out(self, held_out: Iterable[object], trained: Iterable[object]) -> None:
        """List held-out files as unsupported whose names the workbench would not find next to the training files."""
        found_by_name = {f"{path.stem}.eval{path.suffix}" for path in map(Path, map(str, trained))}
        self.unsupported += [
            f"held-out records {name!r}: name the file like the training file, with .eval before the extension"
            for name in map(str, held_out)
            if Path(name).name not in found_by_name
        ]

    def finish(self, origin: str) -> tuple[Recipe, list[str]]:
        """Make the recipe; returns it with the list of unsupported settings.

        A choice that a recipe does not have, such as another optimizer, is listed with what the recipe has instead.

        Raises:
            RecipeError: some values are mistakes; the error lists all of them by their names in the file.
        """
        if not self.recipe.get("data.source"):
            self.unsupported.append(
                f"a recipe without a dataset; this one has the bundled {Recipe().data.source}, so set data.source"
            )
        rest = [
            f"{key}: {_short(value)}"
            for key, value in self._values.items()
            if key not in self._seen and value not in (None, False, "", [], {})
        ]
        recipe, problems = parse_usable(_in_sections(self.recipe))
        if not all(self._is_unknown_choice(problem.path) for problem in problems):
            raise RecipeError([self._as_written(problem) for problem in problems], origin)
        choices = [
            f"{self._as_written(problem).path}: {_short(self.recipe[problem.path])}; "
            f"the recipe has {recipe.get(problem.path)}"
            for problem in problems
        ]
        return recipe, self.unsupported + choices + rest

    def _is_unknown_choice(self, path: str) -> bool:
        """Whether the value is a word where a recipe allows certain words only."""
        return isinstance(self.recipe.get(path), str) and bool(setting_of(path).choices)

    def _as_written(self, problem: Problem) -> Problem:
        return replace(problem, path=self._names.get(problem.path, problem.path))


def _in_sections(values: Mapping[str, object]) -> dict[str, dict[str, object]]:
    sections: dict[str, dict[str, object]] = {}
    for path, value in values.items():
        section, _, name = path.partition(".")
        sections.setdefault(section, {})[name] = value
    return sections


def checkpoint_settings(training: TrainingSection) -> tuple[dict[str, object], list[str]]:
    """How often checkpoints are saved and which is kept, by transformers' names; also lists what differs.

    transformers' early stopping, and its choice of the best adapter, need each checkpoint to be at an evaluation.
    """
    every, save = training.eval_steps, training.save_steps
    keeps_best = training.keep == "best" and every > 0
    if not save:
        return {"save_strategy": "no"}, ["training.keep: 'best'; no checkpoints are saved"] if keeps_best else []
    at_evaluation = -(-save // every) * every if every and (keeps_best or training.early_stopping_patience) else save
    differs = (
        [f"training.save_steps: {save}; {at_evaluation}, a multiple of eval_steps"] if at_evaluation != save else []
    )
    saving: dict[str, object] = {"save_steps": at_evaluation}
    if keeps_best:
        saving["load_best_model_at_end"] = True
    return saving, differs


def unsupported_settings(recipe: Recipe, understood: Iterable[str]) -> list[str]:
    """The settings of a recipe that differ from their defaults and that the other tool does not understand."""
    default, known = Recipe(), set(understood)
    return [
        f"{path}: {_short(recipe.get(path))}"
        for path in known_paths()
        if path not in known and recipe.get(path) != default.get(path)
    ]


def read_settings(file: Path) -> dict[str, object]:
    """Read another tool's YAML file.

    Raises:
        WorkbenchError: the file cannot be read, or is not a mapping of settings.
    """
    try:
        with file.open(encoding="utf-8-sig") as stream:
            text = stream.read(_MAX_CHARACTERS + 1)
        if len(text) > _MAX_CHARACTERS:
            raise ValueError("it is too large for a configuration")
        values = yaml.safe_load(text)
        if not isinstance(values, dict):
            raise ValueError("it has no settings")
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WorkbenchError(
            f"{file} cannot be read: {reason}.", "Give an Axolotl or LLaMA-Factory YAML file.", kind="recipe"
        ) from None
    return {str(key): value for key, value in values.items()}


def resolve_path(source: str, folder: Path) -> str:
    """Resolve a path relative to ``folder`` if it exists; return anything else, such as a hub id, unchanged."""
    path = Path(source).expanduser()
    beside = path if path.is_absolute() else folder / path
    return str(beside.resolve()) if beside.exists() else source


def to_yaml(values: Mapping[str, object], about: str) -> str:
    """Write settings as YAML, with ``about`` as a comment in the first line."""
    return f"# {about}\n" + as_yaml(values)


def _number(value: object) -> object:
    """Convert numbers such as ``2e-4``, which YAML 1.1 reads as text."""
    return float(value) if isinstance(value, str) and _SCIENTIFIC.fullmatch(value) else value


def _short(value: object) -> str:

    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:79] + "…"
