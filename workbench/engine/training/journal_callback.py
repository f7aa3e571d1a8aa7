"""What the trainer does, written into the journal."""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import psutil
from transformers import TrainerCallback

from workbench.engine.metrics.step_clock import AnyClock
from workbench.progress import Progress
from workbench.runs.events import Hint as HintEvent
from workbench.runs.events import Phase, Step
from workbench.runs.hints import Hint, LossWatch
from workbench.runs.journal import JournalWriter
from workbench.runs.time_hints import TimeWatch

# Steps that the speed and the remaining time are averaged over.
_WINDOW = 20


class JournalCallback(TrainerCallback):
    """Writes ``step`` events, how far the run is, and what its loss and its time hint at."""

    def __init__(
        self,
        journal: JournalWriter,
        progress: Callable[[Progress], None],
        tokens_seen: Callable[[], int],
        clock: AnyClock,
        see_loss: Callable[[int, float], None],
    ) -> None:
        self._journal = journal
        self._step_clock = clock
        self._tokens_seen = tokens_seen
        self._progress = progress
        self._see_loss = see_loss
        self._away = 0.0
        self._process = psutil.Process()
        self._recent: deque[tuple[float, int, int]] = deque(maxlen=_WINDOW)
        self._last = 0.0
        self._watch = LossWatch()
        self._time_watch = TimeWatch()
        self._peak_rss = 0

    def away(self, seconds: float) -> None:
        """Time that was spent between two steps on something else, and does not count as the training's."""
        self._away += seconds

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._last = self._clock()
        self._recent.clear()
        self._recent.append((self._last, state.global_step, self._tokens_seen()))
        self.trains_on(state.global_step, state.max_steps)
        _reset_peak()
        self._step_clock.start()

    def trains_on(self, step: int, max_steps: int) -> None:
        """What was done between two steps is over; the next one may take long, and only its end is told."""
        fraction = step / max(max_steps, 1)
        self._journal.write(Phase(phase="training", fraction=fraction, max_steps=max_steps))
        self._show(step, max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._show(state.global_step, state.max_steps)

    def _show(self, step: int, max_steps: int) -> None:
        fraction = step / max(max_steps, 1)
        self._progress(Progress(phase="training", fraction=fraction, detail=f"step {step}/{max_steps}"))

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
        seconds = now - self._last
        spent = self._step_clock.read(seconds)
        self._journal.write(
            Step(
                step=state.global_step,
                max_steps=state.max_steps,
                epoch=round(float(state.epoch or 0.0), 4),
                loss=loss,
                learning_rate=logs.get("learning_rate"),
                grad_norm=logs.get("grad_norm"),
                token_accuracy=logs.get("mean_token_accuracy"),
                tokens=tokens,
                tokens_per_second=round((tokens - first_tokens) / elapsed, 2),
                seconds=round(seconds, 4),
                **spent,
                vram=_vram(),
                host=self._host(),
                eta_seconds=round(elapsed / steps * (state.max_steps - state.global_step), 1),
            )
        )
        self._last = now
        self._see_loss(state.global_step, loss)
        self._tell(self._watch.see(loss, float(logs.get("learning_rate") or 0.0)), state.global_step)
        self._tell(self._time_watch.see(spent["parts"], spent.get("padding", 0.0)), state.global_step)

    def _tell(self, hint: Hint | None, step: int) -> None:
        if hint is not None:
            self._journal.write(HintEvent(step=step, kind=hint.kind, message=f"{hint.message} {hint.cure}"))

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
