"""Axolotl and LLaMA-Factory read what is exported for them, by their own checks, where they are installed.

``LORAWORKBENCH_PYTHON_WITH_AXOLOTL`` and ``LORAWORKBENCH_PYTHON_WITH_LLAMAFACTORY`` name the Python of an environment
with the tool.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from workbench.export.conversations import write_conversations
from workbench.export.other_tools.axolotl import LAYOUTS, to_axolotl
from workbench.export.other_tools.llamafactory import dataset_info, to_llamafactory
from workbench.recipe.resolved import resolved
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit

PYTHONS = {
    "axolotl": os.environ.get("LORAWORKBENCH_PYTHON_WITH_AXOLOTL", ""),
    "llamafactory": os.environ.get("LORAWORKBENCH_PYTHON_WITH_LLAMAFACTORY", ""),
}
# Axolotl's whole schema, with the plug-ins that a file names, and its checks of the GPU; it drops keys without a word.
AXOLOTL = """
import json, sys
from pathlib import Path
from axolotl.utils.config import merge_input_args, prepare_plugins
from axolotl.utils.dict import DictDefault
from axolotl.utils.schemas.config import AxolotlConfigWCapabilities
gpu = {"bf16": True, "fp8": False, "n_gpu": 1, "n_node": 1, "compute_capability": "sm_90", "tf32": True}
said = {}
for name, values in json.load(sys.stdin).items():
    checks = AxolotlConfigWCapabilities
    try:
        if values.get("plugins"):
            prepare_plugins(DictDefault(values))
            checks = merge_input_args()[0]
        read = checks(**values, capabilities=gpu, env_capabilities={"torch_version": "2.8.0"})
        known = read.model_dump(exclude_none=True) | read.model_dump(exclude_none=True, by_alias=True)
        said[name] = [key for key, value in values.items() if value is not None and key not in known]
    except Exception as error:
        said[name] = str(error)
print(json.dumps(said))
"""
LLAMA_FACTORY = """
import json, os, sys
os.environ.update(DISABLE_VERSION_CHECK="1", HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="")
from llamafactory.hparams import get_train_args
said = {}
for name, values in json.load(sys.stdin).items():
    try:
        # Without a GPU, transformers refuses bfloat16 unless it is told that there is none.
        get_train_args({**values, "use_cpu": True})
        said[name] = []
    except BaseException as error:
        said[name] = str(error) or repr(error)
print(json.dumps(said))
"""
TURNS = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Yes."}]
PAIR = {"chosen": TURNS, "rejected": [TURNS[0], {"role": "assistant", "content": "No."}]}
ROWS = {"sft": {"prompt": "Hi?", "completion": "Yes."}, "text": {"text": "Some words."}}
KNOBS = {
    "training.neftune_noise_alpha": 5, "training.loraplus_lr_ratio": 16, "adapter.use_rslora": True,
    "training.lr_scheduler_type": "cosine_with_min_lr", "training.lr_scheduler_kwargs": {"min_lr_rate": 0.1},
    "training.optim": "paged_adamw_8bit", "training.warmup_steps": 10, "adapter.modules_to_save": ["lm_head"],
    "data.packing": True, "training.report_to": ["tensorboard"],
}  # fmt: skip
STOPS = {
    "training.early_stopping_patience": 3, "training.eval_steps": 20, "training.save_steps": 30,
    "training.keep": "best",
    "data.eval_fraction": 0.25,
}  # fmt: skip
BOTH: dict[str, dict[str, object]] = {
    "sft": {},
    "sft in 16 bits": {"quantization.method": "none"},
    "sft in 8 bits": {"quantization.method": "int8", "adapter.use_dora": True, "adapter.target_modules": ["q_proj"]},
    "text": {"data.packing": True},
    "knobs": KNOBS,
    "early stopping": STOPS,
    "whole prompts": {"data.completion_only": False, "training.max_grad_norm": 0.0, "training.save_steps": 0},
    "dpo": {"objective.kind": "dpo"},
    "ipo": {"objective.kind": "dpo", "objective.loss_type": "ipo"},
    "rpo": {"objective.kind": "dpo", "objective.rpo_alpha": 0.5},
    "orpo": {"objective.kind": "orpo"},
    "kto": {"objective.kind": "kto", "training.per_device_train_batch_size": 2},
    "simpo": {"objective.kind": "simpo", "objective.cpo_alpha": 0.5},
    "reward": {"objective.kind": "reward"},
}
OWN: dict[str, dict[str, dict[str, object]]] = {
    "axolotl": {
        "robust": {"objective.kind": "dpo", "objective.loss_type": "robust", "objective.label_smoothing": 0.1},
        "centered": {"objective.kind": "reward", "objective.center_rewards_coefficient": 0.01},
        "kernels": {"training.kernels": "liger", "training.gradient_checkpointing": False},
        "patterns": {"adapter.rank_pattern": {"q_proj": 4}, "adapter.layers_to_transform": [0]},
    },
    "llamafactory": {
        "oft": {"adapter.method": "oft"},
        "last responses": {"data.responses": "last", "data.template": "chatml"},
        "pissa": {"quantization.method": "none", "adapter.init_lora_weights": "pissa"},
    },
}


def configuration(tool: str, name: str, changes: dict[str, object], folder: Path) -> dict[str, object]:
    """What is exported for a recipe, with its records in a folder of their own."""
    folder.mkdir()
    records = folder / "mine.jsonl"
    kind = str(changes.get("objective.kind", "sft"))
    records.write_text(f"{json.dumps(ROWS.get(name) or ROWS.get(kind) or PAIR)}\n" * 8)
    base = {"model.source": "owner/model", "data.source": str(records), "data.eval_fraction": 0.0}
    recipe = edit(resolved(Recipe()), {**base, **changes})
    spec = recipe.objective.spec
    if tool == "axolotl":
        files = write_conversations(None, recipe.data, folder, spec.records, layout=LAYOUTS.get(kind, "apart"))
        return to_axolotl(recipe, "owner/model", files)[0]
    layout = "apart" if spec.records == "pairs" else "whole"
    files = write_conversations(None, recipe.data, folder, spec.records, layout=layout)
    (folder / "dataset_info.json").write_text(json.dumps(dataset_info(files)))
    output = {"dataset_dir": str(folder), "output_dir": str(folder / "output")}
    return to_llamafactory(recipe, "owner/model", files)[0] | output


@pytest.mark.parametrize(("tool", "program"), [("axolotl", AXOLOTL), ("llamafactory", LLAMA_FACTORY)], ids=[*PYTHONS])
def test_the_tool_itself_accepts_each_export(tool: str, program: str, tmp_path: Path) -> None:
    if not PYTHONS[tool]:
        pytest.skip(f"LORAWORKBENCH_PYTHON_WITH_{tool.upper()} names no Python with {tool}")
    cases = BOTH | OWN[tool]
    given = {name: configuration(tool, name, changes, tmp_path / name) for name, changes in cases.items()}
    run = subprocess.run(
        [PYTHONS[tool], "-c", program], input=json.dumps(given), capture_output=True, text=True, cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"}, check=False,
    )  # fmt: skip
    assert run.stdout, run.stderr[-2000:]
    assert json.loads(run.stdout.splitlines()[-1]) == {name: [] for name in cases}
