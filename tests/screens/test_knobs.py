"""The form over the recipe: what the arrows and the keyboard do to each knob."""

import pytest

from screens.adapter import kernels_field as kernels_setting
from screens.adapter import trackers_field as report_setting
from screens.adapter.fields import form
from screens.data.fields import data_settings
from screens.forms.fields import SettingSpec, number_text, parse_ranges, parse_targets, ranges_text, target_sets
from workbench.models.catalog import catalog_skeleton
from workbench.recipe.schema import Recipe
from workbench.recipe.text import RecipeError, edit

# Of two lines for the initialization, the variant.
KNOBS = {spec.path: spec for group in reversed(form()) for spec in group.settings}


def knob(path: str) -> SettingSpec:
    return KNOBS[path]


def turned(recipe: Recipe, path: str, *steps: int) -> Recipe:
    for by in steps:
        recipe = edit(recipe, knob(path).stepped(recipe, None, by))
    return recipe


def test_rank_moves_along_its_steps_and_stops_at_the_ends() -> None:
    ranks = [turned(Recipe(), "adapter.r", *[1] * n).adapter.r for n in range(6)]
    assert ranks == [16, 32, 64, 128, 256, 256]
    assert turned(Recipe(), "adapter.r", *[-1] * 5).adapter.r == 4


def test_a_value_between_two_steps_goes_to_the_nearer_end_of_the_arrow() -> None:
    odd = edit(Recipe(), {"adapter.r": 20})
    assert turned(odd, "adapter.r", 1).adapter.r == 32
    assert turned(odd, "adapter.r", -1).adapter.r == 16


def test_shift_moves_whole_numbers_by_one_and_leaves_shares_alone() -> None:
    recipe = Recipe()
    assert edit(recipe, knob("adapter.r").nudged(recipe, -1)).adapter.r == 15
    assert knob("adapter.lora_dropout").nudged(recipe, 1) == {}


def test_alpha_is_linked_until_it_is_set_and_again_when_emptied() -> None:
    alpha = knob("adapter.lora_alpha")
    free = edit(Recipe(), alpha.parse("50"))
    assert (free.adapter.lora_alpha, free.adapter.alpha_is_linked) == (50, False)
    linked = edit(edit(free, {"adapter.r": 64}), alpha.parse(""))
    assert (linked.adapter.lora_alpha, linked.adapter.alpha_is_linked) == (128, True)
    assert alpha.note(linked) == "= 2·r"


def test_typed_nonsense_reaches_the_recipe_which_says_what_is_allowed() -> None:
    with pytest.raises(RecipeError) as caught:
        edit(Recipe(), knob("adapter.r").parse("lots"))
    assert "a whole number from 1 to 8192" in str(caught.value)


def test_who_is_told_is_chosen_or_typed_and_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    path = "training.report_to"
    monkeypatch.setattr(report_setting, "_is_here", lambda name: name == "tensorboard")
    told = [turned(Recipe(), path, *[1] * n).training.report_to for n in range(5)]
    assert told == [[], ["tensorboard"], ["wandb"], ["trackio"], ["mlflow"]]
    assert turned(Recipe(), path, *[1] * 50).training.report_to == ["codecarbon"]
    assert turned(Recipe(), path, 1, 1, -1, -1).training.report_to == []
    notes = [knob(path).note(turned(Recipe(), path, *[1] * n)) for n in range(3)]
    assert notes == ["", "", "not installed"]

    several = edit(Recipe(), knob(path).parse(" wandb , trackio"))
    assert several.training.report_to == ["wandb", "trackio"]
    assert knob(path).value(several) == "wandb, trackio"
    assert knob(path).lacking(several) == "Not installed: pip install wandb trackio."
    assert knob(path).lacking(turned(Recipe(), path, 1)) == ""
    for none in ("", "none"):
        assert edit(several, knob(path).parse(none)).training.report_to == []
    with pytest.raises(RecipeError) as caught:
        edit(Recipe(), knob(path).parse("aim"))
    assert "tensorboard" in str(caught.value)


def test_whose_kernels_is_chosen_and_what_is_not_installed_or_foreign_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    path = "training.kernels"
    monkeypatch.setattr(kernels_setting, "_is_here", lambda name: name == "hub")
    chosen = [turned(Recipe(), path, *[1] * n) for n in range(4)]
    assert [recipe.training.kernels for recipe in chosen] == ["none", "liger", "hub", "hub"]
    assert [knob(path).note(recipe) for recipe in chosen[:3]] == [
        "",
        "not installed",
        "runs code from the hub",
    ]
    lacking = ["", "Not installed: pip install liger-kernel.", ""]
    assert [knob(path).lacking(recipe) for recipe in chosen[:3]] == lacking


def test_variants_set_all_three_of_their_keys() -> None:
    options = {option.label: option for option in knob("adapter.init_lora_weights").options(None)}
    unquantised = edit(Recipe(), {"quantization.method": "none"})
    pissa = edit(unquantised, options["PiSSA"].changes)
    assert pissa.adapter.init_lora_weights == "pissa"
    dora = edit(pissa, options["DoRA"].changes)
    assert (dora.adapter.use_dora, dora.adapter.use_rslora, dora.adapter.init_lora_weights) == (True, False, True)
    assert [label for label, option in options.items() if option.is_set(dora)] == ["DoRA"]


@pytest.mark.parametrize(
    ("model", "sets"),
    [
        (
            "HuggingFaceTB/SmolLM2-135M-Instruct",
            {
                "all-linear": "all-linear",
                "attention": ["q_proj", "k_proj", "v_proj", "o_proj"],
                "q,v": ["q_proj", "v_proj"],
            },
        ),
        (
            "openai-community/gpt2",
            {"all-linear": "all-linear", "attention": ["c_attn", "c_proj"], "c_attn": ["c_attn"]},
        ),
        (
            "EleutherAI/pythia-1.4b",
            {
                "all-linear": "all-linear",
                "attention": ["query_key_value", "dense"],
                "query_key_value": ["query_key_value"],
            },
        ),
        ("state-spaces/mamba-130m-hf", {"all-linear": "all-linear"}),
    ],
)
def test_target_sets_are_named_as_the_model_names_its_layers(model: str, sets: dict[str, object]) -> None:
    assert target_sets(catalog_skeleton(model)) == sets


def test_targets_are_typed_as_names_or_as_a_regular_expression() -> None:
    assert parse_targets("q_proj, v_proj") == ["q_proj", "v_proj"]
    assert parse_targets("q_proj") == ["q_proj"]
    assert parse_targets("all-linear") == "all-linear"
    assert parse_targets(r".*\.(q|v)_proj") == r".*\.(q|v)_proj"


def test_layers_are_typed_as_ranges() -> None:
    assert parse_ranges("0-3, 7") == [0, 1, 2, 3, 7]
    assert parse_ranges("") is None
    assert parse_ranges("a few") == "a few"
    assert ranges_text([0, 1, 2, 3, 7]) == "0-3, 7"


@pytest.mark.parametrize("spec", [*KNOBS.values(), *data_settings()], ids=lambda spec: spec.path)
@pytest.mark.parametrize("by", [1, -1])
def test_an_arrow_on_any_knob_gives_a_recipe(spec: SettingSpec, by: int) -> None:
    """Also where there is nothing to choose from, such as the source of the records."""
    edit(Recipe(), spec.stepped(Recipe(), None, by))


def test_small_numbers_are_short() -> None:
    assert [number_text(value) for value in (2e-4, 0.001, 0.05, 0.0, 16)] == ["2e-4", "1e-3", "0.05", "0", "16"]


def test_every_option_of_every_knob_is_a_valid_recipe_by_itself() -> None:
    skeleton = catalog_skeleton("HuggingFaceTB/SmolLM2-135M-Instruct")
    unquantised = edit(Recipe(), {"quantization.method": "none"})
    for spec in KNOBS.values():
        assert spec.setting.help
        for option in spec.options(skeleton):
            assert option.is_set(edit(unquantised, option.changes)), (spec.label, option.label)
