"""The recipe: links, bounds, text in and out, and every mistake at once."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from workbench.errors import WorkbenchError
from workbench.recipe.fields import setting_of
from workbench.recipe.schema import Recipe, known_paths
from workbench.recipe.text import RecipeError, edit, from_yaml, parse, parse_assignment, parse_usable, read, to_yaml


def test_alpha_follows_rank_until_it_is_set():
    recipe = edit(parse({}), {"adapter.r": 64})
    assert recipe.adapter.lora_alpha == 128
    assert recipe.adapter.alpha_is_linked
    free = edit(edit(recipe, {"adapter.lora_alpha": 16}), {"adapter.r": 8})
    assert free.adapter.lora_alpha == 16
    assert edit(free, {"adapter.lora_alpha": None}).adapter.lora_alpha == 16 == 2 * 8


def test_the_link_survives_yaml():
    linked = from_yaml(to_yaml(edit(parse({}), {"adapter.r": 4})))
    assert edit(linked, {"adapter.r": 32}).adapter.lora_alpha == 64
    fixed = from_yaml(to_yaml(edit(parse({}), {"adapter.lora_alpha": 32})))
    assert edit(fixed, {"adapter.r": 64}).adapter.lora_alpha == 32


@pytest.mark.parametrize(
    ("adapter", "scaling"), [({"r": 16, "lora_alpha": 32}, 2.0), ({"r": 16, "lora_alpha": 32, "use_rslora": True}, 8.0)]
)
def test_scaling_is_alpha_over_r_or_its_root(adapter, scaling):
    assert parse({"adapter": adapter}).adapter.scaling == scaling


def test_five_mistakes_give_five_messages():
    text = """
    adapter: {r: 0, lora_alhpa: 3}
    training: {learning_rate: fast, max_stepz: 3}
    modle: {source: x}
    """
    with pytest.raises(RecipeError) as caught:
        from_yaml(text)
    problems = {problem.path: problem for problem in caught.value.problems}
    assert set(problems) == {
        "adapter.r", "adapter.lora_alhpa", "training.learning_rate", "training.max_stepz", "modle",
    }  # fmt: skip
    assert problems["adapter.r"].given == "got 0"
    assert "from 1 to 8192" in problems["adapter.r"].allowed
    assert problems["adapter.lora_alhpa"].nearest == "adapter.lora_alpha"
    assert problems["training.max_stepz"].nearest == "training.max_steps"
    assert problems["modle"].nearest == "model"
    assert "'fast'" in problems["training.learning_rate"].given


def test_a_key_in_the_wrong_section_is_pointed_home():
    with pytest.raises(RecipeError) as caught:
        parse({"training": {"lora_dropout": 0.1}})
    assert caught.value.problems[0].nearest == "adapter.lora_dropout"


@pytest.mark.parametrize(
    "text", ["- a\n- b", "just text", "adapter: 4", "adapter: {r: 1, r: 2}", "a: [", "adapter:\n\tr: 1"]
)
def test_what_is_no_recipe_is_refused_with_a_place(text):
    with pytest.raises(RecipeError) as caught:
        from_yaml(text)
    assert caught.value.problems


def test_yaml_cannot_make_objects():
    with pytest.raises(RecipeError):
        from_yaml("model: {source: !!python/object/apply:os.getcwd []}")


def test_exponents_without_a_dot_are_numbers():
    assert from_yaml("training: {learning_rate: 2e-4}").training.learning_rate == 2e-4


def test_types_are_not_coerced():
    for wrong in ({"r": "16"}, {"r": True}, {"r": 16.5}, {"use_dora": "yes"}):
        with pytest.raises(RecipeError):
            parse({"adapter": wrong})


def test_a_value_with_a_colon_and_a_semicolon_stays_whole_in_its_problem():
    with pytest.raises(RecipeError) as caught:
        parse({"adapter": {"bias": "a: b; c: d", "a: b; c": 1}})
    wrong, unknown = sorted(caught.value.problems, key=lambda problem: problem.path == "adapter.a: b; c")
    assert (wrong.path, wrong.given) == ("adapter.bias", "got 'a: b; c: d'")
    assert wrong.allowed == "expected none, all, lora_only"
    assert (unknown.path, unknown.given) == ("adapter.a: b; c", "unknown key")
    over_the_wire = WorkbenchError.from_json(json.loads(json.dumps(caught.value.as_json())))
    assert over_the_wire.problems == caught.value.problems
    assert (over_the_wire.kind, over_the_wire.message) == ("recipe", caught.value.message)


def test_settings_that_exclude_each_other_are_told_as_data():
    with pytest.raises(RecipeError) as caught:
        parse({"adapter": {"init_lora_weights": "olora"}})
    (problem,) = caught.value.problems
    assert problem.given == "olora needs an unquantized base"
    assert problem.allowed == "set quantization.method to none, or init_lora_weights to true"


def test_what_cannot_be_used_has_its_default_where_that_is_asked_for():
    data = {"training": {"torch_compile": "auto", "seed": 3}, "a.b": 1, "adapter": {"init_lora_weights": "pissa"}}
    recipe, problems = parse_usable(data)
    assert recipe == parse({"training": {"seed": 3}})
    paths = {problem.path for problem in problems}
    assert paths == {"training.torch_compile", "a.b", "adapter.init_lora_weights"}
    assert parse_usable({"adapter": 3, "data": None})[0] == Recipe()
    assert data["training"]["torch_compile"] == "auto"


def test_pissa_on_a_quantised_base_is_refused():
    with pytest.raises(RecipeError) as caught:
        parse({"adapter": {"init_lora_weights": "pissa"}})
    assert caught.value.problems[0].path == "adapter.init_lora_weights"
    parse({"adapter": {"init_lora_weights": "pissa"}, "quantization": {"method": "none"}})


def test_assignments():
    assert parse_assignment("adapter.r=64") == ("adapter.r", 64)
    assert parse_assignment("adapter.target_modules=[q_proj, v_proj]") == (
        "adapter.target_modules",
        ["q_proj", "v_proj"],
    )
    with pytest.raises(WorkbenchError):
        parse_assignment("adapter.r")


def test_a_missing_file_says_what_to_give(tmp_path):
    with pytest.raises(WorkbenchError, match="No such recipe file"):
        read(tmp_path / "none.yaml")


def test_every_field_explains_itself():
    for path in known_paths():
        setting = setting_of(path)
        assert setting.help.endswith((".", ":")), path
        assert setting.kind != "choice" or setting.choices, path


def test_an_edit_changes_nothing_else():
    before = parse({})
    edit(before, {"adapter.r": 64})
    assert before.adapter.r == 16


_names = st.text("abcdefghij_", min_size=1, max_size=12)
_recipes = st.fixed_dictionaries(
    {},
    optional={
        "model": st.fixed_dictionaries({}, optional={"source": st.text(min_size=1, max_size=40)}),
        "adapter": st.fixed_dictionaries(
            {},
            optional={
                "r": st.integers(1, 8192),
                "lora_alpha": st.integers(1, 65536),
                "lora_dropout": st.floats(0, 0.99),
                "target_modules": st.lists(_names, min_size=1) | _names,
                "rank_pattern": st.dictionaries(_names, st.integers(1, 99)),
                "layers_to_transform": st.none() | st.lists(st.integers(0, 99)),
            },
        ),
        "data": st.fixed_dictionaries({}, optional={"system": st.none() | st.text(max_size=40)}),
        "training": st.fixed_dictionaries({}, optional={"learning_rate": st.floats(1e-9, 1.0)}),
    },
)  # fmt: skip


@given(_recipes)
@example({"data": {"system": "a\x85b"}})
@example({"data": {"system": "0E0"}})
@settings(max_examples=200, deadline=None)
def test_yaml_loses_nothing(data):
    recipe = parse(data)
    again = from_yaml(to_yaml(recipe))
    assert again == recipe
    assert again.adapter.alpha_is_linked == recipe.adapter.alpha_is_linked
    assert isinstance(again, Recipe)
