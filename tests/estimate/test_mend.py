"""What PEFT refuses is mended by a change that PEFT takes; and what of the catalog fits, by command."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from workbench.commands.app import app
from workbench.errors import WorkbenchError
from workbench.estimate import Setup, price
from workbench.estimate.adapter.plan import plan_adapter
from workbench.estimate.adapter.settled import NO_DROPOUT as NOTICE
from workbench.estimate.adapter.settled import without_impossible_dropout
from workbench.estimate.adapter.suggested_fix import options_text, suggested_fix
from workbench.estimate.by_method import METHODS
from workbench.estimate.catalog_fit import catalog_fits
from workbench.machine.device import Device
from workbench.machine.memory_budget import MemoryBudget
from workbench.models.catalog import catalog, catalog_skeleton
from workbench.models.skeleton import Skeleton
from workbench.models.stored_quantization import stored_quantization
from workbench.planning.start_checks import judge
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit

MIXTRAL, QWEN_MOE, MAMBA = (
    "mistralai/Mixtral-8x7B-Instruct-v0.1",
    "Qwen/Qwen3-30B-A3B",
    "state-spaces/mamba-130m-hf",
)
NO_DROPOUT = {"adapter.lora_dropout": 0.0}


def tree(model: str) -> Skeleton:
    skeleton = catalog_skeleton(model)
    assert skeleton
    return skeleton


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("LORAWORKBENCH_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "120")
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("entry", catalog(), ids=lambda entry: entry.id)
def test_the_default_recipe_works_on_the_whole_catalog_once_mended(entry: Any) -> None:
    skeleton = tree(entry.id)
    changes = suggested_fix(skeleton, Setup.of(Recipe()).adapter)
    assert changes is not None
    plan_adapter(skeleton, edit(Recipe(), changes).adapter)
    if changes:
        with pytest.raises(WorkbenchError):
            plan_adapter(skeleton, Recipe().adapter)


@pytest.mark.parametrize(
    ("model", "settings", "changes"),
    [
        ("meta-llama/Llama-3.2-1B", {}, {}),
        (MIXTRAL, {}, {}),
        (MIXTRAL, {"adapter.lora_dropout": 0.05}, NO_DROPOUT),
        (QWEN_MOE, {"adapter.lora_dropout": 0.1}, NO_DROPOUT),
        (QWEN_MOE, {"adapter.use_dora": True}, {"adapter.use_dora": False}),
        (QWEN_MOE, {"adapter.use_dora": True, **NO_DROPOUT}, {"adapter.use_dora": False}),
        (MAMBA, {}, {"adapter.target_modules": ["in_proj", "x_proj", "dt_proj"]}),
        (
            "openai-community/gpt2",
            {"adapter.target_modules": ["q_proj", "v_proj"], "adapter.layers_to_transform": [0, 1]},
            {"adapter.target_modules": "all-linear", "adapter.layers_to_transform": None},
        ),
    ],
)
def test_the_smallest_change_is_found(model: str, settings: dict[str, Any], changes: dict[str, Any]) -> None:
    assert suggested_fix(tree(model), Setup.of(edit(Recipe(), settings)).adapter) == changes


def test_the_default_dropout_is_dropped_where_peft_supports_none_and_one_that_was_set_is_refused(run: Any) -> None:
    answer = json.loads(run("estimate", MIXTRAL, "--no-trace", "--json").stdout)
    assert answer["notices"] == [NOTICE]
    assert (
        answer["adapter"]
        == json.loads(run("estimate", MIXTRAL, "--set", "adapter.lora_dropout=0", "--no-trace", "--json").stdout)[
            "adapter"
        ]
    )
    with pytest.raises(WorkbenchError) as refused:
        judge(tree(MIXTRAL), edit(Recipe(), {"adapter.lora_dropout": 0.05}), MemoryBudget(free_bytes=80 << 30))
    assert "It works with lora_dropout 0." in refused.value.cure
    assert judge(tree(MIXTRAL), Recipe(), MemoryBudget(free_bytes=80 << 30)) is not None
    # Attention alone can have it, also by default.
    attention = edit(Recipe(), {"adapter.target_modules": ["q_proj", "v_proj"]})
    assert without_impossible_dropout(tree(MIXTRAL), attention) is attention


@pytest.mark.parametrize(("model", "changes"), [(MIXTRAL, {"adapter.lora_dropout": 0.05}), (MAMBA, {})])
def test_the_command_names_the_option_that_helps_and_it_does(run: Any, model: str, changes: dict[str, Any]) -> None:
    refused = run("estimate", model, *shlex.split(options_text(changes)), "--json")
    assert isinstance(refused.exception, WorkbenchError)
    options = options_text(suggested_fix(tree(model), Setup.of(edit(Recipe(), changes)).adapter) or {})
    assert options in refused.exception.cure
    answer = json.loads(run("estimate", model, *shlex.split(options), "--no-trace", "--json").stdout)
    assert answer["adapter"]["trainable_parameters"] > 0


def test_fits_lists_the_catalog_with_three_bases_as_estimate_prices_them(run: Any) -> None:
    told = [json.loads(line) for line in run("models", "--fits", "24GB", "--json").stdout.splitlines()]
    rows = {line["source"]: line for line in told}
    assert list(rows) == [entry.id for entry in catalog()]
    stored = {entry.id for entry in catalog() if stored_quantization(tree(entry.id).config)}
    assert {"openai/gpt-oss-20b", "deepseek-ai/DeepSeek-V3"} <= stored
    for source, row in rows.items():  # FP8 and MXFP4 cannot be quantized otherwise: they are dequantized
        assert set(row["methods"]) == ({"16-bit LoRA"} if source in stored else set(METHODS)), source
        assert (row["changes"].get("quantization.method") == "none") == (source in stored)
    assert rows[MIXTRAL]["changes"] == NO_DROPOUT
    for model, method in (("meta-llama/Llama-3.1-8B", "nf4"), ("meta-llama/Llama-2-13b-hf", "none")):
        priced = json.loads(
            run("estimate", model, "--set", f"quantization.method={method}", "--vram", "24GB", "--json").stdout
        )
        cell = rows[model]["methods"]["QLoRA" if method == "nf4" else "16-bit LoRA"]
        assert cell["fits"] is priced["fits"]
        assert cell["peak_bytes"] == priced["peak"]["reserved_bytes"] + priced["peak"]["terms"]["cuda_context"]


def test_fits_takes_a_recipe_and_says_its_conditions(run: Any) -> None:
    shown = run("models", "--fits", "24", "--set", "data.max_length=512", "--set", "adapter.r=8").stdout
    assert "Peaks in GiB against 24.00 GiB: r 8, 4 × 512 tokens" in " ".join(shown.split())
    assert "Llama-2-70b-hf" in shown
    notes = " ".join(shown.split())
    assert "* with lora_dropout 0: Qwen3-30B-A3B, " in notes
    assert "* with quantization none: gpt-oss-20b, gpt-oss-120b" in notes


@pytest.mark.parametrize(
    "arguments", [("--fits", "lots"), ("--set", "adapter.r=8"), ("--fits", "24GB", "--set", "adapter.r=0")]
)
def test_mistakes_are_sentences(run: Any, arguments: tuple[str, ...]) -> None:
    refused = run("models", *arguments)
    assert isinstance(refused.exception, WorkbenchError)
    assert str(refused.exception).endswith(".")


def test_a_processor_has_no_context_and_no_reserve() -> None:
    model = "meta-llama/Llama-3.2-1B"
    here = MemoryBudget(Device("cpu"))
    (row,) = catalog_fits(Recipe(), here, sources=[model, "not/known"])
    peak, on_a_gpu = (price(tree(model), Recipe(), budget).peak for budget in (here, MemoryBudget()))
    assert row.peaks["QLoRA"] == peak
    assert peak.device_bytes == peak.allocated_bytes == on_a_gpu.allocated_bytes
    assert on_a_gpu.device_bytes > on_a_gpu.allocated_bytes
