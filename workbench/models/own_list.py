"""The user's own list of models: ``models.yaml`` in the home, hub ids and folders shown beside the catalog.

.. code-block:: yaml

    - my-org/support-7b
    - source: ~/models/llama-ours
      note: our own base
"""

from dataclasses import dataclass
from pathlib import Path

from workbench.machine.hub import is_hub_id
from workbench.storage.paths import Home

_KEYS = ("source", "note")
_SIZE_LIMIT = 200_000


@dataclass(frozen=True)
class OwnModel:
    """One entry: ``source`` is a hub id, or the absolute path of a folder or a .gguf file; ``line`` counts from 1."""

    source: str
    line: int
    note: str = ""


@dataclass(frozen=True)
class OwnList:
    """The valid entries, and a sentence for each mistake, which begins with the file and the line."""

    models: tuple[OwnModel, ...] = ()
    mistakes: tuple[str, ...] = ()


def own_list_file(home: Home) -> Path:
    """Where the list is, whether it exists or not."""
    return home.root / "models.yaml"


def own_models(home: Home) -> OwnList:
    """Read the user's list. A mistake hides only the entry that has it; without a file the list is empty."""
    file = own_list_file(home)
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return OwnList()
    except OSError as error:
        return OwnList(mistakes=(f"{file.name} cannot be read: {error.strerror}.",))
    if len(data) > _SIZE_LIMIT:
        return OwnList(mistakes=(f"{file.name} is larger than {_SIZE_LIMIT // 1000} kB.",))
    return _Reader(file.name).read(data)


class _Reader:
    def __init__(self, name: str) -> None:
        self._name = name
        self._models: list[OwnModel] = []
        self._mistakes: list[str] = []

    def read(self, data: bytes) -> OwnList:
        import yaml

        try:
            root = yaml.compose(data.decode("utf-8"), Loader=yaml.SafeLoader)
        except UnicodeDecodeError as error:
            self._wrong(data[: error.start].count(b"\n") + 1, "this is not UTF-8 text")
            return self._result()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._wrong(mark.line + 1 if mark else 1, f"this is not valid YAML ({error.problem or error.context})")
            return self._result()
        except (yaml.YAMLError, RecursionError) as error:
            self._wrong(1, f"this is not valid YAML ({type(error).__name__})")
            return self._result()
        if root is None:
            return OwnList()
        if not isinstance(root, yaml.SequenceNode):
            self._wrong(root.start_mark.line + 1, "expected a list, one model per line after a hyphen")
            return self._result()
        for node in root.value:
            self._entry(node)
        return self._result()

    def _result(self) -> OwnList:
        return OwnList(tuple(self._models), tuple(self._mistakes))

    def _wrong(self, line: int, what: str) -> None:
        self._mistakes.append(f"{self._name}, line {line}: {what}.")

    def _entry(self, node: object) -> None:
        import yaml

        line = node.start_mark.line + 1  # type: ignore[attr-defined]
        if isinstance(node, yaml.ScalarNode):
            self._add(line, node.value, "")
            return
        if not isinstance(node, yaml.MappingNode):
            self._wrong(line, "expected a hub id or a path, or source: and note:")
            return
        found: dict[str, str] = {}
        for key, value in node.value:
            here = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.value not in _KEYS:
                name = key.value if isinstance(key, yaml.ScalarNode) else "this key"
                self._wrong(here, f"{name!r} is unknown; an entry has source and note")
                return
            if not isinstance(value, yaml.ScalarNode):
                self._wrong(here, f"{key.value} must be text")
                return
            if key.value in found:
                self._wrong(here, f"{key.value} is given twice")
                return
            found[key.value] = value.value
        if "source" not in found:
            self._wrong(line, "source is missing: a hub id (owner/name) or a path")
            return
        self._add(line, found["source"], found.get("note", ""))

    def _add(self, line: int, text: str, note: str) -> None:
        source = text.strip()
        if not source:
            self._wrong(line, "this entry is empty")
            return
        try:
            path = Path(source).expanduser()
            exists = path.exists()
        except (OSError, ValueError, RuntimeError):  # a NUL, a name that is too long, an unknown user after ~
            self._wrong(line, f"{source[:80]!r} is not a path that can be read")
            return
        if exists:
            source = str(path.absolute())
        elif not ("/" in source and is_hub_id(source)):
            is_path = source.startswith((".", "~", "/")) or source.endswith(".gguf")
            what = "there is nothing at" if is_path else "neither a hub id (owner/name) nor a path:"
            self._wrong(line, f"{what} {source[:200]}")
            return
        if first := next((model for model in self._models if model.source.casefold() == source.casefold()), None):
            self._wrong(line, f"{source} is already in line {first.line}")
            return
        self._models.append(OwnModel(source, line, note.strip()))
