"""Downloads from the hub of the tests: what comes, and what is refused."""

from pathlib import Path

import pytest

from workbench.errors import WorkbenchError
from workbench.models.sources import fetch_model
from workbench.progress import Progress
from workbench.recipe.sections.model import ModelSection
from workbench.storage.paths import Home

TINY = ModelSection(source="someone/tiny-llama")
"""The model that the hub serves."""


def fetch(home: Home, model: ModelSection = TINY) -> tuple[Path, list[Progress]]:
    """The folder of a model after its download, and the progress that was reported."""
    seen: list[Progress] = []
    return fetch_model(home, model, seen.append, lambda: False).folder, seen


def refusal(home: Home, model: ModelSection = TINY) -> WorkbenchError:
    """The error of a download, which says what to do."""
    with pytest.raises(WorkbenchError) as caught:
        fetch(home, model)
    assert caught.value.cure
    return caught.value
