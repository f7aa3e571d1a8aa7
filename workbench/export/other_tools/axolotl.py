"""Converts recipes to Axolotl configurations. Keys: https://docs.axolotl.ai/docs/config-reference.html."""

import math
from collections.abc import Mapping

from workbench.export.conversations import Layout, RecordFile, left_out_notices, write_conversations
from workbench.export.other_tools.keys import (
    OF_TRANSFORMERS,
    checkpoint_settings,
    same_settings,
    to_yaml,
    unsupported_settings,
)
from workbench.export.other_tools.objectives import named_there
from workbench.export.work import Job, chat_template
from workbench.recipe.resolved import ResolvedRecipe
from workbench.recipe.sections.section import OFFLOAD
from workbench.recipe.trackers import PROJECT

FILE = "axolotl.yaml"

# Settings that have the same meaning and values in both: Axolotl's name, and the recipe's dotted key.
SAME = {
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
    **OF_TRANSFORMERS,
    "micro_batch_size": "training.per_device_train_batch_size",
    "lr_scheduler": "training.lr_scheduler_type",
    "warmup_ratio": "training.warmup_ratio",
    "warmup_steps": "training.warmup_steps",
    "lr_scheduler_kwargs": "training.lr_scheduler_kwargs",
    "tiled_mlp": "training.tiled_mlp",
    "neftune_noise_alpha": "training.neftune_noise_alpha",
    "loraplus_lr_ratio": "training.loraplus_lr_ratio",
    "optimizer": "training.optim",
    "embedding_lr": "training.embedding_learning_rate",
    "group_by_length": "training.group_by_length",
    "save_only_model": "training.save_only_model",
    "eval_steps": "training.eval_steps",
    "early_stopping_patience": "training.early_stopping_patience",
}
_COMPOSED = (
    "model.source",
    "model.subfolder",
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
    "data.eval_records",
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
# Settings that are written where they are not at their defaults.
_RARE = (
    "peft_", "lora_rank_", "lora_alpha_p", "adam_", "neftune_", "loraplus_", "warmup_steps", "lr_scheduler_kwargs",
    "tiled_mlp",
    "embedding_lr", "group_by_length", "save_only_model",
)  # fmt: skip
# Its ORPO reads both sides as whole conversations, its reward models single prompts as text.
LAYOUTS: Mapping[str, Layout] = {"orpo": "whole", "reward": "flat"}
LIGER = "axolotl.integrations.liger.LigerPlugin"
LIGERS_LAYERS = ("liger_rms_norm", "liger_glu_activation")


def make(job: Job) -> None:
    """Write ``axolotl.yaml`` and the records."""
    objective = job.recipe.objective
    layout = LAYOUTS.get(objective.kind, "apart")
    files = write_conversations(job.home, job.recipe.data, job.folder, objective.spec.records, layout=layout)
    job.notices += left_out_notices(files)
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
    understood = [*SAME.values(), *_COMPOSED]
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
    values |= same_settings(recipe, SAME, _RARE)
    values |= _warmup(recipe, values, files)
    saving, unsupported = checkpoint_settings(training)
    values |= saving
    if recipe.objective.is_preference:
        objective = named_there(recipe.objective, "axolotl")
        values |= {"rl": objective.choice, **objective.values}
        if weight := values.pop("rpo_alpha", 0.0):
            # Its present name for the likelihood of the chosen response.
            values |= {
                "rl": "dpo", "dpo_loss_type": [recipe.objective.loss_type, "sft"], "dpo_loss_weights": [1.0, weight],
            }  # fmt: skip
        if objective.choice == "reward":
            del values["rl"]
            values |= {"reward_model": True, "model_type": "AutoModelForSequenceClassification", "num_labels": 1}
        unsupported += objective.unsupported
        understood += [f"objective.{key}" for key in ("kind", "loss_type", *recipe.objective.spec.keys)]
    values |= {
        "chat_template": "jinja" if template else "tokenizer_default",
        **({"chat_template_jinja": template} if template else {}),
        "train_on_inputs": not recipe.data.completion_only,
        # Its default leaves out longer records.
        "excess_length_strategy": "truncate",
        "gradient_checkpointing": bool(training.gradient_checkpointing),
        **({"activation_offloading": True} if training.gradient_checkpointing == OFFLOAD else {}),
        "datasets": [_dataset(file) for file in files if not file.held_out],
        "val_set_size": 0,
        "output_dir": "./output",
    }
    if training.gradient_checkpointing:
        values["gradient_checkpointing_kwargs"] = {"use_reentrant": quantization.method == "int8"}
    if training.kernels == "liger":
        values |= {"plugins": [LIGER], **dict.fromkeys(LIGERS_LAYERS, True)}
        understood.append("training.kernels")
    values |= _reporting(recipe)
    if held_out := [{**_dataset(file), "split": "train"} for file in files if file.held_out]:
        values["test_datasets"] = held_out
    if any(file.kind == "unpaired" for file in files):
        # TRL renders the conversations; Axolotl's own preparation would take them for text.
        values["skip_prepare_dataset"] = True
    return values, unsupported + unsupported_settings(recipe, understood)


def _warmup(recipe: ResolvedRecipe, values: dict[str, object], files: list[RecordFile]) -> dict[str, object]:
    """The warm-up, of which Axolotl takes either steps or a ratio, and with SimPO only steps. Removes the other."""
    training = recipe.training
    if training.warmup_steps:
        values.pop("warmup_ratio", None)
    elif recipe.objective.kind == "simpo":
        records = sum(file.records for file in files if not file.held_out)
        steps = math.ceil(-(-records // training.effective_batch) * training.num_train_epochs)
        ratio = values.pop("warmup_ratio", 0.0)
        total = training.max_steps if training.max_steps > 0 else steps
        return {"warmup_steps": math.ceil(total * training.warmup_ratio) if ratio else 0}
    return {}


def _reporting(recipe: ResolvedRecipe) -> dict[str, object]:
    values: dict[str, object] = {}
    name, trackers = recipe.output.name, recipe.training.report_to
    if "tensorboard" in trackers:
        values["use_tensorboard"] = True
    if "wandb" in trackers:
        values |= {"wandb_project": PROJECT, "wandb_name": name}
    if "trackio" in trackers:
        values |= {"use_trackio": True, "trackio_project_name": PROJECT, "trackio_run_name": name}
    return values


def _dataset(file: RecordFile) -> dict[str, object]:
    common: dict[str, object] = {"path": f"./{file.name}", "ds_type": "json"}
    if file.kind == "text":
        return {**common, "type": "completion", "field": "text"}
    if file.kind == "segments":
        return {**common, "type": "input_output"}
    if file.kind == "pairs":
        return {**common, "type": "chat_template.default", "field_messages": "messages"}
    if file.kind == "flat":
        return {**common, "type": "bradley_terry.chat_template"}
    if file.kind == "sides":
        return {**common, "type": "chat_template.argilla"}
    if file.kind == "unpaired":
        return common
    return {**common, "type": "chat_template", "field_messages": "messages", "roles_to_train": ["assistant"]}
