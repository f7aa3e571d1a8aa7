"""A hub on this machine that serves a tiny Llama, and an empty cache to download it into."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.models.downloads import TINY
from tests.models.hub_server import Hub, serve
from workbench.storage.paths import Home


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache of its own; no token; nothing forbids the network."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "hf" / "hub"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def hub(empty_cache: Path, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that serves the tiny Llama, with things beside it that nobody should download."""
    folder = tmp_path / "served"
    shutil.copytree(tiny_llama, folder)
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "consolidated.safetensors").write_bytes(b"again")
    (folder / "modeling_tiny.py").write_text("raise SystemExit")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "config.json").write_text("{}")
    served = Hub()
    served.repos[TINY.source] = folder
    with serve(served) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield served
