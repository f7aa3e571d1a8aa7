"""Predicted peaks against published measurements, as a table: ``python bench/accuracy.py measured.csv > table.md``.

The file lists one run a line: model, method (lora, qlora), seq, micro_batch, gradient_checkpointing,
peak_allocated_gib, peak_reserved_gib. The step is the plain one of notebooks: r = 16 on q, k, v and o, no dropout, nf4
with double quantisation and k-bit preparation for qlora, bfloat16 for lora, full logits, paged 8-bit AdamW.
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench.estimate import Tracer, estimate, plan_step
from workbench.estimate.footprint import measure_base
from workbench.estimate.peak import Peak
from workbench.estimate.trace.predict import peak_from
from workbench.estimate.trace.run import follow_step
from workbench.estimate.trace.store import key_of
from workbench.estimate.trace.timeline import Timeline
from workbench.models.build import meta_model
from workbench.models.catalog import catalog_skeleton
from workbench.recipe import Recipe
from workbench.recipe_text import edit

GIB = 2**30


def recipe_of(row: dict[str, str]) -> Recipe:
    """The recipe of a published run."""
    return edit(
        Recipe(),
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
    """Each run of a file of measurements with its peak from a followed step and by the closed form."""
    timelines: dict[str, Timeline] = {}
    for row in csv.DictReader(measured.read_text(encoding="utf-8").splitlines()):
        skeleton, recipe = catalog_skeleton(row["model"]), recipe_of(row)
        if skeleton is None:
            raise SystemExit(f"{row['model']} is not in the catalog")
        step = plan_step(recipe, variant="plain")
        key = key_of(skeleton, recipe, step)
        if key not in timelines:
            timelines[key] = follow_step(skeleton, recipe, step)
        followed = estimate(skeleton, recipe, variant="plain", traced=_looked_up(timelines[key])).peak
        formula = estimate(skeleton, recipe, variant="plain", traced=lambda *_: None).peak
        yield row, followed, formula


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("measured", type=Path)
    errors: list[float] = []
    print(
        "| model | base | batch × tokens | checkpoints | measured GiB | followed | closed form | reserved | weights |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for row, followed, formula in predicted_peaks(parser.parse_args().measured):
        skeleton = catalog_skeleton(row["model"])
        assert skeleton
        is_4bit = row["method"] == "qlora"
        weights = load_only_bytes(skeleton.config, 4 if is_4bit else 16)
        measured, reserved = float(row["peak_allocated_gib"]), float(row["peak_reserved_gib"])
        errors.append(abs(_error(followed.allocated_bytes, measured)))
        cells = [
            row["model"],
            "nf4" if is_4bit else "bf16",
            f"{row['micro_batch']} × {row['seq']}",
            "yes" if row["gradient_checkpointing"] == "True" else "no",
            f"{measured:.2f}",
            f"{followed.allocated_bytes / GIB:.2f} ({_error(followed.allocated_bytes, measured):+.2%})",
            f"{_error(formula.allocated_bytes, measured):+.1%}",
            f"{_error(followed.reserved_bytes, reserved):+.1%}",
            f"{_error(weights, measured):+.0%}",
        ]
        print(f"| {' | '.join(cells)} |")
    mean = sum(errors) / len(errors)
    print(f"\nFollowed step, allocated: mean {mean:.2%}, worst {max(errors):.2%}, {len(errors)} runs.")


def _error(predicted: int, measured_gib: float) -> float:
    return predicted / GIB / measured_gib - 1


def _looked_up(timeline: Timeline) -> Tracer:
    return lambda skeleton, recipe, step, plan: peak_from(
        timeline, measure_base(skeleton, step.storage), plan, step, recipe.adapter.r
    )


if __name__ == "__main__":
    main()
