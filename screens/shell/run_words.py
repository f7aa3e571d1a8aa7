"""A run in words and figures: what would be started, what goes on, what was asked of it, how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from screens.charts.scale import short_number
from screens.shell.header import method_word, short_name, targets_word
from screens.shell.live_run import Story
from screens.shell.run_bar import waiting_words
from screens.widgets.facts import Fact
from screens.widgets.glyphs import GLYPHS
from screens.widgets.plain import plain
from screens.widgets.units import clock, short

if TYPE_CHECKING:
    from workbench.planning.launch import Launch
    from workbench.recipe.schema import Recipe
    from workbench.runs.folder import RunSummary
    from workbench.runs.journal import Event
    from workbench.runs.step_times import StepTimes


def plan(
    recipe: Recipe, newest: RunSummary | None = None, launch: Launch | None = None, *, called: str = ""
) -> Content:
    """What Enter would start, in words; before it, that there is a run to go on with, or after it, how the last ended.

    Args:
        called: the name of the newest run, where it is not its id.
    """
    training = recipe.training
    gpus = launch.devices if launch else ()
    times = f" × {len(gpus)}" if len(gpus) > 1 else ""
    epochs = "1 epoch" if training.num_train_epochs == 1 else f"{training.num_train_epochs:g} epochs"
    length = f"{training.max_steps} steps" if training.max_steps > 0 else epochs
    lines = (
        *(_invitation(newest, called) if newest and newest.state == "interrupted" else ()),
        ("Nothing is training. ", "bold"),
        ("Press Enter", "bold $accent"),
        (" to fine-tune\n\n", ""),
        ("  model     ", "$foreground 70%"),
        (f"{plain(short_name(recipe.model.source))}\n", "bold"),
        ("  as        ", "$foreground 70%"),
        (f"{dotted(method_word(recipe), f'r {recipe.adapter.r}', plain(targets_word(recipe)))}\n", ""),
        ("  on        ", "$foreground 70%"),
        (f"{plain(recipe.data.source)}\n", ""),
        ("  batch     ", "$foreground 70%"),
        (
            f"{_micro_batches(recipe)}{times} = {training.effective_batch * max(len(gpus), 1)} records a step\n",
            "",
        ),
        *((("  GPUs      ", "$foreground 70%"), (f"{', '.join(map(str, gpus))}\n", "")) if gpus else ()),
        ("  for       ", "$foreground 70%"),
        (f"{length}, learning rate {short_number(training.learning_rate)}\n\n", ""),
        *(_last(newest, called) if newest and newest.ended else ()),
        ("3 Adapter and 4 Data change it.", "$foreground 70%"),
    )
    return Content.assemble(*lines)


def _micro_batches(recipe: Recipe) -> str:
    training = recipe.training
    if training.per_device_train_batch_size == "auto":
        return "the fastest micro-batch that fits × accumulation"
    return f"{training.per_device_train_batch_size} × {training.gradient_accumulation_steps}"


def _invitation(interrupted: RunSummary, called: str) -> tuple[tuple[str, str], ...]:
    return (
        (f"{plain(called or interrupted.id)} was interrupted after step {interrupted.step}. ", "bold $warning"),
        ("Press g", "bold $accent"),
        (" to let it go on from its last checkpoint.\n\n", ""),
    )


def _last(newest: RunSummary, called: str) -> tuple[tuple[str, str], ...]:
    """How the newest run ended, perhaps while no terminal was there to see it."""
    where = "" if newest.state == "finished" else f" at step {newest.step}"
    words = dotted(f"{plain(called or newest.id)} {newest.state}{where}", _perplexity(newest), "7 has it")
    return ("  last run  ", "$foreground 70%"), (f"{words}\n\n", "")


def in_queue(count: int, held: str) -> str:
    """What waits while nothing is training; empty where nothing does."""
    if not count:
        return ""
    return f"{waiting_words(count, '')} in the queue{', which is held' if held else ''}: q shows it."


def outcome(story: Story) -> str:
    """How a run ended, and what can be done with it."""
    summary = story.summary
    if summary.state == "interrupted":
        goes_on = f"g goes on from step {story.checkpoint}" if story.checkpoint else "no checkpoint, g begins it anew"
        return dotted(f"at step {summary.step}", goes_on, "l shows its log")
    if summary.state == "failed":
        return dotted(f"at step {summary.step}", "g goes on") if summary.step else "before the first step"
    seconds = (summary.ended or 0) - (summary.started or 0)
    kept = "no adapter kept" if summary.reason == "discarded" else "6 chats with it"
    goes_on = "g goes on" if summary.state == "stopped" and summary.reason != "discarded" else ""
    return dotted(f"{summary.step} steps in {clock(seconds)}", _perplexity(summary), _early(story), goes_on, kept)


def _perplexity(summary: RunSummary) -> str:
    base, tuned = (summary.perplexity.get(name) for name in ("base", "tuned"))
    return f"perplexity {_figure(base, '.1f')} → {_figure(tuned, '.1f')}" if base and tuned else ""


def _early(story: Story) -> str:
    """That the run ended by itself before its last step, and which step's adapter it left where that is another."""
    kept = story.ended.get("kept_step")
    early = "ended early" if story.ended.get("reason") == "early_stopping" else ""
    return dotted(early, f"kept step {kept}" if isinstance(kept, int) and kept not in (0, story.summary.step) else "")


def standing_still(story: Story, why: str) -> str:
    """Where a paused run stands; ``why`` is the engine's own word for it."""
    summary = story.summary
    steps = f"at step {summary.step}/{summary.max_steps}" if summary.max_steps else f"at step {summary.step}"
    return dotted(steps, "g goes on", why.removeprefix("Paused; ").rstrip("."))


# What was asked of the run, once it is done.
_DONE = {
    "pause": "paused",
    "checkpoint": "checkpoint written",
    "evaluate": "evaluated",
    "sample": "replies sampled, v shows them",
    "learning_rate": "peak learning rate {}",
    "max_steps": "{} steps in all",
}


def answer(done: Event | None, asked: str) -> Content:
    """What was asked last: that it is still to be done, or the step it was done after."""
    if asked:
        return Content.assemble((f"{GLYPHS.half} ", "$accent"), (f"{asked}: asked for, done between two steps", ""))
    if done is None:
        return Content("")
    value = done.get("value")
    number = short_number(value) if isinstance(value, float) and value < 1 else f"{value:g}" if value else ""
    action = str(done.get("action", ""))
    words = "went on" if done["event"] == "resumed" else _DONE.get(action, action).format(number)
    return Content.assemble((f"{GLYPHS.dot} ", "$success"), (f"step {done.get('step', '?')}: {plain(words)}", ""))


def title_of_curve(story: Story) -> str:
    """What the chart shows; and, while a long journal is read, that it is drawn from a part of it."""
    return f"loss over steps {GLYPHS.separator} {reading(story)}" if story.is_rough else "loss over steps"


def reading(story: Story) -> str:
    """How far a long journal is read."""
    return f"{'≈ ' if GLYPHS.eighths else ''}reading {story.share:.0%}"


def _best(story: Story) -> str:
    return f"{story.best.loss:.4g} at {story.best.step}" if story.best else ""


def _patience(story: Story) -> str:
    """How near the run is to ending early; empty where it never does."""
    training = (story.started.get("recipe") or {}).get("training") or {}
    patience = training.get("early_stopping_patience")
    return f"{story.evaluations_since_best} of {patience} evals no better" if patience else ""


def seconds_a_step(story: Story, times: StepTimes) -> float:
    """Seconds of one of the last steps."""
    training = (story.started.get("recipe") or {}).get("training") or {}
    told = [event["step"] for event in story.recent if isinstance(event.get("parts"), dict)]
    steps = told[-1] - told[0] + (training.get("logging_steps") or 1) if told else 1
    return times.seconds / max(steps, 1)


def figures(story: Story, times: StepTimes) -> list[Fact]:
    """The newest figures of a run.

    Args:
        times: of its last steps.
    """
    step = story.step
    loss = step.get("loss")
    return [
        # A loss that is no number has no place on the chart, and matters most.
        Fact("loss", str(loss) if isinstance(loss, str) else "", "bad"),
        Fact("lr", short_number(rate) if isinstance(rate := step.get("learning_rate"), float) else ""),
        Fact("grad norm", _figure(step.get("grad_norm"), ".2f")),
        Fact("tok/s", short(step["tokens_per_second"]) if step.get("tokens_per_second") else ""),
        Fact("tokens", short(step["tokens"]) if step.get("tokens") else ""),
        Fact("epoch", _figure(step.get("epoch"), ".2f")),
        Fact("accuracy", _figure(step.get("token_accuracy"), ".1%")),
        Fact("MFU", _figure(times.mfu, ".0%")),
        _achieved(times),
        Fact("padding", _figure(times.padding, ".0%")),
        Fact("best", _best(story)),
    ]


def about(story: Story, times: StepTimes) -> list[Fact]:
    """What the run was started with and what is known of it so far.

    Args:
        times: of its last steps.
    """
    recipe = story.started.get("recipe") or {}
    facts = story.facts
    trainable, counts = facts.get("trainable_parameters"), facts.get("counts") or {}
    base, tuned = (story.summary.perplexity.get(name) for name in ("base", "tuned"))
    return [
        Fact("model", short_name(story.summary.model)),
        Fact("base", str(facts.get("base", ""))),
        Fact("computes in", str(facts.get("compute_dtype", ""))),
        Fact("peak", _peak(facts)),
        Fact("HFU", _figure(times.hfu, ".0%")),
        Fact("trainable", f"{trainable:,}" if trainable else ""),
        *(Fact("auto", words) for words in decided(facts)),
        Fact("kernels", str(facts.get("kernels") or "").partition(" ")[0].lower()),
        Fact("data", str((recipe.get("data") or {}).get("source", ""))),
        # What is nought is as it should be, and would only hide what is not.
        *(Fact(name.replace("_", " "), f"{count:,}") for name, count in counts.items() if type(count) is int and count),
        Fact("perplexity", f"{_figure(base, '.2f')} of the base" if base else ""),
        Fact("", f"{_figure(tuned, '.2f')} now" if tuned else "", "good" if base and _is_less(tuned, base) else ""),
        Fact("ends early", _patience(story)),
        Fact("checkpoint", f"at step {story.checkpoint}" if story.checkpoint else ""),
        Fact("went on", f"from step {story.resumed['step']}" if story.resumed else ""),
        Fact("notices", f"{len(story.notices)}" if story.notices else "", "warn"),
    ]


def _achieved(times: StepTimes) -> Fact:
    """What was computed in a second, where there is no peak to be a share of."""
    flops = 0.0 if times.mfu is not None or times.flops is None else times.flops
    unit, scale = ("TFLOP/s", 1e12) if flops >= 1e11 else ("GFLOP/s", 1e9)
    return Fact(unit, f"{flops / scale:.3g}" if flops else "")


def _peak(facts: Event) -> str:
    """What the device could do; it is what MFU is a share of."""
    peak = facts.get("peak_flops")
    if isinstance(peak, int | float):
        return f"{peak / 1e12:,.0f} TFLOP/s"
    return "not known, so no MFU" if facts.get("no_peak") else ""


def decided(facts: Event) -> list[str]:
    """What the run decided of what its recipe left open: ``checkpointing off``, ``4 × 4 records``."""
    chosen = facts.get("chosen")
    if not isinstance(chosen, dict):
        return []
    checkpointing = chosen.get("training.gradient_checkpointing")
    size = chosen.get("training.per_device_train_batch_size")
    times = chosen.get("training.gradient_accumulation_steps")
    return [
        *([f"checkpointing {'on' if checkpointing else 'off'}"] if isinstance(checkpointing, bool) else []),
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
