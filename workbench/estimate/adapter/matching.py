"""Which names of modules a setting of an adapter means, by PEFT's rules."""

import re
from collections.abc import Callable

from workbench.adapters.settings import AdapterSettings, compiled

_FIRST_INDEX = re.compile(r".*?\.[^.]*\.(\d+)\.")

Groups = tuple[tuple[str, int | None], ...]
"""Patterns of ``rank_pattern``, each with the group of its rank; None for the usual rank."""


def group_finder(groups: Groups) -> Callable[[str], int | None]:
    """A function from the name of a module to the group of its rank; None for the usual rank."""
    compiled_rules = [(compiled(rf"(.*\.)?({pattern})$", "adapter.rank_pattern"), group) for pattern, group in groups]

    def group_of(name: str) -> int | None:
        return next((group for pattern, group in compiled_rules if pattern.match(name)), None)

    return group_of


def matcher(settings: AdapterSettings, names: str | frozenset[str]) -> Callable[[str], bool]:
    """PEFT's ``check_target_module_exists`` for one adapter."""
    excluded = _excluder(settings)
    if isinstance(names, str):
        regex = compiled(names, "adapter.target_modules")
        return lambda key: regex.fullmatch(key) is not None and not excluded(key)
    # Full names, as all-linear yields them, need no search for endings, and there can be hundreds of them.
    is_spelled_out = settings.is_all_linear and all("." in name for name in names)
    suffixes = () if is_spelled_out else tuple(f".{name}" for name in names)
    layers = frozenset(settings.layers_to_transform or ())
    indices = [compiled(rf"(?:^|.*?\.){p}\.(\d+)\.", "layers_pattern") for p in settings.layers_pattern]

    def matches(key: str) -> bool:
        if key in names:
            return not excluded(key)
        if not suffixes or not key.endswith(suffixes) or excluded(key):
            return False
        if not layers:
            return True
        found = next((match for index in indices or [_FIRST_INDEX] if (match := index.match(key))), None)
        return found is not None and int(found.group(1)) in layers

    return matches


def _excluder(settings: AdapterSettings) -> Callable[[str], bool]:
    saved = [compiled(rf"(^|.*\.){name}($|\..*)", "adapter.modules_to_save") for name in settings.modules_to_save]
    excluded = settings.exclude_modules
    regex = compiled(excluded, "exclude_modules") if isinstance(excluded, str) and excluded else None
    names = frozenset(excluded) if not isinstance(excluded, str) else frozenset()
    suffixes = tuple(f".{name}" for name in names)

    def is_excluded(key: str) -> bool:
        if regex is not None and regex.fullmatch(key):
            return True
        if names and (key in names or key.endswith(suffixes)):
            return True
        return any(pattern.match(key) for pattern in saved)

    return is_excluded
