"""Converts recipes to LLaMA-Factory configurations. Keys: https://llamafactory.readthedocs.io."""

import json
from collections.abc import Mapping

from workbench.adapters.registry import method_of
from workbench.data.rows.dataset_info import FILE as INFO
from workbench.errors import WorkbenchError
from workbench.export.conversations import Layout, RecordFile, left_out_notices, write_conversations
from workbench.export.other_tools.keys import (
    OF_TRANSFORMERS,
    checkpoint_settings,
    same_settings,
    to_yaml,
    unsupported_settings,
)
from workbench.export.other_tools.objectives import named_there
from workbench.export.work import Job
from workbench.recipe.resolved import ResolvedRecipe
from workbench.recipe.sections.section import OFFLOAD

FILE = "llamafactory.yaml"

# Settings that have the same meaning and values in both: LLaMA-Factory's name, and the recipe's dotted key.
SAME = {
    "model_revision": "model.revision",
    "trust_remote_code": "model.trust_remote_code",
    "cutoff_len": "data.max_length",
    "packing": "data.packing",
    "num_train_epochs": "training.num_train_epochs",
    **OF_TRANSFORMERS,
    "per_device_train_batch_size": "training.per_device_train_batch_size",
    "lr_scheduler_type": "training.lr_scheduler_type",
    "warmup_ratio": "training.warmup_ratio",
    "warmup_steps": "training.warmup_steps",
    "lr_scheduler_kwargs": "training.lr_scheduler_kwargs",
    "neftune_noise_alpha": "training.neftune_noise_alpha",
    "loraplus_lr_ratio": "training.loraplus_lr_ratio",
    "data_seed": "training.data_seed",
    "optim": "training.optim",
    "save_only_model": "training.save_only_model",
    "eval_steps": "training.eval_steps",
    "early_stopping_steps": "training.early_stopping_patience",
}
# The same of each kind of adapter that LLaMA-Factory has.
SAME_OF = {
    "lora": {
        "lora_rank": "adapter.r",
        "lora_alpha": "adapter.lora_alpha",
        "lora_dropout": "adapter.lora_dropout",
        "use_rslora": "adapter.use_rslora",
        "use_dora": "adapter.use_dora",
    },
    "oft": {},
}
# LLaMA-Factory's settings of OFT that are options of the method.
OFT = ("oft_block_size", "module_dropout")
# Settings that are written where they are not at their defaults.
_RARE = ("adam_", "neftune_", "loraplus_", "warmup_steps", "lr_scheduler_kwargs", "save_only_model")
# The templates that have the same name and wording in both.
TEMPLATES = ("alpaca", "chatml")
_COMPOSED = (
    "model.source",
    "model.subfolder",
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
    "data.eval_records",
    "data.system",
    "data.completion_only",
    "training.gradient_checkpointing",
    # Has no effect on an exported recipe, in which the micro-batch is a number.
    "training.effective_batch_size",
    "training.report_to",
    "training.save_steps",
    "training.keep",
    "training.eval_on_start",
    "training.group_by_length",
    "output.name",
    "output.dir",
)


def make(job: Job) -> None:
    """Write ``llamafactory.yaml``, ``dataset_info.json`` and the records."""
    kind = job.recipe.objective.spec.records
    layout: Layout = "apart" if kind == "pairs" else "whole"
    files = write_conversations(job.home, job.recipe.data, job.folder, kind, layout=layout)
    if any(file.kind == "segments" for file in files):
        raise WorkbenchError(
            "LLaMA-Factory trains on no records of labeled segments.",
            "Export to axolotl or script, which do.",
            kind="bad_request",
        )
    job.notices += left_out_notices(files)
    model, _ = job.name_base()
    values, unsupported = to_llamafactory(job.recipe, model, files)
    job.write(FILE, to_yaml(values, f"{job.subject} for LLaMA-Factory: llamafactory-cli train {FILE}"))
    job.write(INFO, json.dumps(dataset_info(files), indent=1) + "\n")
    job.notices += [f"Not supported by LLaMA-Factory: {words}" for words in unsupported]
    if "template" not in values:
        job.notices.append("LLaMA-Factory uses the tokenizer's chat template; it cannot be overridden here.")
    elif values["template"] == "alpaca":
        job.notices.append(
            "In LLaMA-Factory alpaca has no part for an input: the prompt of a record that has one differs there."
        )
    job.command = f"llamafactory-cli train {FILE}"


def dataset_info(files: list[RecordFile]) -> dict[str, dict[str, object]]:
    """The entries of ``dataset_info.json`` for the written files."""
    return {_name(file): _dataset(file) for file in files}


def to_llamafactory(recipe: ResolvedRecipe, model: str, files: list[RecordFile]) -> tuple[dict[str, object], list[str]]:
    """Convert a recipe to a configuration; also lists the recipe's settings that LLaMA-Factory does not support.

    Args:
        model: hub id or folder of the base.
        files: the records written next to the configuration.
    """
    training, method = recipe.training, method_of(recipe.adapter.method)
    same = SAME | SAME_OF.get(method.name, {})
    understood = [*same.values(), *_COMPOSED]
    values: dict[str, object] = {
        "model_name_or_path": model,
        "stage": "pt" if files and all(file.kind == "text" for file in files) else "sft",
        "do_train": True,
        "finetuning_type": method.name,
    }
    values |= _quantization(recipe)
    saving, unsupported = checkpoint_settings(training)
    values |= _adapter(recipe, understood) | _same(recipe, same) | saving
    if training.eval_steps:
        values["eval_strategy"] = "steps"
    if training.early_stopping_patience or training.keep == "best":
        values |= {"metric_for_best_model": "eval_loss", "greater_is_better": False}
    if training.eval_on_start and any(file.held_out for file in files):
        values["eval_on_start"] = True
    if training.group_by_length:
        values["train_sampling_strategy"] = "group_by_length"
    if recipe.objective.spec.smooths_tokens and recipe.objective.label_smoothing:
        values["label_smoothing_factor"] = recipe.objective.label_smoothing
        understood.append("objective.label_smoothing")
    if recipe.objective.is_preference:
        objective = named_there(recipe.objective, "llamafactory")
        stage, _, loss = objective.choice.partition("/")
        values |= {"stage": stage, **({"pref_loss": loss} if loss else {}), **objective.values}
        unsupported += objective.unsupported
        understood += [f"objective.{key}" for key in ("kind", "loss_type", *recipe.objective.spec.keys)]
    values |= _text(recipe, str(values["stage"]), understood)
    compute = recipe.quantization.compute_dtype
    values |= {
        "disable_gradient_checkpointing": not training.gradient_checkpointing,
        # Its checkpointing with the layers' inputs in host memory, for which it does not need Unsloth.
        **({"use_unsloth_gc": True} if training.gradient_checkpointing == OFFLOAD else {}),
        "bf16": compute in ("auto", "bfloat16"),
        "fp16": compute == "float16",
        "dataset_dir": ".",
        "dataset": ",".join(_name(file) for file in files if not file.held_out),
        "output_dir": "output",
        "run_name": recipe.output.name,
    }
    if compute == "float32":
        unsupported.append("quantization.compute_dtype: 'float32'; the model's own dtype")
    if training.kernels == "liger":
        values["enable_liger_kernel"] = True
        understood.append("training.kernels")
    if training.report_to:
        values["report_to"] = list(training.report_to)
    if held_out := [_name(file) for file in files if file.held_out]:
        values["eval_dataset"] = ",".join(held_out)
    return values, unsupported + unsupported_settings(recipe, understood)


def _same(recipe: ResolvedRecipe, names: Mapping[str, str]) -> dict[str, object]:
    """The settings that only have another name there, as far as they are on."""
    values = same_settings(recipe, names, _RARE)
    if "lora_dropout" in values:
        # Preference training is without dropout here and in TRL; LLaMA-Factory's own trainers are not.
        values["lora_dropout"] = recipe.trained_adapter.lora_dropout
    return values


def _adapter(recipe: ResolvedRecipe, understood: list[str]) -> dict[str, object]:
    """The method, its places and its start. Adds what it carries to ``understood``."""
    adapter, method = recipe.adapter, method_of(recipe.adapter.method)
    values: dict[str, object] = {}
    if adapter.target_modules == "all-linear" or isinstance(adapter.target_modules, list):
        modules = adapter.target_modules
        values[f"{method.name}_target"] = "all" if isinstance(modules, str) else ",".join(modules)
        understood.append("adapter.target_modules")
    if adapter.modules_to_save:
        values["additional_target"] = ",".join(adapter.modules_to_save)
    if adapter.init_lora_weights == "pissa":
        # PEFT's exact decomposition, as here.
        values |= {"pissa_init": True, "pissa_iter": -1}
        understood.append("adapter.init_lora_weights")
    if method.name == "oft":
        options: Mapping[str, object] = method.chosen(adapter.options)
        values |= {name: options[name] for name in OFT}
        understood += ["adapter.method", *(["adapter.options"] if {*adapter.options} <= {*OFT} else [])]
    return values


def _text(recipe: ResolvedRecipe, stage: str, understood: list[str]) -> dict[str, object]:
    """What becomes of the records, as far as the stage allows it to be set. Adds what it carries to ``understood``."""
    data = recipe.data
    values: dict[str, object] = {}
    if stage == "sft":
        values |= {"train_on_prompt": not data.completion_only, "neat_packing": data.packing}
        if data.responses == "last" and data.completion_only:
            values["mask_history"] = True
            understood.append("data.responses")
    if stage != "pt" and data.template in TEMPLATES:
        values["template"] = data.template
        understood.append("data.template")
    return values


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


def _name(file: RecordFile) -> str:
    return file.name.removesuffix(".jsonl")


def _dataset(file: RecordFile) -> dict[str, object]:
    if file.kind == "text":
        return {"file_name": file.name, "columns": {"prompt": "text"}}
    columns: dict[str, object] = {"messages": "messages"}
    ranking: dict[str, object] = {}
    if file.kind == "pairs":
        ranking, columns = {"ranking": True}, columns | {"chosen": "chosen", "rejected": "rejected"}
    elif file.kind == "unpaired":
        columns |= {"kto_tag": "label"}
    tags = {"role_tag": "role", "content_tag": "content"}
    tags |= {f"{role}_tag": role for role in ("user", "assistant", "system")}
    return {"file_name": file.name, **ranking, "formatting": "sharegpt", "columns": columns, "tags": tags}
