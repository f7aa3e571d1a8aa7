"""Converts Axolotl configurations to recipes. What a file leaves out is Axolotl's default, not the one here.

Keys and defaults: https://docs.axolotl.ai/docs/config-reference.html.
"""

from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.export.other_tools.axolotl import LIGER, LIGERS_LAYERS, SAME
from workbench.export.other_tools.axolotl_data import take_datasets, take_pairs
from workbench.export.other_tools.imported_settings import ImportedSettings
from workbench.export.other_tools.keys import resolve_path
from workbench.objectives.table import choices_of
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.section import OFFLOAD

_TAKEN_APART = ("optimizer", "lr_scheduler", "lr_scheduler_kwargs", "warmup_ratio", "warmup_steps", "eval_steps",
                "neftune_noise_alpha", "group_by_length")  # fmt: skip
_BATCH: dict[str, object] = {
    "training.per_device_train_batch_size": 1,
    "training.gradient_accumulation_steps": 1,
}
_DEFAULTS: dict[str, object] = {
    # PEFT's, which Axolotl passes on.
    "adapter.r": 8,
    "adapter.lora_alpha": 8,
    "adapter.lora_dropout": 0.0,
    "data.max_length": 512,
    "data.packing": False,
    "training.num_train_epochs": 1.0,
    **_BATCH,
    "training.gradient_checkpointing": False,
    "training.lr_scheduler_type": "cosine",
    "training.warmup_ratio": 0.03,
    "training.weight_decay": 0.0,
    "training.max_grad_norm": 1.0,
    "training.optim": "adamw_torch_fused",
    "training.seed": 42,
}
# Settings that train something else than an adapter on these records.
_OTHER_TRAINING = ("process_reward_model", "relora", "use_eaft", "qat", "use_pose", "kd_trainer",
                   "trainer_cls")  # fmt: skip
_OTHER_PLUGINS = ("kd.", "diffusion.", "grokfast.", "spectrum.")
# Plugins that change speed and memory only.
_FAST_PLUGINS = ("cut_cross_entropy.", "kernels.", "expert_parallel.", "liger.")
# The earlier name of `liger_glu_activation`.
_LIGERS_OLD_NAME = "liger_swiglu"
_TRACKERS = {"tensorboard": "use_tensorboard", "wandb": "wandb_project", "trackio": "use_trackio",
             "mlflow": "use_mlflow", "comet_ml": "use_comet", "swanlab": "use_swanlab"}  # fmt: skip
# Settings that affect only speed, memory, logging or file locations.
_IGNORED = (
    "model_type", "tokenizer_type", "strict", "pad_to_sequence_len", "output_dir", "dataset_prepared_path", "tf32",
    "flash_attention", "gradient_checkpointing_kwargs", "eval_sample_packing", "ddp_find_unused_parameters",
    "trackio_project_name", "trackio_run_name", "trackio_space_id", "use_wandb", "mlflow_experiment_name",
    "wandb_entity", "wandb_watch", "wandb_name", "wandb_log_model", "xformers_attention", "debug", "swanlab_project",
    "swanlab_experiment_name", "swanlab_description", "swanlab_mode", "swanlab_workspace", "swanlab_log_model",
    "saves_per_epoch", "evals_per_epoch", "local_rank", "save_safetensors", "attn_implementation", "sdp_attention",
    "flex_attention", "flex_attn_compile_kwargs", "eager_attention", "flash_attn_rms_norm", "fused_attn_kernel",
    "liger_rope", "liger_layer_norm", "liger_cross_entropy", "liger_fused_linear_cross_entropy", "axolotl_config_path",
    "liger_rms_norm_gated", "lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "use_kernels", "use_scattermoe",
    "use_sonicmoe", "experts_implementation", "cut_cross_entropy", "gemma4_hybrid_attn_impl", "dataset_processes",
    "dataset_num_proc", "val_set_size", "chat_template", "chat_template_jinja", "test_datasets", "test_value",
    "dataloader_pin_memory", "dataloader_num_workers", "dataloader_prefetch_factor", "remove_unused_columns",
    "torch_compile_mode", "low_cpu_mem_usage", "hf_use_auth_token", "gptq_disable_exllama", "eval_batch_size",
    "skip_prepare_dataset", "auto_resume_from_checkpoints", "bfloat16", "torch_dtype", "dpo_padding_free",
    "dpo_use_liger_kernel", "use_otel_metrics", "otel_metrics_host", "otel_metrics_port",
)  # fmt: skip


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
        what = "not set: it trains all weights" if kind is None else kind
        raise WorkbenchError(
            f"{origin} does not train a LoRA adapter (adapter: {what}).",
            "Use adapter: lora or qlora.",
            kind="recipe",
        )
    known = choices_of("axolotl")
    choice = "reward" if imported.take("reward_model") else str(imported.take("rl", ""))
    found = known.get(choice)
    way = (
        f"A recipe has supervised training, reward_model: true, and rl: "
        f"{', '.join(name for name in known if name != 'reward')}. Remove that setting only if its data can be trained "
        "on as it is: prompts with one reply each."
    )
    imported.refuse((*_OTHER_TRAINING, *(() if found else ("rl",))), origin, way)
    recipe = imported.recipe
    recipe["model.source"] = resolve_path(str(imported.take("base_model", "")), folder)
    imported.move({theirs: path for theirs, path in SAME.items() if theirs not in _TAKEN_APART})
    _take_training(imported)
    if start := imported.take("lora_model_dir"):
        recipe["adapter.continue_from"] = resolve_path(str(start), folder)
    recipe["training.report_to"] = [name for name, theirs in _TRACKERS.items() if imported.take(theirs)]
    _take_quantization(imported)
    _take_targets(imported)
    _take_plugins(imported, origin, way)
    recipe["data.completion_only"] = not imported.take("train_on_inputs", False)
    imported.take_checkpoints()
    imported.take_held_out_share("val_set_size")
    if found is not None:
        objective, other = found
        imported.default(_BATCH)
        imported.take_objective(objective, other, choice)
        if choice == "reward":
            imported.ignore(["num_labels"])
        if objective.kind == "dpo":
            _take_losses(imported, str(recipe.get("objective.loss_type", "sigmoid")))
        take_pairs(imported, folder, objective)
    else:
        take_datasets(imported, folder)
    _take_template(imported)
    imported.take_noise("neftune_noise_alpha", "noisy_embedding_alpha")
    imported.take_grouping()
    if scale := imported.take("embedding_lr_scale"):
        rate = recipe.get("training.learning_rate")
        if isinstance(scale, int | float) and isinstance(rate, int | float):
            recipe["training.embedding_learning_rate"] = rate * scale
        else:
            imported.lack("embedding_lr_scale", scale)
    if (longer := imported.take("excess_length_strategy", "drop")) != "truncate":
        imported.lack("excess_length_strategy", longer, "records that are longer than sequence_len are truncated here")
    imported.default(_DEFAULTS)
    imported.ignore(_IGNORED)
    return imported.finish(origin, "datasets")


def _take_training(imported: ImportedSettings) -> None:
    """Take the optimizer, the schedule, the batch and what is recomputed."""
    recipe = imported.recipe
    imported.take_optimizer("optimizer")
    imported.take_schedule("lr_scheduler", "lr_scheduler_kwargs")
    imported.take_interval("eval_steps", "training.eval_steps")
    if (least := imported.take("cosine_min_lr_ratio")) and recipe.get(
        "training.lr_scheduler_type", "cosine"
    ) == "cosine":
        recipe["training.lr_scheduler_type"] = "cosine_with_min_lr"
        recipe["training.lr_scheduler_kwargs"] = {"min_lr_rate": least}
    total, micro = imported.take("batch_size"), recipe.get("training.per_device_train_batch_size", 1)
    if isinstance(total, int) and isinstance(micro, int) and micro:
        recipe.setdefault("training.gradient_accumulation_steps", max(1, total // micro))
    checkpointing, offloads = imported.take("gradient_checkpointing"), imported.take("activation_offloading")
    if checkpointing is not None or offloads:
        goes_to_host = bool(offloads) or str(checkpointing).startswith((OFFLOAD, "unsloth"))
        recipe["training.gradient_checkpointing"] = OFFLOAD if goes_to_host else bool(checkpointing)
    if offloads and not checkpointing:
        imported.lack("activation_offloading", offloads, "activations are recomputed, from checkpoints in host memory")
    elif isinstance(offloads, str) and offloads != "legacy":
        imported.lack("activation_offloading", offloads, "checkpoints are kept in host memory")
    if isinstance(checkpointing, str) and checkpointing not in (OFFLOAD, "unsloth"):
        ours = recipe["training.gradient_checkpointing"]
        imported.lack("gradient_checkpointing", checkpointing, f"the recipe has {str(ours).lower()}")


def _take_targets(imported: ImportedSettings) -> None:
    modules, linear = imported.take("lora_target_modules"), imported.take("lora_target_linear")
    if modules and not linear:
        imported.recipe["adapter.target_modules"] = modules
    elif not linear and not imported.take("lora_target_parameters"):
        imported.lack("lora_target_linear", linear, "the recipe adapts all linear layers")
    if parameters := imported.take("lora_target_parameters"):
        imported.lack("lora_target_parameters", parameters, "experts that are stored as one weight get no adapter")


def _take_plugins(imported: ImportedSettings, origin: str, way: str) -> None:
    plugins = imported.take("plugins", [])
    listed = [str(plugin) for plugin in (plugins if isinstance(plugins, list) else [plugins])]
    for plugin in listed:
        name = plugin.removeprefix("axolotl.integrations.")
        if name.startswith(_OTHER_PLUGINS):
            raise WorkbenchError(
                f"{origin} trains in a way that a recipe does not have (plugins: {plugin}).", way, kind="recipe"
            )
        if name.startswith("swanlab."):
            imported.recipe["training.report_to"] = [
                *[one for one in _reporters(imported) if one != "swanlab"], "swanlab",
            ]  # fmt: skip
        elif not name.startswith(_FAST_PLUGINS):
            imported.lack("plugins", plugin)
    wanted = [imported.take(name) for name in (*LIGERS_LAYERS, _LIGERS_OLD_NAME)]
    if LIGER in listed and any(wanted):
        imported.recipe["training.kernels"] = "liger"


def _reporters(imported: ImportedSettings) -> list[object]:
    reporters = imported.recipe["training.report_to"]
    return reporters if isinstance(reporters, list) else []


def _take_quantization(imported: ImportedSettings) -> None:
    four, eight = imported.take("load_in_4bit", False), imported.take("load_in_8bit", False)
    details = imported.take("bnb_config_kwargs", {})
    details = details if isinstance(details, dict) else {}
    imported.recipe["quantization.method"] = (
        str(details.get("bnb_4bit_quant_type", "nf4")) if four else "int8" if eight else "none"
    )
    imported.recipe["quantization.double_quant"] = bool(details.get("bnb_4bit_use_double_quant", True))
    half, brain = imported.take("fp16") or imported.take("float16"), imported.take("bf16", "auto")
    if half is True:
        imported.recipe["quantization.compute_dtype"] = "float16"
    elif brain is True:
        imported.recipe["quantization.compute_dtype"] = "bfloat16"
    elif brain is False:
        imported.recipe["quantization.compute_dtype"] = "float16" if eight else "float32"


def _take_template(imported: ImportedSettings) -> None:
    """Take the chat template, and what changes the text beside it."""
    name, own = imported.take("chat_template"), imported.take("chat_template_jinja")
    if "data.template" in imported.recipe:
        # Axolotl only saves the chat template where a dataset's type writes its own prompt.
        imported.ignore(["chat_template", "chat_template_jinja"])
    elif own and name in (None, "jinja"):
        imported.recipe["data.template"] = own
    elif name in ("chatml",):
        imported.recipe["data.template"] = name
    elif name not in (None, "tokenizer_default", "jinja"):
        imported.lack("chat_template", name, "the model's own is used")
    tokens = imported.take("special_tokens", {})
    # A padding token changes nothing: padding is not trained.
    others = {key: token for key, token in tokens.items() if key != "pad_token"} if isinstance(tokens, dict) else tokens
    if others:
        imported.lack("special_tokens", others, "the tokenizer's own are used")
    if (system := imported.take("default_system_message")) is not None:
        imported.recipe["data.system"] = system


def _take_losses(imported: ImportedSettings, loss: str) -> None:
    """Take the losses of DPO: one, or one and the likelihood of the chosen response (sft) with its weight."""
    losses = imported.take("dpo_loss_type", [loss])
    listed = losses if isinstance(losses, list) else [losses]
    weights = imported.take("dpo_loss_weights", [1.0] * len(listed))
    if len(listed) == 1:
        imported.recipe["objective.loss_type"] = listed[0]
    elif isinstance(weights, list) and len(weights) == 2 and weights[0] == 1 and listed[1:] == ["sft"]:
        imported.recipe |= {"objective.loss_type": listed[0], "objective.rpo_alpha": weights[1]}
    else:
        imported.lack("dpo_loss_type", losses, f"a recipe has one loss, {loss}")
    if imported.recipe.get("objective.loss_type") != "robust":
        smoothing = imported.recipe.pop("objective.label_smoothing", None)
        if smoothing:
            imported.lack("dpo_label_smoothing", smoothing, f"TRL's loss {listed[0]} does not use it")
