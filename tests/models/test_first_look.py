"""A first look at a hub model: its tree from the configuration, its weights from the headers of their files."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from screens.models.facts import facts_text
from screens.models.rows import all_lists
from tests.command_line import call, facts
from tests.models.downloads import TINY, fetch
from tests.models.hub_server import COMMIT, Hub
from workbench.models.first_look import first_look
from workbench.models.hub_weights import kept_weights_of
from workbench.models.local import describe_folder
from workbench.models.sources import find_local
from workbench.recipe.sections.model import ModelSection
from workbench.storage.paths import Home


def look(home: Home, model: ModelSection = TINY):
    return first_look(home, model, lambda step: None, lambda: False)


def split_in_two(folder: Path) -> int:
    """Put the weights of a folder into two files and an index; returns their bytes."""
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    (folder / "model.safetensors").unlink()
    places = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        # The second header is longer than what the first request reads.
        more = {"note": "x" * 150_000} if number == 2 else {}
        save_file({name: tensors[name] for name in part}, folder / file, {"format": "pt", **more})
        places |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return sum(file.stat().st_size for file in folder.glob("model-*.safetensors"))


@pytest.mark.parametrize("has_ranges", [True, False])
def test_a_model_is_described_without_its_weights_and_again_without_the_network(
    hub: Hub, home: Home, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, has_ranges: bool
) -> None:
    size = split_in_two(hub.repos[TINY.source])
    hub.has_ranges = has_ranges
    hub.cards[TINY.source] = {"license": "other", "license_name": "tiny-research"}
    (tree,) = facts(home, "inspect", TINY.source)
    assert tree["root"]["class"] == "LlamaForCausalLM"
    here = describe_folder(tiny_llama)
    assert tree["weights"]["dtypes"] == here.dtypes
    assert (tree["weights"]["bytes"], tree["weights"]["files"]) == (size, 2)
    assert (tree["weights"]["license"], tree["weights"]["where"]) == ("tiny-research", "hub")
    asked = [name for name in hub.taken if ".safetensors" in name and not name.endswith(".json")]
    assert len(asked) == 3, "a request for each file, and one for the rest of the long header"
    assert all("bytes=" in name for name in asked)
    assert find_local(home, TINY) is None
    # Offline, from the cache.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert facts(home, "inspect", TINY.source) == [tree]
    shown = call(home, "inspect", TINY.source).stdout
    assert "Weights: " in shown
    assert "in 2 files on the hub (not downloaded), " in shown
    print(shown)
    assert f"headers of the weights on the hub (commit {COMMIT[:7]}," in shown
    row = next(row for row in all_lists(home).rows if row.source == TINY.source)
    assert (row.place, row.size_on_hub, row.licence, row.lack) == ("hub", size, "tiny-research", "")
    assert row.parameters == here.parameters
    text = facts_text(row, None, is_wide=True).plain
    assert "not downloaded, " in text
    assert "config.json and weight headers on the hub" in text


def test_what_cannot_be_read_is_said_and_the_rest_is_shown(hub: Hub, home: Home) -> None:
    served = hub.repos[TINY.source]
    whole = (served / "model.safetensors").read_bytes()
    (served / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n" + whole[:10])
    assert "is not a safetensors file, or is damaged" in look(home).note
    assert look(home).bytes == 53
    (served / "model.safetensors").unlink()
    other = ModelSection(source=TINY.source, subfolder="inner")
    shutil.copytree(served, served / "inner")
    (served / "inner" / "model.safetensors").write_bytes(whole)
    inner = look(home, other)
    assert sum(inner.dtypes.values())
    assert inner.note == ""
    kept = kept_weights_of(home, other)
    assert kept is not None
    assert kept.files == 1


def test_a_repository_of_pickles_and_an_unknown_architecture_are_described_before_they_are_refused(
    hub: Hub, home: Home
) -> None:
    served = hub.repos[TINY.source]
    config = json.loads((served / "config.json").read_text())
    (served / "config.json").write_text(json.dumps(config | {"model_type": "of_next_year"}))
    done = call(home, "inspect", TINY.source)
    assert done.returncode == 1
    assert "BF16" in done.stdout
    assert "transformers has no model type 'of_next_year'" in done.stderr
    assert "Traceback" not in done.stderr
    (served / "model.safetensors").unlink()
    again = Home(home.root.with_name("another"))
    assert "only as pickle files" in look(again).note


def test_what_is_on_this_machine_is_read_from_there(hub: Hub, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = fetch(home)
    hub.taken.clear()
    found = look(home)
    assert (found.where, found.bytes) == ("disk", (folder / "model.safetensors").stat().st_size)
    assert str(folder) in found.read_from
    assert hub.taken == []
    # A configuration that another program downloaded, and no network.
    (folder / "model.safetensors").unlink()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE is set" in look(home).note
    assert "the hub was not asked" in look(home, ModelSection(source="Qwen/Qwen3-0.6B")).read_from
