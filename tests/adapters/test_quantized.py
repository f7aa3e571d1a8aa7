"""On a quantized base each method trains as in plain PEFT, or is refused before the run."""

from pathlib import Path

import pytest
import torch

from tests.adapters.test_training import recipe_of
from workbench.adapters.registry import methods, peft_config
from workbench.engine.model.base import unloaded
from workbench.engine.model.load_base import load_base
from workbench.recipe.schema import Recipe
from workbench.recipe.text import RecipeError, edit
from workbench.storage.paths import Home

IDS = torch.arange(5, 45).reshape(2, 20)


@pytest.fixture(scope="module", params=["nf4", "int8"])
def bases(request, tmp_path_factory: pytest.TempPathFactory, tiny_llama):
    """The same quantized base as this program loads it and as transformers does."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    changes = {
        "model.source": str(tiny_llama),
        "quantization.method": request.param,
        "quantization.double_quant": False,
        "quantization.compute_dtype": "float32",
    }
    recipe = edit(Recipe(), changes)
    home = Home(tmp_path_factory.mktemp("quantized") / "home")
    ours = load_base(home, recipe.model, recipe.quantization, lambda progress: None, bool)
    config = (
        BitsAndBytesConfig(load_in_8bit=True)
        if request.param == "int8"
        else BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    )
    plain = AutoModelForCausalLM.from_pretrained(Path(tiny_llama), quantization_config=config, dtype=torch.float32)
    for layer in plain.modules():
        # bitsandbytes would repack weights in a layout without a gradient on some processors.
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
    plain.requires_grad_(False)
    return request.param, ours, plain


@pytest.mark.parametrize("method", methods())
def test_a_method_trains_as_plain_peft_or_is_refused(bases, tiny_llama, records, method) -> None:
    from peft import get_peft_model

    quantization, base, plain = bases
    unquantized = recipe_of(method, tiny_llama, records)
    if quantization not in methods()[method].quantized:
        with pytest.raises(RecipeError, match=f"PEFT has no layers of {method} for a base in {quantization}"):
            edit(unquantized, {"quantization.method": quantization})
        return
    adapter = edit(unquantized, {"quantization.method": quantization, "adapter.target_modules": ["q_proj", "up_proj"]})
    section = edit(adapter, {"adapter.lora_dropout": 0.0}).adapter if method == "lora" else adapter.adapter
    losses = []
    for make in (lambda: base.attach_new(section), lambda: get_peft_model(plain, peft_config(section))):
        torch.manual_seed(7)
        model = make()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=0.1)
        of_model = []
        for _ in range(3):
            loss = model(input_ids=IDS, labels=IDS).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            of_model.append(loss.item())
        losses.append(of_model)
        if model is base.peft:
            base.detach_all()
        else:
            unloaded(model)
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert losses[0][-1] != losses[0][0]
