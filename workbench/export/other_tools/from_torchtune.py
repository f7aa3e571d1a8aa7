"""Converts torchtune's configurations to recipes. What is left out is torchtune's default, not the one here.

Keys and defaults: https://docs.pytorch.org/torchtune. Sections are read as dotted keys, as its command line has them.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.export.other_tools.imported_settings import ImportedSettings
from workbench.export.other_tools.keys import read_text, resolve_path
from workbench.export.other_tools.torchtune_data import take_datasets
from workbench.recipe.schema import Recipe

SAME = {
    "model.lora_rank": "adapter.r",
    "model.lora_alpha": "adapter.lora_alpha",
    "model.lora_dropout": "adapter.lora_dropout",
    "model.use_dora": "adapter.use_dora",
    "epochs": "training.num_train_epochs",
    "batch_size": "training.per_device_train_batch_size",
    "gradient_accumulation_steps": "training.gradient_accumulation_steps",
    "enable_activation_checkpointing": "training.gradient_checkpointing",
    "compile": "training.torch_compile",
    "seed": "training.seed",
    "log_every_n_steps": "training.logging_steps",
    "save_every_n_steps": "training.save_steps",
    "optimizer.lr": "training.learning_rate",
    "optimizer.weight_decay": "training.weight_decay",
    "optimizer.eps": "training.adam_epsilon",
}
_DEFAULTS: dict[str, object] = {
    "adapter.r": 8,
    "adapter.lora_alpha": 16,
    "adapter.lora_dropout": 0.0,
    "training.num_train_epochs": 1,
    "training.per_device_train_batch_size": 1,
    "training.gradient_accumulation_steps": 1,
    "training.gradient_checkpointing": False,
    # PyTorch's, which torchtune passes on.
    "training.learning_rate": 1e-3,
    "training.weight_decay": 0.01,
    "training.max_grad_norm": 0.0,
    "training.warmup_ratio": 0.0,
}
_MODEL = re.compile(r"torchtune\.models\.(?P<family>\w+)\.(?P<q>q?)lora_\w+")
_MODULES = {"q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj", "output_proj": "o_proj"}
_MLP = ("gate_proj", "up_proj", "down_proj")
# Families whose layers the hub's files join.
_JOINED = ("phi3", "phi4")
_OPTIMIZERS = {
    "torch.optim.AdamW": "adamw_torch_fused",
    "bitsandbytes.optim.AdamW8bit": "adamw_8bit",
    "bitsandbytes.optim.PagedAdamW": "paged_adamw_32bit",
    "bitsandbytes.optim.PagedAdamW8bit": "paged_adamw_8bit",
    "torch.optim.SGD": "sgd",
}
_TRACKERS = {"WandBLogger": "wandb", "TensorBoardLogger": "tensorboard", "CometLogger": "comet_ml",
             "MLFlowLogger": "mlflow"}  # fmt: skip
_LIKELIHOODS = ("torchtune.modules.loss.LinearCrossEntropyLoss", "torchtune.modules.loss.CEWithChunkedOutputLoss",
                "torch.nn.CrossEntropyLoss")  # fmt: skip
# Losses of pairs: the loss here, and their names of its settings.
_PREFERENCES = {
    "torchtune.rlhf.loss.DPOLoss": ("sigmoid", "loss.beta"),
    "torchtune.rlhf.loss.RSOLoss": ("hinge", "loss.gamma"),
}
# Settings that train something else than an adapter on these records.
_OTHER_TRAINING = ("teacher_model._component_", "kd_loss._component_", "quantizer._component_", "datasets",
                   "reward_model._component_")  # fmt: skip
_IGNORED = (
    "output_dir", "device", "dtype", "shuffle", "log_level", "log_peak_memory_stats", "resume_from_checkpoint",
    "save_adapter_weights_only", "low_cpu_ram", "fsdp_cpu_offload", "custom_sharded_layers", "optimizer_in_bwd",
    "enable_async_checkpointing", "cudnn_deterministic_mode", "tensor_parallel_dim", "data_parallel_shard_dim",
    "data_parallel_replicate_dim", "collate_fn", "base_dir", "model.quantize_base", "optimizer.fused",
    "optimizer.foreach", "max_steps_per_epoch", "loss.num_output_chunks", "loss.ignore_index", "clip_grad_norm",
    "model.apply_lora_to_mlp", "model.apply_lora_to_output", "enable_activation_offloading", "optimizer.betas",
)  # fmt: skip
_IGNORED_SECTIONS = ("profiler", "metric_logger", "checkpointer", "tokenizer", "fsdp", "dataloader")
_PARTS_WITH_KEYS = ("dataset", "dataset_val", "datasets")
_DOWNLOAD = re.compile(r"tune download\s+(?P<id>[\w.-]+/[\w.-]+)(?:.*?--output-dir\s+(?P<folder>\S+))?")
_PLACE = re.compile(r"\$\{([\w.]+)\}")
_WAY = "Remove that section only if training an adapter without it is what you want."


def is_torchtune(values: Mapping[str, object]) -> bool:
    """Whether this is a configuration of torchtune."""
    model = values.get("model")
    return isinstance(model, dict) and "_component_" in model


def from_torchtune(values: Mapping[str, object], file: Path) -> tuple[Recipe, list[str]]:
    """Convert a configuration to a recipe; also lists its settings that a recipe does not support.

    Raises:
        WorkbenchError: it does not train a LoRA adapter, or has values that a recipe does not allow.
    """
    flat = dict(_flat(values))
    imported = ImportedSettings({key: _resolved(value, flat) for key, value in flat.items()})
    origin, folder = str(file), file.resolve().parent
    component = str(imported.take("model._component_"))
    model = _MODEL.fullmatch(component)
    if model is None:
        raise WorkbenchError(
            f"{origin} does not train a LoRA adapter (model._component_: {component}).",
            "Use a model such as torchtune.models.llama3_1.lora_llama3_1_8b.",
            kind="recipe",
        )
    if imported.take("model.decoder_trainable") == "frozen":
        imported.refuse(("model.decoder_trainable",), origin, "A recipe adapts the language model.")
    imported.refuse(_OTHER_TRAINING, origin, _WAY)
    recipe = imported.recipe
    recipe["model.source"] = _model_source(imported, file, folder)
    imported.move(SAME)
    _take_targets(imported, model["family"])
    is_quantized = bool(model["q"]) or bool(imported.take("model.quantize_base", False))
    recipe["quantization.method"] = "nf4" if is_quantized else "none"
    dtype = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}.get(str(imported.take("dtype", "bf16")))
    recipe["quantization.compute_dtype"] = dtype or "auto"
    _take_optimizer(imported)
    _take_loop(imported)
    _take_tracker(imported)
    take_datasets(imported, folder, origin)
    _take_objective(imported, origin)
    imported.default(_DEFAULTS)
    imported.ignore(_IGNORED)
    imported.ignore(key for key in flat if key.partition(".")[0] in _IGNORED_SECTIONS)
    # Settings that others refer to.
    imported.ignore(name for value in flat.values() if isinstance(value, str) for name in _PLACE.findall(value))
    return imported.finish(origin, "dataset")


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Settings by dotted key; datasets and the turns of a prompt template stay together."""
    for name, value in values.items():
        key = f"{prefix}{name}"
        is_whole = key in _PARTS_WITH_KEYS or name == "prompt_template"
        if isinstance(value, dict) and not is_whole:
            yield from _flat(value, f"{key}.")
        else:
            yield key, value


def _resolved(value: object, flat: Mapping[str, object]) -> object:
    """A value with references such as ``${batch_size}`` filled in once; an unknown one stays."""
    if not isinstance(value, str) or "${" not in value:
        return value
    if (whole := _PLACE.fullmatch(value)) and whole[1] in flat:
        return flat[whole[1]]
    return _PLACE.sub(lambda match: str(flat.get(match[1], match[0])), value)


def _model_source(imported: ImportedSettings, file: Path, folder: Path) -> str:
    """The checkpoint's folder if it is here, else the hub's id that the file's comment downloads there."""
    place = str(imported.take("checkpointer.checkpoint_dir", ""))
    found = resolve_path(place, folder) if place else ""
    if start := imported.take("checkpointer.adapter_checkpoint"):
        imported.lack("checkpointer.adapter_checkpoint", start, "an adapter in PEFT's format can be continued from")
    if found and Path(found).exists():
        return found
    for match in _DOWNLOAD.finditer(read_text(file)):
        name = Path(match["folder"] or match["id"]).name
        if name == Path(place).name:
            imported.lack(
                "checkpointer.checkpoint_dir",
                place,
                f"it is not here; the recipe has {match['id']}, which is downloaded there",
            )
            return match["id"]
    return place


def _take_targets(imported: ImportedSettings, family: str) -> None:
    """Take the adapted layers, by the names of the hub's model."""
    given = imported.take("model.lora_attn_modules", [])
    modules = [_MODULES.get(str(name), str(name)) for name in (given if isinstance(given, list) else [given])]
    has_mlp = bool(imported.take("model.apply_lora_to_mlp", False))
    modules += _MLP if has_mlp else ()
    if imported.take("model.apply_lora_to_output", False):
        modules.append("lm_head")
    if family in _JOINED:
        joined = {"q_proj": "qkv_proj", "k_proj": "qkv_proj", "v_proj": "qkv_proj",
                  "gate_proj": "gate_up_proj", "up_proj": "gate_up_proj"}  # fmt: skip
        modules = list(dict.fromkeys(joined.get(name, name) for name in modules))
        imported.lack("model.lora_attn_modules", given, f"the hub's model joins layers: {', '.join(modules)}")
    if family == "llama4" and has_mlp:
        imported.lack("model.apply_lora_to_mlp", True, "experts that are stored as one weight get no adapter")
    imported.recipe["adapter.target_modules"] = modules
    for key in ("encoder_trainable", "fusion_trainable"):
        if (trained := imported.take(f"model.{key}", "frozen")) != "frozen":
            imported.lack(f"model.{key}", trained, "the language model gets an adapter, and nothing else")


def _take_optimizer(imported: ImportedSettings) -> None:
    recipe = imported.recipe
    name = str(imported.take("optimizer._component_", "torch.optim.AdamW"))
    ours = _OPTIMIZERS.get(name)
    if ours is None:
        ours = "adamw_8bit" if "8bit" in name or "4bit" in name else "adamw_torch_fused"
        imported.lack("optimizer._component_", name, f"the recipe has {ours}, the nearest one")
    recipe["training.optim"] = ours
    if ours == "sgd":
        recipe.setdefault("training.weight_decay", 0.0)
    betas = imported.take("optimizer.betas")
    if isinstance(betas, list) and len(betas) == 2:
        recipe |= {"training.adam_beta1": betas[0], "training.adam_beta2": betas[1]}
    schedule = imported.take("lr_scheduler._component_")
    recipe["training.lr_scheduler_type"] = "constant" if schedule is None else "cosine"
    steps = imported.take("lr_scheduler.num_warmup_steps", 0)
    if steps:
        recipe["training.warmup_steps"] = steps
    if (cycles := imported.take("lr_scheduler.num_cycles", 0.5)) != 0.5:
        recipe["training.lr_scheduler_kwargs"] = {"num_cycles": cycles}
    if schedule is not None and not str(schedule).endswith("get_cosine_schedule_with_warmup"):
        imported.lack("lr_scheduler._component_", schedule, "the recipe has cosine")
    if (norm := imported.take("clip_grad_norm")) is not None:
        recipe["training.max_grad_norm"] = norm


def _take_loop(imported: ImportedSettings) -> None:
    """Take the number of steps, the order of the records, and what is recomputed."""
    epochs = imported.recipe.get("training.num_train_epochs", 1)
    most = imported.take("max_steps_per_epoch")
    if isinstance(most, int) and isinstance(epochs, int):
        imported.recipe["training.max_steps"] = most * epochs
        if epochs > 1:
            imported.lack("max_steps_per_epoch", most, f"{most * epochs} steps, in the order of whole epochs")
    if imported.take("shuffle", True) is False:
        imported.lack("shuffle", False, "records are in random order")
    if imported.take("enable_activation_offloading", False):
        imported.lack("enable_activation_offloading", True, "activations are kept on the GPU")


def _take_tracker(imported: ImportedSettings) -> None:
    logger = str(imported.take("metric_logger._component_", "")).rpartition(".")[2]
    imported.recipe["training.report_to"] = [_TRACKERS[logger]] if logger in _TRACKERS else []


def _take_objective(imported: ImportedSettings, origin: str) -> None:
    """Take the objective, which the loss names.

    Raises:
        WorkbenchError: a recipe does not have that loss.
    """
    loss = str(imported.take("loss._component_", _LIKELIHOODS[0]))
    if loss in _LIKELIHOODS:
        return
    if loss not in _PREFERENCES:
        raise WorkbenchError(
            f"{origin} trains in a way that a recipe does not have (loss._component_: {loss}).",
            f"Use {', '.join((*_LIKELIHOODS, *_PREFERENCES))}.",
            kind="recipe",
        )
    name, beta = _PREFERENCES[loss]
    recipe = imported.recipe
    recipe |= {"objective.kind": "dpo", "objective.loss_type": name, "objective.beta": imported.take(beta, 0.1)}
    if smoothing := imported.take("loss.label_smoothing", 0):
        imported.lack("loss.label_smoothing", smoothing, "the recipe's loss does not use it")
    if not recipe["data.completion_only"]:
        imported.lack("dataset.train_on_input", True, "responses are compared, and prompts are not trained")
    recipe["data.completion_only"] = True
    recipe.pop("data.format", None)
