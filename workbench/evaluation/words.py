"""An evaluation's figures in words and rows: the same in the terminal, on the screen and in the report."""

from collections.abc import Sequence

from workbench.evaluation.result import Evaluation, Figures, Interval, Judged

_HEADS = {
    "perplexity": "perplexity",
    "token_accuracy": "token accuracy",
    "exact": "exact",
    "contains": "contains",
    "rouge_l": "ROUGE-L",
}
# Fewer records than this: the interval itself is no more than a guess.
FEW_RECORDS = 20


def figure_rows(evaluation: Evaluation, *, minus: bool = False) -> tuple[list[str], list[list[str]]]:
    """Heads and rows, one a model; with ``minus`` base − model, of all but the base."""
    of = [(judged.name, judged.minus if minus else judged.figures) for judged in evaluation.judged]
    rows = [(name, figures) for name, figures in of if figures is not None]
    names = [name for name in _HEADS if any(getattr(figures, name) is not None for _, figures in rows)]
    return ["model", *(_HEADS[name] for name in names)], [
        [model, *_cells(figures, names, signed=minus)] for model, figures in rows
    ]


def better_text(evaluation: Evaluation, judged: Judged) -> str:
    """What the perplexity says of one model against the base, in a sentence."""
    assert judged.minus is not None
    base, own, gain = evaluation.judged[0].figures.perplexity, judged.figures.perplexity, judged.minus.perplexity
    figures = f"held-out perplexity {_number(base.value)} → {_number(own.value)}"
    if gain.low is None or gain.high is None:
        return f"{judged.name}: {figures}."
    bounds = f"{_number(gain.low)} to {_number(gain.high)}"
    if gain.low > 0:
        return f"{judged.name} is better than the base: {figures}, lower by {_number(gain.value)} ({bounds})."
    if gain.high < 0:
        higher = f"{_number(-gain.high)} to {_number(-gain.low)}"
        return f"{judged.name} is worse than the base: {figures}, higher by {_number(-gain.value)} ({higher})."
    return f"{judged.name} cannot be told from the base: {figures}, a difference of {_number(gain.value)} ({bounds})."


def caution(evaluation: Evaluation) -> str:
    """What to keep in mind with these figures; empty where there is nothing."""
    parts = []
    if evaluation.records < FEW_RECORDS:
        parts.append(f"Only {evaluation.records} records: take the intervals for rough guesses.")
    if evaluation.left_out:
        parts.append(f"{evaluation.left_out} records were left out: unreadable, or no reply left after the cut.")
    if evaluation.too_long:
        parts.append(f"{evaluation.too_long} prompts leave no room for a reply in the model's context.")
    return " ".join(parts)


def _cells(figures: Figures, names: Sequence[str], *, signed: bool) -> list[str]:
    return [_interval(getattr(figures, name), is_share=name != "perplexity", signed=signed) for name in names]


def _interval(found: Interval | None, *, is_share: bool, signed: bool) -> str:
    if found is None:
        return ""
    sign = "+" if signed else ""

    def told(value: float) -> str:
        return f"{value:{sign}.1%}" if is_share else _number(value, sign)

    return told(found.value) + (
        "" if found.low is None or found.high is None else f" ({told(found.low)} to {told(found.high)})"
    )


def _number(value: float, sign: str = "") -> str:
    return f"{value:{sign}.4g}" if abs(value) < 1e5 else f"{value:{sign}.2e}"
