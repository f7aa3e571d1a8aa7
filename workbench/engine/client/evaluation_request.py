"""Makes the request for an evaluation, for the command and the screen."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.engine.client.protocol import EvaluateRequest
from workbench.engine.client.requests import here, sources_here
from workbench.errors import WorkbenchError
from workbench.recipe.text import edit
from workbench.runs.folder import RunFolder

# Settings of the records. Template and system prompt are the run's.
_CHANGEABLE = ("split", "format", "columns", "malformed", "max_length")


def evaluation_request(
    run: RunFolder, source: str | None = None, changes: Mapping[str, Any] | None = None, **options: Any
) -> EvaluateRequest:
    """A request to evaluate a run, with local paths made absolute.

    Args:
        source: other records than the run's own held-out ones.
        changes: of the data section, by dotted key.
        options: the rest of :class:`EvaluateRequest`.

    Raises:
        WorkbenchError: the recipe cannot be read, or an evaluation cannot take a change.
    """
    recipe = run.recipe()
    for key in changes or {}:
        if key.removeprefix("data.") not in _CHANGEABLE or not key.startswith("data."):
            raise WorkbenchError(
                f"An evaluation cannot change {key}: it uses the run's settings.",
                f"It can change {', '.join(f'data.{name}' for name in _CHANGEABLE)}.",
                kind="bad_request",
            )
    wanted: dict[str, Any] = dict(changes or {})
    if source is not None and source != recipe.data.source:
        # Other records have columns and splits of their own.
        wanted = {"data.source": source, "data.format": "auto", "data.columns": {}, "data.split": "train"} | wanted
    data = None
    if wanted:
        section = edit(recipe, wanted).data
        data = section.model_dump() | {"source": sources_here(section)}
    adapters = [_adapter_here(name) for name in options.pop("adapters", ())]
    return EvaluateRequest(run=str(run.path.absolute()), data=data, adapters=adapters, **options)


def _adapter_here(name: str) -> str:
    """An adapter folder's absolute path; a run's name unchanged, even where a folder is called like it."""
    is_folder = "/" in name or (Path(name) / "adapter_config.json").is_file()
    return here(name) if is_folder else name
