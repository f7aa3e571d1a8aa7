"""Finds the Python code that a model's repository asks for (``auto_map``), and refuses it until the user allows it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.recipe.sections.model import ModelSection

_FILES_WITH_CLASSES = ("config.json", "tokenizer_config.json")


@dataclass(frozen=True)
class RemoteCode:
    """The Python code that a model's files name.

    Attributes:
        files: Python files in the model's folder, sorted.
        repositories: other repositories of the hub that have more of it, sorted.
    """

    files: tuple[str, ...] = ()
    repositories: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.files or self.repositories)

    def __str__(self) -> str:
        places = [*self.files, *(f"code in the repository {name}" for name in self.repositories)]
        return ", ".join(places)

    def missing_in(self, folder: Path) -> tuple[str, ...]:
        """The files that a model's folder does not have."""
        return tuple(name for name in self.files if not (folder / name).is_file())

    @property
    def warning(self) -> str:
        """The sentence that tells a user that this code runs."""
        return f"model.trust_remote_code is on: the model's own Python code runs on this machine ({self})."


def remote_code(folder: Path) -> RemoteCode:
    """The code that the files of a model folder name; empty for most models."""
    files, repositories = set(), set()
    for name in _FILES_WITH_CLASSES:
        for reference in _references(_read(folder / name)):
            repository, _, place = reference.rpartition("--")
            if repository:
                repositories.add(repository)
            else:
                files.add(f"{place.partition('.')[0]}.py")
    return RemoteCode(tuple(sorted(files)), tuple(sorted(repositories)))


def check_code_is_allowed(folder: Path, model: ModelSection) -> None:
    """Check that transformers has the model's architecture, or that the user allows the model's own code.

    Imports transformers if the model names code of its own.

    Raises:
        WorkbenchError: the code is needed and not allowed; kind ``untrusted_code``.
    """
    if model.trust_remote_code or not (code := remote_code(folder)):
        return
    from transformers import CONFIG_MAPPING

    if _read(folder / "config.json").get("model_type") not in CONFIG_MAPPING:
        raise code_is_not_allowed(model.source, code)


def code_is_not_allowed(source: str, code: RemoteCode) -> WorkbenchError:
    """The error for a model whose own code is needed and not allowed."""
    return WorkbenchError(
        f"transformers does not have the architecture of {source}; the model brings its own Python code for it "
        f"({code}), which does not run unless you allow it.",
        "Read that code. If you trust it, set model.trust_remote_code to true (`--set model.trust_remote_code=true`); "
        "or choose a model that transformers supports.",
        kind="untrusted_code",
    )


def _references(config: Mapping[str, object]) -> Iterator[str]:
    """The classes of an ``auto_map``: ``modeling_x.XModel``, or ``owner/name--modeling_x.XModel``."""
    named = config.get("auto_map")
    for value in named.values() if isinstance(named, dict) else ():
        # Of a tokenizer: the slow and the fast class, one of which may be null.
        for reference in value if isinstance(value, list) else [value]:
            if isinstance(reference, str) and "." in reference:
                yield reference


def _read(file: Path) -> dict[str, object]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
