"""Each objective honors each knob of the training, or refuses it by its name; and what the knobs do to a run."""

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import tiny_recipe
from tests.engine.runs_of_tiny import begin, curve, ended, events_of, held_after, killed_after, resumed, wait_for_step
from tests.tiny_labels import write_labels
from tests.tiny_pairs import write_pairs
from workbench.adapters.settings import AdapterSettings
from workbench.engine.batches.length_groups import LengthGroups
from workbench.engine.training.trainers.trainer import WorkbenchTrainer
from workbench.estimate.adapter.plan import AdapterDtypes, plan_adapter
from workbench.estimate.optimizer import optimizer_bytes
from workbench.estimate.setup import trained_settings
from workbench.models.trees import tree_in
from workbench.objectives.table import OBJECTIVES
from workbench.recipe.text import RecipeError, edit

KINDS = (*OBJECTIVES, "continued")
PAIRS = ("dpo", "orpo", "kto", "simpo", "cpo", "reward")

KNOBS = {
    "training.optim": "lora_fa",
    "training.embedding_learning_rate": 0.005,
    "training.group_by_length": True,
    "training.eval_on_start": False,
    "training.save_only_model": True,
    "objective.label_smoothing": 0.1,
}
# What an objective refuses or, where it is a key of its own section, does not use and says so.
REFUSED = {"kto": {"training.group_by_length"}}
UNUSED = {"orpo", "kto", "reward"}


@pytest.fixture(scope="module")
def sources(tmp_path_factory, records):
    folder = tmp_path_factory.mktemp("knobs")
    texts = folder / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": "wave and tide " * (1 + n % 3)}) + "\n" for n in range(16)))
    pairs, labels = write_pairs(folder / "pairs.jsonl"), write_labels(folder / "labels.jsonl")
    return {"sft": records, "continued": texts, "classification": labels, **dict.fromkeys(PAIRS, pairs)}


def of_kind(tiny_llama, sources, kind, changes):
    settings = {
        "objective.kind": "sft" if kind == "continued" else kind,
        "quantization.method": "none",
        "quantization.compute_dtype": "float32",
        "data.eval_fraction": 0.2,
        "adapter.modules_to_save": ["embed_tokens"],
        "training.per_device_train_batch_size": 2,
        "training.max_steps": 2,
        "training.save_steps": 1,
    }
    return edit(tiny_recipe(tiny_llama, sources[kind]), {**settings, **changes})


@pytest.mark.parametrize("kind", KINDS)
def test_an_objective_honors_each_knob_or_refuses_it_by_name(home, tiny_llama, sources, kind, monkeypatch):
    for path in REFUSED.get(kind, ()):
        with pytest.raises(RecipeError) as caught:
            of_kind(tiny_llama, sources, kind, {path: KNOBS[path]})
        assert [problem.path for problem in caught.value.problems] == [path]
    honored = {path: value for path, value in KNOBS.items() if path not in REFUSED.get(kind, ())}
    trainers: list[WorkbenchTrainer] = []
    begins = WorkbenchTrainer.step_begins
    monkeypatch.setattr(WorkbenchTrainer, "step_begins", lambda self: (trainers.append(self), begins(self))[1])
    recipe = of_kind(tiny_llama, sources, kind, honored)
    run, thread = begin(home, recipe)
    ended(thread)
    trainer = trainers[-1]
    # LoRA-FA: A stays, and its optimizer has the state that is priced.
    places = (run.checkpoints / f"checkpoint-{step}" / "adapter_model.safetensors" for step in (1, 2))
    first, last = map(load_file, places)
    changed = {name for name in last if not torch.equal(first[name], last[name])}
    assert any("lora_B" in name for name in changed)
    assert not any("lora_A" in name for name in changed)
    plan = plan_adapter(tree_in(tiny_llama, recipe.model), trained_settings(recipe, 3), DTYPES)
    trained = sum(parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad)
    assert trained == plan.trainable_parameters
    state = [value for of_one in trainer.optimizer.state.values() for value in of_one.values()]
    # The head and the embedding whose gradient the objective does not reach have none.
    held = sum(value.numel() * value.element_size() for value in state if torch.is_tensor(value))
    assert held == optimizer_bytes("lora_fa", plan)
    # A group of their own for embeddings, with its rate.
    rates = {group["lr"] for group in trainer.optimizer.param_groups}
    assert rates == {recipe.training.learning_rate, 0.005}
    trainer.set_learning_rate(2 * recipe.training.learning_rate)
    assert {group["lr"] for group in trainer.optimizer.param_groups} == {2 * recipe.training.learning_rate, 0.01}
    assert isinstance(trainer._get_train_sampler(), LengthGroups) == (kind != "kto")
    assert [event["step"] for event in events_of(run, "eval")] == [2]
    assert not list(run.checkpoints.glob("checkpoint-*/optimizer*"))
    warnings = {event["kind"]: event["message"] for event in events_of(run, "warning")}
    assert "save_only_model" in warnings["resume"]
    # Smoothed targets: held-out losses are without.
    if kind in UNUSED:
        assert "objective.label_smoothing" in warnings["objective"]
    elif kind not in ("dpo", "simpo", "cpo"):
        plain, thread = begin(home, edit(recipe, {"objective.label_smoothing": 0.0}), thread.base)
        ended(thread)
        assert curve(plain)[1] != curve(run)[1]


DTYPES = AdapterDtypes(adapter="float32", saved_whole="float32", base="float32")


def test_a_rate_for_embeddings_needs_embeddings_that_are_trained(home, recipe):
    _, thread = begin(home, edit(recipe, {"training.embedding_learning_rate": 1e-4}))
    thread.join(240)
    assert "training.embedding_learning_rate" in str(thread.error)
    assert "modules_to_save" in thread.error.cure


def test_a_checkpoint_of_the_weights_alone_keeps_the_learning_rate(home, recipe):
    """A run that goes on from one is not exact, and says so; the schedule goes on where it was."""
    recipe = edit(
        recipe,
        {
            "training.save_only_model": True,
            "training.save_steps": 3,
            "training.save_total_limit": 10,
            "training.lr_scheduler_type": "linear",
        },
    )
    whole, thread = begin(home, recipe)
    ended(thread)
    again = killed_after(whole, 5, home)
    resumed(home, again, thread.base)
    messages = [event["message"] for event in events_of(again, "warning") if event["kind"] == "resume"]
    assert any("checkpoint-3 holds the weights only" in message for message in messages)
    rates = [{event["step"]: event["learning_rate"] for event in events_of(run, "step")} for run in (whole, again)]
    assert rates[0] == pytest.approx(rates[1])
    assert curve(again)[4] == curve(whole)[4]
    assert curve(again)[8] != curve(whole)[8]


def test_a_stop_saves_everything_although_planned_checkpoints_hold_the_weights_alone(home, recipe):
    recipe = edit(recipe, {"training.save_only_model": True, "training.save_steps": 1})
    with held_after(2):
        run, thread = begin(home, recipe)
        wait_for_step(run, 2)
        thread.controls.stop(save=True)
    ended(thread)
    (newest,) = [place for place in run.checkpoints.iterdir() if list(place.glob("optimizer*"))]
    assert newest.name == f"checkpoint-{events_of(run, 'run_ended')[-1]['step']}"


def test_records_of_similar_length_share_a_step_in_another_order_in_each_epoch():
    lengths = [(7 * n) % 40 + 1 for n in range(64)]
    groups = LengthGroups(lengths, 8, seed=5)
    orders = []
    for epoch in range(2):
        groups.set_epoch(epoch)
        orders.append(list(groups))
        assert list(groups) == orders[-1]
        assert sorted(orders[-1]) == list(range(64))
        steps = [[lengths[index] for index in orders[-1][at : at + 8]] for at in range(0, 64, 8)]
        in_random_order = [lengths[at : at + 8] for at in range(0, 64, 8)]
        assert spread(steps) < spread(in_random_order) / 2
    assert orders[0] != orders[1]


def spread(steps) -> int:
    return sum(max(step) - min(step) for step in steps)


def test_lora_fa_is_priced_without_a(tiny_llama, recipe):
    skeleton = tree_in(tiny_llama, recipe.model)
    whole = plan_adapter(skeleton, AdapterSettings.of(recipe.adapter))
    only_b = plan_adapter(skeleton, trained_settings(edit(recipe, {"training.optim": "lora_fa"})))
    a = sum(
        tensor.size * module.count for module in whole.modules for tensor in module.tensors if "lora_A" in tensor.name
    )
    assert only_b.trainable_parameters == whole.trainable_parameters - a
    assert only_b.file_bytes == whole.file_bytes
    assert only_b.added_bytes == whole.added_bytes
