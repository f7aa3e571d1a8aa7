"""Settings that are passed on to transformers and PEFT: plain TRL with the same setting has the run's losses."""

import json
from types import SimpleNamespace

import pytest
import torch
from transformers import Trainer, TrainingArguments

from tests.export.conftest import tiny_recipe, train
from tests.journals import read_events
from workbench.adapters.layer import AdapterTensor
from workbench.engine.training.trainers.trainer import WorkbenchTrainer
from workbench.estimate.adapter.plan import AdaptedModule, AdapterPlan
from workbench.estimate.optimizer import optimizer_bytes
from workbench.export.request import Request
from workbench.export.run import export_run
from workbench.recipe.schema import Recipe
from workbench.recipe.text import RecipeError, edit

pytestmark = pytest.mark.usefixtures("export_here")

KNOBS = {
    "Adam, schedule, order": {
        "adam_beta1": 0.8, "adam_beta2": 0.95, "adam_epsilon": 1e-6, "data_seed": 3, "warmup_steps": 2,
        "lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.5},
    },
    "NEFTune, AdEMAMix, restarts": {
        "neftune_noise_alpha": 5.0, "optim": "ademamix", "lr_scheduler_type": "cosine_with_restarts",
        "lr_scheduler_kwargs": {"num_cycles": 2},
    },
    "LoRA+": {"loraplus_lr_ratio": 8.0, "optim": "lion_32bit", "learning_rate": 0.001, "weight_decay": 0.1},
}  # fmt: skip


def losses_of(run) -> dict[str, float]:
    return {str(event["step"]): event["loss"] for event in read_events(run.journal) if event["event"] == "step"}


@pytest.mark.parametrize("name", KNOBS)
def test_plain_trl_with_the_same_setting_has_the_losses_of_the_run(
    tiny_home, tiny_run, tiny_llama, records, scripts, tmp_path, name
):
    run = train(tiny_home, tiny_recipe(tiny_llama, records, training=KNOBS[name]))
    losses = losses_of(run)
    assert losses != losses_of(tiny_run)
    export_run(tiny_home, run, Request("script", tmp_path / "out"), lambda told: None, bool)
    scripts.run(tmp_path / "out", "train.py")
    assert json.loads((tmp_path / "out" / "losses.json").read_text()) == losses
    # As TRL's own arguments, and not in another way.
    text = (tmp_path / "out" / "train.py").read_text()
    for setting, value in KNOBS[name].items():
        assert f"'{setting}': {value!r}" in text or f'"{setting}": {value!r}' in text


def test_the_rates_of_lora_plus_keep_their_ratio_when_the_peak_changes():
    weights = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": weights[:1], "lr": 0.1}, {"params": weights[1:], "lr": 0.8}])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    optimizer.step()
    schedule.step()
    WorkbenchTrainer.set_learning_rate(SimpleNamespace(lr_scheduler=schedule, optimizer=optimizer), 0.2)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.8])
    optimizer.step()
    schedule.step()
    assert schedule.get_last_lr() == pytest.approx([0.2 / 3, 1.6 / 3])


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"training.loraplus_lr_ratio": 4.0, "adapter.method": "vera"}, "training.loraplus_lr_ratio"),
        ({"training.neftune_noise_alpha": 5.0, "objective.kind": "dpo"}, "training.neftune_noise_alpha"),
    ],
)
def test_what_the_adapter_or_the_objective_cannot_use_is_refused(changes, path):
    with pytest.raises(RecipeError) as caught:
        edit(Recipe(), {"quantization.method": "none", **changes})
    assert [problem.path for problem in caught.value.problems] == [path]


STATES = ("lion_32bit", "lion_8bit", "ademamix", "ademamix_8bit", "adamw_8bit", "adagrad", "rmsprop")


@pytest.mark.parametrize("name", STATES)
def test_an_optimizer_costs_the_state_that_it_keeps(name, tmp_path):
    """Of a float32 adapter. Quantiles of 256 values, which are shared, are not counted."""
    weights = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((300, 100), (200, 60), (10, 10))]
    tensors = tuple(AdapterTensor(f"t{n}", tuple(weight.shape)) for n, weight in enumerate(weights))
    size = sum(tensor.size for tensor in tensors)
    module = AdaptedModule("m", "m", "linear", 8, tensors, 1)
    plan = AdapterPlan(size, size, 4 * size, 4 * size, 4 * size, "float32", (module,), (), ())
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, optim=name)
    kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments)
    optimizer = kind(weights, **options)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    states = [value for state in optimizer.state.values() for key, value in state.items() if "qmap" not in key]
    held = sum(value.numel() * value.element_size() for value in states if torch.is_tensor(value) and value.dim())
    assert held == optimizer_bytes(name, plan)
