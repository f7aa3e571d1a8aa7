"""Predicted against measured peaks of the engine's own runs, on a CUDA GPU with models of real shapes.

Each model of the list is built from its configuration in the catalog with random weights, so that nothing is
downloaded, quantised as the engine does it, and trained by the engine for three steps on records of full length. A line
a case goes to docs/measurements/<gpu>-<date>.csv: what the run's journal has as predicted and as measured.

    python -m bench.vram [--model ID]… [--out FILE]
"""

import argparse
import csv
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import date
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import psutil

from bench.random_model import randomise, word_tokenizer, words_of_first_mate
from tests.journals import read_events
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.hardware import free_cached_memory
from workbench.engine.model.precision import choose_precision
from workbench.engine.model.translate import quantization_config
from workbench.engine.training.training import Training
from workbench.errors import WorkbenchError
from workbench.estimate import TraceStore
from workbench.machine.device import Device
from workbench.models.build import meta_model
from workbench.models.catalog import catalog_skeleton
from workbench.models.sources import LocalModel
from workbench.models.trees import tree_in
from workbench.recipe.resolved import ResolvedRecipe, resolved
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit
from workbench.runs.folder import create_run
from workbench.storage.paths import Home

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

    def recipe(self, folder: Path) -> ResolvedRecipe:
        """The run's recipe, on a model that :func:`random_base` made in ``folder``."""
        return edit(
            resolved(Recipe()),
            {
                "model.source": str(folder),
                "quantization.method": self.method,
                "adapter.r": self.r,
                "adapter.lora_dropout": 0.0,
                # Attention alone where the other layers are fused experts.
                "adapter.target_modules": ["q_proj", "v_proj"] if self.model == EXPERTS else "all-linear",
                "data.source": str(_records(folder, self.length)),
                "data.eval_fraction": 0.0,
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


def write_shell(source: str, folder: Path) -> Path:
    """A model's folder without its weights: configuration and tokenizer."""
    skeleton = catalog_skeleton(source)
    if skeleton is None:
        raise WorkbenchError(f"{source} is not in the catalog.", "Name one that is.")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dict(skeleton.config)), encoding="utf-8")
    word_tokenizer(words_of_first_mate()).save_pretrained(folder)
    return folder


def _records(folder: Path, length: int) -> Path:
    """Texts of about so many tokens: one a word, and a few that mark the end."""
    file = folder / f"texts-{length}.jsonl"
    text = " ".join(islice(cycle(words_of_first_mate()), length - 4))
    file.write_text("".join(json.dumps({"text": text}) + "\n" for _ in range(8 * STEPS)), encoding="utf-8")
    return file


def random_base(recipe: Recipe, device: str) -> LoadedBase:
    """What the engine's ``load_base`` gives for a folder of :func:`write_shell`, with random weights.

    They are drawn on the device where it holds them twice, else in host memory.
    """
    import torch

    folder = Path(recipe.model.source)
    shell = meta_model(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    precision = choose_precision(recipe.quantization)
    # A tied weight is listed once, or it would be loaded as one of its own.
    parameters = dict(shell.named_parameters())
    size = sum(tensor.numel() * 2 for tensor in parameters.values())
    fits = device != "cpu" and torch.cuda.mem_get_info()[0] > 2.2 * size
    model = type(shell).from_pretrained(
        None,
        config=shell.config,
        state_dict={name: _random(tensor, device if fits else "cpu") for name, tensor in parameters.items()},
        dtype=getattr(torch, precision.compute),
        quantization_config=quantization_config(recipe.quantization, precision),
        device_map={"": device},
    )
    model.requires_grad_(False)
    model.eval()
    local = LocalModel(folder, str(folder), None, "folder")
    return LoadedBase(
        recipe.model,
        recipe.quantization,
        precision,
        local,
        model,
        word_tokenizer(words_of_first_mate()),
        model.get_memory_footprint(),
        asked=recipe.quantization,
    )


def _random(tensor: Any, device: str) -> Any:
    import torch

    return randomise(torch.empty(tensor.shape, dtype=torch.bfloat16, device=device))


def trace_all(home: Home, recipes: Sequence[ResolvedRecipe]) -> list[str]:
    """Follow the steps of these runs, several at once, so that the engine's prediction is exact; what could not be."""
    import torch

    # As the run itself describes its device.
    kind: Literal["cuda", "cpu"] = "cuda" if torch.cuda.is_available() else "cpu"
    different = {
        (recipe.model.source, recipe.quantization.method, recipe.training.gradient_checkpointing): recipe
        for recipe in recipes
    }

    def trace(recipe: ResolvedRecipe) -> str:
        store = TraceStore(home.cache / "traces")
        device = Device(kind, bfloat16=choose_precision(recipe.quantization).compute == "bfloat16")
        try:
            store.trace(tree_in(Path(recipe.model.source), recipe.model), recipe, device)
        except WorkbenchError as error:
            return f"{Path(recipe.model.source).name}: {error}"
        return ""

    with ThreadPoolExecutor(max((psutil.cpu_count() or 2) // 2, 1)) as pool:
        return [problem for problem in pool.map(trace, different.values()) if problem]


def run_case(home: Home, case: Case, recipe: ResolvedRecipe, base: LoadedBase | None) -> tuple[dict[str, Any], Any]:
    """Train one case on a base; what its journal has as predicted and as measured, and the base for the next one.

    Raises:
        WorkbenchError: the run failed; it may not have fitted.
    """
    run = create_run(home, recipe)
    training = Training(home, run, recipe, base)
    training.run()
    events = read_events(run.journal)
    try:
        if training.error is not None:
            raise training.error
        (preparing,) = (event for event in events if event["event"] == "phase" and event.get("loss_check"))
        predicted, measured = preparing["predicted"], events[-1].get("measured") or {}
        line = {
            **case._asdict(),
            "by": predicted["method"],
            "predicted_allocated": predicted["allocated_bytes"],
            "measured_allocated": measured.get("allocated"),
            "predicted_reserved": predicted["reserved_bytes"],
            "measured_reserved": measured.get("reserved"),
            "measured_resting": measured.get("resting"),
            "measured_nvml": measured.get("nvml"),
            "terms": json.dumps(predicted["terms"]),
            "batches": preparing["conditions"]["batches"],
        }
        for name in ("allocated", "reserved"):
            if measured.get(name):
                line[f"{name}_error"] = round(predicted[f"{name}_bytes"] / measured[name] - 1, 5)
        return line, training.base
    finally:
        with suppress(OSError):
            shutil.rmtree(run.path)


def measure(model: str, home: Home, folder: Path) -> Iterator[dict[str, Any]]:
    """A line for each case that fits this GPU."""
    shell = write_shell(model, folder)
    for listed in cases(model):
        recipes = [case.recipe(shell) for case in listed]
        for problem in trace_all(home, recipes):
            print(problem, file=sys.stderr)
        base = None
        for case, recipe in zip(listed, recipes, strict=True):
            try:
                base = base or random_base(recipe, "cuda:0")
                line, base = run_case(home, case, recipe, base)
                yield line
            except Exception as error:  # the next case may fit
                print(f"{case}: {error}", file=sys.stderr)
                base = None
            free_cached_memory()
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
        home = Home(Path(folder) / "home")
        home.root.mkdir()
        for number, model in enumerate(options.model or (*DENSE, EXPERTS)):
            for line in measure(model, home, Path(folder) / str(number)):
                writer = writer or csv.DictWriter(file, line)
                if not errors:
                    writer.writeheader()
                writer.writerow(line)
                file.flush()
                errors.append(abs(line["allocated_error"]))
                print(*line.values())
    if errors:
        print(f"{len(errors)} runs, allocated: mean {sum(errors) / len(errors):.2%}, worst {max(errors):.2%}")


if __name__ == "__main__":
    main()
