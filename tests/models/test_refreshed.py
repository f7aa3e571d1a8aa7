"""The newest models of the hub: listed, kept, and kept when the hub is out of reach."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from screens.models.rows import all_lists
from tests.json_outputs import assert_documented
from tests.models.hub_server import Hub, serve
from workbench.commands.app import app
from workbench.errors import WorkbenchError
from workbench.models import hub as hub_module
from workbench.models.refreshed import organizations, refresh, refreshed_models
from workbench.storage.paths import Home

CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "max_position_embeddings": 8192,
    "dtype": "bfloat16",
}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with two models of one organization, one of them in the catalog, and a gated one of another."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    served = Hub()
    for name in ("Qwen/Qwen9-1B", "Qwen/Qwen3-8B", "google/gemma-9"):
        folder = tmp_path / name.replace("/", "-")
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(CONFIG))
        served.repos[name] = folder
    served.gated.add("google/gemma-9")
    with serve(served) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield served


def test_new_models_are_listed_and_stay_when_the_hub_is_gone(
    home: Home, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refreshed_models(home).models == ()
    assert {"Qwen", "google", "openai"} <= set(organizations())
    new, failed = refresh(home, owners=("Qwen", "google"))
    assert failed == {}
    by_id = {model.id: model for model in new.models}
    assert set(by_id) == {"Qwen/Qwen9-1B", "google/gemma-9"}, "what the catalog has is not listed twice"
    assert by_id["Qwen/Qwen9-1B"].config == CONFIG
    assert by_id["Qwen/Qwen9-1B"].licence == "apache-2.0"
    assert by_id["Qwen/Qwen9-1B"].parameters == 1_000_000_000
    assert by_id["Qwen/Qwen9-1B"].context_length == 8192
    assert by_id["google/gemma-9"].gated
    assert by_id["google/gemma-9"].config == {}
    assert hub.taken == ["config.json"], "no weights"
    assert refreshed_models(home) == new
    assert "hf_secret" not in "".join(path.read_text() for path in home.root.rglob("*.json"))
    rows = {row.source: row for row in all_lists(home).rows}
    assert rows["Qwen/Qwen9-1B"].listed == f"hub, read on {new.day}"

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WorkbenchError) as refused:
        refresh(home)
    assert refused.value.kind == "unreachable"
    assert f"The list of {new.day} stays: 2 models." in refused.value.message
    assert refreshed_models(home) == new
    shown = CliRunner().invoke(app, ["--home", str(home.root), "models", "--refresh", "--json"])
    assert shown.exit_code == 0, shown.output
    assert "HF_HUB_OFFLINE is set" in shown.stderr
    assert_documented(["models"], shown.stdout)
    lines = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [line["source"] for line in lines if line["where"] == "hub"] == ["Qwen/Qwen9-1B", "google/gemma-9"]
    assert "hf_secret" not in shown.output + shown.stderr


def test_an_organization_that_cannot_be_listed_keeps_its_models(home: Home, hub: Hub) -> None:
    refresh(home, owners=("Qwen", "google"))
    hub.broken.add("google")
    new, failed = refresh(home, owners=("Qwen", "google"))
    assert list(failed) == ["google"]
    assert {model.id for model in new.models} == {"Qwen/Qwen9-1B", "google/gemma-9"}
    hub.broken.add("Qwen")
    with pytest.raises(WorkbenchError, match="cannot be refreshed"):
        refresh(home, owners=("Qwen", "google"))
    assert refreshed_models(home) == new


def test_a_damaged_list_is_no_list(home: Home) -> None:
    file = home.cache / "models" / "refreshed.json"
    file.parent.mkdir(parents=True)
    for text in ("", "[]", '{"format": 1}', '{"format": 1, "day": "x", "models": [{"id": 1}]}'):
        file.write_text(text)
        assert refreshed_models(home).models == ()


def test_fits_and_refresh_are_two_questions(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "unreachable_reason", lambda *_: pytest.fail("not asked"))
    refused = CliRunner().invoke(app, ["--home", str(home.root), "models", "--fits", "24GB", "--refresh"])
    assert isinstance(refused.exception, WorkbenchError)
    assert "--refresh adds models from the hub" in refused.exception.message
