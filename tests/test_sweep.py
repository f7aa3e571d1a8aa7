"""A sweep: which runs come of it, what they are called, and what is refused."""

import pytest

from workbench.errors import WorkbenchError
from workbench.recipe.schema import Recipe
from workbench.recipe.sweep import parse_over, sweep
from workbench.recipe.text import RecipeError, edit


def names(recipe, over):
    return [variant.recipe.output.name for variant in sweep(recipe, over)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("adapter.r=8,16,32", ("adapter.r", [8, 16, 32])),
        (" adapter.r = 8 , 8, 16", ("adapter.r", [8, 16])),
        ("training.learning_rate=1e-4,2e-4", ("training.learning_rate", [1e-4, 2e-4])),
        ("quantization.method=nf4,none", ("quantization.method", ["nf4", "none"])),
        ("adapter.target_modules=all-linear,[q_proj, v_proj]",
         ("adapter.target_modules", ["all-linear", ["q_proj", "v_proj"]])),
        ("adapter.use_dora=true,false", ("adapter.use_dora", [True, False])),
    ],
)  # fmt: skip
def test_values_are_read_as_yaml(text, expected):
    assert parse_over(text) == expected


@pytest.mark.parametrize("text", ["adapter.r", "adapter.r=", "adapter.r=[8,16"])
def test_what_is_no_sweep_is_refused_with_an_example(text):
    with pytest.raises(WorkbenchError, match=r"adapter\.r=8,16,32,64"):
        parse_over(text)


def test_without_a_knob_the_rank_is_swept_and_alpha_stays_linked():
    recipe = edit(Recipe(), {"output.name": "mate"})
    found = [variant.recipe for variant in sweep(recipe)]
    assert [(one.output.name, one.adapter.r, one.adapter.lora_alpha) for one in found] == [
        ("mate-r8", 8, 16),
        ("mate-r16", 16, 32),
        ("mate-r32", 32, 64),
        ("mate-r64", 64, 128),
    ]
    assert all(one.adapter.alpha_is_linked for one in found)


def test_an_alpha_that_was_set_stays_set():
    recipe = edit(Recipe(), {"adapter.lora_alpha": 10})
    assert {variant.recipe.adapter.lora_alpha for variant in sweep(recipe)} == {10}


def test_two_knobs_give_every_combination():
    over = {"adapter.r": [8, 16], "training.learning_rate": [1e-4, 5e-5]}
    found = sweep(Recipe(), over)
    assert [variant.changes for variant in found] == [
        {"adapter.r": r, "training.learning_rate": rate} for r in (8, 16) for rate in (1e-4, 5e-5)
    ]
    assert names(Recipe(), over) == ["run-r8-lr0.0001", "run-r8-lr5e-05", "run-r16-lr0.0001", "run-r16-lr5e-05"]


def test_names_are_legal_short_enough_and_different():
    recipe = edit(Recipe(), {"output.name": "n" * 64})
    long = [[f"layer.{index}.{'x' * 60}"] for index in range(3)]
    made = names(recipe, {"adapter.target_modules": long})
    assert len(set(made)) == 3
    assert all(len(name) <= 64 for name in made)
    assert names(recipe, {"adapter.r": [8, 16]}) == ["n" * 61 + "-r8", "n" * 60 + "-r16"]


def test_what_is_no_recipe_is_said_before_anything_is_lined_up():
    with pytest.raises(RecipeError, match=r"adapter\.r: got 0"):
        sweep(Recipe(), {"adapter.r": [8, 0]})
    with pytest.raises(RecipeError, match=r"Did you mean adapter\.r\?"):
        sweep(Recipe(), {"adapter.rr": [8]})
    with pytest.raises(WorkbenchError, match="1,000 runs"):
        sweep(Recipe(), {"training.seed": range(1000)})
    with pytest.raises(WorkbenchError, match="Run names are generated"):
        sweep(Recipe(), {"output.name": ["a", "b"]})
