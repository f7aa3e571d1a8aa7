"""Downloads, through huggingface_hub itself, from a hub that runs on this machine."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.models.downloads import TINY, fetch, refusal
from tests.models.hub_server import COMMIT, Hub
from workbench.errors import WorkbenchError
from workbench.machine.hub import is_hub_id
from workbench.models import hub as hub_module
from workbench.models.hub import files_to_download, unreachable_reason
from workbench.models.sources import fetch_config, fetch_model, find_config, find_local, local_models
from workbench.progress import Progress
from workbench.recipe.sections.model import ModelSection
from workbench.storage.paths import Home


def test_takes_weights_and_text_and_leaves_pickles_code_and_copies(hub: Hub, home: Home) -> None:
    assert find_local(home, TINY) is None
    folder, seen = fetch(home)
    assert sorted(file.name for file in folder.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert not {"pytorch_model.bin", "consolidated.safetensors", "modeling_tiny.py"} & set(hub.taken)
    fractions = [step.fraction for step in seen if step.phase == "downloading" and step.fraction is not None]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)


def test_what_is_cached_is_taken_without_the_network(hub: Hub, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = fetch(home)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    model = fetch_model(home, TINY, lambda step: None, lambda: False)
    assert (model.folder, model.revision, model.origin) == (folder, COMMIT, "hub")
    listed = local_models(home)
    assert [(entry.source, entry.origin, entry.missing) for entry in listed] == [("someone/tiny-llama", "hub", "")]
    assert listed[0].facts
    assert listed[0].facts.architecture == "LlamaForCausalLM"


def test_what_was_downloaded_loads(hub: Hub, home: Home) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, _ = fetch(home)
    assert AutoModelForCausalLM.from_pretrained(folder).config.hidden_size == 64
    assert AutoTokenizer.from_pretrained(folder).eos_token == "<|im_end|>"


def test_a_half_downloaded_model_is_completed(hub: Hub, home: Home) -> None:
    folder, _ = fetch(home)
    (folder / "model.safetensors").unlink()
    assert find_local(home, TINY) is None
    assert local_models(home)[0].missing == "weights"
    assert (fetch(home)[0] / "model.safetensors").is_file()


def test_only_the_configuration_for_an_estimate(hub: Hub, home: Home) -> None:
    folder = fetch_config(home, TINY, lambda step: None, lambda: False)
    assert (folder / "config.json").is_file()
    assert "model.safetensors" not in hub.taken
    assert find_config(home, TINY) == folder
    assert find_local(home, TINY) is None


def test_code_is_taken_only_with_trust(hub: Hub, home: Home) -> None:
    folder, _ = fetch(home, ModelSection(source=TINY.source, trust_remote_code=True))
    assert (folder / "modeling_tiny.py").is_file()


def test_a_gated_model_says_where_to_accept_its_licence(hub: Hub, home: Home) -> None:
    hub.gated.add(TINY.source)
    error = refusal(home)
    assert error.kind == "gated"
    assert "no token is set" in error.message
    assert "/someone/tiny-llama" in error.cure
    assert "hf auth login" in error.cure


def test_a_token_is_sent_and_never_told(hub: Hub, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_verysecretvalue")
    hub.gated.add(TINY.source)
    error = refusal(home)
    assert "Bearer hf_verysecretvalue" in hub.tokens
    assert "the token in HF_TOKEN has no access" in error.message
    assert "hf_verysecretvalue" not in str(error)


def test_a_model_that_does_not_exist(hub: Hub, home: Home) -> None:
    error = refusal(home, ModelSection(source="someone/else"))
    assert error.kind == "model_not_found"
    assert "someone/else" in error.message


def test_a_revision_that_does_not_exist(hub: Hub, home: Home) -> None:
    error = refusal(home, ModelSection(source=TINY.source, revision="nope"))
    assert error.kind == "revision_not_found"


def test_a_repository_with_pickles_only(hub: Hub, home: Home) -> None:
    (hub.repos[TINY.source] / "model.safetensors").unlink()
    error = refusal(home)
    assert error.kind == "no_safetensors"
    assert "pickle" in error.message
    assert TINY.source in error.message
    assert "pytorch_model.bin" not in hub.taken


def test_too_little_room_is_said_before_the_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1_000_000_000))
    hub_module._check_disk_space("a/b", 999_999_999)
    with pytest.raises(WorkbenchError) as caught:
        hub_module._check_disk_space("a/b", 14_000_000_000)
    assert caught.value.kind == "disk_full"
    assert "needs 14.0 GB, only 1.0 GB free" in caught.value.message


def test_a_download_can_be_cancelled(hub: Hub, home: Home) -> None:
    hub.hold.clear()
    stop = threading.Event()

    def watch(step: Progress) -> None:
        if step.phase == "downloading":
            stop.set()

    with pytest.raises(WorkbenchError) as caught:
        fetch_model(home, TINY, watch, stop.is_set)
    assert caught.value.kind == "cancelled"
    assert find_local(home, TINY) is None


def test_no_hub_gives_the_ways_out_within_seconds(
    empty_cache: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    error = refusal(home)
    assert time.monotonic() - began < 30
    assert error.kind == "unreachable"
    for way in ("Connect", "HF_ENDPOINT", "folder"):
        assert way in error.cure


def test_a_silent_hub_is_given_up_in_time(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        assert unreachable_reason(0.5)
        assert time.monotonic() - began < 30


def test_a_silent_name_server_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(hub_module, "_probe", lambda seconds: str(release.wait(20)))
    began = time.monotonic()
    reason = unreachable_reason(0.2)
    release.set()
    assert time.monotonic() - began < 30
    assert reason == "no answer within 0.2 s"


def test_offline_says_so(empty_cache: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    error = refusal(home)
    assert error.kind == "unreachable"
    assert "HF_HUB_OFFLINE" in error.message


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["config.json", "pytorch_model.bin"], "no_safetensors"),
        (["model-q4.gguf"], "no_safetensors"),
        (["adapter_config.json", "adapter_model.safetensors"], "no_model"),
        (["README.md"], "no_model"),
        (["config.json"], "no_safetensors"),
    ],
)
def test_repositories_that_hold_no_usable_model(names: list[str], kind: str) -> None:
    with pytest.raises(WorkbenchError) as caught:
        files_to_download(names)
    assert caught.value.kind == kind


def test_shards_are_taken_with_their_index() -> None:
    names = [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "model.fp16-00001-of-00001.safetensors",
        "original/consolidated.00.pth",
        "tokenizer.model",
    ]
    assert set(names) - set(files_to_download(names)) == {
        "model.fp16-00001-of-00001.safetensors",
        "original/consolidated.00.pth",
    }


@pytest.mark.parametrize(
    ("source", "is_id"),
    [("gpt2", True), ("a/b", True), ("a/b/c", False), ("a b", False), ("../x", False), ("a--b", False), ("", False)],
)
def test_names_that_the_hub_could_have(source: str, is_id: bool) -> None:
    assert is_hub_id(source) is is_id
