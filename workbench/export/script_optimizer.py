"""The part of an exported script that makes the optimizer and the order of the records, where transformers does not."""

from workbench.recipe.optimizers import OPTIMIZERS
from workbench.recipe.schema import Recipe

_LORAPLUS = """
from peft.optimizers import create_loraplus_optimizer

optimizer_class, options = trainer.get_optimizer_cls_and_kwargs(trainer.args, model)
options |= {{"loraplus_lr_ratio": {ratio}, "loraplus_weight_decay": trainer.args.weight_decay}}
trainer.optimizer = create_loraplus_optimizer(trainer.model, optimizer_class, **options)
"""

_LORA_FA = """
from peft.optimizers import create_lorafa_optimizer

for name, parameter in trainer.model.named_parameters():
    if "lora_A" in name:
        # A pass without the adapter may switch gradients on again: A has none, and none is clipped.
        parameter.register_post_accumulate_grad_hook(lambda parameter: setattr(parameter, "grad", None))
adapter = trainer.model.peft_config["default"]
rate, decay = trainer.args.learning_rate, trainer.args.weight_decay
trainer.optimizer = create_lorafa_optimizer(trainer.model, adapter.r, adapter.lora_alpha, rate, decay)
"""

_SCHEDULE_FREE = """
optimizer_class, options = trainer.get_optimizer_cls_and_kwargs(trainer.args, trainer.model)
if "warmup_steps" in options:
    options["warmup_steps"] = 0  # the schedule warms up
trainer.optimizer_cls_and_kwargs = optimizer_class, options
"""

_EMBEDDINGS = """
trainer.create_optimizer()
base = trainer.model.get_base_model()
layers = [layer for layer in (base.get_input_embeddings(), base.get_output_embeddings()) if layer is not None]
embeddings = {{id(one) for layer in layers for one in layer.parameters() if one.requires_grad}}
for group in list(trainer.optimizer.param_groups):
    here = [id(parameter) in embeddings for parameter in group["params"]]
    if any(here):
        own = {{**group, "lr": {rate}}}
        for key, value in group.items():
            if isinstance(value, list) and len(value) == len(here):
                own[key] = [item for item, is_own in zip(value, here) if is_own]
                group[key] = [item for item, is_own in zip(value, here) if not is_own]
        trainer.optimizer.add_param_group(own)
"""

_LENGTH_GROUPS = """
lengths = [{lengths} for row in records]
step = TRAINING["per_device_train_batch_size"] * TRAINING["gradient_accumulation_steps"]
trainer._get_train_sampler = lambda *_: LengthGroups(lengths, step, TRAINING["data_seed"])
"""

_SETTLE = """
trainer.optimizer.eval()  # what is saved are the averages
"""


def before_training(recipe: Recipe) -> str:
    """The lines before the training begins."""
    training, text = recipe.training, ""
    if training.trains_b_only:
        text += _LORA_FA
    elif training.loraplus_lr_ratio:
        text += _LORAPLUS.format(ratio=training.loraplus_lr_ratio)
    elif OPTIMIZERS[training.optim].averages:
        text += _SCHEDULE_FREE
    if training.embedding_learning_rate:
        text += _EMBEDDINGS.format(rate=training.embedding_learning_rate)
    if training.group_by_length:
        is_pair = recipe.objective.spec.records == "pairs"
        lengths = 'len(row["input_ids"]) + len(row["rejected_ids"])' if is_pair else 'len(row["input_ids"])'
        text += _LENGTH_GROUPS.format(lengths=lengths)
    return text


def after_training(recipe: Recipe) -> str:
    """The lines after it."""
    return _SETTLE if OPTIMIZERS[recipe.training.optim].averages else ""


def saved_at_a_step(recipe: Recipe, text: str) -> str:
    """The script whose callback saves averages too, where the optimizer has them."""
    if not OPTIMIZERS[recipe.training.optim].averages:
        return text
    saves = 'model.save_pretrained(HERE / "adapter")'
    before = f"        if state.global_step == KEEP_STEP:\n            {saves}\n"
    after = before.replace(saves, f"optimizer.eval()\n            {saves}\n            optimizer.train()")
    return text.replace(before, after).replace("model=None, **_", "model=None, optimizer=None, **_")
