"""Models that read images or audio beside text: which class loads them, and which of their parts stay frozen."""

import re
from typing import Any

import pytest

from tests.whole_models import CONFIGS, config_of
from workbench.models.build import build_skeleton, meta_model
from workbench.models.language_part import exclusion_pattern, frozen_parts
from workbench.models.model_class import auto_class_name
from workbench.models.skeleton_json import skeleton_from_json, skeleton_to_json

PARTS = {
    "qwen2_5_vl": {"model.visual": "vision"},
    "qwen3_vl": {"model.visual": "vision"},
    "mistral3": {"model.vision_tower": "vision", "model.multi_modal_projector": "projector"},
    "gemma3": {"model.vision_tower": "vision", "model.multi_modal_projector": "projector"},
    "llama4": {
        "vision_model": "vision",
        "multi_modal_projector": "projector",
        "language_model.model.layers.1.feed_forward.router": "router",
    },
    "llava": {"model.vision_tower": "vision", "model.multi_modal_projector": "projector"},
    "smolvlm": {"model.vision_model": "vision", "model.connector": "projector"},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_tree_is_that_of_the_whole_model_with_its_other_parts_frozen(name: str) -> None:
    import transformers

    config = config_of(name)
    skeleton = build_skeleton(config)
    assert skeleton.parameters == sum(parameter.numel() for parameter in meta_model(config).parameters())
    assert (
        skeleton.architecture
        == transformers.AutoModelForImageTextToText._model_mapping[type(transformers.CONFIG_MAPPING[name]())].__name__
    )
    assert {part.name: part.kind for part in skeleton.frozen_parts} == PARTS[name]
    assert skeleton_from_json(skeleton_to_json(skeleton)) == skeleton
    assert skeleton.root.facts["layers"] == 2
    assert skeleton.root.facts["heads"] == 4
    assert skeleton.root.facts["vocab_size"] == 384


@pytest.mark.parametrize(
    ("config", "loader"),
    [
        ({"model_type": "llama"}, "AutoModelForCausalLM"),
        ({"model_type": "mistral3"}, "AutoModelForImageTextToText"),
        ({"model_type": "voxtral"}, "AutoModelForMultimodalLM"),
        # Known to transformers with and without its vision part: loaded as it was saved, else whole.
        ({"model_type": "llama4"}, "AutoModelForImageTextToText"),
        (
            {"model_type": "llama4", "architectures": ["Llama4ForConditionalGeneration"]},
            "AutoModelForImageTextToText",
        ),
        ({"model_type": "llama4", "architectures": ["Llama4ForCausalLM"]}, "AutoModelForCausalLM"),
        # The same class by both names.
        ({"model_type": "gemma3"}, "AutoModelForImageTextToText"),
        ({"model_type": "new", "auto_map": {"AutoModelForCausalLM": "a.B"}}, "AutoModelForCausalLM"),
        ({"model_type": "new", "auto_map": {"AutoModelForImageTextToText": "a.B"}}, "AutoModelForImageTextToText"),
    ],
)
def test_the_class_that_loads_a_configuration(config: dict[str, Any], loader: str) -> None:
    assert auto_class_name(config) == loader


def test_indexers_and_layers_that_only_images_reach_are_frozen() -> None:
    text = {
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 128,
    }  # fmt: skip
    config = {"model_type": "mllama_text_model", **text, "cross_attention_layers": [1, 3], "pad_token_id": 0}
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0}
    parts = frozen_parts(
        meta_model({"model_type": "mllama", "architectures": ["MllamaForCausalLM"], "text_config": config})
    )
    inside = [name for name in parts if "layers" in name]
    assert [parts[name] for name in inside] == ["cross-attention"] * 2
    pattern = exclusion_pattern(inside)
    assert "(?:1|3)" in pattern
    assert re.fullmatch(pattern, f"{inside[0]}.mlp.up_proj")
    assert not re.fullmatch(pattern, inside[0].replace(".1", ".2") + ".mlp.up_proj")
    assert not re.fullmatch(pattern, f"{inside[0]}0.mlp.up_proj")
    sparse = {
        "model_type": "deepseek_v32", **text, "num_key_value_heads": 4, "num_hidden_layers": 1, "q_lora_rank": 16,
        "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16, "n_routed_experts": 2,
        "num_experts_per_tok": 1, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 32, "index_head_dim": 16,
        "index_n_heads": 2, "index_topk": 8,
    }  # fmt: skip
    assert frozen_parts(meta_model(sparse)) == {"model.layers.0.self_attn.indexer": "indexer"}


def test_a_model_of_text_has_no_frozen_part() -> None:
    config = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    assert build_skeleton(config).frozen_parts == ()
    assert exclusion_pattern(()) == ""
