"""The model in memory as lm-eval's model, and lm-eval's tasks. Imports lm-eval and PyTorch."""

import copy
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from workbench.engine.generation.generation import StopSignal
from workbench.engine.model.base import LoadedBase
from workbench.errors import WorkbenchError
from workbench.failures.hub_errors import hub_error, unreachable
from workbench.progress import Progress, Report

# lm-eval's own seeds: of random, and of NumPy, PyTorch and the few-shot examples.
_RANDOM_SEED, _OTHER_SEED = 0, 1234
_UNREACHABLE = ("ConnectionError", "ConnectError", "ConnectTimeout", "OfflineModeIsEnabled", "LocalEntryNotFoundError")


class TaskModel(HFLM):
    """lm-eval's model for what is in memory, with the active adapter.

    Args:
        batch_size: requests per batch.
        template: chat template as Jinja source; None for the tokenizer's own.
        report: called with the progress, batch by batch.
    """

    def __init__(
        self,
        base: LoadedBase,
        batch_size: int,
        template: str | None,
        report: Report,
        cancelled: StopSignal,
    ) -> None:
        self._is_ready = False
        self._report = report
        self._cancelled = cancelled
        self._done, self._total = 0, 1
        # lm-eval sets padding and tokens of its tokenizer.
        tokenizer = copy.deepcopy(base.tokenizer)
        if template is not None:
            tokenizer.chat_template = template
        super().__init__(pretrained=base.active, backend="causal", tokenizer=tokenizer, batch_size=batch_size)
        self._is_ready = True

    @property
    def model(self) -> Any:
        """The model; None at first, or lm-eval would tie embeddings again that an adapter has untied."""
        return self._model if self._is_ready else None

    def _loglikelihood_tokens(
        self, requests: Sequence[Any], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> Any:
        self._done, self._total = 0, max(len(requests), 1)
        return super()._loglikelihood_tokens(requests, disable_tqdm=True, override_bs=override_bs)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> Any:
        """The replies to requests, each up to one of its stop texts."""
        self._done, self._total = 0, max(len(requests), 1)
        return super().generate_until(requests, disable_tqdm=True)

    def _model_call(self, inps: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        self._count(len(inps))
        return super()._model_call(inps, *arguments, **options)

    def _model_generate(self, context: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        self._count(len(context))
        return super()._model_generate(context, *arguments, **options)

    def _count(self, requests: int) -> None:
        if self._cancelled.is_set():
            raise WorkbenchError("The evaluation was stopped; incomplete tasks are not saved.", kind="cancelled")
        self._report(Progress(phase="evaluating", fraction=min(self._done / self._total, 1.0)))
        self._done += requests


def load_tasks(names: Sequence[str], folder: str) -> dict[str, Any]:
    """Load tasks and groups with their data, as lm-eval's ``TaskManager.load`` returns them.

    Args:
        folder: with further tasks as YAML; empty for lm-eval's own only. If it has all of the tasks, lm-eval's own are
            not looked through, which takes seconds.

    Raises:
        WorkbenchError: there is no such task, its data cannot be fetched, or it runs code that a model wrote.
    """
    manager = TaskManager(include_path=folder, include_defaults=False) if folder else None
    if manager is None or not all(name in manager.task_index for name in names):
        manager = TaskManager(include_path=folder or None)
    for name in names:
        if name not in manager.task_index:
            raise WorkbenchError(
                f"lm-eval has no task {name}" + (f", and {folder} has none of this name." if folder else "."),
                "`lm-eval ls tasks` lists its tasks; --task-folder names a folder with others.",
                kind="no_task",
            )
    try:
        loaded: dict[str, Any] = manager.load(list(names))
    except Exception as error:
        raise _explained(error, names) from error
    for name, task in loaded["tasks"].items():
        if getattr(task, "UNSAFE_CODE", False):
            raise WorkbenchError(
                f"The task {name} runs code that the model writes, which an evaluation here does not do.",
                "Use lm-eval's own command for it, in a container: `lm_eval --confirm_run_unsafe_code`.",
                kind="unsafe_task",
            )
    return loaded


def prepare_tasks(loaded: dict[str, Any], num_fewshot: int | None) -> None:
    """Set seeds and few-shot examples as ``lm_eval.simple_evaluate`` does, anew for each model."""
    random.seed(_RANDOM_SEED)
    numpy.random.seed(_OTHER_SEED)
    torch.manual_seed(_OTHER_SEED)
    for task in loaded["tasks"].values():
        own = task.get_config("num_fewshot")
        if own is None or (num_fewshot is not None and own != 0):
            task.set_config(key="num_fewshot", value=num_fewshot or 0)
        task.set_fewshot_seed(seed=_OTHER_SEED)


def _explained(error: BaseException, names: Sequence[str]) -> WorkbenchError:
    what = f"the data of {' or '.join(names)}"
    cause: BaseException | None = error
    while cause is not None:
        if any(base.__name__ in _UNREACHABLE for base in type(cause).__mro__):
            return WorkbenchError(
                unreachable(what, "the hub did not answer").message,
                "Connect this machine, or set HF_ENDPOINT to a mirror of the hub. Tasks whose data is on this machine "
                "work without it: --task-folder DIR.",
                kind="unreachable",
            )
        if (known := hub_error(cause, what)) is not None:
            return known
        cause = cause.__cause__ or cause.__context__
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return WorkbenchError(
        f"lm-eval cannot load {' or '.join(names)}: {reason}",
        "Check the task's YAML file with lm-eval's own command, `lm_eval --tasks NAME --include_path DIR`.",
        kind="bad_task",
    )


def task_folder(folder: str) -> str:
    """The absolute path of a folder with tasks; empty for none.

    Raises:
        WorkbenchError: it is no folder.
    """
    if not folder:
        return ""
    path = Path(folder).expanduser().absolute()
    if not path.is_dir():
        raise WorkbenchError(f"There is no folder {path}.", "Give a folder with tasks as YAML files.", kind="no_task")
    return str(path)
