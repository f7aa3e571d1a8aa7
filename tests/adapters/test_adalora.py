"""AdaLoRA reduces ranks as plain PEFT does, and its checkpoints hold what its adapter files leave out."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.adapters.test_training import recipe_of
from tests.engine.runs_of_tiny import (
    adapter_digest,
    begin,
    curve,
    ended,
    killed_after,
    resumed,
    trl_settings,
)
from workbench.adapters.registry import peft_config
from workbench.engine.kernels.rank_allocation import RankAllocation
from workbench.engine.model.ranked_weights import STATE
from workbench.engine.model.saving import load_adapter
from workbench.errors import WorkbenchError
from workbench.recipe.schema import Recipe
from workbench.recipe.text import RecipeError, edit
from workbench.storage.paths import Home

OPTIONS = {"target_r": 2, "tinit": 1, "tfinal": 2, "orth_reg_weight": 0.3}
CHANGES = {
    "adapter.options": OPTIONS,
    "adapter.lora_dropout": 0.0,
    "data.eval_fraction": 0.0,
    "training.max_steps": 8,
    "training.save_steps": 4,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_llama, records):
    """A run of eight steps, and the base that it leaves in memory."""
    home = Home(tmp_path_factory.mktemp("adalora") / "home")
    run, thread = begin(home, edit(recipe_of("adalora", tiny_llama, records), CHANGES))
    ended(thread)
    return home, run, thread.base


def test_losses_ranks_and_weights_are_those_of_plain_peft(finished, tmp_path: Path) -> None:
    """Transformers' own loss, to which PEFT's forward adds its term, and ``update_and_allocate`` after each step."""
    from datasets import Dataset
    from peft import PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from workbench.data.sources import load_records
    from workbench.data.templates.template import Template
    from workbench.data.tokens.encode import encode_dataset

    home, run, _ = finished
    recipe = run.recipe()
    tokenizer = AutoTokenizer.from_pretrained(recipe.model.source)
    data = encode_dataset(load_records(recipe.data, home), Template.for_model(tokenizer, "auto", None), recipe.data)
    model = AutoModelForCausalLM.from_pretrained(recipe.model.source, dtype=torch.float32).requires_grad_(False)
    torch.manual_seed(recipe.training.seed)
    model = get_peft_model(model, peft_config(recipe.adapter, total_step=recipe.training.max_steps))
    likelihoods: list[float] = []

    class Plain(SFTTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            loss, outputs = Trainer.compute_loss(self, model, inputs, True, num_items_in_batch)
            of_tokens = torch.nn.functional.cross_entropy(
                outputs.logits[:, :-1].reshape(-1, outputs.logits.shape[-1]), inputs["labels"][:, 1:].reshape(-1)
            )
            likelihoods.append(of_tokens.item())
            assert loss.item() > likelihoods[-1] + 0.1
            return (loss, outputs) if return_outputs else loss

    class Allocate(TrainerCallback):
        def on_optimizer_step(self, args, state, control, **_):
            model.base_model.update_and_allocate(state.global_step)

    trainer = Plain(
        model=model,
        args=SFTConfig(**trl_settings(recipe, tmp_path / "trl")),
        train_dataset=Dataset.from_list([dict(row) for row in data.train]),
        processing_class=tokenizer,
        callbacks=[Allocate()],
    )
    trainer.train()
    assert list(curve(run).values()) == pytest.approx(likelihoods, abs=2e-5)
    model.save_pretrained(tmp_path / "theirs")
    ours, theirs = (
        json.loads((folder / "adapter_config.json").read_text()) for folder in (run.adapter, tmp_path / "theirs")
    )
    assert ours["total_step"] == 8
    assert ours["rank_pattern"] == theirs["rank_pattern"]
    assert sum(map(sum, ours["rank_pattern"].values())) == 2 * len(ours["rank_pattern"])
    saved = load_file(run.adapter / "adapter_model.safetensors")
    for name, tensor in load_file(tmp_path / "theirs" / "adapter_model.safetensors").items():
        assert torch.allclose(tensor, saved[name], atol=1e-4), name

    # The file is one that plain PEFT loads, and it computes what the run's model does.
    ids = torch.arange(5, 25)[None]
    fresh = AutoModelForCausalLM.from_pretrained(recipe.model.source, dtype=torch.float32)
    with torch.no_grad():
        loaded = PeftModel.from_pretrained(fresh, run.adapter).eval()(input_ids=ids).logits
        assert torch.allclose(loaded, model.eval()(input_ids=ids).logits, atol=1e-3)


@pytest.mark.parametrize("step", [5, 7])
def test_a_killed_run_continues_with_all_ranks_and_their_importance(finished, step: int) -> None:
    """Before the ranks are settled, and after; the adapter file of the checkpoint has fewer ranks."""
    home, run, base = finished
    with safe_open(run.checkpoints / "checkpoint-4" / STATE, "pt") as file:
        kinds = {name.partition(".")[0] for name in file.keys()}  # noqa: SIM118  (no mapping)
        whole = next(name for name in file.keys() if name.endswith("q_proj.lora_A"))  # noqa: SIM118
        assert kinds == {"weight", "ipt", "exp_avg_ipt", "exp_avg_unc"}
        assert file.get_slice(whole).get_shape()[0] == 6
    again = killed_after(run, step, home)
    assert not (run.adapter / STATE).exists()
    resumed(home, again, base)
    assert curve(again) == curve(run)
    assert adapter_digest(again) == adapter_digest(run)


def test_a_file_with_fewer_ranks_is_loaded_into_all_of_them(finished, tmp_path: Path) -> None:
    """As at the end of a run that keeps its best evaluation; saved again, it is the same file."""
    _, run, base = finished
    model = base.attach_new(run.recipe().trained_adapter)
    load_adapter(model, run.adapter)
    shapes = {tuple(parameter.shape)[:1] for name, parameter in model.named_parameters() if "lora_A" in name}
    assert shapes == {(6,)}
    model.save_pretrained(tmp_path)
    saved, again = (load_file(folder / "adapter_model.safetensors") for folder in (run.adapter, tmp_path))
    assert saved.keys() == again.keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in saved.items())
    base.detach_all()


def test_the_divisor_stays_on_a_16_bit_base_too(tiny_llama) -> None:
    """PEFT saves no number of ranks, and trains it if the base has 16 bits: a reply would depend on what is lost."""
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.bfloat16)
    section = edit(Recipe(), {"adapter.method": "adalora", "quantization.method": "none"}).adapter
    model = get_peft_model(base, peft_config(section))
    numbers = [parameter for name, parameter in model.named_parameters() if "ranknum" in name]
    assert all(number.requires_grad for number in numbers)
    RankAllocation(model)
    assert not any(number.requires_grad for number in numbers)


def test_the_term_has_the_gradient_of_pefts_own_loss(tiny_llama) -> None:
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    section = edit(Recipe(), {"adapter.method": "adalora", "quantization.method": "none"}).adapter
    torch.manual_seed(1)
    model = get_peft_model(base, peft_config(section.model_copy(update={"lora_dropout": 0.0})))
    ids = torch.arange(5, 25)[None]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model(input_ids=ids, labels=ids).loss.backward()
    theirs = [parameter.grad.clone() for parameter in trained]
    model.zero_grad()
    model.base_model.model(input_ids=ids, labels=ids).loss.backward()
    assert not all(torch.allclose(p.grad, grad, atol=1e-6) for p, grad in zip(trained, theirs, strict=True))
    RankAllocation(model).add_orthogonality()
    for parameter, grad in zip(trained, theirs, strict=True):
        assert torch.allclose(parameter.grad, grad, atol=1e-6)

    # A step that was skipped, and one of a run that was made shorter than its last steps, end in settled ranks.
    allocation = RankAllocation(model)
    model.zero_grad()
    allocation.config.total_step, allocation.config.tfinal = 5, 2
    from transformers import TrainerControl, TrainerState

    allocation.on_optimizer_step(None, TrainerState(global_step=4), TrainerControl())
    assert allocation.config.rank_pattern


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"adapter.r": 1}, "adapter.r: AdaLoRA reduces ranks, and 1 cannot be reduced; set it to 2 or more"),
        ({"adapter.options": {"target_r": 16}}, "target_r 16 of AdaLoRA is the rank at the end, which must be less"),
        (
            {"adapter.options": {"tinit": 6, "tfinal": 4}, "training.max_steps": 10},
            "tinit 6 and tfinal 4 of AdaLoRA leave none of the run's 10 steps to reduce ranks in",
        ),
        ({"adapter.continue_from": "demo-01"}, "a run of AdaLoRA distributes its ranks from its own first step"),
        ({"adapter.use_dora": True}, "adapter.use_dora: AdaLoRA does not read it"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_the_run(changes: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        edit(edit(Recipe(), {"adapter.method": "adalora"}), changes)
    assert words in str(caught.value)
    # The cure of the second one is one.
    edit(Recipe(), {"adapter.method": "adalora", "adapter.r": 32, "adapter.options": {"target_r": 16}})


def test_epochs_that_are_too_few_for_the_schedule_end_the_run_in_words(finished, tiny_llama, records) -> None:
    home, _, base = finished
    changes = {"training.max_steps": -1, "training.num_train_epochs": 1.0, "adapter.options": {"tinit": 5000}}
    _, thread = begin(home, edit(recipe_of("adalora", tiny_llama, records), CHANGES | changes), base)
    thread.join(240)
    assert isinstance(thread.error, WorkbenchError)
    assert "tinit 5000 and tfinal 0 of AdaLoRA leave none" in thread.error.message
