"""Finds the command of ms-swift in a shell script, and its arguments."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from workbench.errors import WorkbenchError
from workbench.export.other_tools.from_swift import from_swift
from workbench.export.other_tools.keys import read_settings, read_text
from workbench.export.other_tools.shell import Command, commands
from workbench.recipe.schema import Recipe

SUFFIXES = (".sh", ".bash")
_TRAINING = ("sft", "pt", "rlhf")
_FILES = (".yaml", ".yml", ".json")


def from_script(file: Path) -> tuple[Recipe, list[str]]:
    """Convert the first training command of a script; also lists what a recipe does not support, and other commands.

    Raises:
        WorkbenchError: it has no such command, which trains an adapter.
    """
    found = [(name, words, command) for command in commands(read_text(file)) for name, words in [_swift(command)]]
    trained = [one for one in found if one[0] in _TRAINING]
    if not trained:
        others = sorted((name for name, _, _ in found if name), key=lambda name: not name.startswith("megatron "))
        other = others[0] if others else ""
        raise WorkbenchError(
            f"{file} trains with Megatron ({other}), whose arguments are others."
            if other.startswith("megatron ")
            else f"{file} has no command that trains with ms-swift"
            + (f" (swift {other})." if other else " (swift sft, swift pt, swift rlhf)."),
            "Give a script with swift sft, swift pt or swift rlhf.",
            kind="recipe",
        )
    name, words, command = trained[0]
    values = _arguments(words, file)
    gpus = command.environment.get("NPROC_PER_NODE", "1")
    count = int(gpus) if gpus.isdecimal() else 1
    recipe, unsupported = from_swift(values, file.resolve().parent, str(file), name, max(count, 1))
    if len(trained) > 1:
        unsupported.append(f"swift {trained[1][0]}: the first command is imported; the script has {len(trained)}")
    return recipe, unsupported


def _swift(command: Command) -> tuple[str, Sequence[str]]:
    """What of ms-swift a command runs, and its arguments; an empty name if it is another program."""
    words = command.words
    first_option = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    for place, word in enumerate(words):
        path = word.replace(".", "/") if word.startswith("swift.cli.") else word.removesuffix(".py")
        if "swift/cli/" in path:
            name = path.rpartition("/")[2].removeprefix("_")
            return ("megatron " if "/_megatron/" in path else "") + name, words[place + 1 :]
        if place < first_option and path.rpartition("/")[2] in ("swift", "megatron") and place + 1 < len(words):
            prefix = "megatron " if path.endswith("megatron") else ""
            return prefix + words[place + 1], words[place + 2 :]
    return "", ()


def _arguments(words: Sequence[str], file: Path) -> dict[str, object]:
    """The arguments of a command, by name; those of a file that it is given come first."""
    values: dict[str, object] = {}
    rest = list(words)
    if rest and rest[0].endswith(_FILES):
        values |= _file_of_arguments(rest[0], file)
        rest = rest[1:]
    key, listed = "", []
    for word in [*rest, "--"]:
        if not word.startswith("--"):
            listed.append(_value(word))
            continue
        if key:
            values[key] = True if not listed else listed[0] if len(listed) == 1 else listed
        key, mark, value = word[2:].partition("=")
        listed = [_value(value)] if mark else []
    return values


def _file_of_arguments(name: str, script: Path) -> Mapping[str, object]:
    """The arguments of a file, which is looked for from the script's folder upwards, as ms-swift's examples have it."""
    for base in (script.resolve().parent, *script.resolve().parents, Path.cwd()):
        if (base / name).is_file():
            return read_settings(base / name)
    raise WorkbenchError(
        f"{script} takes its arguments from {name}, which is not here.", f"Import {name} itself.", kind="recipe"
    )


def _value(word: str) -> object:
    """A word as the number, truth value or JSON that it stands for; else as text."""
    try:
        value: object = json.loads(word) if word[:1] in ("{", "[") else yaml.safe_load(word)
    except (ValueError, yaml.YAMLError, RecursionError):
        return word
    return value if isinstance(value, bool | int | float | dict | list) else word
