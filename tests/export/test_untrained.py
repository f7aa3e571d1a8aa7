"""Exports of a recipe that has not been trained."""

import json
import py_compile

import yaml

from tests.command_line import call
from tests.export.conftest import tiny_recipe
from workbench.recipe.text import to_yaml


def test_a_recipe_file_is_exported_without_a_run(tiny_home, tiny_llama, records, tmp_path, export_here):
    training = {"per_device_train_batch_size": "auto", "effective_batch_size": 8}
    recipe = tiny_recipe(
        tiny_llama, records, data={"template": "alpaca", "max_length": 256, "eval_fraction": 0.2}, training=training
    )
    file = tmp_path / "mine.yaml"
    file.write_text(to_yaml(recipe))
    before = sorted(tiny_home.runs.iterdir()) if tiny_home.runs.is_dir() else []
    for target in ("script", "axolotl", "llamafactory"):
        done = call(tiny_home, "export", file, "--to", target, "--json", tmp_path / target)
        assert done.returncode == 0, done.stderr
        notices = " ".join(json.loads(done.stdout)["notices"])
        assert "training.per_device_train_batch_size" in notices
        assert str(tiny_llama) in notices, "a local base is named"
    py_compile.compile(str(tmp_path / "script" / "train.py"), doraise=True)
    script = (tmp_path / "script" / "train.py").read_text()
    assert "by the recipe tiny" in script
    assert "LAST_LOSS_OF_THE_RUN}" not in script
    assert "torch==" in (tmp_path / "script" / "requirements.txt").read_text()
    axolotl = yaml.safe_load((tmp_path / "axolotl" / "axolotl.yaml").read_text())
    assert (axolotl["micro_batch_size"], axolotl["gradient_accumulation_steps"]) == (1, 8)
    assert "### Response:" in axolotl["chat_template_jinja"]
    factory = yaml.safe_load((tmp_path / "llamafactory" / "llamafactory.yaml").read_text())
    assert factory["template"] == "alpaca"
    assert "recipe 'tiny' for LLaMA-Factory" in (tmp_path / "llamafactory" / "llamafactory.yaml").read_text()
    assert (sorted(tiny_home.runs.iterdir()) if tiny_home.runs.is_dir() else []) == before


def test_weights_need_a_run(tiny_home, tmp_path):
    done = call(tiny_home, "export", "demo", "--to", "merged", tmp_path / "out")
    assert done.returncode == 1
    assert "needs a trained run" in done.stderr
    assert "script, notebook, axolotl, llamafactory" in " ".join(done.stderr.split())
    assert "There is no run nothing" in call(tiny_home, "export", "nothing", "--to", "script", tmp_path / "out").stderr
