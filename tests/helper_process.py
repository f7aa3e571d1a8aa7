"""What helper processes do, done in this process: starting Python with torch costs seconds, and changes no result."""

import importlib
import json
from collections.abc import Mapping
from types import ModuleType
from typing import TypeVar

import pytest
from pydantic import TypeAdapter

from workbench.models import child
from workbench.progress import Cancelled, Progress, Report

Result = TypeVar("Result")


def work_here(patch: pytest.MonkeyPatch, module: ModuleType) -> None:
    """Let a module that calls ``run_in_child`` have the work done here.

    Arguments, progress and result are turned into JSON and back all the same. What the process is for besides, to be
    ended at any moment and to die alone, is tested with real ones in ``tests/models/test_child.py``.
    """

    def run(
        target: str,
        arguments: Mapping[str, object],
        progress: Report,
        cancelled: Cancelled,
        *,
        result: type[Result],
        what: str = "",
    ) -> Result:
        def send(**message: object) -> None:
            if cancelled():
                raise child.cancelled_error()
            progress(Progress.model_validate(_through_json(message)["progress"]))

        name, _, function = target.partition(":")
        with pytest.MonkeyPatch.context() as within:
            within.setattr(child, "_send", send)
            answer = getattr(importlib.import_module(name), function)(**_through_json(arguments))
        return TypeAdapter(result).validate_python(_through_json(answer))

    patch.setattr(module, "run_in_child", run)


def _through_json(value: object) -> object:
    return json.loads(json.dumps(value))
