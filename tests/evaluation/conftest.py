"""A trained run to be judged, and records that it has not seen."""

import json
from pathlib import Path

import pytest

from workbench.runs.folder import RunFolder
from workbench.storage.paths import Home

UNSEEN = [
    {"instruction": "Question 2?", "response": "Aye, answer 2."},
    {
        "instruction": "Question 7, and a rather longer one, with many more words in it?",
        "response": "No answer at all.",
    },
    {"instruction": "Why is the sky blue?", "response": "Ask the mate, for he has looked at it all day long."},
    {"instruction": "Question 4?", "response": "Aye, answer 4."},
    {"instruction": "Ships?", "response": "They float."},
    {"instruction": "Question 0?", "response": "Aye, answer 0."},
    {"instruction": "Question 1?\nIn two lines?", "response": "Aye."},
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("evaluation") / "home")


@pytest.fixture(scope="session")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of seven records, three of them like those that were trained on."""
    path = tmp_path_factory.mktemp("unseen") / "unseen.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in UNSEEN), encoding="utf-8")
    return path


def train(home: Home, tiny_llama: Path, records: Path, **changes: object) -> RunFolder:
    """A run of 16-bit LoRA on the tiny Llama in float32, of 30 steps with two checkpoints."""
    from tests.engine.runs_of_tiny import begin, ended
    from workbench.recipe.text import parse

    recipe = parse(
        {
            "model": {"source": str(tiny_llama)},
            "quantization": {"method": changes.pop("method", "none"), "compute_dtype": "float32"},
            "adapter": {"r": 8, **changes},
            "data": {"source": str(records), "max_length": 64, "eval_fraction": 0.3},
            "training": {
                "max_steps": 30,
                "gradient_accumulation_steps": 1,
                "learning_rate": 0.02,
                "lr_scheduler_type": "constant",
                "gradient_checkpointing": False,
                "save_steps": 10,
            },
            "output": {"name": "tiny"},
        }
    )
    run, thread = begin(home, recipe)
    ended(thread)
    return run


@pytest.fixture(scope="module")
def run(home: Home, tiny_llama: Path, records: Path) -> RunFolder:
    return train(home, tiny_llama, records)
