"""Formats the report of a run as Markdown; text from outside (records, replies, names) is escaped."""

import html
import re
from collections.abc import Sequence
from datetime import datetime

from workbench.adapters.registry import DEFAULT, methods
from workbench.evaluation.comparison_text import preference_text, task_head, task_table, task_texts
from workbench.evaluation.formatting import better_text, figure_tables
from workbench.evaluation.preferences import Preference
from workbench.evaluation.report_data import EvaluationData, FileData, MemoryData, ReportData, UtilisationData
from workbench.evaluation.result import Evaluation
from workbench.evaluation.task_result import TaskEvaluation
from workbench.markdown import code, text
from workbench.plain_text import plain
from workbench.recipe.text import as_yaml
from workbench.units import GIB, duration, gib, size_in

SHOWN_REPLIES = 20
_MAX_REPLY_CHARACTERS = 4000
# Markdown inside HTML should not be interpreted, but some renderers do it.
_MARKUP = re.compile(r"[\\`*_{}\[\]()#!|~$:@]")


class Trusted(str):
    """Text that this module made, such as a number: it is not escaped, which reads better."""


Row = tuple[str, object]
"""A label and a value."""


def report_markdown(
    data: ReportData,
    evaluation: Evaluation | None,
    picture: str,
    tasks: TaskEvaluation | None = None,
    preferences: Sequence[Preference] = (),
) -> str:
    """Format a report as Markdown.

    Args:
        data: the content of ``report.json``.
        evaluation, tasks: the newest ones, without local paths.
        picture: name of the loss curves' file.
    """
    sections = [
        f"# {text(data['run'])}",
        _summary(data, evaluation),
        f"![Loss over steps]({picture})",
        _evaluated(evaluation) if evaluation else _not_evaluated(),
        _tasks(tasks) if tasks else "",
        _preferences(preferences),
        "## The run\n\n" + _table(_run_rows(data)),
        "## Memory\n\n" + _table(_memory_rows(data["memory"])),
        _held_out(data["figures"]["evaluations"]),
        _changes(data["changed_in_mid_run"]),
        "## Settings\n\n" + code(as_yaml(data["recipe"], width=100), "yaml"),
        "## Made with\n\n" + _table(sorted({**data["versions"], **data["reported_with"]}.items())),
        _replies(evaluation) if evaluation else "",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _summary(data: ReportData, evaluation: Evaluation | None) -> str:
    figures, adapter = data["figures"], data["recipe"].get("adapter")
    names = ", ".join(file["name"] for file in data["data"])
    parts = [
        f"{text(data['base']['source'])}, fine-tuned with {_adapter_words(adapter)} on {text(names)}: "
        f"{text(figures['state'])} after {_count(figures['steps'])} steps and {_count(figures['tokens'])} tokens."
    ]
    if evaluation:
        parts += [text(better_text(evaluation, judged)) for judged in evaluation.judged if judged.minus]
    return "\n\n".join(parts)


def _adapter_words(adapter: object) -> str:
    """``LoRA (rank 16)``, from the adapter section of a recipe as plain data."""
    values = adapter if isinstance(adapter, dict) else {}
    method = methods().get(str(values.get("method", DEFAULT)))
    if method is None:
        return text(values.get("method"))
    return f"{method.label} (rank {text(values.get('r'))})" if "r" in method.reads else method.label


def _evaluated(evaluation: Evaluation) -> str:
    whose = "held-out records" if evaluation.own else "records"
    more = " (first part only)" if evaluation.more else ""
    lines = [
        "## Metrics",
        f"{_count(evaluation.records)} {whose}{more} of {text(evaluation.source)}, {_count(evaluation.tokens)} tokens; "
        f"{_count(evaluation.referenced)} replies with a reference. In parentheses: "
        f"{evaluation.level:.0%} intervals from {_count(evaluation.draws)} bootstrap draws of the "
        f"records (seed {evaluation.seed}).",
        *(_figures(table) for table in figure_tables(evaluation)),
    ]
    return "\n\n".join(lines)


def _figures(table: Sequence[Sequence[str]]) -> str:
    """A table whose headings and first column may contain names from outside."""
    heads, *rows = table
    return _table([[name, *map(Trusted, figures)] for name, *figures in rows], [text(head) for head in heads])


def _tasks(tasks: TaskEvaluation) -> str:
    sentences = [f"- {text(sentence)}" for sentence in task_texts(tasks)]
    about = (
        f"{text(task_head(tasks))}. In parentheses: {tasks.level:.0%} intervals from {_count(tasks.draws)} bootstrap "
        f"draws of the items (seed {tasks.seed})."
    )
    return "\n\n".join(part for part in ("## Tasks", about, _figures(task_table(tasks)), "\n".join(sentences)) if part)


def _preferences(preferences: Sequence[Preference]) -> str:
    if not preferences:
        return ""
    lines = [f"- {text(preference_text(preference))}" for preference in preferences]
    return "## Preferred replies\n\nIn parentheses: 95% intervals over prompts.\n\n" + "\n".join(lines)


def _not_evaluated() -> str:
    return "Not evaluated yet: `loraworkbench evaluate` adds metrics with intervals and replies side by side."


def _run_rows(data: ReportData) -> list[Row]:
    times, base, precision = data["times"], data["base"], data["precision"]
    records, hardware = data["records"], data["hardware"]
    gpu_list = hardware.get("gpus")
    gpus = ", ".join(
        f"{gpu.get('name')} ({_memory(gpu.get('total_bytes'))})"
        for gpu in (gpu_list if isinstance(gpu_list, list) else [])
    )
    speed = times["tokens_per_second"]
    return [
        ("base model", base["source"]),
        ("revision", base["revision"]),
        ("license", base["licence"]),
        *[("records", _file(file)) for file in data["data"]],
        (
            "train, held-out records",
            Trusted(f"{_count(records.get('train_records'))}, {_count(records.get('eval_records'))}"),
        ),
        ("trainable parameters", _count(precision.get("trainable_parameters"))),
        ("base storage, compute dtype", f"{precision.get('base', '?')}, {precision.get('compute_dtype', '?')}"),
        ("last training loss", _number(data["figures"]["loss"])),
        ("started", _moment(times["started"])),
        ("duration", _duration(times["seconds"])),
        ("training time", _duration(times["seconds_in_steps"])),
        ("tokens/s", Trusted(f"{speed:,.0f}") if speed else None),
        *_utilisation_rows(data["utilisation"] or {}),
        ("hardware", gpus or f"no GPU, {hardware.get('cpu_cores', '?')} cores, {_memory(hardware.get('ram_bytes'))}"),
        ("seed", data["seed"]),
    ]


def _utilisation_rows(utilisation: UtilisationData) -> list[Row]:
    """Where the time of the steps went; no rows if the journal does not state it."""
    shares, flops, peak = utilisation.get("shares") or {}, utilisation.get("flops"), utilisation.get("peak_flops")
    of_peak = f"{_share(utilisation.get('mfu'))} of the GPU's peak of {peak / 1e12:,.0f} (MFU)" if peak else ""
    hfu = utilisation.get("hfu")
    again = f", {_share(hfu)} with checkpointing recomputation (HFU)" if peak and hfu is not None else ""
    padding = utilisation.get("padding")
    return [
        ("time per step", Trusted(", ".join(f"{text(part)} {_share(share)}" for part, share in shares.items()))),
        (
            "model FLOPs, TFLOP/s",
            Trusted(f"{flops / 1e12:,.3g}, {of_peak or text(utilisation.get('no_peak'))}{again}") if flops else None,
        ),
        ("padding", _share(padding) if padding is not None else None),
    ]


def _memory_rows(memory: MemoryData) -> list[Row]:
    error = memory["error"]
    suspect = f"; suspect: {memory['suspect'].replace('_', ' ')}" if memory["suspect"] else ""
    terms = (memory["predicted_terms"] or {}).items()
    return [
        ("predicted peak", _memory(memory["predicted_allocated"])),
        ("measured peak", _memory(memory["measured_allocated"]) or Trusted("not measured (no GPU)")),
        ("prediction − measurement", Trusted(f"{error:+.1%}{text(suspect)}") if error is not None else None),
        ("measured peak, reserved", _memory(memory["measured_reserved"])),
        ("process peak, host memory", _memory(memory["host_peak"])),
        *[(f"predicted for {name.replace('_', ' ')}", _memory(size)) for name, size in terms if size],
    ]


def _held_out(evaluations: list[EvaluationData]) -> str:
    if not evaluations:
        return ""
    rows = [
        (
            _count(evaluation["step"]),
            _number(evaluation["loss"]),
            _number(evaluation["perplexity"] if evaluation["macro_f1"] is None else evaluation["macro_f1"]),
            _share(evaluation["token_accuracy"] if evaluation["accuracy"] is None else evaluation["accuracy"]),
            _count(evaluation["records"]),
        )
        for evaluation in evaluations
    ]
    heads = ["step", "held-out loss", "perplexity", "token accuracy", "records"]
    if evaluations[0]["macro_f1"] is not None:
        heads[2:4] = ["macro-F1", "accuracy"]
    return "## Evaluations during the run\n\n" + _table(rows, heads)


def _changes(changes: list[str]) -> str:
    return "## Changes during the run\n\n" + "\n".join(f"- {text(change)}" for change in changes) if changes else ""


def _replies(evaluation: Evaluation) -> str:
    """A table of prompts with all models' replies side by side."""
    if not evaluation.answered:
        return ""
    names = [judged.name for judged in evaluation.judged]
    has_reference = any(prompt.reference is not None for prompt in evaluation.answered)
    heads = [*names, *(["reference"] if has_reference else [])]
    lines = ["## Replies", "", f"Greedy, at most {evaluation.max_new_tokens} tokens.", "", "<table>"]
    lines.append("<tr>" + "".join(f"<th>{_cell(head)}</th>" for head in heads) + "</tr>")
    # Records first; the fixed prompts only show general abilities.
    shown = sorted(evaluation.answered, key=lambda prompt: prompt.fixed)[:SHOWN_REPLIES]
    for number, prompt in enumerate(shown, start=1):
        lines.append(f'<tr><td colspan="{len(heads)}"><b>{number}.</b> {_cell(prompt.prompt)}</td></tr>')
        cells = [prompt.replies.get(name, "") for name in names] + ([prompt.reference or ""] if has_reference else [])
        lines.append("<tr>" + "".join(f'<td valign="top">{_cell(cell)}</td>' for cell in cells) + "</tr>")
    return "\n".join([*lines, "</table>"])


def _cell(content: str) -> str:
    """Escape text for an HTML cell, as one line of the file: a blank line in it would end the table."""
    short = content if len(content) <= _MAX_REPLY_CHARACTERS else content[: _MAX_REPLY_CHARACTERS - 1] + "…"
    safe = html.escape(plain(short, lines=True).strip())
    safe = _MARKUP.sub(lambda match: f"&#{ord(match[0])};", safe)
    return re.sub(r"\s*?\n", "<br>", safe).replace("\t", " ") or "<i>(nothing)</i>"


def _table(rows: Sequence[Sequence[object]], heads: Sequence[str] = ("", "")) -> str:
    """A Markdown table; rows whose last cell is None or empty are left out."""
    shown = [row for row in rows if row[-1] not in (None, "")]
    lines = [heads, ["---"] * len(heads), *([_plain_cell(cell) for cell in row] for row in shown)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _plain_cell(cell: object) -> str:
    return cell if isinstance(cell, Trusted) else text(cell)


def _file(file: FileData) -> str:
    return f"{file['name']}, {file['bytes']:,} bytes, sha256 {file['sha256']}" if file["sha256"] else file["name"]


def _count(value: object) -> str:
    return Trusted(f"{value:,}" if isinstance(value, int) else "?")


def _number(value: object) -> str | None:
    return Trusted(f"{value:.4g}") if isinstance(value, int | float) else None if value is None else str(value)


def _share(value: object) -> str:
    return Trusted(f"{value:.1%}" if isinstance(value, int | float) else "?")


def _memory(value: object) -> str | None:
    if not isinstance(value, int | float) or not value:
        return None
    return Trusted(gib(value, 2) if value >= GIB / 10 else size_in("MiB", value))


def _moment(value: object) -> str | None:
    return Trusted(f"{datetime.fromtimestamp(value):%Y-%m-%d %H:%M}") if isinstance(value, int | float) else None


def _duration(seconds: object) -> str | None:
    return Trusted(duration(seconds)) if isinstance(seconds, int | float) else None
