"""Predicted against measured peaks of our own training step, on a CUDA GPU with models of real shapes.

Each model of the list is built from its configuration in the catalog with random weights, so that nothing is
downloaded, loaded and quantised as the engine does it, and trained for three steps on records of full length. A line a
case goes to docs/measurements/<gpu>-<date>.csv. Host memory must hold the largest model in 16 bits.

    python -m bench.vram [--model ID]… [--out FILE]
"""

import argparse
import csv
import re
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from bench.random_model import randomise, word_tokenizer
from workbench.engine.kernels.loss_path import LossPath
from workbench.engine.metrics.peak_memory import PeakMeter
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.hardware import free_cached_memory
from workbench.engine.model.precision import choose_precision
from workbench.engine.model.translate import quantization_config, sft_config
from workbench.errors import WorkbenchError
from workbench.estimate import TraceStore, price
from workbench.estimate.peak import Peak
from workbench.machine.device import Device
from workbench.machine.memory_budget import MemoryBudget
from workbench.models.build import meta_model
from workbench.models.catalog import catalog_skeleton
from workbench.models.sources import LocalModel
from workbench.recipe.resolved import ResolvedRecipe, resolved
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit

DENSE = (
    "meta-llama/Llama-3.2-1B",
    "meta-llama/Llama-3.2-3B",
    "meta-llama/Llama-2-7b-hf",
    "mistralai/Mistral-7B-v0.1",
    "Qwen/Qwen2.5-7B-Instruct",
    "Qwen/Qwen2.5-14B-Instruct",
)
EXPERTS = "Qwen/Qwen3-30B-A3B"
# Micro-batch, tokens a record, rank, checkpoints.
SIZES = ((1, 1024, 16, True), (4, 1024, 64, True), (2, 512, 16, False), (1, 2048, 8, False), (8, 2048, 16, True))
STEPS = 3


class Case(NamedTuple):
    """One run."""

    model: str
    method: str
    batch: int
    length: int
    r: int
    checkpoints: bool

    @property
    def recipe(self) -> ResolvedRecipe:
        return edit(
            resolved(Recipe()),
            {
                "model.source": self.model,
                "quantization.method": self.method,
                "adapter.r": self.r,
                "adapter.lora_dropout": 0.0,
                # Attention alone where the other layers are fused experts.
                "adapter.target_modules": ["q_proj", "v_proj"] if self.model == EXPERTS else "all-linear",
                "data.max_length": self.length,
                "training.per_device_train_batch_size": self.batch,
                "training.gradient_accumulation_steps": 1,
                "training.gradient_checkpointing": self.checkpoints,
                "training.max_steps": STEPS,
                "training.save_steps": 0,
            },
        )


def cases(model: str) -> list[list[Case]]:
    """The runs of a model, those on one base together."""
    methods = ("nf4",) if model == EXPERTS else ("nf4", "int8", "none")
    return [[Case(model, method, *size) for size in SIZES] for method in methods]


def random_base(recipe: Recipe, device: str) -> LoadedBase:
    """What the engine's ``load_base`` gives, with random weights."""
    import torch

    skeleton = catalog_skeleton(recipe.model.source)
    if skeleton is None:
        raise WorkbenchError(f"{recipe.model.source} is not in the catalog.", "Name one that is.")
    shell = meta_model(skeleton.config)
    precision = choose_precision(recipe.quantization)
    # A tied weight is listed once, or it would be loaded as one of its own.
    weights = {name: _random(tensor) for name, tensor in shell.named_parameters()}
    model = type(shell).from_pretrained(
        None,
        config=shell.config,
        state_dict=weights,
        dtype=getattr(torch, precision.compute),
        quantization_config=quantization_config(recipe.quantization, precision),
        device_map={"": device},
    )
    model.requires_grad_(False)
    model.eval()
    source = recipe.model.source
    local = LocalModel(Path(), source, None, "folder")
    return LoadedBase(
        recipe.model, recipe.quantization, precision, local, model, word_tokenizer([]), model.get_memory_footprint()
    )


def _random(tensor: Any) -> Any:
    import torch

    return randomise(torch.empty(tensor.shape, dtype=tensor.dtype))


def trained(base: LoadedBase, recipe: ResolvedRecipe) -> dict[str, int | None] | None:
    """Run the engine's training step; the peaks as the engine writes them to a journal."""
    import torch
    from datasets import Dataset
    from trl import SFTTrainer

    ids = [[5 + place % 100 for place in range(recipe.data.max_length)]]
    rows = ids * recipe.training.per_device_train_batch_size * STEPS
    model = base.attach_new(recipe.adapter)
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=model,
            args=sft_config(recipe, base.precision, Path(folder)),
            train_dataset=Dataset.from_dict({"input_ids": rows, "labels": rows}),
            processing_class=base.tokenizer,
        )
        trainer.data_collator = LossPath().collator(base.tokenizer.pad_token_id)
        base.enable_loss_path(LossPath())
        base.cast_adapter()
        free_cached_memory()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        meter = PeakMeter()
        trainer.train()
        return meter.read()


def predicted(recipe: ResolvedRecipe, traces: TraceStore) -> Peak:
    """The estimator's peak, from a step that is followed where none was yet."""
    import torch

    skeleton = catalog_skeleton(recipe.model.source)
    assert skeleton
    device = Device("cuda", bfloat16=torch.cuda.is_bf16_supported(including_emulation=False))
    peak = price(skeleton, recipe, MemoryBudget(device), traced=traces).peak
    if peak.method == "trace":
        return peak
    try:
        traces.trace(skeleton, recipe, device)
    except WorkbenchError as error:
        print(error, file=sys.stderr)
    return price(skeleton, recipe, MemoryBudget(device), traced=traces).peak


def measure(model: str, traces: TraceStore) -> Iterator[dict[str, Any]]:
    """A line for each case that fits this GPU."""
    import torch

    for listed in cases(model):
        base = None
        for case in listed:
            try:
                base = base or random_base(case.recipe, "cuda:0")
                told = trained(base, case.recipe)
            except torch.OutOfMemoryError:
                print(f"{case} does not fit", file=sys.stderr)
                told = None
            if base is not None:
                base.prepare_for_chat()
                base.detach_all()
            free_cached_memory()
            if told is not None:
                peak = predicted(case.recipe, traces)
                yield {
                    **case._asdict(),
                    "by": peak.method,
                    "predicted_allocated": peak.allocated_bytes,
                    "measured_allocated": told["allocated"],
                    "predicted_reserved": peak.reserved_bytes,
                    "measured_reserved": told["reserved"],
                    "measured_resting": told["resting"],
                    "measured_nvml": told["nvml"],
                    "error": round(peak.allocated_bytes / (told["allocated"] or 1) - 1, 5),
                }
        del base
        free_cached_memory()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="one of the catalog; without it the whole list")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print("There is no CUDA GPU here, and peaks can be measured on nothing else.", file=sys.stderr)
        raise SystemExit(2)
    gpu = re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name(0).lower()).strip("-")
    out = options.out or Path(__file__).parents[1] / "docs" / "measurements" / f"{gpu}-{date.today()}.csv"
    errors: list[float] = []
    with tempfile.TemporaryDirectory() as folder, out.open("w", encoding="utf-8", newline="") as file:
        writer = None
        for model in options.model or (*DENSE, EXPERTS):
            for line in measure(model, TraceStore(Path(folder))):
                writer = writer or csv.DictWriter(file, line)
                if not errors:
                    writer.writeheader()
                writer.writerow(line)
                file.flush()
                errors.append(abs(line["error"]))
                print(*line.values())
    if errors:
        print(f"{len(errors)} runs, allocated: mean {sum(errors) / len(errors):.2%}, worst {max(errors):.2%}")


if __name__ == "__main__":
    main()
