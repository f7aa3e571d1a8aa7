"""The ejected script and notebook: run alone in a fresh process, they end where the run ended."""

import ast
import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.engine.fused_in_torch import as_if_installed
from tests.export.alone import in_a_fresh_process
from tests.export.conftest import tiny_recipe, train
from tests.journals import JournalWriter, read_events
from workbench.engine.model.hardware import library_versions
from workbench.engine.training import run_start
from workbench.export.request import Request
from workbench.export.run import export_run
from workbench.recipe.text import edit, read, to_yaml
from workbench.runs.folder import RunFolder

pytestmark = pytest.mark.usefixtures("export_here")

VARIANTS = {
    "dropout and nf4": {},
    "packed, int8": {"quantization": {"method": "int8"}, "data": {"packing": True}},
    "float32, DoRA, 8-bit optimizer": {
        "quantization": {"method": "none", "compute_dtype": "float32"},
        "adapter": {"use_dora": True},
        "training": {"optim": "adamw_8bit", "gradient_checkpointing": True, "lr_scheduler_type": "linear"},
    },
    "adalora": {
        "quantization": {"method": "none", "compute_dtype": "float32"},
        "adapter": {"method": "adalora", "r": 6, "options": {"target_r": 2, "tfinal": 1}},
    },
    "eva": {
        "quantization": {"method": "none", "compute_dtype": "float32"},
        "adapter": {"r": 4, "init_lora_weights": "eva"},
    },
    "corda": {
        "quantization": {"method": "none", "compute_dtype": "float32"},
        "adapter": {"r": 4, "init_lora_weights": "corda"},
    },
    "epochs, pissa, whole records": {
        "quantization": {"method": "none"},
        "adapter": {"init_lora_weights": "pissa", "target_modules": ["q_proj", "v_proj"]},
        "data": {"completion_only": False},
        "training": {"max_steps": -1, "num_train_epochs": 1.5, "logging_steps": 2},
    },
}

IMPORTED = {
    "collections", "contextlib", "dataclasses", "datasets", "functools", "importlib", "inspect", "itertools", "json",
    "math", "pathlib", "peft", "re", "sys", "torch", "transformers", "trl", "typing",
}  # fmt: skip


def copy_of(run: RunFolder, folder: Path, **changes: object) -> RunFolder:
    """The same run in another folder, as one of a recipe with these changes."""
    shutil.copytree(run.path, folder)
    copy = RunFolder(folder)
    copy.recipe_file.write_text(to_yaml(edit(read(copy.recipe_file), changes)))
    return copy


def losses_of(run) -> dict[str, float]:
    return {str(event["step"]): event["loss"] for event in read_events(run.journal) if event["event"] == "step"}


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def exported(home, run, folder, target="script"):
    return export_run(home, run, Request(target, folder), lambda told: None, bool)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_script_has_the_losses_of_the_run(tiny_home, tiny_llama, records, scripts, tmp_path, name):
    run = train(tiny_home, tiny_recipe(tiny_llama, records, **VARIANTS[name]))
    result = exported(tiny_home, run, tmp_path / "out")
    assert result.command == "python train.py"
    assert all("is the local folder" in notice for notice in result.notices)
    # The first one in a Python of its own.
    run_alone = scripts.run if VARIANTS[name] else in_a_fresh_process
    printed = run_alone(tmp_path / "out", "train.py")
    losses = losses_of(run)
    assert json.loads((tmp_path / "out" / "losses.json").read_text()) == losses
    last = losses[max(losses, key=int)]
    assert f"Last loss {last}; the run's was {last}." in printed
    made, own = tmp_path / "out" / "adapter", run.adapter
    assert digest(made / "adapter_model.safetensors") == digest(own / "adapter_model.safetensors")


def test_the_script_knows_nothing_of_this_project(tiny_home, tiny_run, tmp_path):
    exported(tiny_home, tiny_run, tmp_path / "out")
    assert imported_by((tmp_path / "out" / "train.py").read_text()) == IMPORTED


def imported_by(script: str) -> set[str]:
    return {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).partition(".")[0]
        for node in ast.walk(ast.parse(script))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }


def test_the_script_of_a_compiled_run_compiles(tiny_home, tiny_run, tmp_path):
    """It is not run here: with an empty cache the processor's code takes minutes to compile."""
    exported(tiny_home, tiny_run, tmp_path / "short")
    assert "CompiledLayers" not in (tmp_path / "short" / "train.py").read_text()
    exported(tiny_home, copy_of(tiny_run, tmp_path / "run-01", **{"training.torch_compile": True}), tmp_path / "out")
    script = (tmp_path / "out" / "train.py").read_text()
    assert imported_by(script) == IMPORTED | {"os"}
    assert 'compiled = CompiledLayers(model, HERE / "compiled", [PER_RECORD])' in script
    assert script.index("trainer.training_step = compiled_step") < script.index("trainer.train()")


def test_the_script_of_a_run_with_kernels_carries_what_puts_them_on(
    tiny_home, tiny_llama, records, scripts, tmp_path, monkeypatch
):
    as_if_installed(monkeypatch)
    monkeypatch.setattr(run_start, "library_versions", lambda: {**library_versions(), "liger-kernel": "1"})
    run = train(
        tiny_home,
        tiny_recipe(
            tiny_llama,
            records,
            quantization={"compute_dtype": "float32"},
            training={"kernels": "liger", "max_steps": 2},
        ),
    )
    exported(tiny_home, run, tmp_path / "out")
    assert "liger-kernel==1\n" in (tmp_path / "out" / "requirements.txt").read_text()
    script = (tmp_path / "out" / "train.py").read_text()
    assert "    apply_kernels(liger_operations(), model.get_base_model())\n" in script
    assert "workbench" not in script
    if torch.cuda.is_available():
        pytest.skip("the rest is for a machine without a GPU, where the script trains without kernels")
    scripts.run(tmp_path / "out", "train.py")
    losses = json.loads((tmp_path / "out" / "losses.json").read_text())
    assert losses == pytest.approx(losses_of(run), rel=1e-5)


def test_the_notebook_trains_the_same(tiny_home, tiny_run, scripts, tmp_path):
    exported(tiny_home, tiny_run, tmp_path / "out", "notebook")
    notebook = json.loads((tmp_path / "out" / "train.ipynb").read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    (tmp_path / "out" / "cells.py").write_text("\n".join(code))
    scripts.run(tmp_path / "out", "cells.py")
    assert json.loads((tmp_path / "out" / "losses.json").read_text()) == losses_of(tiny_run)


def test_a_run_that_ended_early_ends_early_again(tiny_home, tiny_llama, records, scripts, tmp_path):
    recipe = tiny_recipe(
        tiny_llama, records,
        training={
            "max_steps": 12, "eval_steps": 1, "early_stopping_patience": 1, "early_stopping_min_delta": 3.0,
            "keep": "best",
        },
    )  # fmt: skip
    run = train(tiny_home, recipe)
    (end,) = [event for event in read_events(run.journal) if event["event"] == "run_ended"]
    assert end["reason"] == "early_stopping"
    assert end["kept_step"] < end["step"] < 12
    exported(tiny_home, run, tmp_path / "out")
    scripts.run(tmp_path / "out", "train.py")
    assert json.loads((tmp_path / "out" / "losses.json").read_text()) == losses_of(run)
    kept = tmp_path / "out" / "adapter" / "adapter_model.safetensors"
    assert digest(kept) == digest(run.adapter / "adapter_model.safetensors")


def test_what_the_script_cannot_do_again_is_told(tiny_home, tiny_run, records, tmp_path):
    own = tmp_path / "records.jsonl"
    own.write_bytes(Path(records).read_bytes())
    run = copy_of(tiny_run, tmp_path / "changed-01", **{"data.source": str(own)})
    with JournalWriter(run.journal) as journal:
        journal.write("control", action="learning_rate", step=2, value=1e-4)
    with own.open("a") as file:
        file.write('{"instruction": "One more?", "response": "Aye."}\n')
    result = exported(tiny_home, run, tmp_path / "out")
    told = " ".join(result.notices)
    assert "The records have changed since the run: 19 with" in told
    assert "learning rate set to 0.0001 by hand after step 2" in told


def test_values_from_outside_stay_values(tiny_home, tiny_run, tmp_path):
    """A name that is Python, or ends a string, is text in the script."""
    nasty = 'x"""\nimport os; os.system("touch never")\n"""'
    run = copy_of(tiny_run, tmp_path / "runs" / 'a"""b\nimport socket', **{"adapter.modules_to_save": [nasty]})
    exported(tiny_home, run, tmp_path / "out")
    tree = ast.parse((tmp_path / "out" / "train.py").read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert names == {"importlib.util", "inspect", "json", "math", "re", "sys", "torch"}
    strings = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    assert nasty in strings
