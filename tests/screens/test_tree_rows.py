"""The module tree as lines: what the recipe makes of each module, and what toggling it does to the targets."""

import pytest

from screens.architecture.tree_rows import (
    Place,
    adapted_at,
    bytes_below,
    class_text,
    dtype_text,
    is_left_alone,
    linear_names,
    root_of,
    shape_text,
    toggled_targets,
)
from workbench.estimate.adapter.plan import plan_adapter
from workbench.models.catalog import catalog_skeleton
from workbench.models.skeleton import Skeleton
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit

SMOL = "HuggingFaceTB/SmolLM2-135M-Instruct"


def model(name: str) -> Skeleton:
    skeleton = catalog_skeleton(name)
    assert skeleton is not None
    return skeleton


def place(skeleton: Skeleton, path: str) -> Place:
    return next(one for one in root_of(skeleton).walk() if one.path == path)


def test_a_folded_layer_stands_for_all_its_copies() -> None:
    layers = place(model(SMOL), "model.layers.*")
    assert (layers.name, layers.module.count, layers.parameters) == ("(0–29)", 30, 106_202_880)
    assert place(model(SMOL), "model.layers.*.mlp.up_proj").parameters == 30 * 576 * 1536


def test_a_quantised_layer_shows_the_class_and_type_it_gets() -> None:
    q = place(model(SMOL), "model.layers.*.self_attn.q_proj")
    seen = {
        method: (class_text(q, recipe), dtype_text(q, recipe))
        for method in ("nf4", "int8", "none")
        for recipe in [edit(Recipe(), {"quantization.method": method})]
    }
    assert seen == {"nf4": ("Linear4bit", "nf4"), "int8": ("Linear8bitLt", "int8"), "none": ("Linear", "bf16")}
    assert shape_text(q) == "576 → 576"
    head = place(model(SMOL), "lm_head")
    assert (class_text(head, Recipe()), dtype_text(head, Recipe())) == ("Linear", "tied")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("tiiuae/falcon-7b", "transformer.h.*.mlp.dense_h_to_4h"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "model.layers.*.mlp.experts"),
    ],
)
def test_what_is_not_quantised_although_asked_for_is_marked(name: str, path: str) -> None:
    where = place(model(name), path)
    assert is_left_alone(where, Recipe())
    assert not is_left_alone(where, edit(Recipe(), {"quantization.method": "none"}))
    before, after = bytes_below(model(name), where, Recipe())
    assert before == after


def test_bytes_of_a_quantised_layer_before_and_after() -> None:
    before, after = bytes_below(model(SMOL), place(model(SMOL), "model.layers.*.self_attn.q_proj"), Recipe())
    blocks = 576 * 576 // 64
    packed = 576 * 576 // 2 + blocks + 4 * -(-blocks // 256) + 64 + 1024 + 4
    assert (before, after) == (30 * 2 * 576 * 576, 30 * packed)


def test_shapes_of_a_and_b_stand_where_the_recipe_puts_them() -> None:
    skeleton = model(SMOL)
    plan = plan_adapter(skeleton, edit(Recipe(), {"adapter.target_modules": ["v_proj"]}).adapter)
    v = adapted_at(plan, place(skeleton, "model.layers.*.self_attn.v_proj"))
    assert [([tensor.shape for tensor in one.tensors], one.count) for one in v] == [([(16, 576), (192, 16)], 30)]
    assert adapted_at(plan, place(skeleton, "model.layers.*.self_attn.q_proj")) == []


def test_fused_experts_show_both_their_adapters() -> None:
    skeleton = model("mistralai/Mixtral-8x7B-Instruct-v0.1")
    plan = plan_adapter(skeleton, edit(Recipe(), {"adapter.lora_dropout": 0.0}).adapter)
    found = adapted_at(plan, place(skeleton, "model.layers.*.mlp.experts"))
    assert sorted(one.path.rpartition(".")[2] for one in found) == ["down_proj", "gate_up_proj"]


def test_taking_a_layer_out_of_all_linear_leaves_the_others_by_name() -> None:
    skeleton = model(SMOL)
    q = place(skeleton, "model.layers.*.self_attn.q_proj")
    without = toggled_targets(skeleton, Recipe(), q)
    assert without == ["k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    again = toggled_targets(skeleton, edit(Recipe(), {"adapter.target_modules": without}), q)
    assert again == "all-linear"


def test_a_subtree_goes_in_and_out_as_one() -> None:
    skeleton = model(SMOL)
    only_q = edit(Recipe(), {"adapter.target_modules": ["q_proj"]})
    mlp = place(skeleton, "model.layers.*.mlp")
    added = toggled_targets(skeleton, only_q, mlp)
    assert added == ["q_proj", "gate_proj", "up_proj", "down_proj"]
    assert toggled_targets(skeleton, edit(only_q, {"adapter.target_modules": added}), mlp) == ["q_proj"]


def test_equal_names_in_different_places_are_told_apart() -> None:
    skeleton = model("openai-community/gpt2")
    assert linear_names(skeleton) == ["c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"]
    chosen = toggled_targets(
        skeleton,
        edit(Recipe(), {"adapter.target_modules": ["c_attn"]}),
        place(skeleton, "transformer.h.*.mlp.c_proj"),
    )
    assert chosen == ["c_attn", "mlp.c_proj"]
    plan = plan_adapter(skeleton, edit(Recipe(), {"adapter.target_modules": chosen}).adapter)
    assert {one.path for one in plan.modules} == {"transformer.h.*.attn.c_attn", "transformer.h.*.mlp.c_proj"}


def test_a_regular_expression_is_not_taken_apart() -> None:
    skeleton = model(SMOL)
    regex = edit(Recipe(), {"adapter.target_modules": r".*q_proj"})
    assert toggled_targets(skeleton, regex, place(skeleton, "model.layers.*.mlp")) is None
