"""docs/cli.md describes the JSON of every command. :mod:`tests.json_outputs` checks what is printed, in all tests."""

import shutil

import pytest

from tests.command_line import facts
from tests.json_outputs import assert_documented, json_commands
from tests.runs.told import finished
from workbench.commands.json_outputs.outputs import OUTPUTS
from workbench.commands.json_outputs.page import PAGE, page
from workbench.recipe.text import to_yaml
from workbench.storage.paths import Home


def test_the_page_is_made_from_the_types():
    made = page()
    assert PAGE.read_text(encoding="utf-8") == made, "run python -m workbench.commands.json_outputs.page"
    assert made.count("\n## ") == len({output.command for output in OUTPUTS}) + 1


def test_every_command_with_json_is_described():
    assert {output.command for output in OUTPUTS} == json_commands()


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path / "home")
    finished(home, steps=10)
    finished(home, steps=20, loss=2.0, adapter={"r": 64})
    return home


def test_outputs_that_need_no_engine_are_as_described(home, recipe, tiny_llama, tmp_path, monkeypatch):
    """Each is checked by the call itself; what the engine prints is checked where it is tested."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    file = tmp_path / "recipe.yaml"
    file.write_text(to_yaml(recipe))
    shutil.copy(tiny_llama / "config.json", tmp_path / "config.json")
    assert len(facts(home, "runs")) == 2
    assert facts(home, "runs", "compare", "run-01", "run-02")
    assert facts(home, "report", "run-01")[0]["run"] == "run-01"
    assert facts(home, "calibration")[0]["count"] == 0
    assert facts(home, "engine", "status") == [{"running": False}]
    assert facts(home, "queue", "hold")[0]["held"]
    assert facts(home, "queue", "go")[0]["held"] == ""
    assert facts(home, "queue", "clear")[0]["waiting"] == []
    assert facts(home, "models", "--fits", "24GB")[0]["methods"]
    assert facts(home, "inspect", tmp_path)[0]["root"]["class"] == "LlamaForCausalLM"
    assert facts(home, "export", file, tmp_path / "out", "--to", "script", "--plan")[0]["writer"] is None
    assert facts(home, "export", file, tmp_path / "out", "--to", "axolotl")[0]["command"]
    assert facts(home, "import", tmp_path / "out" / "axolotl.yaml")[0]["recipe"]["adapter"]
    files = facts(
        home, "train", "demo", "--launcher", "accelerate", "--num-processes", "2", "--num-machines", "2", "--write",
        tmp_path / "cluster",
    )  # fmt: skip
    assert (tmp_path / "cluster").samefile(files[0]["folder"])
    assert {one["kind"] for one in facts(home, "cache", "clear")}
    assert facts(home, "runs", "trash") == []


def test_an_output_that_differs_is_noticed():
    with pytest.raises(AssertionError, match="bytes"):
        assert_documented(["cache", "clear"], '{"kind": "tokens"}')
    with pytest.raises(AssertionError, match="size"):
        assert_documented(["cache", "clear"], '{"kind": "tokens", "bytes": 1, "size": 1}')
    with pytest.raises(AssertionError, match="step"):
        assert_documented(["train", "demo"], '{"seq": 3, "time": 1.0, "event": "step", "step": "four"}')
