"""Repositories and folders as people have them: code of their own, other names and places, files that are missing."""

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import tiny_recipe
from tests.engine.runs_of_tiny import begin, curve, ended, events_of
from tests.models.downloads import TINY, fetch, refusal
from tests.models.hub_server import COMMIT, COMMIT_OF_BRANCH
from workbench.data.templates.template import Template
from workbench.engine.model.load_base import load_base
from workbench.errors import WorkbenchError
from workbench.models.damaged import damaged_file
from workbench.models.remote_code import remote_code
from workbench.models.sources import fetch_config, fetch_model, find_config, find_local
from workbench.models.tokenizers import load_tokenizer
from workbench.models.trees import skeleton_in_catalog, skeleton_of
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.model import ModelSection
from workbench.recipe.sections.quantization import QuantizationSection
from workbench.recipe.text import RecipeError, choosing_model, edit, from_yaml, to_yaml
from workbench.storage.paths import Home

CODE = """
from transformers import LlamaConfig, LlamaForCausalLM

class OwnConfig(LlamaConfig):
    model_type = "own_llama"

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


def change_config(folder: Path, name: str = "config.json", **changes: object) -> None:
    file = folder / name
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def give_own_code(folder: Path) -> Path:
    """Turn a Llama into a model of an architecture that only its own code knows."""
    (folder / "modeling_own.py").write_text(CODE)
    classes = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}
    change_config(folder, model_type="own_llama", architectures=["OwnForCausalLM"], auto_map=classes)
    return folder


@pytest.fixture
def own_code(tiny_llama: Path, tmp_path: Path) -> Path:
    return give_own_code(Path(shutil.copytree(tiny_llama, tmp_path / "own")))


def failure(home: Home, recipe: Recipe) -> WorkbenchError:
    """The error with which a run ends."""
    _, thread = begin(home, recipe)
    thread.join(240)
    assert thread.error is not None
    return thread.error


# -- code of its own ----------------------------------------------------------------------------------------------


def test_code_is_named_and_does_not_run_unless_the_user_allows_it(own_code, home, records):
    model = ModelSection(source=str(own_code))
    with pytest.raises(WorkbenchError) as caught:
        skeleton_of(home, model)
    for error in (caught.value, failure(home, tiny_recipe(own_code, records))):
        assert error.kind == "untrusted_code"
        assert "modeling_own.py" in error.message
        assert "model.trust_remote_code=true" in error.cure


def test_allowed_code_is_priced_trained_and_named_in_a_warning(own_code, tiny_llama, home, records):
    changes = {"model.trust_remote_code": True, "quantization.method": "none", "training.max_steps": 2}
    recipe = edit(tiny_recipe(own_code, records), {**changes, "quantization.compute_dtype": "float32"})
    skeleton = skeleton_of(home, recipe.model)
    assert skeleton.architecture == "OwnForCausalLM"
    assert skeleton.parameters == skeleton_of(home, ModelSection(source=str(tiny_llama))).parameters
    losses = []
    for one in (recipe, edit(recipe, {"model.source": str(tiny_llama)})):
        run, thread = begin(home, one)
        ended(thread)
        warned = [event for event in events_of(run, "warning") if event.get("kind") == "remote_code"]
        assert [("modeling_own.py" in event["message"]) for event in warned] == ([True] if one is recipe else [])
        losses.append(list(curve(run).values()))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert len(losses[0]) == 2


def test_no_weights_are_downloaded_for_code_that_is_not_allowed(hub, home, records):
    give_own_code(hub.repos[TINY.source])
    recipe = edit(tiny_recipe(Path("x"), records), {"model.source": TINY.source})
    assert failure(home, recipe).kind == "untrusted_code"
    assert "model.safetensors" not in hub.taken
    # Code that becomes allowed is fetched, also where everything else is here.
    folder, _ = fetch(home)
    assert not (folder / "modeling_own.py").exists()
    allowed = ModelSection(source=TINY.source, trust_remote_code=True)
    assert find_local(home, allowed) is None
    assert find_config(home, allowed) is None
    assert (fetch_config(home, allowed, lambda step: None, lambda: False) / "modeling_own.py").is_file()
    assert find_local(home, allowed) is not None


def test_missing_code_and_code_of_other_repositories_are_named(own_code, home):
    change_config(own_code, "tokenizer_config.json", auto_map={"AutoTokenizer": ["a/b--tokenization_x.Slow", None]})
    code = remote_code(own_code)
    assert (code.files, code.repositories) == (("modeling_own.py",), ("a/b",))
    assert "modeling_own.py, code in the repository a/b" in code.warning
    (own_code / "modeling_own.py").unlink()
    with pytest.raises(WorkbenchError, match=r"lacks Python code that its configuration names: modeling_own\.py"):
        fetch_model(home, ModelSection(source=str(own_code), trust_remote_code=True), lambda step: None, bool)


def test_another_model_does_not_inherit_the_permission() -> None:
    recipe = edit(Recipe(), {"model.trust_remote_code": True, "model.revision": "x", "model.subfolder": "y"})
    assert edit(recipe, choosing_model(recipe, "a/b")).model == ModelSection(source="a/b")
    assert edit(recipe, choosing_model(recipe, recipe.model.source)) == recipe


# -- other names and places ---------------------------------------------------------------------------------------


def test_a_renamed_repository_is_followed_and_its_name_of_today_is_told(hub, home):
    hub.renamed["former/tiny"] = TINY.source
    folder, seen = fetch(home, ModelSection(source="former/tiny"))
    assert (folder / "model.safetensors").is_file()
    assert any(f"former/tiny is now called {TINY.source}" in step.detail for step in seen)


def test_a_disabled_repository_is_not_taken_for_a_private_one(hub, home):
    hub.disabled.add(TINY.source)
    error = refusal(home)
    assert error.kind == "disabled"
    assert "login" not in error.cure


def test_a_branch_and_a_commit_are_different_snapshots(hub, home, tiny_llama, tmp_path):
    other = Path(shutil.copytree(tiny_llama, tmp_path / "next"))
    change_config(other, rope_theta=500.0)
    hub.branches[TINY.source] = other
    main = fetch(home)[0]
    for revision in ("next", COMMIT_OF_BRANCH):
        model = ModelSection(source=TINY.source, revision=revision)
        branch = fetch(home, model)[0]
        assert branch.name == COMMIT_OF_BRANCH
        assert json.loads((branch / "config.json").read_text())["rope_theta"] == 500.0
        local = find_local(home, model)
        assert local is not None
        assert local.revision == COMMIT_OF_BRANCH
    assert main.name == COMMIT


def test_a_model_in_a_folder_of_its_repository(hub, home, tiny_llama, tmp_path):
    top = tmp_path / "several"
    shutil.copytree(tiny_llama, top / "small" / "hf")
    (top / "README.md").write_text("two sizes")
    hub.repos["someone/several"] = top
    error = refusal(home, ModelSection(source="someone/several"))
    assert error.kind == "no_model"
    model = ModelSection(source="someone/several", subfolder="small/hf")
    config = fetch_config(home, model, lambda step: None, lambda: False)
    assert config.parts[-2:] == ("small", "hf")
    assert "small/hf/model.safetensors" not in hub.taken
    folder, _ = fetch(home, model)
    local = find_local(home, model)
    assert local is not None
    assert (local.folder, local.revision, local.is_hub_id) == (folder, COMMIT, False)
    assert skeleton_of(home, model).architecture == "LlamaForCausalLM"
    # A folder on this machine too, and never the model of the catalog that has the repository's name.
    assert find_local(home, ModelSection(source=str(top), subfolder="small/hf")) is not None
    with pytest.raises(WorkbenchError, match=r"No model at .*large"):
        fetch_model(home, ModelSection(source=str(top), subfolder="large"), lambda step: None, bool)
    assert skeleton_in_catalog(ModelSection(source="Qwen/Qwen3-8B", subfolder="x")) is None


def test_a_subfolder_stays_inside_and_recipes_without_one_are_written_as_before() -> None:
    assert "subfolder" not in to_yaml(Recipe())
    recipe = edit(Recipe(), {"model.subfolder": "a/b"})
    assert from_yaml(to_yaml(recipe)) == recipe
    for wrong in ("/a", "../a", "a/../..", ""):
        with pytest.raises(RecipeError, match=r"model\.subfolder"):
            edit(recipe, {"model.subfolder": wrong})


# -- missing and unusual files ------------------------------------------------------------------------------------


def test_shards_of_any_name_are_downloaded_as_the_index_lists_them(hub, home):
    folder = hub.repos[TINY.source]
    shard = "model.safetensors-00001-of-00001.safetensors"
    (folder / "model.safetensors").rename(folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"model.norm.weight": shard}}))
    assert (fetch(home)[0] / shard).is_file()
    # A repository that lacks one of them is not downloaded again and again.
    shutil.copytree(folder, folder.with_name("incomplete"))
    (folder.with_name("incomplete") / shard).rename(folder.with_name("incomplete") / "model-00001-of-00002.safetensors")
    hub.repos["someone/incomplete"] = folder.with_name("incomplete")
    error = refusal(home, ModelSection(source="someone/incomplete"))
    assert error.kind == "model_damaged"
    assert f"someone/incomplete on the hub lacks 1 of the 1 weight files that its index lists: {shard}" in error.message


def test_missing_shards_are_named(tiny_llama, tmp_path, home):
    folder = Path(shutil.copytree(tiny_llama, tmp_path / "sharded"))
    names = [f"model-{n:05}-of-00005.safetensors" for n in range(1, 6)]
    (folder / "model.safetensors").rename(folder / names[2])
    index = {"weight_map": {f"layer.{n}": name for n, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WorkbenchError) as caught:
        fetch_model(home, ModelSection(source=str(folder)), lambda step: None, bool)
    assert f"lacks 4 of the 5 weight files that its index lists: {names[0]}, {names[1]}, {names[3]} and 1 more" in (
        caught.value.message
    )


def test_weights_are_found_as_transformers_finds_them_and_other_names_are_refused(tiny_llama, tmp_path, home):
    model = ModelSection(source=str(shutil.copytree(tiny_llama, tmp_path / "model")))
    folder = Path(model.source)
    # An index that was left when the shards were joined.
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}}))
    assert find_local(home, model)
    index.unlink()
    for name, cure in (
        ("consolidated.safetensors", "publisher's own format"),
        ("weights.safetensors", "rename it to model.safetensors"),
        ("model-00001-of-00002.safetensors", "Copy model.safetensors.index.json, and the shards"),
    ):
        next(folder.glob("*.safetensors")).rename(folder / name)
        with pytest.raises(WorkbenchError, match=rf"has the weight files {name}, but neither") as caught:
            fetch_model(home, model, lambda step: None, bool)
        assert cure in caught.value.cure
    change_config(folder, transformers_weights="model-00001-of-00002.safetensors")
    assert find_local(home, model)


def test_an_adapter_beside_a_model_is_not_loaded_with_it(hub, home, tiny_llama, tmp_path):
    (hub.repos[TINY.source] / "adapter_config.json").write_text("{}")
    assert not (fetch(home)[0] / "adapter_config.json").exists()
    folder = Path(shutil.copytree(tiny_llama, tmp_path / "both"))
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(WorkbenchError, match="contains a model and an adapter") as caught:
        fetch_model(home, ModelSection(source=str(folder)), lambda step: None, bool)
    assert "Move adapter_config.json" in caught.value.cure


def test_weights_that_the_files_lack_are_named_and_not_random_and_unused_ones_are_named(
    tiny_llama, tmp_path, home, records
):
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(tiny_llama, tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    more = {"model.layers.2.eh_proj.weight": weights["model.norm.weight"].clone()}
    save_file({**weights, **more}, folder / "model.safetensors", {"format": "pt"})
    recipe = edit(tiny_recipe(folder, records), {"training.max_steps": 1})
    run, thread = begin(home, recipe)
    ended(thread)
    [notice] = [event["message"] for event in events_of(run, "warning") if event.get("kind") == "model_files"]
    assert notice.startswith("1 tensor of the files is not used by LlamaForCausalLM")
    assert "model.layers.2.eh_proj.weight" in notice
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    error = failure(home, recipe)
    assert "lack 1 tensor of LlamaForCausalLM: model.layers.1.mlp.up_proj.weight" in error.message


def test_a_damaged_file_is_named_with_what_is_wrong(tiny_llama, tmp_path, home):
    whole = (tiny_llama / "model.safetensors").read_bytes()
    config = (tiny_llama / "config.json").read_bytes()
    cases = {
        "begins with a byte order mark": ("config.json", b"\xef\xbb\xbf" + config),
        f"has {len(whole) // 2:,} bytes, and its header says {len(whole):,}": (
            "model.safetensors", whole[: len(whole) // 2],
        ),
        "is empty": ("model.safetensors", b""),
        "is a web page, not weights": ("model.safetensors", b"<!DOCTYPE html><html>"),
        "is not valid JSON": ("tokenizer.json", b"{"),
        "config.json has no model_type": ("config.json", b"{}"),
        r"transformers rejects .*config\.json: .*'initializer_range'": (
            "config.json", json.dumps(json.loads(config) | {"initializer_range": 2.0}).encode(),
        ),
    }  # fmt: skip
    for number, (words, (name, content)) in enumerate(cases.items()):
        folder = Path(shutil.copytree(tiny_llama, tmp_path / str(number)))
        (folder / name).write_bytes(content)
        section, asked = ModelSection(source=str(folder)), QuantizationSection(method="none")
        with pytest.raises(WorkbenchError, match=words) as caught:
            load_base(home, section, asked, lambda step: None, bool)
        assert name in caught.value.message
        assert caught.value.kind in ("model_damaged", "model_config")
    assert damaged_file(tiny_llama) is None


def test_pickled_weights_are_told_from_other_pickles_and_the_conversion_works(tiny_llama, tmp_path, home):
    import shlex

    import torch
    from safetensors.torch import load_file

    folder = Path(shutil.copytree(tiny_llama, tmp_path / "a folder"))
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    (folder / "training_args.bin").write_bytes(b"x")
    model = ModelSection(source=str(folder))
    with pytest.raises(WorkbenchError, match="no weights"):
        fetch_model(home, model, lambda step: None, bool)
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(WorkbenchError, match="only as pickle files") as caught:
        fetch_model(home, model, lambda step: None, bool)
    program, option, code = shlex.split(caught.value.cure.split("`")[1])
    assert (program, option) == ("python", "-c")
    exec(code)  # in this process, which has imported the libraries
    assert load_file(folder / "model.safetensors").keys() == weights.keys()
    assert find_local(home, model) is not None


def test_a_models_own_templates_are_chosen_by_name(hub, home):
    folder = hub.repos[TINY.source]
    plain = (folder / "chat_template.jinja").read_text()
    more = folder / "additional_chat_templates"
    more.mkdir()
    (more / "tool_use.jinja").write_text("{{- tools | tojson if tools -}}" + plain)
    tokenizer = load_tokenizer(fetch(home)[0])
    template = Template.for_model(tokenizer)
    assert template.source == plain
    assert template.notices == (
        "The model has more chat templates: tool_use. Set data.template to the name of one to use it.",
    )
    assert Template.for_model(tokenizer, "tool_use").source != plain
    with pytest.raises(WorkbenchError, match="writes no tools") as caught:
        template.check_tools([{"type": "function", "function": {"name": "f"}}])
    assert "data.template tool_use" in caught.value.cure
    # As in tokenizer_config.json of older repositories; without a default, one has to be chosen.
    tokenizer.chat_template = {"tool_use": plain, "rag": plain + " "}
    with pytest.raises(WorkbenchError, match="tool_use, rag, and none of them is its default"):
        Template.for_model(tokenizer)
    tokenizer.chat_template = {"rag": plain}
    assert Template.for_model(tokenizer).source == plain
