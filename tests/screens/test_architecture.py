"""Architecture: the tree, what the recipe makes of it, choosing targets on it."""

from pathlib import Path

import pytest
from textual.widgets import Static

from screens.architecture.module_tree import ModuleTree
from tests.screens.piloting import NARROW, WIDE, Opened, opened
from tests.screens.scripted import ScriptedEngine
from workbench.models.catalog import catalog_skeleton
from workbench.storage.paths import Home


def totals(screen: Opened) -> str:
    return str(screen.app.query_one("#architecture-totals", Static).content)


def details(screen: Opened) -> str:
    return str(screen.app.query_one("#architecture-details", Static).content)


async def shown(screen: Opened) -> ModuleTree:
    await screen.until(lambda: screen.app.session.skeleton is not None, "the module tree")
    await screen.tab("architecture")
    return screen.app.query_one(ModuleTree)


async def go_to(screen: Opened, path: str) -> None:
    screen.app.query_one(ModuleTree).reveal(path)
    await screen.until(lambda: details(screen).startswith(path), path)


@pytest.mark.parametrize("size", [WIDE, NARROW])
async def test_the_tree_opens_down_to_one_layer(tmp_path: Path, size: tuple[int, int]) -> None:
    async with opened(tmp_path, size=size) as screen:
        await shown(screen)
        words = screen.words
        assert "(0–29) 30 × LlamaDecoderLayer" in words
        assert "q_proj Linear4bit" in words
        assert "134,515,008 parameters" in totals(screen)
        assert "adapter 4,884,480 trainable, 3.50 % · on 210 layers" in totals(screen)


async def test_shapes_of_the_adapter_stand_beside_the_layer(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await shown(screen)
        line = next(line for line in screen.words.splitlines() if "v_proj" in line)
        assert line.split()[-9:] == ["3,317,760", "▏", "2.5", "%", "nf4", "A", "16×576", "B", "192×16"]
        await go_to(screen, "model.layers.*.self_attn.v_proj")
        assert "lora_A 16×576 · lora_B 192×16 · r 16 · 30 × 12,288 trainable" in details(screen)


async def test_space_takes_a_layer_out_of_the_targets_and_the_totals_follow(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await shown(screen)
        await go_to(screen, "model.layers.*.mlp.gate_proj")
        await screen.press("space")
        assert screen.app.session.recipe.adapter.target_modules == [
            "q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj",
        ]  # fmt: skip
        assert "on 180 layers" in totals(screen)
        await screen.press("enter")
        assert screen.app.session.recipe.adapter.target_modules == "all-linear"


async def test_space_on_a_module_takes_all_layers_below_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await shown(screen)
        await go_to(screen, "model.layers.*.mlp")
        await screen.press("space")
        assert screen.app.session.recipe.adapter.target_modules == ["q_proj", "k_proj", "v_proj", "o_proj"]
        await screen.press("a")
        assert screen.app.session.recipe.adapter.target_modules == "all-linear"


async def test_the_last_target_cannot_be_taken_out(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        screen.app.set_recipe({"adapter.target_modules": ["q_proj"]})
        await shown(screen)
        await go_to(screen, "model.layers.*.self_attn.q_proj")
        await screen.press("space")
        assert screen.app.session.recipe.adapter.target_modules == ["q_proj"]


async def test_layers_are_typed_as_a_range(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await shown(screen)
        await screen.press("#", *"8-15", "enter")
        adapter = screen.app.session.recipe.adapter
        assert adapter.layers_to_transform == list(range(8, 16))
        assert adapter.target_modules == ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        assert "on 56 layers" in totals(screen)
        assert "only layers 8-15" in totals(screen)


async def test_search_goes_to_the_module_and_n_to_the_next(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await shown(screen)
        await screen.press("slash", *"norm")
        await screen.until(lambda: "input_layernorm" in details(screen), "the first hit")
        await screen.press("enter", "n")
        await screen.until(lambda: "post_attention_layernorm" in details(screen), "the second hit")


async def test_what_quantisation_leaves_alone_is_said(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        screen.app.set_recipe({"model.source": "tiiuae/falcon-7b"})
        await screen.until(lambda: screen.app.session.skeleton is not None, "Falcon's tree")
        await shown(screen)
        await go_to(screen, "transformer.h.*.mlp.dense_h_to_4h")
        assert "Stays in 16 bits" in details(screen)


async def test_settings_that_peft_refuses_are_refused_with_the_reason(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        screen.app.set_recipe({"model.source": "state-spaces/mamba-130m-hf"})
        await screen.until(lambda: screen.app.session.skeleton is not None, "Mamba's tree")
        await shown(screen)
        assert "Mamba uses the weights of" in totals(screen)


async def test_a_model_outside_the_catalog_is_asked_of_the_engine(tmp_path: Path) -> None:
    engine = ScriptedEngine(Home(tmp_path), skeleton=catalog_skeleton("openai-community/gpt2"))
    async with opened(tmp_path, engine=engine) as screen:
        screen.app.set_recipe({"model.source": "somebody/something"})
        await screen.until(lambda: "tree somebody/something" in engine.asked, "the question")
        await shown(screen)
        assert "GPT2LMHeadModel" in totals(screen)


async def test_a_model_that_cannot_be_read_says_why_and_what_to_press(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        screen.app.set_recipe({"model.source": "somebody/something"})
        await screen.until(lambda: screen.app.session.skeleton_error is not None, "the refusal")
        await screen.tab("architecture")
        assert "There is no model somebody/something." in totals(screen)
        assert "Press 1 to choose another model." in totals(screen)
