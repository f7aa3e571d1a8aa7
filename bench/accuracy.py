"""Predicted peaks against published measurements, as a table: ``python -m bench.accuracy measured.csv > table.md``.

The file lists one run a line: model, method (lora, qlora), seq, micro_batch, gradient_checkpointing,
peak_allocated_gib, peak_reserved_gib. The step is the plain one of notebooks: r = 16 on q, k, v and o, no dropout, nf4
with double quantisation and k-bit preparation for qlora, bfloat16 for lora, full logits, paged 8-bit AdamW.

``--others PYTHON`` adds a table of other estimators, run by that interpreter: see ``other_estimators.py``.
"""

import argparse
import csv
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench.estimate import Setup, Tracer, price
from workbench.estimate.footprint import measure_base
from workbench.estimate.peak import Peak
from workbench.estimate.rules_of_thumb import rule_of_thumb
from workbench.estimate.step import plan_step
from workbench.estimate.trace.predict import peak_from
from workbench.estimate.trace.run import trace_step
from workbench.estimate.trace.store import key_of
from workbench.estimate.trace.timeline import Timeline
from workbench.models.build import meta_model
from workbench.models.catalog import catalog_skeleton
from workbench.recipe.resolved import ResolvedRecipe, resolved
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit

GIB = 2**30


def recipe_of(row: dict[str, str]) -> ResolvedRecipe:
    """The recipe of a published run."""
    return edit(
        resolved(Recipe()),
        {
            "model.source": row["model"],
            "quantization.method": "nf4" if row["method"] == "qlora" else "none",
            "adapter.r": 16,
            "adapter.lora_alpha": 16,
            "adapter.lora_dropout": 0.0,
            "adapter.target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
            "training.optim": "paged_adamw_8bit",
            "training.gradient_checkpointing": row["gradient_checkpointing"] == "True",
            "training.per_device_train_batch_size": int(row["micro_batch"]),
            "training.gradient_accumulation_steps": 1,
            "data.max_length": int(row["seq"]),
        },
    )


def load_only_bytes(config: dict[str, Any], bits: int) -> int:
    """What ``accelerate estimate-memory`` says a model takes: its weights in one type."""
    from accelerate.utils import calculate_maximum_sizes

    in_bfloat16, _ = calculate_maximum_sizes(meta_model(config))
    return int(in_bfloat16 * bits / 16)


def predicted_peaks(measured: Path) -> Iterator[tuple[dict[str, str], Peak, Peak]]:
    """Each run of a file of measurements with its peak from a traced step and by the closed form."""
    timelines: dict[str, Timeline] = {}
    for row in _rows(measured):
        skeleton, recipe = catalog_skeleton(row["model"]), recipe_of(row)
        if skeleton is None:
            raise SystemExit(f"{row['model']} is not in the catalog")
        setup = Setup.of(recipe)
        step = plan_step(setup, variant="plain")
        key = key_of(skeleton, setup.adapter, step)
        if key not in timelines:
            timelines[key] = trace_step(skeleton, recipe, step)
        traced = price(skeleton, recipe, variant="plain", traced=_looked_up(timelines[key])).peak
        formula = price(skeleton, recipe, variant="plain", traced=lambda *_: None).peak
        yield row, traced, formula


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measured", type=Path)
    parser.add_argument("--others", type=Path, metavar="PYTHON", help="where other estimators are installed")
    options = parser.parse_args()
    print_ours(options.measured)
    if options.others:
        print()
        print_others(options.measured, options.others)


def print_ours(measured_runs: Path) -> None:
    """Our figures, and the weights alone."""
    errors: list[float] = []
    print("| model | base | batch × tokens | checkpoints | measured GiB | traced | closed form | reserved | weights |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row, traced, formula in predicted_peaks(measured_runs):
        skeleton = catalog_skeleton(row["model"])
        assert skeleton
        weights = load_only_bytes(skeleton.config, 4 if row["method"] == "qlora" else 16)
        measured, reserved = _measured(row)
        errors.append(abs(_error(traced.allocated_bytes, measured)))
        cells = [
            *_named(row),
            f"{measured:.2f}",
            f"{traced.allocated_bytes / GIB:.2f} ({_error(traced.allocated_bytes, measured):+.2%})",
            f"{_error(formula.allocated_bytes, measured):+.1%}",
            f"{_error(traced.reserved_bytes, reserved):+.1%}",
            f"{_error(weights, measured):+.0%}",
        ]
        print(f"| {' | '.join(cells)} |")
    mean = sum(errors) / len(errors)
    within = sum(error <= 0.02 for error in errors)
    print(f"\nTraced step, allocated: mean {mean:.2%}, worst {max(errors):.2%}, {within} of {len(errors)} within 2 %.")


def print_others(measured_runs: Path, python: Path) -> None:
    """The figures of other estimators, each against that of the two measured peaks which it comes closer to."""
    rows = _rows(measured_runs)
    answer = subprocess.run(
        [python, Path(__file__).with_name("other_estimators.py")],
        input=json.dumps([_run(row) for row in rows]),
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(answer.stdout)
    columns = {f"{name} {facts['version']}": _errors(facts["gib"], rows) for name, facts in told.items()}
    columns["rule of thumb"] = _errors([_rule_of_thumb(row) for row in rows], rows)
    print(f"| model | base | batch × tokens | checkpoints | {' | '.join(columns)} |")
    print("|---" * (4 + len(columns)) + "|")
    for index, row in enumerate(rows):
        errors = (column[1][index] for column in columns.values())
        print(f"| {' | '.join([*_named(row), *('–' if e is None else f'{e:+.0%}' for e in errors)])} |")
    means = []
    for peak, column in columns.values():
        known = [abs(error) for error in column if error is not None]
        means.append(f"{sum(known) / len(known):.0%} of {peak}, {len(known)} run{'s' * (len(known) > 1)}")
    print(f"| mean error | | | | {' | '.join(means)} |")


def _errors(figures: list[float | None], rows: list[dict[str, str]]) -> tuple[str, list[float | None]]:
    """Which measured peak these figures come closer to, and their errors against it."""
    against = {
        peak: [None if gib is None else gib / _measured(row)[place] - 1 for gib, row in zip(figures, rows, strict=True)]
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


def _rows(measured: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(measured.read_text(encoding="utf-8").splitlines()))


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


def _named(row: dict[str, str]) -> list[str]:
    return [
        row["model"].rpartition("/")[2],
        "nf4" if row["method"] == "qlora" else "bf16",
        f"{row['micro_batch']} × {row['seq']}",
        "yes" if row["gradient_checkpointing"] == "True" else "no",
    ]


def _measured(row: dict[str, str]) -> tuple[float, float]:
    """GiB allocated and reserved."""
    return float(row["peak_allocated_gib"]), float(row["peak_reserved_gib"])


def _error(predicted: int, measured_gib: float) -> float:
    return predicted / GIB / measured_gib - 1


def _looked_up(timeline: Timeline) -> Tracer:
    return lambda skeleton, adapter, step, plan: peak_from(
        timeline, measure_base(skeleton, step.storage), plan, step, adapter.r
    )


if __name__ == "__main__":
    main()
