"""The lines of a form as data: for each setting, what the arrows and typed text change in the recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from workbench.recipe.fields import Setting, setting_of
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.section import AUTO

if TYPE_CHECKING:
    from screens.widgets.path_completion import PathKind
    from workbench.models.skeleton import Module, Skeleton

Changes = Mapping[str, Any]
Shape = Literal["steps", "choice", "switch", "cycle", "text"]
"""``steps``: a number with values for the arrows; ``choice``: a few, all shown; ``cycle``: more than fit in a line."""


@dataclass(frozen=True)
class Option:
    """One value of a setting, as the dotted changes that set it."""

    label: str
    changes: Changes

    def is_set(self, recipe: Recipe) -> bool:
        return all(_holds(recipe, path, value) for path, value in self.changes.items())


@dataclass(frozen=True)
class SettingSpec:
    """One line of the form.

    Attributes:
        path: the key whose help is shown and whose mistakes are shown here.
        options: the values for the arrows; may depend on the model.
        value: the text in the field before anything is typed.
        parse: turns typed text into changes; None if nothing can be typed.
        note: a consequence of the value, shown behind it.
        tree_note: the same, where it depends on the model's module tree too.
        lacking: what has to be installed before the value can be used, shown first in the help.
        summary: shown in place of a long value while it is not edited; empty: the value itself.
        paths: what is completed while a path is typed; None if the value is no path.
        unit_step: whether Shift and an arrow change the value by one.
        is_list_of_numbers: whether numbers are typed, though the arrows choose among a few.
        also: other keys that the line sets.
    """

    label: str
    path: str
    shape: Shape
    options: Callable[[Skeleton | None], Sequence[Option]]
    value: Callable[[Recipe], str]
    parse: Callable[[str], Changes] | None = None
    note: Callable[[Recipe], str] = lambda _: ""
    unit_step: bool = False
    lacking: Callable[[Recipe], str] = lambda _: ""
    summary: Callable[[Recipe], str] = lambda _: ""
    paths: PathKind | None = None
    is_list_of_numbers: bool = False
    also: tuple[str, ...] = ()
    tree_note: Callable[[Recipe, Skeleton], str] | None = None

    @property
    def takes_digits(self) -> bool:
        """Whether a digit is typed into it; elsewhere it opens a tab."""
        return self.shape == "steps" or self.is_list_of_numbers

    @property
    def setting(self) -> Setting:
        return known_setting(self.path)

    def is_default(self, recipe: Recipe) -> bool:
        """Whether the recipe has the default at every key that the line sets."""
        return all(_is_default(recipe, path) for path in (self.path, *self.also))

    def note_for(self, recipe: Recipe, skeleton: Skeleton | None) -> str:
        """Return the note on a recipe and its model's tree, if that is known."""
        if self.tree_note is None:
            return self.note(recipe)
        return self.tree_note(recipe, skeleton) if skeleton is not None else ""

    def stepped(self, recipe: Recipe, skeleton: Skeleton | None, by: int) -> Changes:
        """Return the changes that an arrow makes; empty at the last value or without options."""
        options = self.options(skeleton)
        if not options:
            return {}
        if self.shape == "steps":
            return self._next_step(options, recipe, by)
        here = next((index for index, option in enumerate(options) if option.is_set(recipe)), None)
        if here is None:
            return options[0 if by > 0 else -1].changes
        if self.shape == "switch":
            return options[1 - here].changes
        return options[here + by].changes if 0 <= here + by < len(options) else {}

    def nudged(self, recipe: Recipe, by: int) -> Changes:
        """Return the changes for one more or one less."""
        now = recipe.get(self.path)
        return {self.path: now + by} if self.unit_step and now != AUTO else {}

    def _next_step(self, options: Sequence[Option], recipe: Recipe, by: int) -> Changes:
        now = recipe.get(self.path)
        values = [option for option in options if option.changes.get(self.path) not in (None, AUTO)]
        if now == AUTO:
            return values[0].changes if by > 0 else {}
        beyond = [option for option in values if (option.changes[self.path] - now) * by > 0]
        if beyond:
            return (beyond[0] if by > 0 else beyond[-1]).changes
        # Left of the smallest value is auto, if the setting has it.
        return next((option.changes for option in options if by < 0 and option.changes.get(self.path) == AUTO), {})


@dataclass(frozen=True)
class SettingGroup:
    """Settings under one heading. ``is_folded``: only the heading is shown at first."""

    title: str
    settings: tuple[SettingSpec, ...]
    is_folded: bool = False


@cache
def known_setting(path: str) -> Setting:
    """:func:`workbench.recipe.fields.setting_of`, which builds a schema at each call."""
    return setting_of(path)


def _holds(recipe: Recipe, path: str, value: Any) -> bool:
    if path == "adapter.lora_alpha" and (value is None or recipe.adapter.alpha_is_linked):
        return value is None and recipe.adapter.alpha_is_linked
    return bool(recipe.get(path) == value)


def _is_default(recipe: Recipe, path: str) -> bool:
    if path == "adapter.lora_alpha":
        return recipe.adapter.alpha_is_linked
    return bool(recipe.get(path) == known_setting(path).default)


def set_value(recipe: Recipe, path: str) -> Any:
    """Return what to set at a key to get a recipe's value again: None for a linked alpha."""
    return None if path == "adapter.lora_alpha" and recipe.adapter.alpha_is_linked else recipe.get(path)


def number_text(value: float) -> str:
    """Return a short text: ``0.0002`` → ``2e-4``, ``16`` → ``16``."""
    if isinstance(value, float) and 0 < abs(value) < 0.01:
        mantissa, _, exponent = f"{value:e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _step_text(value: float) -> str:
    """Return an even shorter text, as all steps share one line: ``4096`` → ``4k``."""
    return f"{value // 1024}k" if isinstance(value, int) and value >= 1024 and value % 1024 == 0 else number_text(value)


def number_setting(path: str, label: str, note: Callable[[Recipe], str] = lambda _: "") -> SettingSpec:
    setting = known_setting(path)
    whole = setting.kind == "integer"
    values = [int(step) if whole else step for step in setting.steps]
    options = [Option(_step_text(value), {path: value}) for value in values]

    def parse(text: str) -> Changes:
        return {path: typed_number(text, whole)}

    return SettingSpec(
        label, path, "steps", lambda _: options, lambda recipe: number_text(recipe.get(path)), parse, note, whole
    )


def typed_number(text: str, whole: bool) -> Any:
    """Parse a number; other text is returned as it is, so that the recipe says what is allowed."""
    try:
        return int(text) if whole else float(text)
    except ValueError:
        return text


def choice_setting(
    path: str, label: str, words: Mapping[Any, str] | None = None, shape: Shape = "choice"
) -> SettingSpec:
    values = list(words) if words else known_setting(path).choices
    options = [Option(words[value] if words else value, {path: value}) for value in values]
    return SettingSpec(label, path, shape, lambda _: options, lambda recipe: str(recipe.get(path)))


def switch_setting(path: str, label: str) -> SettingSpec:
    options = [Option("on", {path: True}), Option("off", {path: False})]
    return SettingSpec(label, path, "switch", lambda _: options, lambda recipe: str(recipe.get(path)))


def parse_targets(text: str) -> str | list[str]:
    """Parse targets: ``q_proj, v_proj`` becomes a list; ``all-linear`` and regular expressions stay text."""
    cleaned = text.strip()
    if "," in cleaned or cleaned.isidentifier():
        return [name.strip() for name in cleaned.split(",") if name.strip()]
    return cleaned


def ranges_text(numbers: Iterable[int]) -> str:
    """``0-3, 7`` for 0, 1, 2, 3, 7."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def parse_ranges(text: str) -> Any:
    """Parse ``0-3, 7`` into [0, 1, 2, 3, 7], and nothing into None; other text is returned as it is."""
    numbers: list[int] = []
    for part in text.replace("–", "-").split(","):
        if not part.strip():
            continue
        first, dash, last = part.strip().partition("-")
        try:
            numbers.extend(range(int(first), int(last) + 1) if dash else [int(first)])
        except ValueError:
            return text
    return sorted(set(numbers)) or None


def target_sets(skeleton: Skeleton | None) -> dict[str, str | list[str]]:
    """Return the usual targets of a model, smallest last: all-linear, its attention, its q and v."""
    sets: dict[str, str | list[str]] = {"all-linear": "all-linear"}
    attention = attention_names(skeleton.root) if skeleton else ["q_proj", "k_proj", "v_proj", "o_proj"]
    if attention:
        sets["attention"] = attention
    pair = [name for name in attention if name in ("q_proj", "v_proj", "query", "value")]
    fused = [name for name in attention if name in ("c_attn", "query_key_value", "qkv_proj")]
    if len(pair) == 2:
        sets["q,v"] = pair
    elif fused and fused != attention:
        sets[fused[0]] = fused
    return sets


def attention_names(module: Module) -> list[str]:
    """Return the last names of the linear layers in attention blocks, in the model's order, each once."""
    found: dict[str, None] = {}

    def look(module: Module, inside: bool) -> None:
        inside = inside or "attn" in module.name or "attention" in module.class_name.lower()
        if inside and module.kind in ("linear", "conv1d"):
            found[module.name] = None
        for child in module.children:
            look(child, inside)

    look(module, False)
    return list(found)


def layer_count(skeleton: Skeleton | None) -> int:
    """Return the number of layers: the length of the longest folded list."""
    if skeleton is None:
        return 0
    return max((len(module.indices) for _, module in skeleton.walk()), default=0)
