"""Formats results on tasks, and preferences, as rows and sentences, for the terminal, the screen and the report."""

from workbench.evaluation.formatting import Rows, interval_text, number_text
from workbench.evaluation.preferences import USER, Preference
from workbench.evaluation.result import BASE
from workbench.evaluation.task_result import TaskEvaluation, TaskMetric


def task_table(result: TaskEvaluation, *, bounds: bool = True) -> Rows:
    """A row per metric: the figures of all models, and base − model; the first row has the headings.

    Args:
        bounds: show intervals.
    """
    others = [name for name in result.models if name != BASE]
    head = ["task", "metric", "items", *result.models, *(f"{BASE} − {name}" for name in others)]
    return [head, *(_task_row(metric, result.models, others, bounds) for metric in result.metrics)]


def _task_row(metric: TaskMetric, models: list[str], others: list[str], bounds: bool) -> list[str]:
    share = bool(metric.flips)
    return [
        metric.task,
        metric.name,
        f"{metric.items:,}",
        *(interval_text(metric.values[name], share, "", bounds) for name in models),
        *(interval_text(metric.minus[name], share, "+", bounds) for name in others),
    ]


def task_texts(result: TaskEvaluation) -> list[str]:
    """Say in sentences where each model differs from the base, beyond its interval."""
    lines = []
    for name in result.models:
        if name == BASE:
            continue
        known = [metric for metric in result.metrics if metric.minus[name].low is not None]
        differing = [metric for metric in known if _direction(metric, name)]
        lines += [_difference(metric, name) for metric in differing]
        if same := list(dict.fromkeys(metric.task for metric in known if metric not in differing)):
            lines.append(f"{name} shows no significant difference from the base on {', '.join(same)}.")
    return lines


def task_head(result: TaskEvaluation) -> str:
    """What was evaluated, and how."""
    parts = [f"lm-eval {result.versions.get('lm_eval', '?')}: {', '.join(result.tasks)}"]
    if result.limit is not None:
        parts.append(f"at most {result.limit:,} items each")
    if result.num_fewshot is not None:
        parts.append(f"{result.num_fewshot}-shot")
    parts.append("with the run's chat template" if result.chat_template else "without a chat template")
    return "; ".join(parts)


def preference_text(preference: Preference) -> str:
    """Say in a sentence how often the second model's replies were preferred."""
    first, second = preference.names
    other = "the base" if first == BASE else first
    rater = "You" if preference.rater == USER else f"The judge {preference.judge}"
    verb = "preferred" if preference.rater == USER else "prefers"
    rate = preference.win_rate
    bounds = f" ({rate.low:.1%} to {rate.high:.1%})" if rate.low is not None and rate.high is not None else ""
    text = (
        f"{rater} {verb} {second} to {other}: win rate {rate.value:.1%}{bounds}; of {preference.ratings:,} prompts "
        f"{preference.wins} better, {preference.losses} worse, {preference.ties} even."
    )
    if preference.agreement is not None:
        text += f" The same verdict in both orders: {preference.agreement:.0%}."
    return text


def _direction(metric: TaskMetric, name: str) -> int:
    """1 if the model's figure is higher than the base's beyond the interval, −1 if lower, else 0."""
    minus = metric.minus[name]
    if minus.low is None or minus.high is None:
        return 0
    return -1 if minus.low > 0 else 1 if minus.high < 0 else 0


def _difference(metric: TaskMetric, name: str) -> str:
    direction, share = _direction(metric, name), bool(metric.flips)
    if metric.higher_is_better is None:
        judgment = "differs from the base"
    else:
        judgment = f"is {'better' if (direction > 0) == metric.higher_is_better else 'worse'} than the base"

    def figure(value: float) -> str:
        return f"{value:.1%}" if share else number_text(value)

    minus = metric.minus[name]
    assert minus.low is not None
    assert minus.high is not None
    low, high = sorted((abs(minus.low), abs(minus.high)))
    text = (
        f"{name} {judgment} on {metric.task} ({metric.name}): {figure(metric.values[BASE].value)} → "
        f"{figure(metric.values[name].value)}, {'higher' if direction > 0 else 'lower'} by {figure(abs(minus.value))} "
        f"({figure(low)} to {figure(high)})"
    )
    if (flipped := metric.flips.get(name)) is not None:
        text += f"; {flipped.lost} items lost, {flipped.gained} gained, McNemar p = {flipped.p:.2g}"
    return f"{text}."
