"""Writes the trainer's steps, its progress and hints about them to the journal."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import psutil
from transformers import TrainerCallback

from workbench.engine.metrics.step_clock import AnyClock
from workbench.progress import Progress, Report
from workbench.runs.events import Hint as HintEvent
from workbench.runs.events import Phase, Rewards, Step
from workbench.runs.hints.loss import Hint, LossWatch
from workbench.runs.hints.times import TimeWatch
from workbench.runs.journal import JournalWriter

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

# Steps over which the speed and the remaining time are averaged.
_WINDOW = 20


class JournalCallback(TrainerCallback):
    """Writes ``step`` events, reports progress, and writes hints about the loss and the times.

    Args:
        progress: called with the progress for the engine's status.
        tokens_seen: returns the tokens trained on so far.
        see_loss: called with each step and its loss.
    """

    def __init__(
        self,
        journal: JournalWriter,
        progress: Report,
        tokens_seen: Callable[[], int],
        clock: AnyClock,
        see_loss: Callable[[int, float], None],
    ) -> None:
        self._journal = journal
        self._step_clock = clock
        self._tokens_seen = tokens_seen
        self._progress = progress
        self._see_loss = see_loss
        self._excluded = 0.0
        self._process = psutil.Process()
        self._recent: deque[tuple[float, int, int]] = deque(maxlen=_WINDOW)
        self._last = 0.0
        self._loss_watch = LossWatch()
        self._time_watch = TimeWatch()
        self._peak_rss = 0

    def exclude_seconds(self, seconds: float) -> None:
        """Leave time between two steps out of the training time."""
        self._excluded += seconds

    def on_train_begin(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **_: object
    ) -> None:
        self._last = self._training_time()
        self._recent.clear()
        self._recent.append((self._last, state.global_step, self._tokens_seen()))
        self.training_continues(state.global_step, state.max_steps)
        _reset_peak()
        self._step_clock.start()

    def training_continues(self, step: int, max_steps: int) -> None:
        """Write that training begins or continues: the next step may take long, and only its end is written."""
        fraction = step / max(max_steps, 1)
        self._journal.write(Phase(phase="training", fraction=fraction, max_steps=max_steps))
        self._report_progress(step, max_steps)

    def on_step_end(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **_: object
    ) -> None:
        self._report_progress(state.global_step, state.max_steps)

    def _report_progress(self, step: int, max_steps: int) -> None:
        fraction = step / max(max_steps, 1)
        self._progress(Progress(phase="training", fraction=fraction, detail=f"step {step}/{max_steps}"))

    def on_log(
        self,
        args: "TrainingArguments",
        state: "TrainerState",
        control: "TrainerControl",
        logs: Mapping[str, float] | None = None,
        **_: object,
    ) -> None:
        if not logs or "loss" not in logs:
            return
        loss = float(logs["loss"])
        now = self._training_time()
        tokens = int(logs.get("num_tokens", 0))
        self._recent.append((now, state.global_step, tokens))
        first, first_step, first_tokens = self._recent[0]
        elapsed = max(now - first, 1e-9)
        steps = max(state.global_step - first_step, 1)
        seconds = now - self._last
        times = self._step_clock.read(seconds)
        self._journal.write(
            Step(
                step=state.global_step,
                max_steps=state.max_steps,
                epoch=round(float(state.epoch or 0.0), 4),
                loss=loss,
                learning_rate=logs.get("learning_rate"),
                grad_norm=logs.get("grad_norm"),
                token_accuracy=logs.get("mean_token_accuracy"),
                accuracy=logs.get("accuracy"),
                rewards=rewards_of(logs),
                router_aux_loss=logs.get("router_aux_loss"),
                tokens=tokens,
                tokens_per_second=round((tokens - first_tokens) / elapsed, 2),
                seconds=round(seconds, 4),
                **times,
                vram=_vram(),
                host=self._host_memory(),
                eta_seconds=round(elapsed / steps * (state.max_steps - state.global_step), 1),
            )
        )
        self._last = now
        self._see_loss(state.global_step, loss)
        self._write_hint(self._loss_watch.add(loss, float(logs.get("learning_rate") or 0.0)), state.global_step)
        self._write_hint(self._time_watch.add(times["parts"], times.get("padding", 0.0)), state.global_step)

    def _write_hint(self, hint: Hint | None, step: int) -> None:
        if hint is not None:
            self._journal.write(HintEvent(step=step, kind=hint.kind, message=f"{hint.message} {hint.cure}"))

    def _training_time(self) -> float:
        """Seconds of training, excluding evaluations and pauses."""
        return time.monotonic() - self._excluded

    def _host_memory(self) -> dict[str, int]:
        rss = self._process.memory_info().rss
        self._peak_rss = max(self._peak_rss, rss)
        return {"rss": rss, "peak": self._peak_rss}


def rewards_of(logs: Mapping[str, float]) -> Rewards | None:
    """The figures of preference training, logged under TRL's names; None in other runs."""
    if "rewards/accuracies" not in logs:
        return None
    chosen, rejected = logs.get("rewards/chosen"), logs.get("rewards/rejected")
    # Unpaired responses have no margin each: it is that of the means.
    difference = None if chosen is None or rejected is None else chosen - rejected
    rewards = Rewards(
        chosen=chosen,
        rejected=rejected,
        margin=logs.get("rewards/margins", difference),
        accuracy=logs["rewards/accuracies"],
    )
    if "kl" in logs:
        rewards["kl"] = logs["kl"]
    if "nll_loss" in logs:
        rewards["nll"] = logs["nll_loss"]
    return rewards


def _reset_peak() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _vram() -> dict[str, int]:
    """Bytes as PyTorch counts them; zeros without a GPU."""
    import torch

    return {
        "allocated": torch.cuda.memory_allocated(),
        "reserved": torch.cuda.memory_reserved(),
        "peak": torch.cuda.max_memory_allocated(),
    }
