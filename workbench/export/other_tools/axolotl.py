"""Converts recipes to Axolotl configurations and back. Keys: https://docs.axolotl.ai/docs/config-reference.html."""

from pathlib import Path
from typing import Any

from workbench.errors import WorkbenchError
from workbench.export.conversations import RecordFile, write_conversations
from workbench.export.other_tools.keys import (
    ImportedSettings,
    checkpoint_settings,
    resolve_path,
    to_yaml,
    unsupported_settings,
)
from workbench.export.work import Job, chat_template
from workbench.objectives.objective import RecordKind
from workbench.objectives.table import choices_of
from workbench.recipe.resolved import ResolvedRecipe
from workbench.recipe.schema import Recipe
from workbench.recipe.trackers import PROJECT

FILE = "axolotl.yaml"

# Settings that have the same meaning and values in both: Axolotl's name, and the recipe's dotted key.
_SAME = {
    "revision_of_model": "model.revision",
    "trust_remote_code": "model.trust_remote_code",
    "lora_r": "adapter.r",
    "lora_alpha": "adapter.lora_alpha",
    "lora_dropout": "adapter.lora_dropout",
    "lora_modules_to_save": "adapter.modules_to_save",
    "lora_rank_pattern": "adapter.rank_pattern",
    "lora_alpha_pattern": "adapter.alpha_pattern",
    "peft_layers_to_transform": "adapter.layers_to_transform",
    "peft_use_dora": "adapter.use_dora",
    "peft_use_rslora": "adapter.use_rslora",
    "peft_init_lora_weights": "adapter.init_lora_weights",
    "sequence_len": "data.max_length",
    "sample_packing": "data.packing",
    "num_epochs": "training.num_train_epochs",
    "max_steps": "training.max_steps",
    "micro_batch_size": "training.per_device_train_batch_size",
    "gradient_accumulation_steps": "training.gradient_accumulation_steps",
    "learning_rate": "training.learning_rate",
    "lr_scheduler": "training.lr_scheduler_type",
    "warmup_ratio": "training.warmup_ratio",
    "weight_decay": "training.weight_decay",
    "max_grad_norm": "training.max_grad_norm",
    "optimizer": "training.optim",
    "logging_steps": "training.logging_steps",
    "eval_steps": "training.eval_steps",
    "save_total_limit": "training.save_total_limit",
    "early_stopping_patience": "training.early_stopping_patience",
    "seed": "training.seed",
    "torch_compile": "training.torch_compile",
}
_COMPOSED = (
    "model.source",
    "quantization.method",
    "quantization.double_quant",
    "quantization.compute_dtype",
    "adapter.target_modules",
    "data.source",
    # Has no effect on exported records, which are written in the order of the mix.
    "data.stopping",
    "data.format",
    "data.columns",
    "data.split",
    "data.malformed",
    "data.eval_fraction",
    "data.template",
    "data.system",
    "data.completion_only",
    "training.gradient_checkpointing",
    # Has no effect on an exported recipe, in which the micro-batch is a number.
    "training.effective_batch_size",
    "training.report_to",
    "training.save_steps",
    "training.keep",
    "output.name",
    "output.dir",
)
# What makes a configuration train on rewards, or on preferences in a way that a recipe does not have.
_OTHER_TRAINING = ("rl", "reward_model", "process_reward_model")
# The kinds of dataset that need nothing else, and what they set. Alpaca's brings its own prompt, whatever the model.
_ALPACA = {"data.format": "instruction", "data.template": "alpaca"}
_TYPES = {
    "alpaca": _ALPACA,
    "chat_template": {},
    "sharegpt": {"data.format": "sharegpt"},
    "completion": {"data.format": "text"},
    "pretrain": {"data.format": "text"},
    "input_output": {"data.format": "segments"},
}
_LIGER = "axolotl.integrations.liger.LigerPlugin"
_LIGERS_LAYERS = ("liger_rms_norm", "liger_glu_activation")
# The earlier name of `liger_glu_activation`.
_LIGERS_OLD_NAME = "liger_swiglu"
_OPTIMIZERS = {"adamw_bnb_8bit": "adamw_8bit", "adamw_hf": "adamw_torch"}
# Settings that affect only speed, logging or file locations.
_IGNORED = (
    "model_type", "tokenizer_type", "strict", "pad_to_sequence_len", "output_dir", "dataset_prepared_path", "tf32",
    "flash_attention", "gradient_checkpointing_kwargs", "bf16", "fp16", "eval_sample_packing", "group_by_length",
    "trackio_project_name", "trackio_run_name", "trackio_space_id",
    "wandb_entity", "wandb_watch", "wandb_name", "wandb_log_model", "xformers_attention", "debug",
    "special_tokens", "saves_per_epoch", "evals_per_epoch", "local_rank", "save_safetensors", "attn_implementation",
    "liger_rope", "liger_layer_norm", "liger_cross_entropy", "liger_fused_linear_cross_entropy", "axolotl_config_path",
    "dataset_processes", "val_set_size", "chat_template", "chat_template_jinja", "test_datasets",
)  # fmt: skip


def make(job: Job) -> None:
    """Write ``axolotl.yaml`` and the records."""
    files = write_conversations(job.home, job.recipe.data, job.folder)
    model, _ = job.name_base()
    values, unsupported = to_axolotl(job.recipe, model, files, chat_template(job))
    job.write(FILE, to_yaml(values, f"{job.subject} for Axolotl: axolotl train {FILE}"))
    job.notices += [f"Not supported by Axolotl: {words}" for words in unsupported]
    job.command = f"axolotl train {FILE}"


def to_axolotl(
    recipe: ResolvedRecipe, model: str, files: list[RecordFile], template: str = ""
) -> tuple[dict[str, object], list[str]]:
    """Convert a recipe to a configuration; also lists the recipe's settings that Axolotl does not support.

    Args:
        model: hub id or folder of the base.
        files: the records written next to the configuration.
        template: chat template as Jinja; empty for the tokenizer's own.
    """
    quantization, adapter, training = recipe.quantization, recipe.adapter, recipe.training
    understood = [*_SAME.values(), *_COMPOSED]
    values: dict[str, object] = {
        "base_model": model,
        "adapter": "lora" if quantization.method in ("none", "int8") else "qlora",
        "load_in_4bit": quantization.method in ("nf4", "fp4"),
        "load_in_8bit": quantization.method == "int8",
    }
    if values["load_in_4bit"]:
        values["bnb_config_kwargs"] = {
            "bnb_4bit_quant_type": quantization.method,
            "bnb_4bit_use_double_quant": quantization.double_quant,
        }
    values |= {
        "bf16": {"auto": "auto", "bfloat16": True}.get(quantization.compute_dtype, False),
        "fp16": quantization.compute_dtype == "float16",
    }
    match adapter.target_modules:
        case "all-linear":
            values["lora_target_linear"] = True
        case modules:
            values["lora_target_modules"] = modules
    default = Recipe()
    for theirs, path in _SAME.items():
        value = recipe.get(path)
        is_off = path in ("training.max_steps", "training.eval_steps", "training.early_stopping_patience") and value < 1
        is_rare = theirs.startswith(("peft_", "lora_rank_", "lora_alpha_p"))
        if value is not None and not is_off and (value != default.get(path) or not is_rare):
            values[theirs] = value
    saving, unsupported = checkpoint_settings(training)
    values |= saving
    values |= {
        "chat_template": "jinja" if template else "tokenizer_default",
        **({"chat_template_jinja": template} if template else {}),
        "train_on_inputs": not recipe.data.completion_only,
        "gradient_checkpointing": training.gradient_checkpointing,
        "datasets": [_dataset(file) for file in files if not file.held_out],
        "val_set_size": 0,
        "output_dir": "./output",
    }
    if training.gradient_checkpointing:
        values["gradient_checkpointing_kwargs"] = {"use_reentrant": quantization.method == "int8"}
    if training.kernels == "liger":
        values |= {"plugins": [_LIGER], **dict.fromkeys(_LIGERS_LAYERS, True)}
        understood.append("training.kernels")
    if "tensorboard" in training.report_to:
        values["use_tensorboard"] = True
    if "wandb" in training.report_to:
        values |= {"wandb_project": PROJECT, "wandb_name": recipe.output.name}
    if "trackio" in training.report_to:
        values |= {"use_trackio": True, "trackio_project_name": PROJECT, "trackio_run_name": recipe.output.name}
    if held_out := [{**_dataset(file), "split": "train"} for file in files if file.held_out]:
        values["test_datasets"] = held_out
    return values, unsupported + unsupported_settings(recipe, understood)


def from_axolotl(values: dict[str, object], folder: Path, origin: str) -> tuple[Recipe, list[str]]:
    """Convert a configuration to a recipe; also lists its settings that a recipe does not support.

    Args:
        folder: the configuration's folder, to which its paths are relative.
        origin: the configuration's name, for error messages.

    Raises:
        WorkbenchError: it does not train a LoRA adapter, or has values that a recipe does not allow.
    """

    imported = ImportedSettings(values)
    kind = imported.take("adapter")
    if kind not in ("lora", "qlora"):
        raise WorkbenchError(
            f"{origin} does not train a LoRA adapter (adapter: {kind}).",
            "Use adapter: lora or qlora.",
            kind="recipe",
        )
    known = {choice: (objective, other) for choice, objective, other in choices_of("axolotl")}
    choice = str(imported.take("rl", ""))
    found = known.get(choice)
    others = [f"{key}: {values[key]}" for key in _OTHER_TRAINING if values.get(key) and (key != "rl" or not found)]
    if others:
        raise WorkbenchError(
            f"{origin} trains in a way that a recipe does not have ({others[0]}).",
            f"A recipe has supervised training, and rl: {', '.join(known)}. Remove that setting only if its data can "
            "be trained on as it is: prompts with one reply each.",
            kind="recipe",
        )
    recipe = imported.recipe
    recipe["model.source"] = resolve_path(str(imported.take("base_model", "")), folder)
    imported.move(_SAME)
    if optim := recipe.get("training.optim"):
        recipe["training.optim"] = _OPTIMIZERS.get(str(optim), optim)
    trackers = {"tensorboard": "use_tensorboard", "wandb": "wandb_project", "trackio": "use_trackio"}
    reporters = {name: imported.take(theirs) for name, theirs in trackers.items()}
    recipe["training.report_to"] = [name for name, wanted in reporters.items() if wanted]
    _take_quantization(imported)
    modules, linear = imported.take("lora_target_modules"), imported.take("lora_target_linear")
    if modules and not linear:
        recipe["adapter.target_modules"] = modules
    if (checkpointing := imported.take("gradient_checkpointing")) is not None:
        recipe["training.gradient_checkpointing"] = bool(checkpointing)
    _take_plugins(imported)
    recipe["data.completion_only"] = not imported.take("train_on_inputs", False)
    imported.take_warmup()
    imported.take_checkpoints()
    if isinstance(size := values.get("val_set_size"), int | float):
        recipe["data.eval_fraction"] = float(size)
    if values.get("chat_template") == "jinja" and values.get("chat_template_jinja"):
        recipe["data.template"] = values["chat_template_jinja"]
    elif values.get("chat_template") not in (None, "tokenizer_default", "jinja"):
        name = str(values["chat_template"])
        recipe["data.template"] = name if name in ("chatml", "alpaca") else "auto"
        if recipe["data.template"] == "auto":
            imported.unsupported.append(f"chat_template: {name!r}; the model's own is used")
    if found is not None:
        objective, other = found
        imported.take_objective(objective, other, choice)
        if objective.kind == "dpo":
            _take_losses(imported, str(imported.recipe.get("objective.loss_type", "sigmoid")))
        _take_pairs(imported, folder, objective.records)
    else:
        _take_datasets(imported, folder)
    imported.check_held_out(*([entry["path"] for entry in _entries(values.get(key))] for key in _HELD_OUT_AND_TRAINED))
    imported.ignore(_IGNORED)
    return imported.finish(origin)


def _dataset(file: RecordFile) -> dict[str, object]:
    common = {"path": f"./{file.name}", "ds_type": "json"}
    if file.kind == "text":
        return {**common, "type": "completion", "field": "text"}
    if file.kind == "segments":
        return {**common, "type": "input_output"}
    return {**common, "type": "chat_template", "field_messages": "messages", "roles_to_train": ["assistant"]}


def _take_plugins(imported: ImportedSettings) -> None:
    plugins = imported.take("plugins", [])
    listed = plugins if isinstance(plugins, list) else [plugins]
    imported.unsupported += [f"plugins: {plugin!r}" for plugin in listed if plugin != _LIGER]
    wanted = [imported.take(name) for name in (*_LIGERS_LAYERS, _LIGERS_OLD_NAME)]
    if _LIGER in listed and any(wanted):
        imported.recipe["training.kernels"] = "liger"


def _take_quantization(imported: ImportedSettings) -> None:
    four, eight = imported.take("load_in_4bit", False), imported.take("load_in_8bit", False)
    details = imported.take("bnb_config_kwargs", {})
    details = details if isinstance(details, dict) else {}
    imported.recipe["quantization.method"] = (
        str(details.get("bnb_4bit_quant_type", "nf4")) if four else "int8" if eight else "none"
    )
    imported.recipe["quantization.double_quant"] = bool(details.get("bnb_4bit_use_double_quant", True))
    if imported.take("fp16") is True:
        imported.recipe["quantization.compute_dtype"] = "float16"


def _take_losses(imported: ImportedSettings, loss: str) -> None:
    """Take the losses of DPO. A list of them with weights is not supported; a list of one is that loss."""
    losses = imported.take("dpo_loss_type", [loss])
    listed = losses if isinstance(losses, list) else [losses]
    if len(listed) != 1:
        imported.unsupported.append(f"dpo_loss_type: {losses!r}; a recipe has one loss, {loss}")
    if len(listed) == 1:
        imported.recipe["objective.loss_type"] = listed[0]
    smoothing = imported.take("dpo_label_smoothing")
    if smoothing and imported.recipe.get("objective.loss_type") == "robust":
        imported.recipe["objective.label_smoothing"] = smoothing
    elif smoothing:
        imported.unsupported.append(f"dpo_label_smoothing: {smoothing!r}; TRL's loss {listed[0]} does not use it")


def _take_pairs(imported: ImportedSettings, folder: Path, kind_of_records: RecordKind) -> None:
    """Take the datasets of preference training: the columns of each, and the template that its type names."""
    usual = {"prompt": "prompt", "reply": "completion", "label": "label"}
    if kind_of_records == "pairs":
        usual = {"chosen": "chosen", "rejected": "rejected"}
    sources: list[dict[str, object]] = []
    for entry in _entries(imported.take("datasets")):
        kind = entry.get("type", "chat_template")
        fields = {**entry, **kind} if isinstance(kind, dict) else entry
        family = kind.partition(".")[0] if isinstance(kind, str) else ""
        imported.unsupported += [f"datasets: {key}: {fields[key]!r}" for key in fields if key not in _PAIR_KEYS]
        if family == "chatml":
            imported.recipe["data.template"] = "chatml"
        elif family not in ("", "chat_template"):
            imported.unsupported.append(f"datasets: type: {kind!r}; the model's own template is used")
        source: dict[str, object] = {"source": resolve_path(str(entry["path"]), folder)}
        if entry.get("name"):
            source["source"] = f"{source['source']}:{entry['name']}"
        if (split := entry.get("split")) and split != "train":
            source["split"] = str(split)
        named = {part: str(fields[key]) for key, part in _PAIR_FIELDS.items() if fields.get(key)}
        if named:
            source["columns"] = {**usual, **named}
        sources.append(source)
    imported.set_sources(sources)


def _take_datasets(imported: ImportedSettings, folder: Path) -> None:
    """Take the datasets, which Axolotl joins: as text, or as a list where one has a split or columns of its own."""
    sources: list[dict[str, object]] = []
    implied: list[dict[str, str]] = []
    for entry in [*_entries(imported.take("datasets")), *_entries(imported.take("pretraining_dataset"), "pretrain")]:
        kind = entry.get("type", "chat_template")
        # `alpaca.load_no_prompt`, `chat_template.default`: the part after the point chooses a variant.
        of_ours = _TYPES.get(kind.partition(".")[0]) if isinstance(kind, str) else None
        implied.append(of_ours or {})
        fields = {**entry, **kind} if isinstance(kind, dict) else entry
        imported.unsupported += [f"datasets: {key}: {fields[key]!r}" for key in fields if key not in _DATASET_KEYS]
        if (of_ours is None and not isinstance(kind, dict)) or (of_ours is _ALPACA and kind != "alpaca"):
            imported.unsupported.append(f"datasets: type: {kind!r}; the format is recognised from the records")
        path = resolve_path(str(entry["path"]), folder)
        source: dict[str, object] = {"source": f"{path}:{entry['name']}" if entry.get("name") else path}
        if (split := entry.get("split")) and split != "train":
            source["split"] = str(split)
        if columns := _columns(fields, is_text=of_ours == {"data.format": "text"}):
            source["columns"] = columns
        sources.append(source)
    alike = all(one == implied[0] for one in implied)
    if alike and any(implied):
        imported.recipe |= implied[0]
    elif any("data.template" in one for one in implied) or all(source.keys() == {"source"} for source in sources):
        if any(implied):
            imported.unsupported.append("datasets: a type of its own each; the formats are recognised from the records")
    else:
        for source, one in zip(sources, implied, strict=True):
            source |= {key.removeprefix("data."): value for key, value in one.items()}
    imported.set_sources(sources)


def _columns(fields: dict[str, Any], is_text: bool) -> dict[str, str]:
    """The columns that a dataset names, by part of a record; those that are found by their names need no entry."""
    names = {part: str(fields[key]) for key, part in _FIELDS.items() if fields.get(key)}
    if not is_text or names.get("text") == "text":
        names.pop("text", None)
    if names.get("messages") in ("messages", "conversations"):
        del names["messages"]
    if names and not names.keys() & {"messages", "text", "prompt"}:
        names = ({"prompt": "instruction"} if "reply" in names else {"messages": "messages"}) | names
    return names


# Axolotl's names of columns, and the part of a record that each holds.
_FIELDS = {
    "field_messages": "messages", "field_tools": "tools", "text_column": "text", "field": "text",
    "field_instruction": "prompt", "field_input": "input", "field_output": "reply", "field_system": "system",
}  # fmt: skip
_DATASET_KEYS = (*_FIELDS, "path", "name", "ds_type", "type", "roles_to_train", "split", "chat_template")
# The same of pairs.
_PAIR_FIELDS = {
    "field_messages": "prompt", "field_prompt": "prompt", "field_system": "system", "field_chosen": "chosen",
    "field_rejected": "rejected", "field_completion": "reply", "field_label": "label",
}  # fmt: skip
_PAIR_KEYS = (*_PAIR_FIELDS, "path", "name", "ds_type", "type", "split", "chat_template")
_HELD_OUT_AND_TRAINED = ("test_datasets", "datasets")


def _entries(listed: object, kind: str = "chat_template") -> list[dict[str, Any]]:
    """The datasets that are named: as a list of settings each, or as one name."""
    entries = listed if isinstance(listed, list) else [listed]
    named = [{"path": entry} if isinstance(entry, str) else entry for entry in entries]
    return [{"type": kind, **entry} for entry in named if isinstance(entry, dict) and entry.get("path")]
