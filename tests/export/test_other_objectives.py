"""Preference recipes as Axolotl's and LLaMA-Factory's, and back; the records beside them are those of the run."""

import json

import pytest
import yaml

from workbench.data.sources import load_records
from workbench.errors import WorkbenchError
from workbench.export.conversations import RecordFile, left_out_notices, write_conversations
from workbench.export.other_tools.axolotl import LAYOUTS, to_axolotl
from workbench.export.other_tools.imported import import_settings
from workbench.export.other_tools.llamafactory import dataset_info, to_llamafactory
from workbench.export.plan import plan_export
from workbench.export.request import Request
from workbench.recipe.resolved import resolved
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit
from workbench.runs.folder import create_run
from workbench.storage.paths import Home

PAIR = {
    "chosen": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Yes."}],
    "rejected": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "No."}],
}
BOTH = (
    {"objective.kind": "dpo", "objective.beta": 0.3},
    {"objective.kind": "dpo", "objective.loss_type": "ipo"},
    {"objective.kind": "dpo", "objective.loss_type": "hinge", "training.warmup_steps": 7},
    {"objective.kind": "orpo", "objective.beta": 0.2},
    {"objective.kind": "simpo", "objective.simpo_gamma": 0.7, "objective.beta": 2.5, "training.warmup_steps": 7},
    {"objective.kind": "kto", "objective.desirable_weight": 1.3, "training.per_device_train_batch_size": 2},
    {"objective.kind": "dpo", "objective.rpo_alpha": 0.5},
    {"objective.kind": "simpo", "objective.cpo_alpha": 0.5, "training.warmup_steps": 7},
    {"objective.kind": "reward"},
)
AXOLOTL = (
    {"objective.kind": "dpo", "objective.loss_type": "apo_zero"},
    {"objective.kind": "dpo", "objective.loss_type": "robust", "objective.label_smoothing": 0.1},
    {"objective.kind": "reward", "objective.center_rewards_coefficient": 0.01},
)
LLAMA_FACTORY = ({"adapter.method": "oft", "adapter.options": {"oft_block_size": 16}},)


def sent(tool, recipe, folder):
    """The configuration and the records of a recipe as that tool's, in a folder; returns the file and what it lacks."""
    kind = recipe.objective.spec.records
    if tool == "axolotl":
        files = write_conversations(None, recipe.data, folder, kind, layout=LAYOUTS.get(recipe.objective.kind, "apart"))
        values, lacking = to_axolotl(recipe, "owner/model", files)
    else:
        files = write_conversations(None, recipe.data, folder, kind, layout="apart" if kind == "pairs" else "whole")
        values, lacking = to_llamafactory(recipe, "owner/model", files)
        (folder / "dataset_info.json").write_text(json.dumps(dataset_info(files)))
    assert left_out_notices(files) == []
    file = folder / f"{tool}.yaml"
    file.write_text(yaml.safe_dump(values))
    return file, lacking


@pytest.mark.parametrize(
    ("tool", "changes"),
    [
        *(("axolotl", changes) for changes in (*BOTH, *AXOLOTL)),
        *(("llamafactory", changes) for changes in (*BOTH, *LLAMA_FACTORY)),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(map(str, value.values())),
)
def test_a_recipe_comes_back_as_it_went(tool, changes, tmp_path):
    records = tmp_path / "mine.jsonl"
    is_text = "objective.kind" not in changes
    row = {"prompt": "Hi?", "completion": "Yes."} if is_text else PAIR
    records.write_text(f"{json.dumps(row)}\n" * 2)
    base = {"model.source": "owner/model", "data.source": str(records), "data.eval_fraction": 0.0}
    recipe = edit(resolved(Recipe()), {**base, **changes})
    file, lacking = sent(tool, recipe, tmp_path)
    note = [other.note] if (other := getattr(recipe.objective.spec, tool)).note else []
    assert lacking == note
    read, unknown = import_settings(file)
    assert unknown == note
    same_records(recipe, read)
    # Alpha is a number there; LLaMA-Factory's trainers of preferences would use dropout.
    trained = recipe if tool == "axolotl" else edit(recipe, {"adapter": recipe.trained_adapter.model_dump()})
    places = {
        "data.source": read.data.source, "data.split": read.data.split, "data.columns": read.data.columns,
        "output.name": read.output.name, "adapter.lora_alpha": trained.adapter.lora_alpha,
        "adapter.lora_dropout": trained.adapter.lora_dropout,
    }  # fmt: skip
    if is_text:
        del places["adapter.lora_alpha"], places["adapter.lora_dropout"]
    assert edit(recipe, places).model_dump() == read.model_dump()


def same_records(recipe, read):
    kind = recipe.objective.spec.records
    wanted, found = (
        [
            (item.content.texts, getattr(item.content, "good", None))
            for item in load_records(one.data, kind=kind).items()
        ]
        for one in (recipe, read)
    )
    if kind == "unpaired":
        # A pair is written as its two responses.
        wanted = [(PAIR[side][0]["content"], PAIR[side][1]["content"]) for _ in range(2) for side in PAIR]
        assert [(texts[0], texts[1]) for texts, _ in found] == wanted
        assert [good for _, good in found] == [True, False] * 2
    else:
        assert found == wanted


@pytest.mark.parametrize(
    ("target", "changes", "words"),
    [
        ("axolotl", {"objective.kind": "cpo"}, "Axolotl has no cpo training"),
        ("axolotl", {"objective.kind": "kto", "objective.loss_type": "apo_zero_unpaired"}, "no loss apo_zero_unpaired"),
        ("llamafactory", {"objective.kind": "dpo", "objective.loss_type": "robust"}, "no loss robust of dpo"),
        ("axolotl", {"objective.kind": "classification"}, "Axolotl has no classification training"),
        ("llamafactory", {"objective.kind": "classification"}, "LLaMA-Factory has no classification training"),
        ("axolotl", {"adapter.method": "oft"}, "Axolotl has no adapter.method oft"),
        ("llamafactory", {"adapter.method": "vera"}, "LLaMA-Factory has no adapter.method vera"),
    ],
)
def test_what_a_tool_does_not_train_is_refused_before_anything_is_written(target, changes, words, tmp_path):
    home = Home(tmp_path / "home")
    run = create_run(home, edit(Recipe(), {"quantization.method": "none", **changes}))
    with pytest.raises(WorkbenchError, match=words):
        plan_export(home, run, Request(target=target, folder=tmp_path / "out"))


def test_what_a_tool_lacks_of_an_objective_is_listed():
    recipe = edit(resolved(Recipe()), {"objective.kind": "simpo", "objective.label_smoothing": 0.1})
    for there in (to_axolotl, to_llamafactory):
        assert there(recipe, "owner/model", [])[1] == ["objective.label_smoothing: 0.1"]
    changes = {"objective.kind": "reward", "objective.center_rewards_coefficient": 0.01}
    assert "objective.center_rewards_coefficient: 0.01" in to_llamafactory(edit(recipe, changes), "owner/model", [])[1]


def test_pairs_that_a_layout_has_no_place_for_are_counted(tmp_path):
    records = tmp_path / "mine.jsonl"
    longer = {side: [*turns, {"role": "user", "content": "So?"}, turns[1]] for side, turns in PAIR.items()}
    records.write_text("".join(f"{json.dumps(row)}\n" for row in (PAIR, longer)))
    data = edit(Recipe(), {"data.source": str(records), "data.eval_fraction": 0.0}).data
    files = write_conversations(None, data, tmp_path, "pairs")
    assert [(file.records, file.left_out) for file in files] == [(1, 1)]
    assert left_out_notices(files) == [
        "1 record is left out: pairs with tools, of plain text, or that differ before the last turn."
    ]
    files = write_conversations(None, data, tmp_path, "pairs", layout="flat")
    assert [(file.records, file.left_out) for file in files] == [(1, 1)]
    assert json.loads((tmp_path / "pairs.jsonl").read_text()) == {
        "system": "", "input": "Hi?", "chosen": "Yes.", "rejected": "No.",
    }  # fmt: skip
    # As whole conversations, both have a place.
    files = write_conversations(None, data, tmp_path, "pairs", layout="whole")
    assert [(file.records, file.left_out) for file in files] == [(2, 0)]


def test_axolotl_takes_one_kind_of_warm_up():
    # Its schema refuses both, and a ratio with SimPO.
    files = [RecordFile("pairs.jsonl", "pairs", False, 1000), RecordFile("pairs.eval.jsonl", "pairs", True, 500)]
    recipe = edit(resolved(Recipe()), {"training.warmup_ratio": 0.1})
    assert to_axolotl(recipe, "o/m", files)[0]["warmup_ratio"] == 0.1
    changes = {"objective.kind": "simpo", "training.num_train_epochs": 2, "data.packing": False}
    for more, steps in (({}, 13), ({"training.max_steps": 50}, 5), ({"training.warmup_steps": 7}, 7)):
        values, _ = to_axolotl(edit(recipe, changes | more), "o/m", files)
        assert (values["warmup_steps"], "warmup_ratio" in values) == (steps, False)
    assert "warmup_ratio" not in to_axolotl(edit(recipe, {"training.warmup_steps": 7}), "o/m", files)[0]


def test_reward_models_of_other_tools_are_imported_as_what_they_are(tmp_path):
    file = tmp_path / "axolotl.yaml"
    file.write_text(
        "base_model: o/m\nmodel_type: AutoModelForSequenceClassification\nnum_labels: 1\nreward_model: true\n"
        "adapter: lora\nlora_target_linear: true\nexcess_length_strategy: truncate\ncenter_rewards_coefficient: 0.01\n"
        "datasets: [{path: o/pairs, type: bradley_terry.chat_template}]\nlearning_rate: 2e-5\n"
    )
    recipe, lacking = import_settings(file)
    assert lacking == []
    assert (recipe.objective.kind, recipe.objective.center_rewards_coefficient) == ("reward", 0.01)
    assert recipe.data.columns == {"prompt": "input", "chosen": "chosen", "rejected": "rejected"}
    # KTO compares the responses of a micro-batch, also where the file leaves its size out.
    file.write_text("base_model: o/m\nadapter: lora\nlora_target_linear: true\nrl: kto\ndatasets: [{path: o/set}]\n")
    recipe, _ = import_settings(file)
    assert (recipe.training.per_device_train_batch_size, recipe.training.gradient_accumulation_steps) == (2, 1)
