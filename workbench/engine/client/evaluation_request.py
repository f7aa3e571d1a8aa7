"""What the command and the screen ask the engine for."""

from collections.abc import Mapping
from typing import Any

from workbench.engine.client.protocol import EvaluateRequest
from workbench.errors import WorkbenchError
from workbench.recipe.text import edit
from workbench.runs.folder import RunFolder

# What belongs to the records; template and system prompt belong to the run.
_CHANGEABLE = ("split", "format", "columns", "malformed", "max_length")


def evaluation_request(
    run: RunFolder, source: str | None = None, changes: Mapping[str, Any] | None = None, **options: Any
) -> EvaluateRequest:
    """A request to judge a run.

    Args:
        source: other records than the run's own held-out ones.
        changes: of the data section, by dotted key.
        options: the rest of :class:`EvaluateRequest`.

    Raises:
        WorkbenchError: the recipe cannot be read, or a change is none that an evaluation can take.
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
    data = edit(recipe, wanted).data.model_dump() if wanted else None
    return EvaluateRequest(run=str(run.path), data=data, **options)
