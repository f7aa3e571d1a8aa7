"""Stores results as numbered JSON files in a folder of a run, and reads them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from workbench.errors import WorkbenchError
from workbench.runs.folder import RunFolder
from workbench.storage.atomic import write_text
from workbench.storage.folders import entries

_NUMBERED = re.compile(r"(\d+)\.json")


class StoredModel(BaseModel):
    """Part of a stored result. Keys that this version does not know are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=(), ser_json_inf_nan="strings")


class NumberedResult(StoredModel):
    """A stored result; ``number`` counts from 1 in each run, and is None before it is saved."""

    number: int | None = None


Result = TypeVar("Result", bound=NumberedResult)


@dataclass(frozen=True)
class NumberedFiles(Generic[Result]):
    """The results of one kind: ``<n>.json`` in the run's folder of this name."""

    folder_name: str
    result_type: type[Result]

    def folder(self, run: RunFolder) -> Path:
        """The folder with a run's results."""
        return run.path / self.folder_name

    def save(self, run: RunFolder, result: Result) -> Path:
        """Save a result atomically under the next number.

        Raises:
            WorkbenchError: the file cannot be written.
        """
        folder = self.folder(run)
        try:
            folder.mkdir(exist_ok=True)
            # Only the engine evaluates, one run at a time, so the number stays free.
            number = max(_numbers(folder), default=0) + 1
            text = result.model_copy(update={"number": number}).model_dump_json(indent=1)
            path = folder / f"{number}.json"
            write_text(path, text + "\n", errors="backslashreplace")
        except OSError as error:
            raise WorkbenchError(
                f"The evaluation cannot be saved in {folder}: {error.strerror or error}.",
                "Free some disk space and evaluate again.",
                kind="disk",
            ) from None
        return path

    def paths(self, run: RunFolder) -> list[Path]:
        """The files of a run's results, oldest first."""
        folder = self.folder(run)
        return [folder / f"{number}.json" for number in sorted(_numbers(folder))] if folder.is_dir() else []

    def newest(self, run: RunFolder) -> Result | None:
        """The newest result that can be read; None without one."""
        for path in reversed(self.paths(run)):
            try:
                return self.read(path)
            except WorkbenchError:
                continue
        return None

    def read(self, path: Path) -> Result:
        """Read a result that :meth:`save` wrote.

        Raises:
            WorkbenchError: the file is damaged or missing.
        """
        try:
            return self.result_type.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            raise WorkbenchError(
                f"{path} is not a readable evaluation.", "Evaluate the run again.", kind="damaged"
            ) from None


def _numbers(folder: Path) -> list[int]:
    return [int(match[1]) for entry in entries(folder) if (match := _NUMBERED.fullmatch(entry.name))]
