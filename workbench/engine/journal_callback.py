"""What the trainer does, written into the journal; what the user wants, told to the trainer."""

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import psutil
from transformers import TrainerCallback

from workbench.engine.control import Stop
from workbench.engine.protocol import Progress
from workbench.errors import WorkbenchError
from workbench.runs.journal import JournalWriter

# Steps that the speed and the remaining time are averaged over.
_WINDOW = 20


class JournalCallback(TrainerCallback):
    """Writes ``step`` and ``checkpoint`` events; ends the training within one micro-step of a stop.

    Args:
        evaluate: called between two steps, with the number of the one that is done, every ``eval_steps`` steps; its
            time is not counted as the training's. ``eval_steps`` 0: never.
    """

    def __init__(
        self,
        journal: JournalWriter,
        stop: Stop,
        progress: Callable[[Progress], None],
        evaluate: Callable[[int], None],
        eval_steps: int,
    ) -> None:
        self._journal = journal
        self._stop = stop
        self._progress = progress
        self._evaluate = evaluate
        self._eval_steps = eval_steps
        self._away = 0.0
        self._process = psutil.Process()
        self._recent: deque[tuple[float, int, int]] = deque(maxlen=_WINDOW)
        self._started = 0.0
        self._last = 0.0
        self._peak_rss = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._started = self._last = self._clock()
        self._recent.append((self._started, 0, 0))
        self._journal.write("phase", phase="training", fraction=0.0, detail="", max_steps=state.max_steps)
        _reset_peak()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # Here and not at a step's end, where its own event is still to come; the run ends with an evaluation anyway.
        if not self._eval_steps or not state.global_step or state.global_step % self._eval_steps:
            return
        started = time.monotonic()
        self._evaluate(state.global_step)
        fraction = state.global_step / max(state.max_steps, 1)
        self._journal.write("phase", phase="training", fraction=fraction, detail="", max_steps=state.max_steps)
        self._away += time.monotonic() - started

    def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop |= self._stop.is_set()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop |= self._stop.is_set()
        self._progress(
            Progress(
                phase="training",
                fraction=state.global_step / max(state.max_steps, 1),
                detail=f"step {state.global_step}/{state.max_steps}",
            )
        )

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        loss = float(logs["loss"])
        now = self._clock()
        tokens = int(logs.get("num_tokens", 0))
        self._recent.append((now, state.global_step, tokens))
        first, first_step, first_tokens = self._recent[0]
        elapsed = max(now - first, 1e-9)
        steps = max(state.global_step - first_step, 1)
        self._journal.write(
            "step",
            step=state.global_step,
            max_steps=state.max_steps,
            epoch=round(float(state.epoch or 0.0), 4),
            loss=loss,
            learning_rate=logs.get("learning_rate"),
            grad_norm=logs.get("grad_norm"),
            token_accuracy=logs.get("mean_token_accuracy"),
            tokens=tokens,
            tokens_per_second=round((tokens - first_tokens) / elapsed, 2),
            seconds=round(now - self._last, 4),
            vram=_vram(),
            host=self._host(),
            eta_seconds=round(elapsed / steps * (state.max_steps - state.global_step), 1),
        )
        self._last = now
        if not math.isfinite(loss):
            raise WorkbenchError(
                f"The loss became {loss} at step {state.global_step}.",
                "Lower training.learning_rate (a tenth is a good start), or compute in bfloat16 instead of float16.",
                kind="nan_loss",
            )

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._journal.write(
            "checkpoint", step=state.global_step, path=f"{args.output_dir}/checkpoint-{state.global_step}"
        )

    def _clock(self) -> float:
        """Seconds, evaluations left out."""
        return time.monotonic() - self._away

    def _host(self) -> dict[str, int]:
        rss = self._process.memory_info().rss
        self._peak_rss = max(self._peak_rss, rss)
        return {"rss": rss, "peak": self._peak_rss}


def _reset_peak() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _vram() -> dict[str, int]:
    """PyTorch's own figures in bytes; zeros on a machine with no GPU."""
    import torch

    return {
        "allocated": torch.cuda.memory_allocated(),
        "reserved": torch.cuda.memory_reserved(),
        "peak": torch.cuda.max_memory_allocated(),
    }
