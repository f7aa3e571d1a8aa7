"""The start card as text: what Enter would start, what it needs and takes, and what is wrong, with the key to press."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from screens.charts.scale import short_number
from screens.shell.header import method_word, short_name, targets_word
from screens.shell.run_words import dotted, last_run_words
from screens.widgets.glyphs import GLYPHS
from screens.widgets.key_texts import key, keyed
from screens.widgets.plain import plain
from workbench.adapters.registry import size_words
from workbench.data.facts import records_text
from workbench.planning.expected_time import ASSUMED_MFU
from workbench.recipe.data_sources import source_text
from workbench.units import file_size, gib, rough_time, short

if TYPE_CHECKING:
    from collections.abc import Iterator

    from screens.train.start_check import Findings, Trouble
    from workbench.planning.launch import Launch
    from workbench.recipe.schema import Recipe
    from workbench.runs.summary import RunSummary

_LABEL = 10
_DIM = "$foreground 70%"


def start_card(
    recipe: Recipe,
    found: Findings,
    newest: RunSummary | None = None,
    launch: Launch | None = None,
    *,
    called: str = "",
    in_queue: str = "",
) -> Content:
    """What Enter would start.

    Args:
        found: what was looked up so far.
        newest: the newest run: an interrupted one can be resumed instead.
        called: its name, if that is not its id.
        in_queue: the queue in words.
    """
    lines = [
        *(_invitation(newest, called) if newest and newest.state == "interrupted" else ()),
        _ready(found),
        *(_trouble(trouble) for trouble in found.troubles),
        Content(""),
        *_what(recipe, found, launch),
        *_costs(recipe, found),
        *_cadence(recipe, found),
    ]
    if newest is not None and newest.ended:
        lines.append(_row("last run", last_run_words(newest, called)))
    if in_queue:
        lines += [Content(""), Content.styled(plain(in_queue), "$warning")]
    return Content("\n").join(lines)


def _ready(found: Findings) -> Content:
    if found.is_clear:
        return Content.assemble(("Ready to train. ", "bold"), (key("train.start"), "bold $accent"), " starts.")
    return Content.styled("Not ready to train.", "bold $error")


def _trouble(trouble: Trouble) -> Content:
    mark = "!" if trouble.tone == "warning" else "✗" if GLYPHS.is_unicode else "x"
    action, _, name = trouble.cure.partition(" ")
    return Content.assemble(
        (f"{mark} {plain(trouble.text)}  ", f"${trouble.tone}"), (keyed(action), "bold $accent"), f" {plain(name)}"
    )


def _row(label: str, *parts: str, tail: str = "") -> Content:
    return Content.assemble(
        (f"  {label:<{_LABEL}}", _DIM), plain(dotted(*parts)), (f"  {tail}" if tail else "", _DIM)
    )  # fmt: skip


def _what(recipe: Recipe, found: Findings, launch: Launch | None) -> Iterator[Content]:
    training, gpus = recipe.training, launch.devices if launch else ()
    yield Content.assemble(
        (f"  {'run name':<{_LABEL}}", _DIM),
        plain(recipe.output.name),
        (f"  {plain(_becomes(found))}", _DIM),
        (key("train.name"), "bold $accent"),
        (" changes it", _DIM),
    )
    yield _row("model", short_name(recipe.model.source), _files(found))
    variant = "DoRA" if recipe.adapter.use_dora else "rsLoRA" if recipe.adapter.use_rslora else ""
    yield _row("method", method_word(recipe), size_words(recipe.adapter), targets_word(recipe), variant)
    facts = found.facts
    tokens = f"{short(facts.total)} tokens" if facts and facts.total else ""
    records = records_text(facts.records) if facts and facts.records else ""
    sampled = "of a sample" if facts and not facts.exact else ""
    yield _row("dataset", source_text(recipe.data.source), records, f"{tokens} {sampled}".strip())
    times = f" × {len(gpus)}" if len(gpus) > 1 else ""
    batch = training.effective_batch * max(len(gpus), 1)
    yield _row("batch", f"{_micro_batches(recipe)}{times} = {batch} records per step")
    if launch is not None and gpus:
        yield _row("GPUs", launch.device_names)


def _becomes(found: Findings) -> str:
    arrow = GLYPHS.arrow
    return f"{arrow} {found.next_id}   " if found.next_id else ""


def _files(found: Findings) -> str:
    files = found.files
    if files is None:
        return ""
    if files.is_here:
        return f"on disk, {file_size(files.bytes)}" if files.bytes else "on disk"
    return f"not on disk: downloads {file_size(files.bytes)}" if files.bytes else "not on disk: downloads first"


def _micro_batches(recipe: Recipe) -> str:
    training = recipe.training
    if training.per_device_train_batch_size == "auto":
        return "fastest micro-batch that fits × accumulation"
    return f"{training.per_device_train_batch_size} × {training.gradient_accumulation_steps}"


def _costs(recipe: Recipe, found: Findings) -> Iterator[Content]:
    training, work = recipe.training, found.work
    epochs = "1 epoch" if training.num_train_epochs == 1 else f"{training.num_train_epochs:g} epochs"
    length = f"{training.max_steps} steps" if training.max_steps > 0 else epochs
    if work is not None and training.max_steps <= 0:
        length = f"{epochs} = {_about(work.is_sampled)}{work.steps} steps"
    tokens = f"{short(work.tokens)} tokens" if work is not None else f"tokens: counted on {key('tab.data')} Data"
    yield _row("length", length, tokens, f"learning rate {short_number(training.learning_rate)}")
    price = found.price
    if price is not None:
        need = f"needs {_about(price.is_by_formula)}{gib(price.peak.device_bytes)}"
        color = {"fits": "$success", "tight": "$warning", "does not fit": "$error"}.get(price.fit or "", "")
        yield Content.assemble(
            (f"  {'memory':<{_LABEL}}", _DIM),
            (f"{price.fit}: " if price.fit else "", f"bold {color}".strip()),
            plain(dotted(need, price.budget.free_text.replace(" (CPU training)", ", CPU"))),
        )
    yield _row("time", *_time(found))


def _time(found: Findings) -> tuple[str, ...]:
    work, speed = found.work, found.speed
    if speed is None:
        return ("unknown: no earlier run of this model here",)
    rate = f"{short(speed.tokens_per_second)} tok/s"
    basis = f"as in {speed.run}" if speed.run else f"estimate at {ASSUMED_MFU:.0%} of the GPU's peak"
    if work is None:
        return (f"{rate} {basis}",)
    return (f"{_about(True)}{rough_time(work.tokens / speed.tokens_per_second)}", f"{rate} {basis}")


def _about(is_by_formula: bool) -> str:
    return ("≈ " if GLYPHS.is_unicode else "~ ") if is_by_formula else ""


def _cadence(recipe: Recipe, found: Findings) -> Iterator[Content]:
    training, facts = recipe.training, found.facts
    held_out = f"{records_text(facts.eval_records)} held out" if facts and facts.records else ""
    holds_out = recipe.data.eval_fraction or recipe.data.eval_records
    if (facts is not None and facts.records and not facts.eval_records) or not holds_out:
        when = "none: no held-out records" if facts is None or not facts.eval_records else "before and at the end"
    else:
        every = f"every {training.eval_steps} steps, " if training.eval_steps else ""
        when = f"{every}before and at the end"
    patience = training.early_stopping_patience
    stop = f"stops after {patience} without improvement" if patience and training.eval_steps else ""
    yield _row("eval", when, held_out, stop)
    every = f"every {training.save_steps} steps, the last {training.save_total_limit}" if training.save_steps else ""
    yield _row("save", every or "at the end", f"keeps the {training.keep} adapter")


def _invitation(interrupted: RunSummary, called: str) -> tuple[Content, ...]:
    where = f"{plain(called or interrupted.id)} was interrupted after step {interrupted.step}. "
    line = Content.assemble(
        (where, "bold $warning"), (f"Press {key('run.resume')}", "bold $accent"), " to resume from its last checkpoint."
    )  # fmt: skip
    return line, Content("")
