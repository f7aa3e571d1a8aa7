"""The estimate as a whole: the figures that the source documents state, what fits, what to change, and how fast."""

import subprocess
import sys
from typing import Any

import pytest

from workbench.errors import WorkbenchError
from workbench.estimate import Price, price
from workbench.estimate.adapter.suggested_fix import suggested_fix
from workbench.estimate.fit import COSTS, fit_of
from workbench.estimate.setup import Setup
from workbench.machine.device import Device
from workbench.machine.memory_budget import MemoryBudget
from workbench.models.catalog import catalog, catalog_skeleton
from workbench.models.skeleton import Skeleton
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit

LITE = {"adapter.r": 32, "adapter.target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}
FULL = {"adapter.r": 256, "adapter.target_modules": "all-linear"}
LLAMA_3B = "meta-llama/Llama-3.2-3B"


def priced(model: str, changes: dict[str, Any] | None = None, free: int | None = None, **options: Any) -> Price:
    skeleton = catalog_skeleton(model)
    assert skeleton
    recipe = edit(Recipe(), {"model.source": model, **(changes or {})})
    return price(skeleton, recipe, MemoryBudget(free_bytes=free), **options)


@pytest.mark.parametrize(
    ("changes", "a_layer", "trained", "megabytes"),
    [(LITE, 655_360, 18_350_080, 73.4), (FULL, 13_893_632, 389_021_696, 1556.1)],
    ids=["lite", "full"],
)
def test_llama_3b_in_float32(changes: dict[str, Any], a_layer: int, trained: int, megabytes: float) -> None:
    adapter = priced(LLAMA_3B, {**changes, "quantization.compute_dtype": "float32"}).adapter
    assert adapter.dtype == "float32"
    assert sum(module.parameters for module in adapter.modules) == a_layer
    assert adapter.trainable_parameters == trained
    assert adapter.file_bytes / 1e6 == pytest.approx(megabytes, abs=0.06)


def test_share_of_the_parameters() -> None:
    tiny = priced("TinyLlama/TinyLlama-1.1B-Chat-v1.0", {"adapter.target_modules": ["q_proj", "v_proj"]})
    llama = priced("meta-llama/Llama-2-7b-hf", {"adapter.r": 8, "adapter.target_modules": ["q_proj", "v_proj"]})
    assert f"{tiny.adapter.trainable_percent:.4f}" == "0.2044"
    assert f"{llama.adapter.trainable_percent:.4f}" == "0.0622"


def test_footprints_in_gigabytes() -> None:
    nf4 = priced(LLAMA_3B, LITE, variant="plain")
    assert round((nf4.base.footprint_bytes + nf4.adapter.added_bytes) / 1e9, 2) == 2.27
    assert round(priced(LLAMA_3B, {"quantization.method": "int8"}).base.footprint_bytes / 1e9, 1) == 3.6
    whole = {"quantization.method": "none", "quantization.compute_dtype": "float32"}
    assert round(priced(LLAMA_3B, whole).base.footprint_bytes / 1e9, 1) == 12.9


@pytest.mark.parametrize(("model", "billions"), [("meta-llama/Llama-2-7b-hf", 7), ("meta-llama/Llama-2-70b-hf", 70)])
def test_rule_of_thumb_is_shown_beside_ours(model: str, billions: int) -> None:
    rule = priced(model).rule_of_thumb
    assert rule
    assert rule.billions == billions
    assert priced("HuggingFaceTB/SmolLM2-135M-Instruct").rule_of_thumb is None


def test_terms_add_up() -> None:
    for entry in {entry.tree: entry for entry in catalog()}.values():
        changes = {"adapter.lora_dropout": 0.0, "adapter.target_modules": targets_of(catalog_skeleton(entry.id))}
        for variant in ("workbench", "plain"):
            peak = priced(entry.id, changes, variant=variant).peak
            allocated = sum(value for name, value in peak.terms.items() if name != "cuda_context")
            assert allocated == peak.allocated_bytes
            assert peak.reserved_bytes >= peak.allocated_bytes


def targets_of(skeleton: Skeleton | None) -> str | list[str]:
    assert skeleton
    return (suggested_fix(skeleton, Setup.of(Recipe()).adapter) or {}).get("adapter.target_modules", "all-linear")


@pytest.mark.parametrize(
    "change",
    [
        {"training.per_device_train_batch_size": 8},
        {"data.max_length": 2048},
        {"adapter.r": 64},
        {"training.gradient_checkpointing": False},
        {"quantization.method": "none"},
        {"training.optim": "adamw_torch_fused"},
    ],
    ids=str,
)
def test_more_of_anything_costs_more(change: dict[str, Any]) -> None:
    before = {"training.optim": "adamw_8bit"}
    assert priced(LLAMA_3B, {**before, **change}).peak.allocated_bytes > priced(LLAMA_3B, before).peak.allocated_bytes


def test_suggestions_fit_and_are_single_changes() -> None:
    changes = {"quantization.method": "none", "training.gradient_checkpointing": False, "training.optim": "adamw_torch"}
    misfit = priced("meta-llama/Llama-2-7b-hf", changes, free=24 * 10**9)
    assert misfit.fit == "does not fit"
    assert misfit.as_json()["fits"] is False
    skeleton = catalog_skeleton("meta-llama/Llama-2-7b-hf")
    assert skeleton
    recipe = edit(Recipe(), {"model.source": "meta-llama/Llama-2-7b-hf", **changes})
    assert misfit.suggestions
    for suggestion in misfit.suggestions:
        mended = price(skeleton, edit(recipe, suggestion.changes), misfit.budget)
        assert mended.fit == "fits"
        assert mended.peak.device_bytes == suggestion.peak_bytes
    costs = [COSTS.index(suggestion.cost) for suggestion in misfit.suggestions]
    assert costs == sorted(costs)


def test_largest_values_are_the_last_that_fit() -> None:
    skeleton = catalog_skeleton(LLAMA_3B)
    assert skeleton
    recipe = edit(Recipe(), {"model.source": LLAMA_3B})
    free = 12 * 10**9
    largest = price(skeleton, recipe, MemoryBudget(free_bytes=free)).largest
    assert largest.batch
    assert largest.length

    def fits(changes: dict[str, Any]) -> bool:
        # What is left open takes the least memory.
        least = edit(recipe, {**changes, "training.gradient_checkpointing": "offload"})
        return fit_of(price(skeleton, least).peak, free) == "fits"

    assert fits({"training.per_device_train_batch_size": largest.batch})
    assert not fits({"training.per_device_train_batch_size": largest.batch + 1})
    assert fits({"data.max_length": largest.length})
    assert not fits({"data.max_length": largest.length + 64})


def test_a_gpu_without_bfloat16_trains_float32_adapters() -> None:
    skeleton = catalog_skeleton(LLAMA_3B)
    assert skeleton
    t4 = price(skeleton, edit(Recipe(), {"model.source": LLAMA_3B}), MemoryBudget(Device(bfloat16=False)))
    assert t4.step.compute == "float16"
    assert t4.adapter.dtype == "float32"


def test_what_peft_refuses_is_refused() -> None:
    with pytest.raises(WorkbenchError, match="Mamba"):
        priced("state-spaces/mamba-130m-hf")


def test_json_has_the_promised_keys() -> None:
    data = priced(LLAMA_3B, free=24 * 10**9).as_json()
    assert list(data) == [
        "model", "adapter", "base", "peak", "fits", "suggestions", "chosen", "reasons", "refused", "notices",
    ]  # fmt: skip
    assert set(data["adapter"]) == {
        "trainable_parameters",
        "total_parameters",
        "trainable_percent",
        "file_bytes",
        "dtype",
        "modules",
        "left_out",
        "experts_left_out",
    }
    assert set(data["adapter"]["modules"][0]) == {"name", "kind", "r", "tensors", "parameters", "count"}
    assert set(data["base"]) == {"footprint_bytes", "true_bytes", "not_quantized"}
    assert set(data["peak"]) == {
        "allocated_bytes", "reserved_bytes", "reserved_range", "host_bytes", "terms", "method", "doubt", "phases",
    }  # fmt: skip
    assert data["fits"] is True


def test_no_torch_is_needed() -> None:
    program = (
        "import sys; from workbench.estimate import price; from workbench.models.catalog import catalog_skeleton;"
        "from workbench.recipe.schema import Recipe;"
        "price(catalog_skeleton('HuggingFaceTB/SmolLM2-135M-Instruct'), Recipe());"
        "heavy = {'torch', 'transformers', 'peft', 'numpy'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
