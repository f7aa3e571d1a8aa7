"""Uploads to a hub on this machine, with huggingface_hub as it is: private, without the token in any file or error."""

import json

import pytest
from huggingface_hub import constants

from tests.export.upload_hub import UploadHub, serve_uploads
from workbench.errors import WorkbenchError
from workbench.export.plan import plan_export
from workbench.export.request import Request
from workbench.export.run import export_run

# huggingface_hub is told the hub's address at each upload, so that it need not be imported anew.
pytestmark = pytest.mark.usefixtures("export_here")
TOKEN = "hf_averysecrettokenforthetests"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    hub = UploadHub()
    with serve_uploads(hub) as address:
        for name, value in {"HF_ENDPOINT": address, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "hf")}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield hub


def upload(home, run, folder, **options):
    request = Request("hub", folder, **{"repo": "someone/sailor", **options})
    return export_run(home, run, request, lambda told: None, bool)


def test_an_adapter_goes_up_private_with_its_card(hub, tiny_home, tiny_run, tiny_llama, tmp_path):
    result = upload(tiny_home, tiny_run, tmp_path / "out")
    assert hub.repos == {"someone/sailor": True}
    assert hub.tokens - {None} == {f"Bearer {TOKEN}"}
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md", "chat_template.jinja"} <= set(hub.files)
    for name, content in hub.files.items():
        assert content == (tmp_path / "out" / name).read_bytes()
    config = json.loads(hub.files["adapter_config.json"])
    assert config["base_model_name_or_path"] == tiny_llama.name
    assert not any(str(tiny_llama.parent).encode() in content for content in hub.files.values())
    assert result.url.endswith("/someone/sailor")
    assert any("is private" in notice for notice in result.notices)
    assert any("is a local file" in notice for notice in result.notices)


def test_the_token_is_in_no_file_and_in_no_word(hub, tiny_home, tiny_run, tmp_path):
    result = upload(tiny_home, tiny_run, tmp_path / "out", weights="merged")
    assert TOKEN not in json.dumps(result.as_json())
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(file.name == "model.safetensors" for file in written)
    assert not any(TOKEN.encode() in file.read_bytes() for file in written)
    assert not any(TOKEN.encode() in content for content in hub.files.values())


@pytest.mark.parametrize(("status", "kind"), [(403, "hub_refused"), (401, "hub_refused"), (500, None)])
def test_a_refusal_is_a_sentence_without_the_token(hub, tiny_home, tiny_run, tmp_path, status, kind):
    hub.refuses = status
    with pytest.raises(WorkbenchError) as caught:
        upload(tiny_home, tiny_run, tmp_path / "out")
    assert TOKEN not in str(caught.value)
    assert kind in (None, caught.value.kind)
    assert not (tmp_path / "out").exists()


def test_a_repository_that_is_there_is_not_written_to_unless_told_to(hub, tiny_home, tiny_run, tmp_path):
    hub.repos["someone/sailor"] = True
    with pytest.raises(WorkbenchError, match="already exists"):
        upload(tiny_home, tiny_run, tmp_path / "out")
    assert hub.files == {}
    upload(tiny_home, tiny_run, tmp_path / "out", force=True)
    assert hub.files


def test_nothing_goes_into_a_public_repository_by_mistake(hub, tiny_home, tiny_run, tmp_path):
    hub.repos["someone/sailor"] = False
    with pytest.raises(WorkbenchError, match="already exists and is public"):
        upload(tiny_home, tiny_run, tmp_path / "out", force=True)
    assert hub.files == {}
    upload(tiny_home, tiny_run, tmp_path / "out", force=True, public=True)
    assert hub.files


def test_a_repository_must_be_named(tiny_home, tiny_run, tmp_path):
    with pytest.raises(WorkbenchError, match="No hub repository given"):
        plan_export(tiny_home, tiny_run, Request("hub", tmp_path / "out"))
    with pytest.raises(WorkbenchError, match="not a repository name"):
        upload(tiny_home, tiny_run, tmp_path / "out", repo="../../etc")
