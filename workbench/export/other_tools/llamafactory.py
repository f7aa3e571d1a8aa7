"""Converts recipes to LLaMA-Factory configurations and back. Keys: https://llamafactory.readthedocs.io."""

import json
from pathlib import Path

from workbench.data.rows.dataset_info import FILE as INFO
from workbench.errors import WorkbenchError
from workbench.export.conversations import RecordFile, write_conversations
from workbench.export.other_tools.keys import (
    ImportedSettings,
    checkpoint_settings,
    resolve_path,
    to_yaml,
    unsupported_settings,
)
from workbench.export.work import Job
from workbench.objectives.table import choices_of
from workbench.recipe.resolved import ResolvedRecipe
from workbench.recipe.schema import Recipe
from workbench.recipe.trackers import known_reporters

FILE = "llamafactory.yaml"

# Settings that have the same meaning and values in both: LLaMA-Factory's name, and the recipe's dotted key.
_SAME = {
    "model_revision": "model.revision",
    "trust_remote_code": "model.trust_remote_code",
    "lora_rank": "adapter.r",
    "lora_alpha": "adapter.lora_alpha",
    "lora_dropout": "adapter.lora_dropout",
    "use_rslora": "adapter.use_rslora",
    "use_dora": "adapter.use_dora",
    "cutoff_len": "data.max_length",
    "packing": "data.packing",
    "num_train_epochs": "training.num_train_epochs",
    "max_steps": "training.max_steps",
    "per_device_train_batch_size": "training.per_device_train_batch_size",
    "gradient_accumulation_steps": "training.gradient_accumulation_steps",
    "learning_rate": "training.learning_rate",
    "lr_scheduler_type": "training.lr_scheduler_type",
    "warmup_ratio": "training.warmup_ratio",
    "weight_decay": "training.weight_decay",
    "max_grad_norm": "training.max_grad_norm",
    "optim": "training.optim",
    "logging_steps": "training.logging_steps",
    "eval_steps": "training.eval_steps",
    "save_total_limit": "training.save_total_limit",
    "early_stopping_steps": "training.early_stopping_patience",
    "seed": "training.seed",
    "torch_compile": "training.torch_compile",
}
# The templates that have the same name and wording in both.
_TEMPLATES = ("alpaca", "chatml")
_COMPOSED = (
    "model.source",
    "quantization.method",
    "quantization.double_quant",
    "quantization.compute_dtype",
    "adapter.modules_to_save",
    "data.source",
    # Has no effect on exported records, which are written in the order of the mix.
    "data.stopping",
    "data.format",
    "data.columns",
    "data.split",
    "data.malformed",
    "data.eval_fraction",
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
_OPTIMIZERS = {"adamw_bnb_8bit": "adamw_8bit", "adamw_hf": "adamw_torch"}
_IGNORED = (
    "do_train", "do_eval", "output_dir", "overwrite_output_dir", "overwrite_cache", "preprocessing_num_workers",
    "dataloader_num_workers", "plot_loss", "ddp_timeout", "bf16", "fp16", "flash_attn", "run_name",
    "quantization_method", "eval_strategy", "evaluation_strategy", "per_device_eval_batch_size", "save_only_model",
    "include_num_input_tokens_seen", "resume_from_checkpoint", "quantization_type",
)  # fmt: skip
# How several datasets are mixed: LLaMA-Factory's name, and ``data.stopping``.
_MIXES = {
    "interleave_under": "first_exhausted",
    "interleave_over": "all_exhausted",
    "interleave_once": "all_exhausted_without_replacement",
}


def make(job: Job) -> None:
    """Write ``llamafactory.yaml``, ``dataset_info.json`` and the records."""
    files = write_conversations(job.home, job.recipe.data, job.folder)
    if any(file.kind == "segments" for file in files):
        raise WorkbenchError(
            "LLaMA-Factory trains on no records of labeled segments.",
            "Export to axolotl or script, which do.",
            kind="bad_request",
        )
    model, _ = job.name_base()
    values, unsupported = to_llamafactory(job.recipe, model, files)
    job.write(FILE, to_yaml(values, f"{job.subject} for LLaMA-Factory: llamafactory-cli train {FILE}"))
    job.write(INFO, json.dumps({_name(file): _dataset(file) for file in files}, indent=1) + "\n")
    job.notices += [f"Not supported by LLaMA-Factory: {words}" for words in unsupported]
    if "template" not in values:
        job.notices.append("LLaMA-Factory uses the tokenizer's chat template; it cannot be overridden here.")
    job.command = f"llamafactory-cli train {FILE}"


def to_llamafactory(recipe: ResolvedRecipe, model: str, files: list[RecordFile]) -> tuple[dict[str, object], list[str]]:
    """Convert a recipe to a configuration; also lists the recipe's settings that LLaMA-Factory does not support.

    Args:
        model: hub id or folder of the base.
        files: the records written next to the configuration.
    """
    quantization, adapter, training = recipe.quantization, recipe.adapter, recipe.training
    understood = [*_SAME.values(), *_COMPOSED]
    values: dict[str, object] = {
        "model_name_or_path": model,
        "stage": "pt" if files and all(file.kind == "text" for file in files) else "sft",
        "do_train": True,
        "finetuning_type": "lora",
    }
    values |= _quantization(recipe)
    if adapter.target_modules == "all-linear" or isinstance(adapter.target_modules, list):
        modules = adapter.target_modules
        values["lora_target"] = "all" if isinstance(modules, str) else ",".join(modules)
        understood.append("adapter.target_modules")
    if adapter.modules_to_save:
        values["additional_target"] = ",".join(adapter.modules_to_save)
    if adapter.init_lora_weights == "pissa":
        values["pissa_init"] = True
        understood.append("adapter.init_lora_weights")
    for theirs, path in _SAME.items():
        value = recipe.get(path)
        is_off = path in ("training.max_steps", "training.eval_steps", "training.early_stopping_patience") and value < 1
        if value is not None and not is_off:
            values[theirs] = value
    saving, unsupported = checkpoint_settings(training)
    values |= saving
    if training.eval_steps:
        values["eval_strategy"] = "steps"
    if training.early_stopping_patience or training.keep == "best":
        values |= {"metric_for_best_model": "eval_loss", "greater_is_better": False}
    if values["stage"] == "sft":
        values |= _supervised(recipe)
        understood += ["data.template"] if "template" in values else []
    values |= {
        "disable_gradient_checkpointing": not training.gradient_checkpointing,
        "bf16": quantization.compute_dtype in ("auto", "bfloat16"),
        "fp16": quantization.compute_dtype == "float16",
        "dataset_dir": ".",
        "dataset": ",".join(_name(file) for file in files if not file.held_out),
        "output_dir": "output",
        "run_name": recipe.output.name,
    }
    if training.kernels == "liger":
        values["enable_liger_kernel"] = True
        understood.append("training.kernels")
    if training.report_to:
        values["report_to"] = list(training.report_to)
    if held_out := [_name(file) for file in files if file.held_out]:
        values["eval_dataset"] = ",".join(held_out)
    return values, unsupported + unsupported_settings(recipe, understood)


def from_llamafactory(values: dict[str, object], folder: Path, origin: str) -> tuple[Recipe, list[str]]:
    """Convert a configuration to a recipe; also lists its settings that a recipe does not support.

    Args:
        folder: the configuration's folder, to which its paths are relative.
        origin: the configuration's name, for error messages.

    Raises:
        WorkbenchError: it does not train a LoRA adapter, or has values that a recipe does not allow.
    """
    imported = ImportedSettings(values)
    stage, kind = imported.take("stage", "sft"), imported.take("finetuning_type", "lora")
    known = {choice: (objective, other) for choice, objective, other in choices_of("llamafactory")}
    losses = [choice.partition("/")[2] for choice in known if choice.startswith("dpo/")]
    stages = list(dict.fromkeys(choice.partition("/")[0] for choice in known))
    loss = str(imported.take("pref_loss", "sigmoid")) if stage == "dpo" else ""
    if stage not in stages or kind != "lora":
        raise WorkbenchError(
            f"{origin} trains in a way that a recipe does not have (stage: {stage}, finetuning_type: {kind}).",
            f"Use stage: {', '.join(stages)}, and finetuning_type: lora.",
            kind="recipe",
        )
    choice = f"{stage}/{loss}" if loss else str(stage)
    if choice not in known:
        raise WorkbenchError(
            f"{origin} trains with pref_loss: {loss}, which a recipe does not have.",
            f"Use pref_loss: {', '.join(losses)}.",
            kind="recipe",
        )
    objective, other = known[choice]
    recipe = imported.recipe
    recipe["model.source"] = resolve_path(str(imported.take("model_name_or_path", "")), folder)
    imported.move(_SAME)
    if optim := recipe.get("training.optim"):
        recipe["training.optim"] = _OPTIMIZERS.get(str(optim), optim)
    bits = imported.take("quantization_bit")
    kind_of_four = str(values.get("quantization_type", "nf4"))
    recipe["quantization.method"] = "none" if bits is None else "int8" if bits == 8 else kind_of_four
    recipe["quantization.double_quant"] = bool(imported.take("double_quantization", True))
    if values.get("fp16") is True:
        recipe["quantization.compute_dtype"] = "float16"
    target = str(imported.take("lora_target", "all"))
    recipe["adapter.target_modules"] = "all-linear" if target == "all" else _listed(target)
    if extra := imported.take("additional_target"):
        recipe["adapter.modules_to_save"] = _listed(str(extra))
    if imported.take("pissa_init"):
        recipe["adapter.init_lora_weights"] = "pissa"
    recipe["training.report_to"] = known_reporters(imported.take("report_to", []))
    recipe["data.completion_only"] = not imported.take("train_on_prompt", False)
    recipe["training.gradient_checkpointing"] = not imported.take("disable_gradient_checkpointing", False)
    if imported.take("enable_liger_kernel"):
        recipe["training.kernels"] = "liger"
    _take_datasets(imported, folder)
    if name := imported.take("template"):
        recipe["data.template"] = name if name in _TEMPLATES else "auto"
        if name not in _TEMPLATES:
            imported.unsupported.append(f"template: {name!r}; the model's own is used")
    if objective.is_preference:
        imported.take_objective(objective, other, choice)
    size = imported.take("val_size", 0.0)
    recipe["data.eval_fraction"] = float(size) if isinstance(size, int | float | str) else size
    if not objective.is_preference:
        recipe["data.packing"] = bool(imported.take("neat_packing") or recipe.get("data.packing"))
    imported.take_warmup()
    imported.take_checkpoints()
    imported.ignore(_IGNORED)
    return imported.finish(origin)


def _quantization(recipe: ResolvedRecipe) -> dict[str, object]:
    method = recipe.quantization.method
    if method == "none":
        return {}
    if method == "int8":
        return {"quantization_method": "bnb", "quantization_bit": 8}
    return {
        "quantization_method": "bnb",
        "quantization_bit": 4,
        "quantization_type": method,
        "double_quantization": recipe.quantization.double_quant,
    }


def _supervised(recipe: ResolvedRecipe) -> dict[str, object]:
    """What the pre-training stage refuses."""
    data = recipe.data
    template = {"template": data.template} if data.template in _TEMPLATES else {}
    return {"train_on_prompt": not data.completion_only, "neat_packing": data.packing, **template}


def _name(file: RecordFile) -> str:
    return file.name.removesuffix(".jsonl")


def _dataset(file: RecordFile) -> dict[str, object]:
    if file.kind == "text":
        return {"file_name": file.name, "columns": {"prompt": "text"}}
    tags = {"role_tag": "role", "content_tag": "content"}
    tags |= {f"{role}_tag": role for role in ("user", "assistant", "system")}
    return {"file_name": file.name, "formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": tags}


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _take_datasets(imported: ImportedSettings, folder: Path) -> None:
    """Take the datasets, which are named by their entries in ``dataset_info.json``.

    A name without an entry is taken as it is, so that a run says what it lacks and trains on nothing else.
    """
    file = _dataset_folder(str(imported.take("dataset_dir", "data")), folder) / INFO
    try:
        listed = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        listed = {}
    known = listed if isinstance(listed, dict) else {}

    def found(names: object) -> dict[str, dict[str, object]]:
        entries = {name: known.get(name) for name in _listed(str(names))}
        imported.unsupported += [f"{name!r} is not in {file}" for name, entry in entries.items() if not entry]
        return {name: entry if isinstance(entry, dict) else {} for name, entry in entries.items()}

    trained = found(imported.take("dataset", ""))
    sources: list[dict[str, object]] = [{"source": _source(name, entry, file)} for name, entry in trained.items()]
    mix = str(imported.take("mix_strategy", "concat"))
    weights = _listed(str(imported.take("interleave_probs", "")))
    if mix in _MIXES and len(sources) > 1:
        for number, source in enumerate(sources):
            source["weight"] = _number(weights[number]) if number < len(weights) else 1.0
        imported.set_sources(sources, _MIXES[mix])
    else:
        imported.set_sources(sources)
    held_out = found(imported.take("eval_dataset", ""))
    imported.check_held_out(*([_place(name, entry) for name, entry in some.items()] for some in (held_out, trained)))


def _place(name: str, entry: dict[str, object]) -> str:
    return str(entry.get("hf_hub_url") or entry.get("file_name") or name)


def _source(name: str, entry: dict[str, object], file: Path) -> str:
    """An entry as a source: its file or hub id where it has no more to say, else the entry itself."""
    is_place = entry.keys() <= {"hf_hub_url", "file_name"}
    return resolve_path(_place(name, entry), file.parent) if is_place else f"{file}:{name}"


def _number(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text


def _dataset_folder(name: str, folder: Path) -> Path:
    """Where ``dataset_info.json`` is: LLaMA-Factory looks from the folder it is started in, mostly its own checkout.

    Args:
        name: ``dataset_dir``.
        folder: the configuration's folder. It and the folders above it are searched, then the working directory.
    """
    places = [base / Path(name).expanduser() for base in (folder, *folder.parents, Path.cwd())]
    return next((place for place in places if (place / INFO).is_file()), places[0])
