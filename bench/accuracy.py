"""Predicted peaks against published measurements, as tables: ``python -m bench.accuracy > tables.md``.

The runs, and what is known of their steps, are in ``published.py``; nothing is fitted to them.
``--others PYTHON`` adds a table of other estimators, run by that interpreter: see ``other_estimators.py``.
"""

import argparse
import json
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bench.published import GIB, PEFT, RTX_4080, PublishedRun, named, not_expressed, peft, rows, rtx4080, validation
from workbench.estimate import Setup
from workbench.estimate.adapter.plan import plan_adapter
from workbench.estimate.closed_form import closed_form_peak
from workbench.estimate.footprint import measure_base
from workbench.estimate.layer_shape import model_shape
from workbench.estimate.peak import Peak
from workbench.estimate.rules_of_thumb import rule_of_thumb
from workbench.estimate.trace.predict import peak_from, replayed_peak
from workbench.estimate.trace.resting import resting_of
from workbench.estimate.trace.run import trace_step
from workbench.estimate.trace.store import key_of
from workbench.estimate.trace.timeline import Timeline
from workbench.models.build import meta_model
from workbench.models.catalog import catalog_skeleton

_TIMELINES: dict[str, Timeline] = {}


def predicted(run: PublishedRun) -> tuple[Peak, Peak]:
    """The peak of a run's step: traced, and by the closed form."""
    adapter = Setup.of(run.recipe).adapter
    key = key_of(run.skeleton, adapter, run.step)
    if key not in _TIMELINES:
        _TIMELINES[key] = trace_step(run.skeleton, run.recipe, run.step)
    plan = plan_adapter(run.skeleton, adapter, run.step.dtypes)
    base = measure_base(run.skeleton, run.step.storage)
    traced = peak_from(_TIMELINES[key], base, plan, run.step, adapter.r)
    resting = resting_of(run.skeleton, plan, run.step, run.loading)
    sizes = (run.step.batch, run.step.length, adapter.r)
    return (
        replayed_peak(_TIMELINES[key], traced, resting, (sizes,) * run.steps),
        closed_form_peak(model_shape(run.skeleton), base, plan, run.step),
    )


def load_only_bytes(config: dict[str, Any], bits: int) -> int:
    """What ``accelerate estimate-memory`` says a model takes: its weights in one type."""
    from accelerate.utils import calculate_maximum_sizes

    in_bfloat16, _ = calculate_maximum_sizes(meta_model(config))
    return int(in_bfloat16 * bits / 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--others", type=Path, metavar="PYTHON", help="where other estimators are installed")
    options = parser.parse_args()
    heads = ("model", "base", "batch × tokens", "checkpoints")
    print("RTX 4080, without autocast\n")
    print_table(heads, rtx4080(), with_weights=True)
    print("\nRTX 4080, with autocast\n")
    print_table(heads, validation())
    print("\nL40S, PEFT's comparison of methods\n")
    print_table(("run", "date", "torch"), peft())
    print("\nNot expressed:")
    for why, count in Counter(why for row in rows(PEFT) if (why := not_expressed(row))).items():
        print(f"- {count} row{'s' * (count > 1)} of PEFT's comparison: {why}.")
    if options.others:
        print()
        print_others(RTX_4080, options.others)


def print_table(heads: Iterable[str], runs: Iterator[PublishedRun], with_weights: bool = False) -> None:
    """Our figures, with their errors, and perhaps the weights alone."""
    columns = [*heads, "measured GiB", "traced", "closed form", "reserved GiB", "replayed"]
    columns += ["weights"] * with_weights
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    allocated: list[float] = []
    reserved: list[float] = []
    for run in runs:
        traced, formula = predicted(run)
        cells = [*run.name, "–", f"{traced.allocated_bytes / GIB:.2f}", "–"]
        if run.allocated is not None:
            allocated.append(traced.allocated_bytes / run.allocated - 1)
            cells[-3:] = [
                f"{run.allocated / GIB:.2f}",
                f"{traced.allocated_bytes / GIB:.2f} ({allocated[-1]:+.2%})",
                f"{formula.allocated_bytes / run.allocated - 1:+.1%}",
            ]
        reserved.append(traced.reserved_bytes / run.reserved - 1)
        cells += [f"{run.reserved / GIB:.2f}", f"{traced.reserved_bytes / GIB:.2f} ({reserved[-1]:+.1%})"]
        if with_weights:
            bits = 16 if run.step.loaded.method == "none" else 4
            cells.append(f"{load_only_bytes(run.skeleton.config, bits) / (run.allocated or 1) - 1:+.0%}")
        print(f"| {' | '.join(cells)} |", flush=True)
    print()
    for name, errors in (("allocated", allocated), ("reserved", reserved)):
        if errors:
            mean, worst = sum(map(abs, errors)) / len(errors), max(errors, key=abs)
            print(f"Traced step, {name}: mean {mean:.2%}, worst {worst:+.2%}, {len(errors)} runs.")


def print_others(measured_runs: Path, python: Path) -> None:
    """The figures of other estimators, each against that of the two measured peaks which it comes closer to."""
    runs = rows(measured_runs)
    answer = subprocess.run(
        [python, Path(__file__).with_name("other_estimators.py")],
        input=json.dumps([_run(row) for row in runs]),
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(answer.stdout)
    columns = {f"{name} {facts['version']}": _errors(facts["gib"], runs) for name, facts in told.items()}
    columns["rule of thumb"] = _errors([_rule_of_thumb(row) for row in runs], runs)
    print(f"| model | base | batch × tokens | checkpoints | {' | '.join(columns)} |")
    print("|---" * (4 + len(columns)) + "|")
    for index, row in enumerate(runs):
        errors = (column[1][index] for column in columns.values())
        print(f"| {' | '.join([*named(row), *('–' if e is None else f'{e:+.0%}' for e in errors)])} |")
    means = []
    for peak, column in columns.values():
        known = [abs(error) for error in column if error is not None]
        means.append(f"{sum(known) / len(known):.0%} of {peak}, {len(known)} run{'s' * (len(known) > 1)}")
    print(f"| mean error | | | | {' | '.join(means)} |")


def _errors(figures: list[float | None], runs: list[dict[str, str]]) -> tuple[str, list[float | None]]:
    """Which measured peak these figures come closer to, and their errors against it."""
    against = {
        peak: [None if gib is None else gib / _measured(row)[place] - 1 for gib, row in zip(figures, runs, strict=True)]
        for place, peak in enumerate(("allocated", "reserved"))
    }
    return min(against.items(), key=lambda item: sum(abs(error or 0.0) for error in item[1]))


def _rule_of_thumb(row: dict[str, str]) -> float | None:
    """GiB, for models of the sizes that tutorials have a figure for."""
    skeleton = catalog_skeleton(row["model"])
    rule = rule_of_thumb(skeleton) if skeleton else None
    if rule is None:
        return None
    return (rule.qlora_gb if row["method"] == "qlora" else rule.lora_gb) * 1e9 / GIB


def _run(row: dict[str, str]) -> dict[str, Any]:
    """A run as ``other_estimators.py`` reads it."""
    skeleton = catalog_skeleton(row["model"])
    assert skeleton
    return {
        "model": row["model"],
        "config": skeleton.config,
        "parameters": skeleton.parameters,
        "method": row["method"],
        "batch": int(row["micro_batch"]),
        "length": int(row["seq"]),
        "checkpoints": row["gradient_checkpointing"] == "True",
    }


def _measured(row: dict[str, str]) -> tuple[float, float]:
    """GiB allocated and reserved."""
    return float(row["peak_allocated_gib"]), float(row["peak_reserved_gib"])


if __name__ == "__main__":
    main()
