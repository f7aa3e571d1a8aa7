"""Every shipped preset is priced offline and runs, its model swapped for a tiny one of the same architecture and its
data for a few records of the same format."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import make_tiny_model
from tests.journals import read_events
from workbench.engine.training.thread import TrainingThread
from workbench.estimate import price
from workbench.models.catalog import catalog_entry, catalog_skeleton
from workbench.recipe.presets import load_preset, preset_names
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit
from workbench.runs.folder import create_run, summarise
from workbench.storage.paths import Home

# Records in the columns of each preset's own dataset.
RECORDS: dict[str, list[dict[str, Any]]] = {
    "first-mate": [{"instruction": f"How many is {n}?", "response": f"Aye, {n} it is, matey."} for n in range(8)],
    "first-mate-pairs": [
        {"prompt": f"How many is {n}?", "chosen": f"{n}, Captain.", "rejected": f"Aye, {n} or so."} for n in range(8)
    ],
    "harbor-messages": [
        {"text": f"{'Fog' if n % 2 else 'Barrel'} number {n}.", "label": "weather" if n % 2 else "cargo"}
        for n in range(8)
    ],
    "ed-donner/items_prompts_lite": [{"prompt": f"Lamp {n}. Price is $", "completion": f"{n}.00"} for n in range(8)],
    "ed-donner/items_prompts_full": [{"prompt": f"Lamp {n}. Price is $", "completion": f"{n}.00"} for n in range(8)],
    "tatsu-lab/alpaca": [
        {"instruction": "Add one.", "input": str(n), "output": str(n + 1), "text": "unused"} for n in range(8)
    ],
    "Abirate/english_quotes": [
        {"quote": f"“The sea is wide, {n}.”", "author": "A Sailor", "tags": ["sea"]} for n in range(8)
    ],
}
# What the sources state, where they state it right.
TRAINABLE = {
    "tinyllama-chat": 2_252_800,
    "llama32-prices-lite": 18_350_080,
    "llama32-prices-full": 389_021_696,
    "llama32-instruct": 4_587_520,
    "llama2-lora": 4_194_304,
    "llama2-qlora": 4_194_304,
}


@pytest.fixture(scope="session")
def tiny_mistral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Mistral with the tiny Llama's tokenizer."""
    from transformers import MistralForCausalLM

    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny-mistral", MistralForCausalLM, head_dim=16)


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_priced_offline(name: str) -> None:
    recipe = load_preset(name)
    skeleton = catalog_skeleton(recipe.model.source)
    assert skeleton is not None
    priced = price(skeleton, recipe)
    assert priced.adapter.trainable_parameters == TRAINABLE.get(name, priced.adapter.trainable_parameters) > 0
    assert priced.peak.as_json()


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_runs(name: str, tiny_llama: Path, tiny_mistral: Path, tmp_path: Path) -> None:
    recipe = load_preset(name)
    entry = catalog_entry(recipe.model.source)
    assert entry is not None
    model = {"LlamaForCausalLM": tiny_llama, "MistralForCausalLM": tiny_mistral}[entry.architecture]
    records = tmp_path / "records.jsonl"
    records.write_text("".join(json.dumps(r) + "\n" for r in RECORDS[recipe.data.source]), encoding="utf-8")
    counts = _run_small(recipe, model, records, tmp_path / "home")
    assert counts["train_records"] + counts["eval_records"] == 8
    assert counts["skipped"] == 0
    assert counts["template"] == ("model" if recipe.data.template == "auto" else recipe.data.template)


@pytest.mark.parametrize("name", ["llama2-chat-lora", "llama2-chat-qlora"])
def test_the_llama2_chat_presets_take_a_folder_of_text(name: str, tiny_llama: Path, tmp_path: Path) -> None:
    """Their source names a text folder first; a long text becomes several records."""
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(3):
        (texts / f"{number}.md").write_text(f"# Log {number}\n\n" + "The sea is wide.\n\n" * 60, encoding="utf-8")
    counts = _run_small(load_preset(name), tiny_llama, texts, tmp_path / "home")
    assert counts["format"] == "text"
    assert counts["train_records"] + counts["eval_records"] > 3
    assert counts["tokens"]["cut"] == 0


def test_the_notebooks_preset_takes_its_text_records(tiny_llama: Path, tmp_path: Path) -> None:
    records = tmp_path / "records.jsonl"
    texts = [{"text": f"### User: How many is {n}?\n### Assistant: {n} it is."} for n in range(8)]
    records.write_text("".join(json.dumps(text) + "\n" for text in texts), encoding="utf-8")
    counts = _run_small(load_preset("tinyllama-chat"), tiny_llama, records, tmp_path / "home")
    assert counts["format"] == "text"
    assert counts["tokens"]["masked"] == 0


def _run_small(recipe: Recipe, model: Path, source: Path, home: Path) -> dict[str, Any]:
    """Two steps of a recipe on other data with a tiny model. Returns the counts in its journal."""
    small = edit(
        recipe,
        {
            "model.source": str(model),
            "data.source": str(source),
            "data.max_length": min(recipe.data.max_length, 256),
            "training.max_steps": 2,
            "training.gradient_accumulation_steps": 1,
        },
    )
    run, adapter = _train(small, Home(home))
    assert (adapter / "adapter_model.safetensors").is_file()
    counts: dict[str, Any] = next(e["counts"] for e in read_events(run) if e["event"] == "phase" and "counts" in e)
    return counts


def _train(recipe: Recipe, home: Home) -> tuple[Path, Path]:
    """Run a recipe to its end. Returns its journal and its adapter's folder."""
    run = create_run(home, recipe)
    thread = TrainingThread(home, run, recipe)
    thread.start()
    thread.join(timeout=300)
    assert not thread.is_alive()
    assert thread.error is None
    assert summarise(run).state == "finished"
    return run.journal, run.adapter
