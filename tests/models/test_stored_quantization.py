"""Bases that their own files quantize: what is said of them, what they cost, and how they are loaded and trained."""

import json
from pathlib import Path

import pytest

from tests.conftest import make_tiny_model, tiny_recipe
from tests.engine.runs_of_tiny import begin, ended, events_of
from workbench.engine.model.load_base import load_base
from workbench.errors import WorkbenchError
from workbench.estimate import price
from workbench.models.build import build_skeleton
from workbench.models.local import read_config
from workbench.models.sources import ModelSection
from workbench.models.stored_quantization import recipe_as_loaded, stored_quantization
from workbench.planning.start_checks import check_stored_base
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.quantization import QuantizationSection
from workbench.recipe.text import edit
from workbench.storage.paths import Home

# As published on the hub: unsloth's bnb-4bit folders, TheBloke's GPTQ, casperhansen's AWQ, DeepSeek-V3, gpt-oss,
# RedHatAI's w4a16, mobiuslabs' HQQ, pytorch's int4, nvidia's NVFP4.
PUBLISHED = {
    "nf4 + double quant (bitsandbytes)": {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
    },
    "fp4 (bitsandbytes)": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
    "int8 (bitsandbytes)": {"_load_in_8bit": True, "load_in_8bit": True, "quant_method": "bitsandbytes"},
    "GPTQ, 4-bit, groups of 128": {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": True},
    "AWQ, 4-bit, groups of 128": {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"},
    "FP8": {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]},
    "MXFP4, groups of 32": {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]},
    "compressed-tensors, 4-bit, groups of 64": {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": 64}}},
    },
    "HQQ, 4-bit, groups of 64": {
        "quant_method": "hqq",
        "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64}},
    },
    "torchao, 4-bit": {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int4WeightOnlyConfig"}}},
    "NVFP4": {"quant_method": "nvfp4"},
    "a_method_of_next_year": {"quant_method": "a_method_of_next_year"},
}


@pytest.mark.parametrize(("label", "settings"), PUBLISHED.items(), ids=list(PUBLISHED))
def test_each_kind_is_recognized_and_is_trained_or_refused_with_a_way_out(label, settings):
    for config in ({"quantization_config": settings}, {"text_config": {"quantization_config": settings}}):
        stored = stored_quantization(config)
        assert stored is not None
        assert stored.label == label
    asked = QuantizationSection(method="none")
    refusal = stored.refusal(asked)
    if stored.kind in ("bitsandbytes", "FP8", "MXFP4"):
        assert refusal is None
        assert label in stored.note(asked)
        assert stored.as_loaded(QuantizationSection()).method in (label.split()[0], "none")
    else:
        assert refusal is not None
        assert label in refusal.message
        assert "unquantized model" in refusal.cure
    quantised_again = stored.refusal(QuantizationSection(method="nf4"))
    assert (quantised_again is None) == (stored.kind == "bitsandbytes")


def test_configurations_without_quantization_are_left_alone():
    for config in ({}, {"quantization_config": None}, {"quantization_config": {"quant_method": "bitsandbytes"}}):
        assert stored_quantization(config) is None
        assert recipe_as_loaded(Recipe(), config) == Recipe()


def quantised_folder(source: Path, folder: Path, **settings) -> Path:
    """A model folder that bitsandbytes quantized and transformers saved, as people share them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    model = AutoModelForCausalLM.from_pretrained(source, quantization_config=BitsAndBytesConfig(**settings))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def nf4_folder(tiny_llama, tmp_path_factory) -> Path:
    """nf4 without double quantization, and one layer left wide, as dynamic quantizations do."""
    folder = tmp_path_factory.mktemp("stored") / "nf4"
    skipped = ["lm_head", "model.layers.0.mlp.down_proj"]
    return quantised_folder(
        tiny_llama, folder, load_in_4bit=True, bnb_4bit_quant_type="nf4", llm_int8_skip_modules=skipped
    )


def test_a_bitsandbytes_base_is_loaded_and_priced_as_stored_whatever_is_asked(nf4_folder, tmp_path):
    home, skeleton = Home(tmp_path), build_skeleton(nf4_folder)
    for method in ("none", "int8", "nf4"):
        asked = QuantizationSection(method=method, compute_dtype="bfloat16")
        base = load_base(home, ModelSection(source=str(nf4_folder)), asked, lambda _: None, lambda: False)
        assert base.stored_as == "nf4 (bitsandbytes), as stored"
        assert base.matches(base.section, asked)
        assert base.quantization.method == "nf4"
        priced = price(skeleton, edit(Recipe(), {"quantization.method": method}))
        assert priced.base.footprint_bytes == base.footprint
        assert (priced.recipe.quantization.method, priced.recipe.quantization.double_quant) == ("nf4", False)
        assert ("does not apply" in priced.stored_note) == (method != "nf4")
        assert set(priced.by_method) == {"QLoRA"}
        assert priced.stored_refusal is None
    compute = {str(m.compute_dtype) for m in base.model.modules() if type(m).__name__ == "Linear4bit"}
    assert compute == {"torch.bfloat16"}
    start = edit(Recipe(), {"quantization.method": "none", "adapter.init_lora_weights": "pissa"})
    assert "pissa needs an unquantized base" in price(skeleton, start).stored_refusal.message


def test_a_run_on_it_says_in_recipe_and_journal_what_is_stored(nf4_folder, records, tmp_path):
    recipe = edit(tiny_recipe(nf4_folder, records), {"quantization.method": "int8", "training.max_steps": 1})
    run, thread = begin(Home(tmp_path), recipe)
    ended(thread)
    assert (run.recipe().quantization.method, run.recipe().quantization.double_quant) == ("nf4", False)
    assert events_of(run, "run_started")[0]["recipe"]["quantization"]["method"] == "nf4"
    [warning] = [event for event in events_of(run, "warning") if event.get("kind") == "stored_quantization"]
    assert "stored as nf4 (bitsandbytes)" in warning["message"]
    assert "method int8 does not apply" in warning["message"]
    [prepared] = [event for event in events_of(run, "phase") if event.get("base")]
    assert prepared["base"] == "nf4 (bitsandbytes), as stored"


def test_weights_that_are_not_quantized_as_their_configuration_says_are_refused(tiny_llama, nf4_folder, tmp_path):
    """As after a merge of an adapter into a quantized base."""
    import shutil

    shutil.copytree(tiny_llama, tmp_path / "merged")
    config = {**read_config(tiny_llama), "quantization_config": read_config(nf4_folder)["quantization_config"]}
    (tmp_path / "merged" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    home, recipe = Home(tmp_path / "home"), edit(Recipe(), {"model.source": str(tmp_path / "merged")})
    check_stored_base(home, edit(recipe, {"model.source": str(nf4_folder)}))
    for ask in (
        lambda: check_stored_base(home, recipe),
        lambda: load_base(home, recipe.model, recipe.quantization, lambda _: None, lambda: False),
    ):
        with pytest.raises(
            WorkbenchError, match=r"stored as nf4 .* but its weights are not quantized \(BF16\)"
        ) as caught:
            ask()
        assert "Remove quantization_config" in caught.value.cure


def write_fp8(source: Path, folder: Path) -> Path:
    """The linear layers as FP8 in blocks of 32 × 32, as DeepSeek publishes its own."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    weights = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        if not name.endswith("_proj.weight"):
            weights[name] = tensor
            continue
        rows, columns = tensor.shape
        blocks = tensor.float().reshape(rows // 32, 32, columns // 32, 32)
        scale = blocks.abs().amax(dim=(1, 3)) / 448
        weights[name] = (blocks / scale[:, None, :, None]).reshape(rows, columns).to(torch.float8_e4m3fn)
        weights[f"{name}_scale_inv"] = scale
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    settings = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [32, 32]}
    config = {**read_config(source), "quantization_config": settings}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_an_fp8_base_is_dequantised_if_asked_and_refused_otherwise(tiny_llama, records, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    folder, home = write_fp8(tiny_llama, tmp_path / "fp8"), Home(tmp_path / "home")
    recipe = edit(tiny_recipe(folder, records), {"training.max_steps": 2})
    with pytest.raises(WorkbenchError, match=r"stored as FP8.* nor quantized to nf4.*method to none"):
        check_stored_base(home, recipe)
    with pytest.raises(WorkbenchError, match=r"stored as FP8"):
        load_base(home, recipe.model, recipe.quantization, lambda _: None, lambda: False)
    priced = price(build_skeleton(folder), recipe)
    assert priced.stored_refusal is not None
    assert priced.setup.method == "none"
    recipe = edit(recipe, {"quantization.method": "none"})
    check_stored_base(home, recipe)
    run, thread = begin(home, recipe)
    base = ended(thread).base
    original = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).state_dict()
    base.detach_all()
    for name, tensor in base.model.state_dict().items():
        # 3 bits of fraction: half a step is 2⁻⁴ of the value, or of the smallest normal one in its block.
        assert torch.allclose(tensor.float(), original[name], rtol=2**-4, atol=0.02), name
    assert base.stored_as == "16-bit, dequantized from FP8"
    assert len(events_of(run, "step")) == 2
    assert any("dequantized to 16 bits" in event["message"] for event in events_of(run, "warning"))


def test_an_mxfp4_base_is_dequantised_to_the_values_of_its_bytes(tmp_path):
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import GptOssForCausalLM

    settings = {"num_local_experts": 2, "num_experts_per_tok": 1, "head_dim": 16, "num_hidden_layers": 1}
    folder = make_tiny_model(tmp_path / "gpt-oss", GptOssForCausalLM, **settings)
    weights = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    stored = {}
    for name in ("gate_up_proj", "down_proj"):
        full = f"model.layers.0.mlp.experts.{name}"
        experts, inner, outer = weights.pop(full).shape
        stored[name] = (
            torch.randint(256, (experts, outer, inner // 32, 16), generator=generator, dtype=torch.uint8),
            torch.randint(120, 124, (experts, outer, inner // 32), generator=generator, dtype=torch.uint8),
        )
        weights |= {f"{full}_blocks": stored[name][0], f"{full}_scales": stored[name][1]}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = {**read_config(folder), "quantization_config": {"quant_method": "mxfp4"}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")

    asked = QuantizationSection(method="none")
    base = load_base(Home(tmp_path), ModelSection(source=str(folder)), asked, lambda _: None, lambda: False)
    values = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0])
    for name, (blocks, scales) in stored.items():
        pairs = torch.stack([values[(blocks & 15).long()], values[(blocks >> 4).long()]], dim=-1).flatten(-2)
        expected = (pairs * torch.exp2(scales.float() - 127)[..., None]).flatten(-2).transpose(1, 2)
        found = base.model.model.layers[0].mlp.experts.get_parameter(name)
        assert torch.equal(found.float(), expected), name


def test_a_packed_base_is_priced_by_its_own_bits(tiny_llama, tmp_path):
    config = read_config(tiny_llama)
    packed = {**config, "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32}}
    plain = price(build_skeleton(config), edit(Recipe(), {"quantization.method": "none"}))
    for method in ("nf4", "none"):
        priced = price(build_skeleton(packed), edit(Recipe(), {"quantization.method": method}))
        quantised = priced.base.quantised_bytes
        linear = 2 * quantised  # weights: two in a byte
        # Of each 32 weights: their bits, two bytes of scale, and half a byte of zero point.
        assert priced.base.constant_bytes == linear // 32 * 2 + linear // 64
        assert priced.base.true_bytes == plain.base.true_bytes - 2 * linear + quantised + priced.base.constant_bytes
        assert priced.worth_tracing == ()
        assert priced.stored_refusal is not None
