"""Checks what a command printed as JSON against docs/cli.md, or rather the types that the page is made from."""

import json
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator
from typer.main import get_command


@cache
def json_commands() -> frozenset[str]:
    """The words of every command that has ``--json``."""
    from workbench.commands.app import app

    def found(command: Any, path: tuple[str, ...]) -> Iterator[str]:
        if any("--json" in parameter.opts for parameter in command.params):
            yield " ".join(path)
        for name, inner in getattr(command, "commands", {}).items():
            yield from found(inner, (*path, name))

    return frozenset(found(get_command(app), ()))


def assert_documented(words: Sequence[object], printed: str) -> None:
    """Every line is one of the output's documented kinds, with all of its keys and no other.

    Args:
        words: of the call, without the program's name and ``--home``.
    """
    line = [str(word) for word in words]
    command = next(name for end in (2, 1) if (name := " ".join(line[:end])) in json_commands())
    arguments = line[len(command.split()) :]
    options = [word for word in arguments if word.startswith("--")]
    if command == "presets" and any(not word.startswith("-") for word in arguments):
        options.append("NAME")
    validator = _validator(command, tuple(options))
    for text in printed.splitlines():
        value = json.loads(text)
        problems = [error for option in validator for error in [next(option.iter_errors(value), None)]]
        assert None in problems, f"{command} printed {text[:300]}: {[str(error.message)[:300] for error in problems]}"


@cache
def _validator(command: str, options: tuple[str, ...]) -> list[Any]:
    from workbench.commands.json_outputs.outputs import output_of
    from workbench.commands.json_outputs.schema import schemas

    return [Draft202012Validator(schema) for schema in schemas(output_of(command, options))]
