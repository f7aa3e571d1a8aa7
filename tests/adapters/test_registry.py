"""The table of methods: what each reads and refuses, the page about it, and a new one as one new file."""

from pathlib import Path

import pytest

from tests.conftest import tiny_recipe
from tests.engine.runs_of_tiny import begin, curve, ended
from workbench.adapters import methods as folder
from workbench.adapters.registry import adapter_method, methods, peft_arguments, size_words
from workbench.adapters.table import table
from workbench.errors import WorkbenchError
from workbench.recipe.fields import unread
from workbench.recipe.schema import Recipe
from workbench.recipe.text import RecipeError, edit, from_yaml, to_yaml
from workbench.storage.paths import Home

UNQUANTIZED = {"quantization.method": "none"}


def test_recipes_from_before_there_were_methods_mean_lora() -> None:
    assert from_yaml("adapter: {r: 8}").adapter.method == "lora"
    assert not {"method", "options"} & Recipe().as_dict()["adapter"].keys()
    changed = edit(Recipe(), {"adapter.method": "vera", "adapter.options": {"d_initial": 0.2}})
    assert from_yaml(to_yaml(changed)) == changed


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"adapter.method": "lroa"}, "there is no method 'lroa'"),
        ({"adapter.method": "vera", "adapter.use_dora": True}, "adapter.use_dora: VeRA does not read it"),
        ({"adapter.method": "oft", **UNQUANTIZED, "adapter.r": 4}, "adapter.r: OFT does not read it"),
        ({"adapter.method": "vera", "adapter.options": {"alpha": 3}}, "VeRA has no option 'alpha'; its options are"),
        ({"adapter.method": "vera", "adapter.options": {"d_initial": "high"}}, "got 'high'; expected a number from 0"),
        ({"adapter.options": {"alpha": 3}}, "LoRA has no option 'alpha'; its options are rho, corda_method"),
        ({"adapter.method": "loha"}, "PEFT has no layers of loha for a base in nf4; set quantization.method to none"),
    ],
)
def test_what_a_method_cannot_use_is_refused_by_its_key(changes: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        edit(Recipe(), changes)
    assert words in str(caught.value)


def test_another_method_takes_along_what_it_reads_too() -> None:
    before = edit(Recipe(), {**UNQUANTIZED, "adapter.r": 64, "adapter.use_dora": True, "adapter.lora_alpha": 7})
    loha = edit(before, {"adapter.method": "loha", **unread("loha")})
    assert (loha.adapter.r, size_words(loha.adapter)) == (64, "LoHa r 64")
    back = edit(loha, {"adapter.method": "lora", **unread("lora")})
    assert (back.adapter.r, back.adapter.use_dora, back.adapter.alpha_is_linked) == (64, False, True)


@pytest.mark.parametrize("name", methods())
def test_what_a_method_reads_is_in_pefts_configuration(name: str) -> None:
    import peft

    method = methods()[name]
    recipe = edit(Recipe(), {**UNQUANTIZED, "adapter.method": name, **unread(name)})
    class_name, arguments = peft_arguments(recipe.adapter)
    config = getattr(peft, class_name)(**arguments)
    assert config.peft_type == method.peft_type
    assert hasattr(config, "exclude_modules") or not method.excludes
    section, rest = method.section(config.to_dict())
    assert not rest
    # A list of targets is a set inside PEFT, in any order.
    assert edit(Recipe(), {**UNQUANTIZED, "adapter": section}).adapter.model_dump() == recipe.adapter.model_dump()


def test_an_unknown_type_of_adapter_is_refused() -> None:
    with pytest.raises(WorkbenchError, match="PROMPT_TUNING, which this program does not use"):
        adapter_method({"peft_type": "PROMPT_TUNING"})
    assert adapter_method({}).name == "lora"


def test_the_page_has_the_table_of_the_registry() -> None:
    assert table() in Path("docs/adapters.md").read_text(encoding="utf-8")


MADE_UP = """
from workbench.adapters.layer import AdapterTensor
from workbench.adapters.method import PLACES, Method
from workbench.adapters.option import Option


class Halved(Method):
    name = "halved"
    label = "Halved"
    help = "A LoRA of half the rank."
    peft_type = "LORA"
    config_class = "LoraConfig"
    prefix = "lora_"
    reads = PLACES | {"r"}
    options = {"halves": Option(1, "How often the rank is halved.", least=0, most=4)}

    def arguments(self, adapter):
        return {
            "target_modules": adapter.target_modules,
            "r": adapter.r // 2 ** self.chosen(adapter.options)["halves"],
        }

    def tensors(self, layer, r, settings):
        half = r // 2 ** self.value(settings, "halves")
        return (
            AdapterTensor("lora_A.weight", (half, layer.in_features)),
            AdapterTensor("lora_B.weight", (layer.out_features, half)),
        )


METHOD = Halved()
"""


def test_a_method_is_one_new_file(tmp_path: Path, tiny_llama, records, monkeypatch) -> None:
    from workbench.estimate.adapter.plan import plan_adapter
    from workbench.models.trees import tree_in

    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "halved.py").write_text(MADE_UP)
    monkeypatch.setattr(folder, "__path__", [*folder.__path__, str(tmp_path / "methods")])
    methods.cache_clear()
    try:
        changes = {"adapter.method": "halved", "adapter.r": 16, **UNQUANTIZED, "training.max_steps": 3}
        recipe = edit(tiny_recipe(tiny_llama, records), changes | unread("halved"))
        run, thread = begin(Home(tmp_path / "home"), recipe)
        ended(thread)
        losses = list(curve(run).values())
        assert losses[-1] < losses[0]
        plan = plan_adapter(tree_in(tiny_llama, recipe.model), recipe.adapter)
        assert plan.modules[0].tensors[0].shape[0] == 8
        trained = sum(p.numel() for p in thread.base.active.parameters() if p.requires_grad)
        assert plan.trainable_parameters == trained
    finally:
        methods.cache_clear()
