"""Prices of models that read images beside text, against PEFT and transformers."""

import pytest

from tests.whole_models import config_of
from workbench.adapters.settings import AdapterSettings
from workbench.errors import WorkbenchError
from workbench.estimate.adapter.plan import plan_adapter
from workbench.estimate.flops import training_flops
from workbench.estimate.footprint import Storage, measure_base
from workbench.estimate.layer_shape import model_shape
from workbench.models.build import build_skeleton, meta_model
from workbench.models.language_part import exclusion_pattern


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj", "fc1"], r".*\.(k_proj|linear_1)"])
def test_counts_are_those_of_peft_without_the_frozen_parts(targets: str | list[str]) -> None:
    """Also of names and expressions that match in the vision tower: its attention has a q_proj too."""
    from peft import LoraConfig, get_peft_model

    config = config_of("llava")
    skeleton = build_skeleton(config)
    excluded = exclusion_pattern(part.name for part in skeleton.frozen_parts)
    lora = LoraConfig(task_type="CAUSAL_LM", r=8, target_modules=targets, exclude_modules=excluded)
    expected = get_peft_model(meta_model(config), lora, low_cpu_mem_usage=True)
    plan = plan_adapter(skeleton, AdapterSettings(8, targets if isinstance(targets, str) else tuple(targets)))
    assert (plan.trainable_parameters, plan.total_parameters) == expected.get_nb_trainable_parameters()
    assert all(".language_model." in module.name for module in plan.modules)
    assert "vision" in dict(plan.left_out)
    assert plan.left_out_text.endswith("(training on text does not reach them).")


def test_only_layers_of_the_language_part_can_be_targeted() -> None:
    skeleton = build_skeleton(config_of("qwen2_5_vl"))
    with pytest.raises(WorkbenchError, match=r"only layers that get no adapter in training on text \(vision\)"):
        plan_adapter(skeleton, AdapterSettings(8, ("qkv",)))
    with pytest.raises(WorkbenchError, match=r"contains model\.visual\.merger"):
        plan_adapter(skeleton, AdapterSettings(8, ("q_proj",), modules_to_save=("merger",)))


@pytest.mark.parametrize("method", ["nf4", "int8"])
def test_the_base_takes_what_transformers_reports(method: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """bitsandbytes quantizes the vision part too."""
    import torch
    from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

    from tests.whole_models import make_whole_model

    folder = make_whole_model(tmp_path, "mistral3")
    settings = (
        {"load_in_8bit": True}
        if method == "int8"
        else {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    )
    model = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.bfloat16, quantization_config=BitsAndBytesConfig(**settings)
    )
    skeleton = build_skeleton(folder)
    assert measure_base(skeleton, Storage(method, True, "bfloat16")).footprint_bytes == model.get_memory_footprint()  # type: ignore[arg-type]


def test_activations_and_operations_are_those_of_the_language_part() -> None:
    """The vision part has more layers and wider ones here, and changes neither."""
    config = config_of("llava")
    huge = {**config, "vision_config": {**config["vision_config"], "num_hidden_layers": 9, "intermediate_size": 4096}}
    small, large = build_skeleton(config), build_skeleton(huge)
    assert large.parameters > 5 * small.parameters
    assert model_shape(large) == model_shape(small)
    assert model_shape(small).path == "model.language_model.layers"
    settings = AdapterSettings(8, "all-linear")
    assert training_flops(large, settings, True) == training_flops(small, settings, True)


def test_a_step_of_a_whole_model_is_traced() -> None:
    from workbench.estimate.setup import Setup
    from workbench.estimate.step import plan_step
    from workbench.estimate.trace.run import trace_step
    from workbench.recipe.resolved import resolved
    from workbench.recipe.schema import Recipe

    recipe = resolved(Recipe())
    for name in ("qwen3_vl", "llama4"):
        assert trace_step(build_skeleton(config_of(name)), recipe, plan_step(Setup.of(recipe))).points
