"""Module trees against the transformers models they describe."""

import json
from pathlib import Path
from typing import Any

import pytest

from workbench.errors import WorkbenchError
from workbench.estimate.adapter.sites import sites
from workbench.models.build import build_skeleton, meta_model

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 320,
}
MIXED_EXPERTS = {
    **LLAMA,
    "model_type": "qwen3_moe",
    "num_experts": 4,
    "moe_intermediate_size": 32,
    "mlp_only_layers": [1],
}
MAMBA = {"model_type": "mamba", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 320}
FALCON = {
    "model_type": "falcon",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 320,
}


@pytest.mark.parametrize("config", [LLAMA, MIXED_EXPERTS, MAMBA, FALCON], ids=lambda config: config["model_type"])
def test_the_tree_is_the_model(config: dict[str, Any]) -> None:
    model = meta_model(config)
    skeleton = build_skeleton(config)
    modules = dict(model.named_modules())
    assert [site.name for site in sites(skeleton)] == [name for name in modules if name]
    assert skeleton.parameters == sum(p.numel() for p in model.parameters())
    for site in sites(skeleton):
        module = modules[site.name]
        assert site.module.class_name == type(module).__name__
        own = dict(module.named_parameters(recurse=False, remove_duplicate=False))
        assert {t.name: t.shape for t in site.parameters} == {name: tuple(p.shape) for name, p in own.items()}
    assert model.get_output_embeddings() is modules[skeleton.output or ""]


def test_layers_are_folded_by_kind() -> None:
    skeleton = build_skeleton(MIXED_EXPERTS)
    layers = next(module for name, module in skeleton.walk() if name == "model.layers")
    assert sorted(child.label for child in layers.children) == ["0, 2", "1"]


def test_ties_classes_and_convolutions() -> None:
    mamba = build_skeleton(MAMBA)
    named = dict(mamba.walk())
    assert named["lm_head"].tensors[0].tied_to == "backbone.embeddings.weight"
    assert named["backbone.layers.0.mixer.conv1d"].facts["groups"] == 128
    falcon = dict(build_skeleton(FALCON).walk())
    assert falcon["transformer.h.0.mlp.dense_h_to_4h"].facts == {"plain": False, "convertible": True}
    assert falcon["lm_head"].facts == {"plain": True, "convertible": False}


def test_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA), encoding="utf-8")
    assert build_skeleton(tmp_path) == build_skeleton(tmp_path / "config.json") == build_skeleton(LLAMA)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({}, "model_config"),
        ({"model_type": "no_such_model", "auto_map": {"AutoConfig": "evil.Config"}}, "unknown_architecture"),
        ({"model_type": ["llama"]}, "unknown_architecture"),
        ({"model_type": "vit"}, "model_not_causal"),
        ({"model_type": "blip-2"}, "model_not_causal"),
        ({**LLAMA, "num_hidden_layers": 10**9}, "model_config"),
        ({**LLAMA, "hidden_size": "wide"}, "model_config"),
        ({**LLAMA, "num_attention_heads": 0}, "model_config"),
    ],
)
def test_configurations_that_cannot_be_built(config: dict[str, Any], kind: str) -> None:
    with pytest.raises(WorkbenchError) as error:
        build_skeleton(config)
    assert error.value.kind == kind
    assert error.value.cure


@pytest.mark.parametrize(
    ("model_type", "words"),
    [
        ("blip-2", "Blip2ForConditionalGeneration needs pixel_values with each text"),
        ("idefics", "IdeficsForVisionText2Text needs an image with each text"),
        ("florence2", "Florence2ForConditionalGeneration reads one text and writes another"),
        ("qwen2_5_omni", "Qwen2_5OmniForConditionalGeneration has no forward pass for text"),
    ],
)
def test_a_model_that_does_not_take_text_alone_says_what_it_needs(model_type: str, words: str) -> None:
    with pytest.raises(WorkbenchError, match=words) as error:
        build_skeleton({"model_type": model_type})
    assert "pip install" not in str(error.value)


def test_a_model_of_another_kind_is_called_one() -> None:
    with pytest.raises(WorkbenchError, match="t5 is not a causal language model"):
        build_skeleton({"model_type": "t5"})


def test_numbers_that_json_cannot_have_are_read_as_transformers_writes_them() -> None:
    endless = {"rope_parameters": {"rope_type": "default", "rope_theta": {"__float__": "Infinity"}}}
    assert build_skeleton({**LLAMA, **endless}).parameters == build_skeleton(LLAMA).parameters


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(WorkbenchError, match="Cannot read"):
        build_skeleton(tmp_path)
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(WorkbenchError, match="not valid JSON"):
        build_skeleton(tmp_path)
    (tmp_path / "config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(WorkbenchError, match="not a JSON object"):
        build_skeleton(tmp_path)
