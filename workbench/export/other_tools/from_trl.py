"""Converts the YAML files of TRL's command line, and the arguments of its classes in a notebook, to recipes.

What is left out is TRL's default (``SFTConfig``, ``ModelConfig``) and transformers', not the one here.
"""

from pathlib import Path

from workbench.export.other_tools.imported_settings import ImportedSettings
from workbench.export.other_tools.keys import OF_TRANSFORMERS, resolve_path
from workbench.objectives.table import OBJECTIVES
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.section import OFFLOAD

SAME = {
    "model_revision": "model.revision",
    "trust_remote_code": "model.trust_remote_code",
    "lora_r": "adapter.r",
    "lora_alpha": "adapter.lora_alpha",
    "lora_dropout": "adapter.lora_dropout",
    "lora_modules_to_save": "adapter.modules_to_save",
    "use_rslora": "adapter.use_rslora",
    "use_dora": "adapter.use_dora",
    "max_length": "data.max_length",
    "packing": "data.packing",
    "num_train_epochs": "training.num_train_epochs",
    **OF_TRANSFORMERS,
    "per_device_train_batch_size": "training.per_device_train_batch_size",
    "gradient_checkpointing": "training.gradient_checkpointing",
    "data_seed": "training.data_seed",
    "save_only_model": "training.save_only_model",
    "eval_on_start": "training.eval_on_start",
    # Unsloth's, beside TRL's.
    "embedding_learning_rate": "training.embedding_learning_rate",
}
_DEFAULTS: dict[str, object] = {
    "adapter.r": 16,
    "adapter.lora_alpha": 32,
    "adapter.lora_dropout": 0.05,
    "data.max_length": 1024,
    "data.packing": False,
    "data.eval_fraction": 0.0,
    "training.num_train_epochs": 3.0,
    "training.per_device_train_batch_size": 8,
    "training.gradient_accumulation_steps": 1,
    "training.learning_rate": 2e-5,
    "training.lr_scheduler_type": "linear",
    "training.warmup_ratio": 0.0,
    "training.gradient_checkpointing": True,
    "training.optim": "adamw_torch_fused",
}
_PREFERENCE_RATES = {"dpo": 1e-6, "kto": 1e-6}
# Keys of the objectives' configurations: which of them a file has says what it trains.
_MARKS = {"kto": ("desirable_weight", "undesirable_weight"), "dpo": ("beta", "label_smoothing")}
_IGNORED = (
    "dtype", "torch_dtype", "bf16", "fp16", "output_dir", "eval_strategy", "dataset_num_proc",
    "per_device_eval_batch_size", "gradient_checkpointing_kwargs", "use_cpu", "run_name", "logging_dir", "push_to_hub",
    "hub_model_id", "dataset_test_split", "dataset_streaming", "lora_task_type", "padding_free", "dataset_text_field",
    "dataloader_num_workers", "log_level", "overwrite_output_dir", "logging_strategy", "precompute_ref_log_probs",
    "use_peft", "eos_token", "logging_first_step", "remove_unused_columns",
)  # fmt: skip


def is_trl(values: dict[str, object]) -> bool:
    """Whether these are the settings of TRL's command line."""
    return "model_name_or_path" in values and bool({"dataset_name", "datasets", "use_peft", "lora_r"} & values.keys())


def from_trl(values: dict[str, object], folder: Path, origin: str, kind: str = "") -> tuple[Recipe, list[str]]:
    """Convert a file to a recipe; also lists its settings that a recipe does not support.

    Args:
        folder: the file's folder, to which its paths are relative.
        origin: the file's name, for error messages.
        kind: the objective, where the caller knows it; a file of the command line leaves it to the command.

    Raises:
        WorkbenchError: it trains no adapter, or has values that a recipe does not allow.
    """
    imported = ImportedSettings(values)
    if not values.get("use_peft"):
        imported.refuse(
            ("model_name_or_path",), origin, "Set use_peft: true.", "trains all weights: use_peft is not true"
        )
    recipe = imported.recipe
    recipe["model.source"] = resolve_path(str(imported.take("model_name_or_path", "")), folder)
    imported.move(SAME)
    _take_objective(imported, kind)
    _take_places(imported)
    _take_data(imported, folder)
    imported.take_optimizer("optim")
    imported.take_schedule("lr_scheduler_type", "lr_scheduler_kwargs")
    imported.take_noise("neftune_noise_alpha")
    imported.take_smoothing("label_smoothing_factor")
    imported.take_grouping()
    imported.take_interval("eval_steps", "training.eval_steps")
    imported.take_checkpoints()
    imported.take_reporters("report_to")
    if imported.take("use_liger_kernel"):
        recipe["training.kernels"] = "liger"
    if imported.take("attn_implementation") == "eager":  # the others compute what auto does
        recipe["model.attn_implementation"] = "eager"
    if imported.take("activation_offloading"):
        if recipe.get("training.gradient_checkpointing") is False:
            imported.lack("activation_offloading", True, "activations are recomputed, from checkpoints in host memory")
        recipe["training.gradient_checkpointing"] = OFFLOAD
    rate = _PREFERENCE_RATES.get(str(recipe.get("objective.kind")), _DEFAULTS["training.learning_rate"])
    imported.default({**_DEFAULTS, "training.learning_rate": rate})
    imported.ignore(_IGNORED)
    return imported.finish(origin, "dataset_name")


def _take_objective(imported: ImportedSettings, kind: str) -> None:
    """Take the objective: the one that the keys belong to, if nobody names it."""
    found = kind or next((name for name, marks in _MARKS.items() if any(map(imported.has, marks))), "sft")
    spec = OBJECTIVES[found]
    if found == "sft":
        if (loss := imported.take("loss_type", "nll")) not in ("nll", "chunked_nll"):
            imported.lack("loss_type", loss, "the recipe has the negative log-likelihood")
        return
    imported.recipe["objective.kind"] = found
    if spec.trl is not None:
        imported.move({key: f"objective.{key}" for key in spec.trl.arguments})
    losses = imported.recipe.get("objective.loss_type")
    if isinstance(losses, list) and len(losses) == 1:
        imported.recipe["objective.loss_type"] = losses[0]
    if not kind:
        imported.unsupported.append(f"the command says what is trained (trl sft, trl dpo …); by its keys it is {found}")


def _take_places(imported: ImportedSettings) -> None:
    """Take the adapted layers and the quantization."""
    recipe = imported.recipe
    modules = imported.take("lora_target_modules")
    if modules in ("all-linear", ["all-linear"]):
        recipe["adapter.target_modules"] = "all-linear"
    elif modules:
        recipe["adapter.target_modules"] = modules
    else:
        imported.lack("lora_target_modules", None, "PEFT's choice for the model; the recipe adapts all linear layers")
    four, eight = imported.take("load_in_4bit"), imported.take("load_in_8bit")
    kind = str(imported.take("bnb_4bit_quant_type", "nf4"))
    recipe["quantization.method"] = kind if four else "int8" if eight else "none"
    recipe["quantization.double_quant"] = bool(imported.take("use_bnb_nested_quant", False))


def _take_data(imported: ImportedSettings, folder: Path) -> None:
    """Take the dataset, and what of it is trained."""
    recipe = imported.recipe
    name, config = imported.take("dataset_name"), imported.take("dataset_config")
    if name:
        source = resolve_path(str(name), folder)
        recipe["data.source"] = f"{source}:{config}" if config else source
    mixed = imported.take("datasets", [])
    entries = [one for one in mixed if isinstance(one, dict) and one.get("path")] if isinstance(mixed, list) else []
    if entries:
        imported.set_sources([
            {"source": str(one["path"]) + (f":{one['name']}" if one.get("name") else "")}
            | ({"split": str(one["split"])} if one.get("split") not in (None, "train") else {})
            for one in entries
        ])  # fmt: skip
    if (split := imported.take("dataset_train_split", "train")) != "train":
        recipe["data.split"] = split
    own, whole = imported.take("assistant_only_loss"), imported.take("completion_only_loss")
    if own or whole is not None or recipe.get("objective.kind", "sft") != "sft":
        recipe["data.completion_only"] = bool(own or whole is not False)
    else:
        imported.lack("assistant_only_loss", False, "only responses are trained (data.completion_only)")
