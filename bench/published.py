"""Runs whose peak memory others measured and published, each with the step that was measured.

The files are in ``docs/measurements``. Nothing in the estimator is fitted to them.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from workbench.estimate import Setup
from workbench.estimate.step import Step, plan_step
from workbench.estimate.trace.resting import Loading
from workbench.models.catalog import catalog_skeleton
from workbench.models.skeleton import Skeleton
from workbench.recipe.resolved import ResolvedRecipe, resolved
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit

GIB = 2**30
FOLDER = Path(__file__).resolve().parents[1] / "docs" / "measurements"
RTX_4080 = FOLDER / "rtx4080-published.csv"
VALIDATION = FOLDER / "canifinetune-validation-0.4.0.csv"
PEFT = FOLDER / "peft-lora-llama32-3b.csv"

# By the names of the files that the rows come from; the others ran three steps.
_OF_TWO_STEPS = {
    ("Qwen/Qwen2.5-1.5B-Instruct", "1024", "2"),
    ("Qwen/Qwen2.5-1.5B-Instruct", "4096", "1"),
    ("Qwen/Qwen2.5-3B-Instruct", "1024", "1"),
    ("Qwen/Qwen2.5-7B-Instruct", "1024", "1"),
}

_NOT_EXPRESSED = {
    "bdlora": "block-diagonal LoRA is no setting of a recipe",
    "lorafa": "the LoRA-FA optimizer, which freezes A, is no setting of a recipe",
    "mica": "the MiCA initialization, which freezes A, is no setting of a recipe",
}


@dataclass(frozen=True)
class PublishedRun:
    """One measured run.

    Attributes:
        name: in words, the cells of a table: model or adapter, base, batch × tokens, checkpoints.
        step: the step that was measured.
        allocated: bytes at the peak, by ``max_memory_allocated``; None where it was not published.
        reserved: by ``max_memory_reserved``.
        loading: how the base came to the device.
        steps: how many equal steps were measured.
    """

    name: tuple[str, ...]
    skeleton: Skeleton
    recipe: ResolvedRecipe
    step: Step
    allocated: float | None
    reserved: float
    loading: Loading
    steps: int = 3


def rtx4080() -> Iterator[PublishedRun]:
    """can-i-finetune-this, first set: a loop by hand that keeps the outputs, without autocast."""
    for row in rows(RTX_4080):
        recipe = _recipe(row["model"], {
            **_quantized(row["method"]),
            "adapter.r": 16,
            "adapter.lora_alpha": 16,
            "training.optim": "paged_adamw_8bit",
            "training.gradient_checkpointing": row["gradient_checkpointing"] == "True",
            "training.per_device_train_batch_size": int(row["micro_batch"]),
            "data.max_length": int(row["seq"]),
        })  # fmt: skip
        yield _run(
            recipe,
            named(row),
            float(row["peak_allocated_gib"]) * GIB,
            float(row["peak_reserved_gib"]) * GIB,
            2 if (row["model"], row["seq"], row["micro_batch"]) in _OF_TWO_STEPS else 3,
            autocast="",
        )  # fmt: skip


def named(row: dict[str, str]) -> tuple[str, ...]:
    """The first cells of a row of :func:`rtx4080`: model, base, batch × tokens, checkpoints."""
    checkpoints = "yes" if row["gradient_checkpointing"] == "True" else "no"
    return (_short(row["model"]), _base(row["method"]), f"{row['micro_batch']} × {row['seq']}", checkpoints)


def validation() -> Iterator[PublishedRun]:
    """can-i-finetune-this 0.4.0: the same loop under bfloat16 autocast."""
    for row in rows(VALIDATION):
        recipe = _recipe(row["model"], {
            **_quantized(row["method"]),
            "adapter.r": int(row["lora_rank"]),
            "adapter.lora_alpha": int(row["lora_alpha"]),
            "training.optim": "adamw_torch",
            "training.gradient_checkpointing": row["gradient_checkpointing"] == "yes",
            "training.per_device_train_batch_size": int(row["micro_batch"]),
            "data.max_length": int(row["seq_len"]),
        })  # fmt: skip
        yield _run(
            recipe,
            (_short(row["model"]), _base(row["method"]), f"{row['micro_batch']} × {row['seq_len']}",
             row["gradient_checkpointing"]),
            float(row["peak_allocated_gib"]) * GIB,
            float(row["peak_reserved_gib"]) * GIB,
        )  # fmt: skip


def peft() -> Iterator[PublishedRun]:
    """PEFT's comparison of methods: padded batches, a loop by hand that keeps the outputs, no autocast.

    The fullest batch is taken to be of the greatest length that its settings allow. It comes first among 20 that are
    sorted by length, when the allocator's cache has just been emptied (every ten steps): one step shows its peak.
    """
    for row in rows(PEFT):
        if not_expressed(row):
            continue
        recipe = _recipe(row["model"], {
            "quantization.method": "none",
            "adapter.r": int(row["r"]),
            "adapter.lora_alpha": int(row["lora_alpha"]),
            "adapter.target_modules": row["target_modules"].split(),
            "adapter.use_rslora": row["use_rslora"] == "True",
            "adapter.use_dora": row["use_dora"] == "True",
            "training.optim": "adamw_torch",
            "training.gradient_checkpointing": False,
            "training.per_device_train_batch_size": int(row["batch_size"]),
            "data.max_length": int(row["max_seq_length"]),
        })  # fmt: skip
        yield _run(
            recipe,
            (row["result"].removeprefix("lora--llama-3.2-3B-"), row["created"], row["torch"].partition("+")[0]),
            None,
            float(row["reserved_max_bytes"]),
            1,
            autocast="",
            is_masked=True,
        )


def not_expressed(row: dict[str, str]) -> str:
    """Why a recipe cannot express a row of PEFT's runs; empty if it can."""
    return next((why for word, why in _NOT_EXPRESSED.items() if row["result"].endswith(word)), "")


@cache
def rows(file: Path) -> list[dict[str, str]]:
    """The rows of a file of measurements."""
    return list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))


def _run(
    recipe: ResolvedRecipe,
    name: tuple[str, ...],
    allocated: float | None,
    reserved: float,
    steps: int = 3,
    **differs: object,
) -> PublishedRun:
    skeleton = catalog_skeleton(recipe.model.source)
    if skeleton is None:
        raise SystemExit(f"{recipe.model.source} is not in the catalog")
    step = replace(plan_step(Setup.of(recipe), variant="plain"), keeps_outputs=True, **differs)
    # can-i-finetune-this moves a 16-bit base with `model.to`; PEFT's runs and 4-bit bases have a `device_map`.
    loading: Loading = "moved" if allocated and step.loaded.method == "none" else "loaded"
    return PublishedRun(name, skeleton, recipe, step, allocated, reserved, loading, steps)


def _recipe(model: str, changes: dict[str, object]) -> ResolvedRecipe:
    return edit(resolved(Recipe()), {
        "model.source": model,
        "adapter.lora_dropout": 0.0,
        "adapter.target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
        "training.gradient_accumulation_steps": 1,
        **changes,
    })  # fmt: skip


def _quantized(method: str) -> dict[str, object]:
    return {"quantization.method": "nf4" if method == "qlora" else "none"}


def _short(model: str) -> str:
    return model.rpartition("/")[2]


def _base(method: str) -> str:
    return "nf4" if method == "qlora" else "bf16"
