"""LoRA's starts that the engine makes: PEFT's on the same records, made once, and loaded by plain PEFT without them."""

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import tiny_recipe
from tests.engine.runs_of_tiny import adapter_digest, begin, curve, ended, events_of, killed_after, resumed
from workbench.adapters.registry import peft_config
from workbench.adapters.starts import STARTS
from workbench.engine.kernels.loss_path import PADDED
from workbench.engine.training.run_end import StoppedBeforeFirstStep
from workbench.engine.training.starts import batches as start_batches
from workbench.engine.training.starts import eva
from workbench.errors import WorkbenchError
from workbench.progress import Progress
from workbench.recipe.schema import Recipe
from workbench.recipe.text import RecipeError, edit
from workbench.storage.paths import Home

IDS = torch.arange(5, 25)[None]
UNQUANTIZED = {"quantization.method": "none", "quantization.compute_dtype": "float32"}
CHANGES: dict[str, dict[str, object]] = {
    "eva": {"adapter.r": 4, **UNQUANTIZED},
    "loftq": {"adapter.lora_alpha": 8, "quantization.compute_dtype": "float32"},
    "corda": {"adapter.r": 4, "adapter.options": {"corda_method": "kpm"}, **UNQUANTIZED},
    "lora_ga": {"adapter.r": 4, "adapter.use_rslora": True, **UNQUANTIZED},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Home:
    return Home(tmp_path_factory.mktemp("starts") / "home")


def plain(recipe: Recipe):
    """The base as transformers loads it."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    options = {}
    if recipe.quantization.method == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=recipe.quantization.double_quant,
            bnb_4bit_compute_dtype=torch.float32,
        )
    model = AutoModelForCausalLM.from_pretrained(recipe.model.source, dtype=torch.float32, **options)
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
    return model.requires_grad_(False)


def in_peft(recipe: Recipe, records):
    """The start that PEFT's own functions make on the batches that the run took."""
    from peft import (
        EvaConfig,
        LoraGAConfig,
        get_peft_model,
        initialize_lora_eva_weights,
        replace_lora_weights_loftq,
    )
    from peft.tuners.lora.config import CordaConfig
    from peft.tuners.lora.corda import preprocess_corda
    from peft.tuners.lora.loraga import preprocess_loraga

    name, model = recipe.adapter.init_lora_weights, plain(recipe)
    torch.manual_seed(recipe.training.seed)
    if name == "loftq":
        found = get_peft_model(model, peft_config(recipe.adapter))
        replace_lora_weights_loftq(found, recipe.model.source)
        return found
    if name == "eva":
        config = peft_config(recipe.adapter, init_lora_weights="eva", eva_config=EvaConfig())
        found = get_peft_model(model, config)
        initialize_lora_eva_weights(found, records, show_progress_bar=False)
        return found
    leaves = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    options = {"target_modules": leaves, "init_lora_weights": name}
    if name == "corda":
        config = peft_config(recipe.adapter, **options, corda_config=CordaConfig(corda_method="kpm"))

        def run() -> None:
            for batch in records:
                model(**batch)

        preprocess_corda(model, config, run_model=run)
    else:
        config = peft_config(recipe.adapter, **options, lora_ga_config=LoraGAConfig())

        def run() -> None:
            for batch in records:
                model(**batch).loss.backward()

        preprocess_loraga(model, config, run)
    return get_peft_model(model, config)


class OnThisProcessor(torch.Tensor):
    """A weight whose moves to a GPU are none: PEFT's LoftQ knows no other device."""

    def to(self, device=None, dtype=None):
        return self.as_subclass(torch.Tensor).to(dtype)


@pytest.mark.parametrize("name", STARTS)
def test_a_start_is_that_of_peft_and_is_made_once(home, tiny_llama, records, monkeypatch, name: str) -> None:
    from peft import PeftModel
    from peft.utils import loftq_utils

    recipe = tiny_recipe(tiny_llama, records)
    changes = {"adapter.init_lora_weights": name, "training.max_steps": 4, "training.save_steps": 2}
    recipe = edit(recipe, {**changes, "training.save_total_limit": 10, **CHANGES[name]})
    taken: list[list[start_batches.Batch]] = []
    for function in ("record_batches", "large_batches"):
        make = getattr(start_batches, function)
        monkeypatch.setattr(start_batches, function, lambda *a, make=make: taken.append(make(*a)) or taken[-1])
    run, thread = begin(home, recipe)
    ended(thread)
    base = thread.base
    details = [event["detail"] for event in events_of(run, "phase") if event["phase"] == "preparing"]
    assert any(detail.startswith(f"{STARTS[name].label}: ") for detail in details), details
    losses = list(curve(run).values())
    assert losses[-1] < losses[0], losses

    # The start is PEFT's.
    loader = loftq_utils._SafetensorLoader.get_tensor
    monkeypatch.setattr(loftq_utils._SafetensorLoader, "get_tensor", lambda *a: loader(*a).as_subclass(OnThisProcessor))
    theirs = in_peft(recipe, taken[0] if taken else [])
    first = load_file(run.start / "adapter_model.safetensors")
    matrices = {key.replace(".default", ""): value for key, value in theirs.named_parameters() if ".lora_" in key}
    assert first.keys() == matrices.keys()
    for key, value in matrices.items():
        assert torch.allclose(first[key], value, rtol=1e-3, atol=2e-3 * value.abs().max().item()), key

    # A resumed run takes the kept one, also if it was killed before its first checkpoint.
    config = json.loads((run.start / "adapter_config.json").read_text())
    for step in (1, 3):
        again = killed_after(run, step, home)
        resumed(home, again, base if base.is_unchanged else None)
        assert curve(again) == curve(run)
        assert adapter_digest(again) == adapter_digest(run)
        assert json.loads((again.start / "adapter_config.json").read_text()) == config

    # What is saved is a plain adapter of the base as it is.
    saved = json.loads((run.adapter / "adapter_config.json").read_text())
    assert saved["init_lora_weights"] is True
    model = plain(recipe)
    with torch.no_grad():
        expected = thread.base.active.eval()(input_ids=IDS).logits
        alone = model(input_ids=IDS).logits
        loaded = PeftModel.from_pretrained(model, run.adapter).eval()
        assert torch.allclose(loaded(input_ids=IDS).logits, expected, atol=1e-3)
        with loaded.disable_adapter():
            assert torch.equal(loaded(input_ids=IDS).logits, alone)
        if name != "loftq":
            merged = loaded.merge_and_unload()
            assert torch.allclose(merged(input_ids=IDS).logits, expected, atol=1e-3)

    if name == "eva":
        assert thread.base.is_unchanged
        assert_it_can_be_stopped(thread.base, recipe, taken[0])


def assert_it_can_be_stopped(base, recipe: Recipe, batches: list[start_batches.Batch]) -> None:
    """A stop ends EVA between two batches, and leaves none of PEFT's hooks on the base."""
    reported: list[Progress] = []
    steps = start_batches.Steps("EVA", reported.append, lambda: len(reported) == 2)
    model = base.attach_new(recipe.adapter)
    with base.loss_path(PADDED), pytest.raises(StoppedBeforeFirstStep):
        eva.initialize(base, model, batches, 2.0, steps)
    assert [progress.detail for progress in reported] == ["EVA: batch 1", "EVA: batch 2"]
    hooks = [hook for module in model.modules() for hook in module._forward_hooks.values()]
    assert not [hook for hook in hooks if type(hook).__module__ == "peft.tuners.lora.eva"]
    with pytest.raises(WorkbenchError, match="needs 10,000,000 trained tokens, and the records have"):
        start_batches.large_batches([{"input_ids": [1, 2], "labels": [1, 2]}], 1, 0, 10**7, 5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"init_lora_weights": "eva", "use_dora": True}, "adapter.init_lora_weights: eva does not work with DoRA"),
        ({"options": {"rho": 1.5}}, "rho is used with init_lora_weights eva only; remove it"),
        ({"init_lora_weights": "eva", "options": {"rho": 0.5}}, "expected a number from 1 to 16"),
        ({"init_lora_weights": "loftq"}, "at scaling 1, and this is 2; set lora_alpha to 16 and use_rslora to false"),
        ({"init_lora_weights": "eva", "continue_from": "demo-01"}, "demo-01 has the first weights, which eva would"),
        ({"init_lora_weights": "eva", "method": "vera"}, "adapter.init_lora_weights: VeRA does not read it"),
        ({"init_lora_weights": "corda"}, "corda needs an unquantized base; set quantization.method to none"),
    ],
)
def test_what_a_start_excludes_is_refused_before_the_run(changes: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        edit(Recipe(), {f"adapter.{name}": value for name, value in changes.items()})
    assert words in str(caught.value)
    with pytest.raises(RecipeError, match="loftq needs a base that is quantized to 4 bits as it is loaded; set"):
        edit(Recipe(), {"adapter.init_lora_weights": "loftq", "adapter.lora_alpha": 16, "quantization.method": "none"})
