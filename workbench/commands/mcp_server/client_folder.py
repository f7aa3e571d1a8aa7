"""What a client of the MCP server may name: files below one folder, and nothing that runs code from outside."""

import re
from dataclasses import dataclass
from pathlib import Path

from workbench.data.open_source import bundled_names
from workbench.errors import WorkbenchError
from workbench.models.sources import local_models
from workbench.recipe.data_sources import exists, source_names, split_inner
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.data import DataSection
from workbench.storage.paths import Home

# A hub id, with the configuration and the streaming flag of a dataset; or a plain name.
_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?(:[\w.+-]+)?(\?streaming)?")
_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(@\d+)?")
_TASK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_:+-]*")
_EXPORT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class ClientFolder:
    """The folder whose files a client may read, and in which its exports are written. ``root`` has no links."""

    root: Path

    def path(self, name: str) -> Path:
        """The place of a path below the folder; relative paths start at the folder.

        Raises:
            WorkbenchError: it is elsewhere; kind ``outside``.
        """
        place = (self.root / Path(name).expanduser()).resolve()
        if not place.is_relative_to(self.root):
            raise WorkbenchError(
                f"{name} is outside {self.root}.",
                "This server reads and writes only below the folder that it was started with (--folder).",
                kind="outside",
            )
        return place

    def export_folder(self, name: str) -> Path:
        """The folder of an export.

        Raises:
            WorkbenchError: the name is more than one part of a path.
        """
        if not _EXPORT.fullmatch(name):
            raise WorkbenchError(
                f"{name!r} is not a valid name for an export.",
                "Use letters, digits, '.', '_' and '-', at most 64, starting with a letter or digit.",
                kind="bad_request",
            )
        return self.path(name)

    def check_run(self, name: str) -> None:
        """Check that a name is a run's, a checkpoint's (``run@40``) or a folder's below :attr:`root`.

        Raises:
            WorkbenchError: it is not.
        """
        if not _RUN.fullmatch(name):
            self.path(name)

    def check_tasks(self, names: list[str]) -> None:
        """Check that tasks are names of lm-eval's: a task file can call Python.

        Raises:
            WorkbenchError: one is not.
        """
        for name in names:
            if not _TASK.fullmatch(name):
                raise WorkbenchError(
                    f"{name!r} is not the name of a task of lm-eval.", "Task files are not read here.", kind="outside"
                )

    def check_model(self, home: Home, source: str) -> None:
        """Check that a model is one of the hub, one that `models` lists, or below :attr:`root`.

        Raises:
            WorkbenchError: it is not.
        """
        if self._is_path(source) and source not in {model.source for model in local_models(home)}:
            self.path(source)

    def check_data(self, data: DataSection) -> None:
        """Check that all sources are bundled, of the hub, or below :attr:`root`; and so the template.

        Raises:
            WorkbenchError: one is not.
        """
        for name in source_names(data.source):
            place = split_inner(name)[0]
            if name not in bundled_names() and self._is_path(place):
                self.path(place)
        if data.template.endswith(".jinja"):
            self.path(data.template)

    def check(self, home: Home, recipe: Recipe) -> None:
        """Check all that a recipe names.

        Raises:
            WorkbenchError: it names a file outside the folder, or asks for code from outside.
        """
        if recipe.model.trust_remote_code:
            raise _executable("model.trust_remote_code")
        if recipe.training.kernels == "hub":
            raise _executable("training.kernels: hub")
        self.check_model(home, recipe.model.source)
        self.check_data(recipe.data)
        if recipe.adapter.continue_from is not None:
            self.check_run(recipe.adapter.continue_from)
        if recipe.output.dir is not None:
            self.path(recipe.output.dir)

    def _is_path(self, name: str) -> bool:
        return exists(name) or exists(str(self.root / name)) or not _NAME.fullmatch(name)


def _executable(key: str) -> WorkbenchError:
    return WorkbenchError(
        f"{key} runs code that was downloaded, which no MCP client may ask for.",
        "Leave it out, or start such a run yourself with `loraworkbench train`.",
        kind="outside",
    )
