"""Another tool's settings on their way to a recipe: what was understood, and what a recipe does not have."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from workbench.errors import Problem, WorkbenchError
from workbench.export.other_tools.optimizers import our_optimizer
from workbench.objectives.objective import Objective, OtherTool
from workbench.objectives.table import OBJECTIVES
from workbench.recipe.fields import setting_of
from workbench.recipe.optimizers import OPTIMIZERS, lacking_package
from workbench.recipe.schema import Recipe
from workbench.recipe.text import RecipeError, parse_usable
from workbench.recipe.trackers import REPORTERS

_SCIENTIFIC = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
_NOTHING: tuple[object, ...] = (None, False, "", [], {})


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

    def has(self, key: str) -> bool:
        """Whether the file sets a setting."""
        return self._values.get(key) is not None

    def move(self, names: Mapping[str, str]) -> None:
        """Copy the settings that a recipe has under another name: ``{their name: dotted key}``."""
        for theirs, path in names.items():
            value = self.take(theirs)
            if value is not None:
                self.recipe[path] = _as_allowed(path, value)
                self._names[path] = theirs

    def ignore(self, keys: Iterable[str]) -> None:
        """Mark settings as understood that have no effect on a recipe."""
        self._seen.update(keys)

    def lack(self, key: str, value: object, instead: str = "") -> None:
        """List a setting that a recipe does not have, with what is done instead."""
        self._seen.add(key)
        self.unsupported.append(f"{key}: {short(value)}" + (f"; {instead}" if instead else ""))

    def default(self, values: Mapping[str, object]) -> None:
        """Fill in what the file leaves out: the tool's own defaults, by dotted key."""
        for path, value in values.items():
            self.recipe.setdefault(path, value)

    def refuse(
        self, keys: Iterable[str], origin: str, way: str, does: str = "trains in a way that a recipe does not have"
    ) -> None:
        """Refuse a file in which one of these settings is on: each of them does something else than train an adapter.

        Args:
            way: what to do about it.
            does: what the file does, as the rest of a sentence.

        Raises:
            WorkbenchError: with the name of the setting.
        """
        for key in keys:
            if (value := self._values.get(key)) not in _NOTHING:
                raise WorkbenchError(f"{origin} {does} ({key}: {short(value)}).", way, kind="recipe")

    # -- settings that several tools share -----------------------------------------------------------------------

    def take_optimizer(self, key: str) -> None:
        """Take the optimizer; one that a recipe does not have is listed with the nearest one."""
        if (name := self.take(key)) is None:
            return
        ours, is_same = our_optimizer(str(name))
        self.recipe["training.optim"] = ours
        self._names["training.optim"] = key
        if not is_same:
            known = OPTIMIZERS.get(str(name).strip().lower())
            package = lacking_package(known.name) if known is not None else None
            why = f"{package.distribution} is not installed, so " if package is not None else ""
            self.lack(key, name, f"{why}the recipe has {ours}, the nearest one")

    def take_schedule(self, key: str, options: str) -> None:
        """Take the learning rate schedule, its arguments and the warm-up, by transformers' names."""
        self.move({key: "training.lr_scheduler_type", "warmup_ratio": "training.warmup_ratio"})
        kept, theirs = {}, self.take(options, {})
        for name, value in (theirs if isinstance(theirs, dict) else {}).items():
            if isinstance(value, bool | int | float | str):
                kept[str(name)] = _number(value)
            elif value is not None:
                self.lack(f"{options}: {name}", value)
        if kept:
            self.recipe["training.lr_scheduler_kwargs"] = kept
        steps = self.take("warmup_steps")
        if isinstance(steps, int | float) and steps:
            # They are taken before the ratio; below 1 they are one.
            if steps < 1:
                self.recipe["training.warmup_ratio"] = steps
            else:
                self.recipe["training.warmup_steps"] = int(steps)
                self._names["training.warmup_steps"] = "warmup_steps"

    def take_noise(self, *keys: str) -> None:
        """Take NEFTune's noise, which the objectives that compare responses cannot have here."""
        for key in keys:
            if not (value := self.take(key)):
                continue
            if self.recipe.get("objective.kind", "sft") == "sft":
                self.recipe["training.neftune_noise_alpha"] = _as_allowed("training.neftune_noise_alpha", value)
                self._names["training.neftune_noise_alpha"] = key
            else:
                self.lack(key, value, "responses that are compared get no noise")

    def take_smoothing(self, key: str) -> None:
        """Take the smoothing of targets, which transformers has for supervised training and classification."""
        if value := self.take(key):
            if OBJECTIVES[str(self.recipe.get("objective.kind", "sft"))].is_preference:
                self.lack(key, value, "responses that are compared have no targets to smooth")
            else:
                self.recipe["objective.label_smoothing"] = value
                self._names["objective.label_smoothing"] = key

    def take_grouping(self) -> None:
        """Take the order by length, which has another name since transformers 5; another order is listed."""
        strategy = self.take("train_sampling_strategy", "random")
        if strategy not in ("random", "group_by_length"):
            self.lack("train_sampling_strategy", strategy, "records come in random order")
        if not (self.take("group_by_length") or strategy == "group_by_length"):
            return
        if self.recipe.get("data.packing"):
            self.lack("group_by_length", True, "packed sequences have one length")
        elif self.recipe.get("objective.kind") == "kto":
            self.lack("group_by_length", True, "kto compares each response with the one before it")
        else:
            self.recipe["training.group_by_length"] = True
            self._names["training.group_by_length"] = "group_by_length"

    def take_reporters(self, key: str) -> None:
        """Take the trackers that the metrics are logged to; all and none are words of transformers."""
        names = listed(self.take(key, []))
        self.recipe["training.report_to"] = [name for name in names if name in REPORTERS]
        if others := [name for name in names if name not in REPORTERS and name != "none"]:
            self.lack(key, others if len(others) > 1 else others[0])

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
                f"{self._names.get(size, size)}: 1; {objective.kind} compares the responses of a micro-batch: "
                f"2 × {halved}"
            )

    def take_checkpoints(self) -> None:
        """Take how often checkpoints are saved, and which adapter is kept, from transformers' names."""
        if self.take("save_strategy") == "no":
            self.ignore(["save_steps"])
            self.recipe["training.save_steps"] = 0
        else:
            self.take_interval("save_steps", "training.save_steps")
        metric = self.take("metric_for_best_model", "eval_loss")
        self.ignore(["greater_is_better"])
        if self.take("load_best_model_at_end"):
            if metric in ("eval_loss", "loss"):
                self.recipe["training.keep"] = "best"
            else:
                self.lack("metric_for_best_model", metric)

    def take_interval(self, key: str, path: str) -> None:
        """Take a number of steps; a share of all steps, which transformers allows, is listed."""
        value = self.take(key)
        if isinstance(value, float) and 0 < value < 1:
            self.lack(key, value, "a recipe has steps, not a share of them")
        elif value is not None:
            self.move({key: path})

    def take_held_out_share(self, key: str) -> None:
        """Take how much is held out: a share, or from 1 on a number of records."""
        size = self.take(key, 0.0)
        share = float(size) if isinstance(size, int | float | str) and str(size).replace(".", "", 1).isdigit() else size
        if isinstance(share, float) and share >= 1:
            self.recipe |= {"data.eval_fraction": 0.0, "data.eval_records": int(share)}
            self._names["data.eval_records"] = key
            return
        self.recipe["data.eval_fraction"] = share
        self._names["data.eval_fraction"] = key

    # -- data ----------------------------------------------------------------------------------------------------

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

    # -- the recipe ----------------------------------------------------------------------------------------------

    def finish(self, origin: str, data_key: str) -> tuple[Recipe, list[str]]:
        """Make the recipe; returns it with the list of unsupported settings.

        A choice that a recipe does not have, such as another schedule, is listed with what the recipe has instead.

        Args:
            data_key: their setting that names the data.

        Raises:
            WorkbenchError: the file names no data, and a recipe never trains on other data than the file's.
            RecipeError: some values are mistakes; the error lists all of them by their names in the file.
        """
        rest = [
            f"{key}: {short(value)}"
            for key, value in self._values.items()
            if key not in self._seen and value not in _NOTHING
        ]
        recipe, problems = parse_usable(_in_sections(self.recipe))
        if not all(self._is_unknown_choice(problem.path) for problem in problems):
            raise RecipeError([self._as_written(problem) for problem in problems], origin)
        if not self.recipe.get("data.source"):
            raise WorkbenchError(
                f"{origin} names no data to train on ({data_key}).", f"Set {data_key} in it.", kind="recipe"
            )
        choices = [
            f"{self._as_written(problem).path}: {short(self.recipe[problem.path])}; "
            f"the recipe has {recipe.get(problem.path)}"
            for problem in problems
        ]
        return recipe, self.unsupported + choices + rest

    def _is_unknown_choice(self, path: str) -> bool:
        """Whether the value is a word where a recipe allows certain words only."""
        return isinstance(self.recipe.get(path), str) and bool(setting_of(path).choices)

    def _as_written(self, problem: Problem) -> Problem:
        return replace(problem, path=self._names.get(problem.path, problem.path))


def listed(value: object) -> list[str]:
    """A setting that is one text or several, as a list without empty ones."""
    return [str(name) for name in (value if isinstance(value, list) else [value]) if name]


def weighted(sources: Sequence[Mapping[str, object]], weights: Sequence[str]) -> list[dict[str, object]]:
    """Sources with their weights: 1 where there is none, and a text that is no number as it is."""
    return [{**one, "weight": _weight(weights[n]) if n < len(weights) else 1.0} for n, one in enumerate(sources)]


def _weight(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text


def short(value: object) -> str:
    """A value as Python writes it, on one line and shortened."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:79] + "…"


def _in_sections(values: Mapping[str, object]) -> dict[str, dict[str, object]]:
    sections: dict[str, dict[str, object]] = {}
    for path, value in values.items():
        section, _, name = path.partition(".")
        sections.setdefault(section, {})[name] = value
    return sections


def _as_allowed(path: str, value: object) -> object:
    """A whole number that is written as ``8.0`` where a recipe has whole numbers."""
    is_whole = isinstance(value, float) and value.is_integer()
    return int(value) if isinstance(value, float) and is_whole and setting_of(path).kind == "integer" else value


def _number(value: object) -> object:
    """Convert numbers such as ``2e-4``, which YAML 1.1 reads as text."""
    return float(value) if isinstance(value, str) and _SCIENTIFIC.fullmatch(value) else value
