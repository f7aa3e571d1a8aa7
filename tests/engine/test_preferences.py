"""Preference training: the losses of TRL's own trainer, exact resume, smaller batches, held-out figures."""

import json
from pathlib import Path

import pytest
import torch

from tests.engine.runs_of_tiny import (
    adapter_digest,
    begin,
    curve,
    ended,
    events_of,
    out_of_memory_once,
    padded_batches,
    resumed,
    trl_settings,
)
from tests.engine.test_resume import killed_after
from tests.tiny_pairs import write_pairs
from workbench.adapters.registry import peft_config
from workbench.data.sources import load_records
from workbench.data.templates.template import Template
from workbench.data.tokens.encode import encode_dataset
from workbench.objectives.dpo import DPO
from workbench.recipe.sections.objective import ObjectiveSection
from workbench.recipe.text import edit


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.jsonl")


@pytest.fixture
def preference(recipe, pairs):
    return edit(
        recipe,
        {
            "objective.kind": "dpo",
            "data.source": str(pairs),
            "quantization.method": "none",
            "quantization.compute_dtype": "float32",
            "training.per_device_train_batch_size": 2,
            "training.gradient_accumulation_steps": 2,
            "training.learning_rate": 0.002,
        },
    )


def trl_trainer(recipe, home, folder):
    """TRL's trainer on the tokens of a recipe's training pairs; the reference is the base without the adapter."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    class OnTokens(DPOTrainer):
        def _prepare_dataset(self, dataset, *_):
            return dataset

    tokenizer = AutoTokenizer.from_pretrained(recipe.model.source)
    records = load_records(recipe.data, home, kind="pairs")
    data = encode_dataset(records, Template.for_model(tokenizer, "auto", None), recipe.data)
    rows = []
    for row in data.train:
        prompt = next(place for place, label in enumerate(row["labels"]) if label != -100)
        sides = []
        for ids, labels in (("input_ids", "labels"), ("rejected_ids", "rejected_labels")):
            # A line feed of the template follows a response, and is not trained.
            end = len(row[labels]) - 1
            assert row[labels] == [-100] * prompt + row[ids][prompt:end] + [-100]
            sides.append(row[ids][prompt:end])
        assert row["rejected_ids"][:prompt] == row["input_ids"][:prompt]
        rows.append({"prompt_ids": row["input_ids"][:prompt], "chosen_ids": sides[0], "rejected_ids": sides[1]})
    objective = recipe.objective
    return data, OnTokens(
        model=AutoModelForCausalLM.from_pretrained(recipe.model.source, dtype=torch.float32),
        args=DPOConfig(
            **trl_settings(recipe, folder),
            beta=objective.beta,
            loss_type=objective.loss_type,
            label_smoothing=objective.label_smoothing,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=peft_config(recipe.trained_adapter),
    )


def test_the_losses_and_rewards_are_those_of_trls_own_trainer(home, preference, tmp_path):
    """The same pairs, order and seed in float32: TRL pads, the run does not. An epoch ends amid an accumulation."""
    recipe = edit(preference, {"training.max_steps": 11, "adapter.lora_dropout": 0.1, "data.eval_fraction": 0.05})
    run, thread = begin(home, recipe)
    ended(thread)
    data, trainer = trl_trainer(recipe, home, tmp_path / "trl")
    assert len(data.train) == 19
    trainer.train()
    theirs = [entry for entry in trainer.state.log_history if "loss" in entry]
    steps = events_of(run, "step")
    assert [step["loss"] for step in steps] == pytest.approx([entry["loss"] for entry in theirs], abs=1e-5)
    assert steps[0]["loss"] == pytest.approx(0.6931, abs=1e-4)
    assert steps[-1]["loss"] < 0.6
    for ours, name in (("chosen", "chosen"), ("rejected", "rejected"), ("margin", "margins")):
        means = [entry[f"rewards/{name}"] for entry in theirs]
        # A last micro-batch with one pair counts as much as one with two in TRL's mean, but not here.
        pairs = zip([step["rewards"][ours] for step in steps], means, strict=True)
        assert [our for step, (our, _) in enumerate(pairs, 1) if step % 5] == pytest.approx(
            [mean for step, mean in enumerate(means, 1) if step % 5], abs=1e-4
        )
    line_feeds = [2 * 4 * step - 2 * (step // 5) for step in range(1, 12)]
    assert [step["tokens"] for step in steps] == [
        entry["num_tokens"] + more for entry, more in zip(theirs, line_feeds, strict=True)
    ]
    assert json.loads((run.adapter / "adapter_config.json").read_text())["lora_dropout"] == 0.0
    assert [event["kind"] for event in events_of(run, "warning")] == ["dropout"]
    (preparing,) = [event for event in events_of(run, "phase") if event.get("padding_free") is not None]
    assert preparing["padding_free"]


def test_each_loss_is_that_of_trl(home, preference, tmp_path):
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from workbench.engine.kernels.loss_head import TrainedTokensCollator
    from workbench.engine.objectives.pairs import PairCollator
    from workbench.engine.objectives.reference import Reference
    from workbench.engine.objectives.scoring import score_pairs
    from workbench.engine.objectives.texts import model_inputs, rows_of, split_rows, sums_by_text

    data, trainer = trl_trainer(preference, home, tmp_path / "trl")
    model = trainer.model.eval()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    rows = [dict(row) for row in data.train.select(range(4))]
    theirs = trainer.data_collator([trainer.train_dataset[place] for place in range(4)])
    batch = PairCollator(DataCollatorForLanguageModeling(trainer._tokenizer.pad_token_id))(rows)

    def log_probs():
        return model(**model_inputs(batch), fused_lm_head=True).log_probs

    with Reference(model).active():
        reference = sums_by_text(log_probs(), batch)
    now = log_probs()
    for loss in DPO.loss_types:
        smoothing = 0.1 if loss == "robust" else 0.0
        objective = ObjectiveSection(kind="dpo", loss_type=loss, label_smoothing=smoothing, beta=0.3)
        trainer.loss_types, trainer.label_smoothing, trainer.beta = [loss], smoothing, 0.3
        expected = trainer._compute_loss(model, theirs, False)
        scored = score_pairs(objective, batch, now, reference)
        assert scored.losses.mean().item() == pytest.approx(expected.item(), abs=1e-5, rel=1e-5), loss
        assert scored.figures[0].abs().min() > 0.003
    # RPO: the likelihood of the chosen response is TRL's second loss.
    objective = ObjectiveSection(kind="dpo", rpo_alpha=0.7, beta=0.3)
    arguments = DPO.trl.values(objective)
    trainer.loss_types, trainer.loss_weights = arguments["loss_type"], arguments["loss_weights"]
    scored = score_pairs(objective, batch, now, reference)
    total = scored.losses.mean() + 0.7 * scored.likelihood / scored.likelihood_tokens
    assert total.item() == pytest.approx(trainer._compute_loss(model, theirs, False).item(), abs=1e-5)
    # Padding-free, the same texts in one row have the same sums.
    flat = PairCollator(TrainedTokensCollator(trainer._tokenizer.pad_token_id, padding_free=True))(rows)
    assert rows_of(flat) == rows_of(batch)
    assert flat["input_ids"].shape == (1, sum(rows_of(flat).lengths))
    split = split_rows(PairCollator(DataCollatorForLanguageModeling(0)), flat, 3)
    assert [rows_of(part).rows for part in split] == [tuple(rows[:1]), tuple(rows[1:2]), tuple(rows[2:])]


def test_a_killed_run_resumes_to_the_same_adapter_and_its_evaluations_tell_the_preference(home, preference):
    recipe = edit(
        preference,
        {
            "data.eval_fraction": 0.2,
            "training.max_steps": 10,
            "training.save_steps": 4,
            "training.logging_steps": 3,
            "training.eval_steps": 5,
            "training.save_total_limit": 10,
        },
    )
    whole, thread = begin(home, recipe)
    ended(thread)
    again = killed_after(whole, 7, home)
    resumed(home, again, thread.base)
    assert curve(again) == curve(whole)
    assert adapter_digest(again) == adapter_digest(whole)
    rewards = [{event["step"]: event["rewards"] for event in events_of(run, "step")} for run in (whole, again)]
    assert rewards[0] == rewards[1]
    first, *_, last = events_of(whole, "eval")
    assert first["loss"] == pytest.approx(0.6931, abs=1e-4)
    assert first["rewards"] == {"chosen": 0.0, "rejected": 0.0, "margin": 0.0, "accuracy": 0.0}
    assert last["rewards"]["accuracy"] == 1.0
    assert last["rewards"]["margin"] == pytest.approx(last["rewards"]["chosen"] - last["rewards"]["rejected"])
    assert last["loss"] < first["loss"]
    assert "perplexity" not in last
    assert last["records"] == 4


def test_smaller_parts_have_the_same_loss_and_padded_batches_too(home, preference):
    recipe = edit(preference, {"training.max_steps": 4, "training.per_device_train_batch_size": 4})
    whole, thread = begin(home, recipe)
    ended(thread)
    with out_of_memory_once():
        split, thread = begin(home, recipe, thread.base)
        ended(thread)
    assert [event["kind"] for event in events_of(split, "warning")] == ["out_of_memory"]
    assert list(curve(split).values()) == pytest.approx(list(curve(whole).values()), abs=1e-5)
    rewards = [[event["rewards"]["margin"] for event in events_of(run, "step")] for run in (whole, split)]
    assert rewards[1] == pytest.approx(rewards[0], abs=1e-4)
    with padded_batches():
        padded, thread = begin(home, edit(recipe, {"training.gradient_checkpointing": True}), thread.base)
        ended(thread)
    assert list(curve(padded).values()) == pytest.approx(list(curve(whole).values()), abs=1e-5)
