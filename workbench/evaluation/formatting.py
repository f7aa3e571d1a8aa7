"""Formats an evaluation's metrics as table rows and sentences, for the terminal, the screen and the report."""

from collections.abc import Sequence

from workbench.evaluation.result import EvaluatedModel, Evaluation, Interval, ModelMetrics

_HEADS = {
    "perplexity": "perplexity",
    "token_accuracy": "token accuracy",
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "preference_accuracy": "preference accuracy",
    "preference_margin": "preference margin",
    "exact": "exact",
    "contains": "contains",
    "rouge_l": "ROUGE-L",
}
# Metrics that are no shares. The margin of log-probabilities is shown as one, as it always was.
_NUMBERS = ("perplexity", "macro_f1")
FEW_RECORDS = 20
"""With fewer records the intervals themselves are unreliable."""


Rows = list[list[str]]


def figure_tables(evaluation: Evaluation, *, bounds: bool = True) -> list[Rows]:
    """Tables of all metrics; the first row of each has the headings.

    With the base and one other model there is one table, with a row per metric and the difference. With more models
    there are two tables with a row per model: the metrics, and base − model.

    Args:
        bounds: show intervals.
    """
    by_model = _rows(evaluation, minus=False, bounds=bounds), _rows(evaluation, minus=True, bounds=bounds)
    if len(evaluation.judged) != 2:
        return [rows for rows in by_model if len(rows) > 1]
    return [[list(line) for line in zip(*by_model[0], by_model[1][1], strict=True)]]


def _rows(evaluation: Evaluation, *, minus: bool, bounds: bool) -> Rows:
    by_model = [(judged.name, judged.minus if minus else judged.figures) for judged in evaluation.judged]
    rows = [(name, figures) for name, figures in by_model if figures is not None]
    names = [name for name in _HEADS if any(getattr(figures, name) is not None for _, figures in rows)]
    start = f"{evaluation.judged[0].name} − " if minus else ""
    return [
        ["", *(_HEADS[name] for name in names)],
        *([f"{start}{model}", *_cells(figures, names, signed=minus, bounds=bounds)] for model, figures in rows),
    ]


def better_text(evaluation: Evaluation, judged: EvaluatedModel) -> str:
    """Say in a sentence whether a model is better than the base, by perplexity; or than a baseline, by its accuracy."""
    assert judged.minus is not None
    base, tuned, gain = evaluation.judged[0].figures.perplexity, judged.figures.perplexity, judged.minus.perplexity
    if base is None or tuned is None or gain is None:
        return _more_accurate_text(evaluation, judged)
    figures = f"held-out perplexity {number_text(base.value)} → {number_text(tuned.value)}"
    if gain.low is None or gain.high is None:
        return f"{judged.name}: {figures}."
    bounds = f"{number_text(gain.low)} to {number_text(gain.high)}"
    if gain.low > 0:
        return f"{judged.name} is better than the base: {figures}, lower by {number_text(gain.value)} ({bounds})."
    if gain.high < 0:
        higher = f"{number_text(-gain.high)} to {number_text(-gain.low)}"
        return f"{judged.name} is worse than the base: {figures}, higher by {number_text(-gain.value)} ({higher})."
    return (
        f"{judged.name} shows no significant difference from the base: {figures}, difference "
        f"{number_text(gain.value)} ({bounds})."
    )


def _more_accurate_text(evaluation: Evaluation, judged: EvaluatedModel) -> str:
    assert judged.minus is not None
    first, label = evaluation.judged[0], "accuracy" if judged.figures.accuracy else "preference accuracy"
    name = label.replace(" ", "_")
    base, tuned, loss = (getattr(figures, name) for figures in (first.figures, judged.figures, judged.minus))
    figures = f"held-out {label} {base.value:.1%} → {tuned.value:.1%}"
    if loss.low is None or loss.high is None:
        return f"{judged.name}: {figures}."
    bounds = f"{-loss.high:+.1%} to {-loss.low:+.1%}"
    how = (
        "is better than"
        if loss.high < 0
        else "is worse than"
        if loss.low > 0
        else "shows no significant difference from"
    )
    return f"{judged.name} {how} {'' if first.name == 'chance' else 'the '}{first.name}: {figures} ({bounds})."


def caution(evaluation: Evaluation) -> str:
    """Caveats about the metrics: few records, skipped ones; empty if there are none."""
    parts = []
    if evaluation.planned is not None:
        parts.append(f"Stopped early: {evaluation.records} of {evaluation.planned} records.")
    if evaluation.records < FEW_RECORDS:
        parts.append(f"Only {evaluation.records} records: the intervals are rough.")
    if evaluation.left_out:
        parts.append(f"{evaluation.left_out} records were skipped: invalid, or no response left after truncation.")
    if evaluation.too_long:
        parts.append(f"{evaluation.too_long} prompts fill the model's context and leave no room for a reply.")
    return " ".join(parts)


def _cells(figures: ModelMetrics, names: Sequence[str], *, signed: bool, bounds: bool) -> list[str]:
    cells = []
    for name in names:
        metric = getattr(figures, name)
        cells.append(interval_text(metric, name not in _NUMBERS, "+" if signed else "", bounds) if metric else "")
    return cells


def interval_text(metric: Interval, is_share: bool, sign: str, bounds: bool) -> str:
    """A metric, as a percentage if it is a share, with its interval in parentheses if ``bounds``."""

    def format_value(value: float) -> str:
        return f"{value:{sign}.1%}" if is_share else number_text(value, sign)

    if not bounds or metric.low is None or metric.high is None:
        return format_value(metric.value)
    return f"{format_value(metric.value)} ({format_value(metric.low)} to {format_value(metric.high)})"


def number_text(value: float, sign: str = "") -> str:
    """A number with four significant digits."""
    return f"{value:{sign}.4g}" if abs(value) < 1e5 else f"{value:{sign}.2e}"
