"""Settings that are passed on to transformers and PEFT: plain TRL with the same setting has the run's losses."""

import json
from types import SimpleNamespace

import pytest
import torch
from transformers import Trainer, TrainingArguments
from transformers.training_args import OptimizerNames

from tests.export.conftest import tiny_recipe, train
from tests.journals import read_events
from workbench.adapters.layer import AdapterTensor
from workbench.engine.training.trainers.trainer import WorkbenchTrainer
from workbench.errors import WorkbenchError
from workbench.estimate.adapter.plan import AdaptedModule, AdapterPlan
from workbench.estimate.optimizer import optimizer_bytes
from workbench.export.other_tools.optimizers import our_optimizer
from workbench.export.request import Request
from workbench.export.run import export_run
from workbench.recipe import optimizers
from workbench.recipe.fields import setting_of
from workbench.recipe.optimizers import LORA_FA, OPTIMIZERS, check_optimizer, usable
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
    "RMSprop in 8 bits": {"optim": "rmsprop_bnb_8bit", "learning_rate": 0.001},
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
        ({"training.optim": "lora_fa", "adapter.use_dora": True}, "training.optim"),
        ({"training.optim": "schedule_free_adamw", "adapter.method": "adalora"}, "training.optim"),
        ({"training.optim": "lora_fa", "adapter.method": "vera"}, "training.optim"),
        ({"training.optim": "lora_fa", "training.loraplus_lr_ratio": 4.0}, "training.loraplus_lr_ratio"),
        ({"training.optim": "lora_fa", "training.adam_beta2": 0.95}, "training.adam_beta2"),
        ({"training.group_by_length": True, "data.packing": True}, "training.group_by_length"),
    ],
)
def test_what_the_adapter_or_the_objective_cannot_use_is_refused(changes, path):
    with pytest.raises(RecipeError) as caught:
        edit(Recipe(), {"quantization.method": "none", **changes})
    assert [problem.path for problem in caught.value.problems] == [path]


# What transformers does not make by itself: the script's own lines.
MADE_IN_THE_SCRIPT = {
    "LoRA-FA, similar lengths": {"training": {"optim": "lora_fa", "group_by_length": True}},
    "a rate for embeddings, smoothing": {
        "adapter": {"modules_to_save": ["lm_head"]},
        "training": {"embedding_learning_rate": 0.001, "save_only_model": True, "eval_on_start": False},
        "objective": {"label_smoothing": 0.1},
        # The trained head is projected by PEFT's wrapper, the frozen one in tiles.
    },
    "smoothing in tiles": {"objective": {"label_smoothing": 0.1}},
}


@pytest.mark.parametrize("name", MADE_IN_THE_SCRIPT)
def test_the_script_makes_what_transformers_does_not(tiny_home, tiny_run, tiny_llama, records, scripts, tmp_path, name):
    run = train(tiny_home, tiny_recipe(tiny_llama, records, **MADE_IN_THE_SCRIPT[name]))
    losses = losses_of(run)
    assert losses != losses_of(tiny_run)
    export_run(tiny_home, run, Request("script", tmp_path / "out"), lambda told: None, bool)
    scripts.run(tmp_path / "out", "train.py")
    assert json.loads((tmp_path / "out" / "losses.json").read_text()) == losses


def test_optimizers_are_those_of_transformers_and_lora_fa():
    assert {*OPTIMIZERS} == {*(name.value for name in OptimizerNames), LORA_FA}
    assert setting_of("training.optim").choices == [*usable()]
    refused = {name for name, optimizer in OPTIMIZERS.items() if optimizer.refusal}
    assert all(OPTIMIZERS[OPTIMIZERS[name].instead].instead == "" for name in refused)
    for name in refused:
        with pytest.raises(RecipeError, match=f"training.optim: {name} .*set it to {OPTIMIZERS[name].instead}"):
            edit(Recipe(), {"training.optim": name})


def test_an_optimizer_without_its_package_is_refused_by_the_name_of_the_package(monkeypatch):
    monkeypatch.setattr(optimizers, "_is_installed", lambda module: module != "schedulefree")
    with pytest.raises(WorkbenchError, match="schedulefree is not installed") as caught:
        check_optimizer("schedule_free_adamw")
    assert "pip install schedulefree" in caught.value.cure
    assert our_optimizer("schedule_free_adamw") == ("adamw_torch_fused", False)
    monkeypatch.setattr(optimizers, "_is_installed", lambda module: True)
    check_optimizer("schedule_free_adamw")
    assert our_optimizer("schedule_free_adamw") == ("schedule_free_adamw", True)


# All that run on this processor; LoRA-FA is measured in a run, see tests/engine/test_knobs.py.
STATES = tuple(
    name
    for name, optimizer in OPTIMIZERS.items()
    if optimizer.is_installed and not optimizer.refusal and name != LORA_FA
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", STATES)
def test_an_optimizer_costs_the_state_that_it_keeps(name, dtype, tmp_path):
    """Quantiles of 256 values, which are shared, are not counted, nor are counts of steps."""
    shapes = ((300, 100), (256, 64), (10, 10))
    weights = [torch.nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape in shapes]
    tensors = tuple(AdapterTensor(f"t{n}", shape) for n, shape in enumerate(shapes))
    size, width = sum(tensor.size for tensor in tensors), dtype.itemsize
    module = AdaptedModule("m", "m", "linear", 8, tensors, 1)
    named = str(dtype).removeprefix("torch.")
    plan = AdapterPlan(size, size, width * size, width * size, width * size, named, (module,), (), ())
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, optim=name)
    kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments)
    optimizer = kind(weights, **options)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    if hasattr(optimizer, "train"):
        optimizer.train()
    optimizer.step()
    states = [value for state in optimizer.state.values() for key, value in state.items() if "qmap" not in key]
    held = sum(held_by(value) for value in states if torch.is_tensor(value) and value.dim())
    assert held == optimizer_bytes(name, plan)


def held_by(tensor: torch.Tensor) -> int:
    """Bytes of a tensor, or of those that it is made of."""
    if hasattr(tensor, "__tensor_flatten__"):
        return sum(held_by(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    return tensor.numel() * tensor.element_size()
