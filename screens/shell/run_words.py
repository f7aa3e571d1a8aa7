"""Texts and metrics of a run: its progress, requested actions, and how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from screens.charts.scale import short_number
from screens.shell.header import short_name
from screens.shell.run_bar import waiting_words
from screens.widgets.facts import Fact
from screens.widgets.glyphs import GLYPHS
from screens.widgets.key_texts import key, keyed
from screens.widgets.plain import plain
from workbench.recipe.data_sources import source_text
from workbench.recipe.sections.training import CHECKPOINTING_TEXTS
from workbench.runs.events import Control, Resumed, Step
from workbench.units import clock, short

if TYPE_CHECKING:
    from workbench.runs.events import Number, Phase
    from workbench.runs.live_run import ChartReplay
    from workbench.runs.step_times import StepTimes
    from workbench.runs.summary import RunSummary


def last_run_words(newest: RunSummary, called: str) -> str:
    """How the newest run ended, perhaps while no terminal was there to see it; ``called`` is its name."""
    where = "" if newest.state == "finished" else f" at step {newest.step}"
    return dotted(
        f"{called or newest.id} {newest.state}{where}", _perplexity(newest), f"details in Runs ({key('tab.runs')})"
    )


def in_queue(count: int, held: str) -> str:
    """What waits while nothing is training; empty where nothing does."""
    if not count:
        return ""
    return f"{waiting_words(count, held)}. Press {key('train.queue')} to show the queue."


def resume_words() -> str:
    """``g resume``."""
    return f"{key('run.resume')} resume"


def outcome(run: ChartReplay) -> str:
    """How a run ended, and what can be done with it."""
    summary = run.summary
    if summary.state == "interrupted":
        how = f"resume from step {run.checkpoint}" if run.checkpoint else "restart"
        none = "" if run.checkpoint else "no checkpoint, "
        return dotted(f"at step {summary.step}", f"{none}{key('run.resume')} {how}", f"{key('train.log')} log")
    if summary.state == "failed":
        return dotted(f"at step {summary.step}", resume_words()) if summary.step else "before the first step"
    kept = f"{key('tab.chat')} to chat" if summary.step and summary.reason != "discarded" else "no adapter kept"
    goes_on = resume_words() if summary.can_be_resumed else ""
    return dotted(
        f"{summary.step} steps in {clock(summary.seconds or 0)}", _perplexity(summary), _early(run), goes_on, kept
    )


def _perplexity(summary: RunSummary) -> str:
    base, tuned = (summary.perplexity.get(name) for name in ("base", "tuned"))
    if summary.preference is not None:
        return f"preference accuracy {summary.preference:.0%}"
    if isinstance(summary.accuracy, float):
        return f"accuracy {summary.accuracy:.0%}"
    return f"perplexity {_figure(base, '.1f')} → {_figure(tuned, '.1f')}" if base and tuned else ""


def _early(run: ChartReplay) -> str:
    """That the run ended by itself before its last step, and which step's adapter it left where that is another."""
    kept = run.kept_step
    early = "ended early" if run.ended is not None and run.ended.reason == "early_stopping" else ""
    return dotted(early, f"adapter of step {kept}" if kept not in (None, 0, run.summary.step) else "")


def standing_still(run: ChartReplay, why: str) -> str:
    """Where a paused run stands; ``why`` is the engine's own word for it."""
    summary = run.summary
    steps = f"at step {summary.step}/{summary.max_steps}" if summary.max_steps else f"at step {summary.step}"
    return dotted(steps, resume_words(), why.removeprefix("Paused; ").rstrip("."))


# What was asked of the run, once it is done.
_DONE = {
    "pause": "paused",
    "checkpoint": "checkpoint saved",
    "evaluate": "evaluated",
    "sample": "replies sampled, {train.replies} to view",
    "stop_sampling": "sampling stopped",
    "learning_rate": "peak learning rate {}",
    "max_steps": "max steps {}",
}


def answer(done: Control | Resumed | None, asked: str) -> Content:
    """What was asked last: that it is still to be done, or the step it was done after."""
    if asked:
        return Content.assemble((f"{GLYPHS.half} ", "$accent"), (f"{asked} requested; applies after this step", ""))
    if done is None:
        return Content("")
    action = done.action if isinstance(done, Control) else ""
    value = done.value if isinstance(done, Control) else None
    number = short_number(value) if isinstance(value, float) and value < 1 else f"{value:g}" if value else ""
    words = keyed(_DONE.get(action, action)).format(number) if action else "resumed"
    return Content.assemble(
        (f"{GLYPHS.dot} ", "$success"), (f"step {'?' if done.step is None else done.step}: {plain(words)}", "")
    )


def title_of_curve(run: ChartReplay, quantity: str = "loss") -> str:
    """What the chart shows; and, while a long journal is read, that it is drawn from a part of it."""
    title = f"{quantity} over steps"
    return f"{title} {GLYPHS.separator} {reading(run)}" if run.is_partial else title


def reading(run: ChartReplay) -> str:
    """How far a long journal is read."""
    return f"{'≈ ' if GLYPHS.is_unicode else ''}reading {run.share_read:.0%}"


def _best(run: ChartReplay) -> str:
    return f"{_figure(run.best.loss, '.4g')} at {run.best.step}" if run.best else ""


def _patience(run: ChartReplay) -> str:
    """How near the run is to ending early; empty where it never does."""
    patience = run.early_stopping_patience
    return f"{run.evaluations_since_best} of {patience} evals used" if patience else ""


def seconds_a_step(run: ChartReplay, times: StepTimes) -> float:
    """Seconds of one of the last steps."""
    told = [event.step for event in run.recent if event.parts]
    steps = told[-1] - told[0] + run.logging_steps if told else 1
    return times.seconds / max(steps, 1)


def figures(run: ChartReplay, times: StepTimes) -> list[Fact]:
    """The newest figures of a run.

    Args:
        times: of its last steps.
    """
    step = run.step or Step(step=0)
    return [
        # A loss that is no number has no place on the chart, and matters most.
        Fact("loss", step.loss if isinstance(step.loss, str) else "", "bad"),
        Fact("lr", short_number(step.learning_rate) if step.learning_rate is not None else ""),
        Fact("grad norm", _figure(step.grad_norm, ".2f")),
        Fact("tok/s", short(step.tokens_per_second) if step.tokens_per_second else ""),
        Fact("tokens", short(step.tokens) if step.tokens else ""),
        Fact("epoch", _figure(step.epoch, ".2f")),
        Fact("accuracy", _figure(step.token_accuracy if step.accuracy is None else step.accuracy, ".1%")),
        *_rewards(step),
        Fact("router loss", _figure(step.router_aux_loss, ".3f")),
        Fact("MFU", _figure(times.mfu, ".0%")),
        _achieved(times),
        Fact("padding", _figure(times.padding, ".0%")),
        Fact("best", _best(run)),
    ]


def _rewards(step: Step) -> list[Fact]:
    """The figures of preference training."""
    rewards = step.rewards
    if rewards is None:
        return []
    margin, chosen, rejected = rewards["margin"], rewards["chosen"], rewards["rejected"]
    return [
        Fact("reward margin", _figure(margin, ".2f"), "bad" if isinstance(margin, float) and margin < 0 else ""),
        Fact("reward accuracy", f"{rewards['accuracy']:.0%}"),
        Fact("rewards", f"{_figure(chosen, '.2f') or '–'} chosen, {_figure(rejected, '.2f') or '–'} rejected"),
        Fact("KL", _figure(rewards.get("kl"), ".2f")),
        Fact("NLL", _figure(rewards.get("nll"), ".3f")),
    ]


def about(run: ChartReplay, times: StepTimes) -> list[Fact]:
    """What the run was started with and what is known of it so far.

    Args:
        times: of its last steps.
    """
    facts, data = run.facts, run.started.recipe.get("data")
    trainable, counts = facts.trainable_parameters, facts.counts or {}
    base, tuned = (run.summary.perplexity.get(name) for name in ("base", "tuned"))
    return [
        Fact("model", short_name(run.summary.model)),
        Fact("base", facts.base or ""),
        Fact("compute dtype", facts.compute_dtype or ""),
        _peak(facts),
        Fact("HFU", _figure(times.hfu, ".0%")),
        Fact("trainable", f"{trainable:,}" if trainable else ""),
        *(Fact("auto", words) for words in decided(facts)),
        Fact("kernels", (facts.kernels or "").partition(" ")[0].lower()),
        Fact("data", source_text(data.get("source", "")) if isinstance(data, dict) else ""),
        # What is nought is as it should be, and would only hide what is not.
        *(Fact(name.replace("_", " "), f"{count:,}") for name, count in counts.items() if type(count) is int and count),
        Fact("perplexity", _base_and_tuned(base, tuned), "good" if base and _is_less(tuned, base) else ""),
        Fact("preference", _figure(run.summary.preference, ".0%")),
        Fact("held-out accuracy", _figure(run.summary.accuracy, ".0%")),
        Fact("patience", _patience(run)),
        Fact("checkpoint", f"at step {run.checkpoint}" if run.checkpoint else ""),
        Fact("resumed", f"from step {run.resumed.step}" if run.resumed else ""),
        Fact("notices", f"{len(run.notices)}" if run.notices else "", "warn"),
    ]


def _achieved(times: StepTimes) -> Fact:
    """What was computed in a second, where there is no peak to be a share of."""
    flops = 0.0 if times.mfu is not None or times.flops is None else times.flops
    unit, scale = ("TFLOP/s", 1e12) if flops >= 1e11 else ("GFLOP/s", 1e9)
    return Fact(unit, f"{flops / scale:.3g}" if flops else "")


def _peak(facts: Phase) -> Fact:
    """The peak FLOP/s of the device, of which MFU is a share; or that there is no MFU because it is unknown."""
    if facts.peak_flops is not None:
        return Fact("peak", f"{facts.peak_flops / 1e12:,.0f} TFLOP/s")
    return Fact("MFU", "n/a (peak unknown)" if facts.no_peak else "")


def _base_and_tuned(base: Number, tuned: Number) -> str:
    """``75.41 (base) → 35.78``, or the one that is known."""
    if not base:
        return _figure(tuned, ".2f")
    after = f" → {_figure(tuned, '.2f')}" if tuned else ""
    return f"{_figure(base, '.2f')} (base){after}"


def decided(facts: Phase) -> list[str]:
    """What the run decided of what its recipe left open: ``checkpointing off``, ``4 × 4 records``."""
    chosen = facts.chosen or {}
    checkpointing = chosen.get("training.gradient_checkpointing")
    size = chosen.get("training.per_device_train_batch_size")
    times = chosen.get("training.gradient_accumulation_steps")
    return [
        *([CHECKPOINTING_TEXTS[checkpointing]] if checkpointing in CHECKPOINTING_TEXTS else []),
        *([f"{size} × {times} records"] if isinstance(size, int) and isinstance(times, int) else []),
    ]


def _is_less(value: object, other: object) -> bool:
    return isinstance(value, float) and isinstance(other, float) and value < other


def _figure(value: object, form: str) -> str:
    if isinstance(value, int | float):
        return format(value, form)
    return str(value) if value else ""


def dotted(*parts: str) -> str:
    """The parts that there are, side by side."""
    return f" {GLYPHS.separator} ".join(part for part in parts if part)
