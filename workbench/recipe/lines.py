"""Checks the YAML text of a recipe and finds the line of each mistake."""

import re
from dataclasses import dataclass
from typing import Any

import yaml

from workbench.errors import Problem
from workbench.recipe.schema import Recipe
from workbench.recipe.text import RecipeError, as_yaml, from_yaml

_SYNTAX_ERROR = re.compile(r"line (\d+), column \d+")
ALL_DEFAULTS = "# Every setting has its default.\n"


@dataclass(frozen=True)
class Mistake:
    """A mistake and its line, counted from 1."""

    line: int
    problem: Problem

    def __str__(self) -> str:
        if _SYNTAX_ERROR.fullmatch(self.problem.path):
            return f"{self.problem.path}: {self.problem.given}"
        return f"line {self.line}: {self.problem}"


@dataclass(frozen=True)
class CheckedText:
    """The recipe that a text is, or None; and all mistakes, from the top."""

    recipe: Recipe | None
    mistakes: tuple[Mistake, ...] = ()


def check_text(text: str) -> CheckedText:
    """Read a recipe from YAML text, or find every mistake with its line."""
    try:
        return CheckedText(from_yaml(text))
    except RecipeError as error:
        lines = _lines_of_keys(text)
        mistakes = [Mistake(_line_of(problem.path, lines), problem) for problem in error.problems]
        return CheckedText(None, tuple(sorted(mistakes, key=lambda mistake: mistake.line)))


def changed_yaml(recipe: Recipe) -> str:
    """Write the settings of a recipe that are not at their defaults as YAML, which is read back as the same recipe."""
    defaults = Recipe().as_dict()
    changed: dict[str, Any] = {}
    for section, values in recipe.as_dict().items():
        usual = defaults.get(section, {})
        # Left out, alpha would be linked to the rank again: it is in the data only if it is set.
        own = {name: value for name, value in values.items() if name not in usual or value != usual[name]}
        if own:
            changed[section] = own
    return as_yaml(changed) if changed else ALL_DEFAULTS


def _lines_of_keys(text: str) -> dict[str, int]:
    """The lines of sections and dotted keys; none if the text is no YAML mapping."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return {}
    found: dict[str, int] = {}
    for section, values in _pairs(root):
        found[section.value] = section.start_mark.line + 1
        for key, _ in _pairs(values):
            found[f"{section.value}.{key.value}"] = key.start_mark.line + 1
    return found


def _pairs(node: yaml.Node | None) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return [(key, value) for key, value in pairs if isinstance(key, yaml.ScalarNode)]


def _line_of(path: str, lines: dict[str, int]) -> int:
    """The line of a dotted key; of its section if it is not in the text; else the first."""
    if syntax := _SYNTAX_ERROR.fullmatch(path):
        return int(syntax[1])
    return lines.get(path) or lines.get(path.partition(".")[0], 1)
