"""Every shipped preset is a valid recipe that says where it comes from; the user's own live beside them."""

from pathlib import Path

import pytest

from workbench.data.open_source import bundled_names
from workbench.data.templates.named import NAMED
from workbench.errors import WorkbenchError
from workbench.recipe.presets import (
    describe_preset,
    describe_presets,
    load_preset,
    preset_names,
    preset_text,
    save_preset,
)
from workbench.recipe.schema import Recipe
from workbench.recipe.text import RecipeError, edit, from_yaml
from workbench.storage.paths import Home

# The facts that the sources of the presets state.
STATED = {
    "tinyllama-chat": {
        "model.source": "TinyLlama/TinyLlama-1.1B-Chat-v1.0", "quantization.method": "nf4", "adapter.r": 16,
        "adapter.lora_alpha": 32, "adapter.target_modules": ["q_proj", "v_proj"], "data.template": "user-assistant",
        "data.max_length": 512, "training.per_device_train_batch_size": 2, "training.gradient_accumulation_steps": 4,
        "training.num_train_epochs": 3, "training.learning_rate": 2e-4, "quantization.compute_dtype": "float16",
        "training.logging_steps": 5,
    },
    "llama32-prices-lite": {
        "model.source": "meta-llama/Llama-3.2-3B", "adapter.r": 32, "adapter.lora_alpha": 64,
        "adapter.target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"], "data.split": "train[:20000]",
    },
    "llama32-prices-full": {
        "model.source": "meta-llama/Llama-3.2-3B", "adapter.r": 256, "adapter.lora_alpha": 512, "data.split": "train",
    },
    "llama32-instruct": {
        "adapter.r": 16, "adapter.lora_alpha": 32, "adapter.target_modules": ["q_proj", "v_proj"],
        "adapter.lora_dropout": 0.05, "data.template": "instruction-response", "training.num_train_epochs": 3,
        "training.per_device_train_batch_size": 4, "training.gradient_accumulation_steps": 4,
    },
    "llama2-lora": {"quantization.method": "none", "adapter.r": 8, "adapter.lora_alpha": 16},
    "llama2-qlora": {"quantization.method": "nf4", "adapter.r": 8, "adapter.lora_alpha": 16},
    "llama2-chat-lora": {
        "quantization.method": "none", "adapter.r": 16, "adapter.lora_alpha": 32, "adapter.lora_dropout": 0.05,
        "training.learning_rate": 1e-4, "training.per_device_train_batch_size": 1,
        "training.gradient_accumulation_steps": 8, "data.max_length": 2048, "data.template": "auto",
    },
    "llama2-chat-qlora": {
        "quantization.method": "nf4", "adapter.r": 64, "adapter.lora_alpha": 16, "adapter.lora_dropout": 0.1,
        "training.learning_rate": 2e-4, "training.per_device_train_batch_size": 4,
        "training.gradient_accumulation_steps": 4, "data.max_length": 2048,
    },
    "mistral-quotes": {
        "training.max_steps": 500, "training.warmup_ratio": 0.2, "training.per_device_train_batch_size": 4,
        "training.gradient_accumulation_steps": 4, "training.save_steps": 100, "data.max_length": 128,
        "data.format": "text",
    },
    "mistral-multitask": {"adapter.r": 16, "adapter.lora_alpha": 32},
    "demo": {"data.source": "first-mate", "adapter.target_modules": "all-linear", "adapter.lora_alpha": 32},
    "demo-classification": {"data.source": "harbor-messages", "objective.kind": "classification", "adapter.r": 16},
    "demo-preferences": {"data.source": "first-mate-pairs", "objective.kind": "dpo", "adapter.r": 16},
}  # fmt: skip
SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def test_the_shipped_presets() -> None:
    assert preset_names()[0] == "demo"
    assert set(preset_names()) == set(STATED)


@pytest.mark.parametrize("name", STATED)
def test_a_preset_holds_what_its_source_states(name: str) -> None:
    recipe = load_preset(name)
    assert {path: recipe.get(path) for path in STATED[name]} == STATED[name]
    if name.startswith(("llama2-chat", "llama32-prices-full", "mistral")):
        assert recipe.adapter.target_modules == SEVEN
    assert recipe.data.template in ("auto", *NAMED)
    assert "/" in recipe.data.source or recipe.data.source in bundled_names()


@pytest.mark.parametrize("name", STATED)
def test_a_preset_says_where_it_comes_from_and_when_to_use_it(name: str) -> None:
    described = describe_preset(name)
    assert described.name == name
    assert 5 < len(described.title) < 60
    assert len(described.origin) > 20
    assert len(described.advice) > 60
    assert not described.own


def test_llama2_presets_differ_in_the_base_alone() -> None:
    lora, qlora = load_preset("llama2-lora"), load_preset("llama2-qlora")
    assert lora.adapter == qlora.adapter
    assert lora.data == qlora.data


def test_the_users_own(tmp_path: Path) -> None:
    home = Home(tmp_path)
    recipe = edit(Recipe(), {"adapter.r": 64, "training.learning_rate": 1e-5})
    path = save_preset("mine", recipe, home, title="My own:\nlarge", advice="for a rainy\nday")
    assert path == tmp_path / "presets" / "mine.yaml"
    assert load_preset("mine", home) == recipe
    assert preset_names(home)[-1] == "mine"
    described = describe_preset("mine", home)
    assert (described.origin, described.advice, described.own) == ("saved from the workbench.", "for a rainy day", True)
    save_preset("demo", recipe, home)
    assert load_preset("demo", home) == recipe
    assert load_preset("demo") != recipe
    assert preset_names(home).count("demo") == 1
    assert sorted(p.name for p in path.parent.iterdir()) == ["demo.yaml", "mine.yaml"]


@pytest.mark.parametrize("name", ["../recipes/demo", "/etc/passwd", "", ".", "a/b", "a\x1b[2J", "x" * 65])
def test_a_name_is_no_path(name: str, tmp_path: Path) -> None:
    with pytest.raises(WorkbenchError, match="no preset"):
        load_preset(name, Home(tmp_path))
    with pytest.raises(WorkbenchError, match="is not a valid preset name"):
        save_preset(name, Recipe(), Home(tmp_path))


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(WorkbenchError) as caught:
        load_preset("llama32-prices-light")
    assert "Did you mean llama32-prices-lite?" in caught.value.cure


def test_a_damaged_preset_of_the_users(tmp_path: Path) -> None:
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "bad.yaml").write_text("adapter:\n  rr: 4\n  lora_dropout: 7\n", encoding="utf-8")
    home = Home(tmp_path)
    with pytest.raises(RecipeError) as caught:
        load_preset("bad", home)
    assert len(caught.value.problems) == 2
    assert describe_preset("bad", home).title == "bad"
    (tmp_path / "presets" / "bytes.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(WorkbenchError, match="Cannot read"):
        describe_preset("bytes", home)
    listed = {preset.name: preset for preset in describe_presets(home)}
    assert list(listed) == preset_names(home)
    assert "Cannot read" in listed["bytes"].title
    assert [preset.own for preset in listed.values()].count(True) == 2


def test_the_text_of_a_preset_is_its_file() -> None:
    assert from_yaml(preset_text("demo")) == load_preset("demo")
