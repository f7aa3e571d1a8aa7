"""Converts ms-swift's arguments to recipes. What is left out is that tool's default, not the one here.

Arguments and defaults: https://swift.readthedocs.io, ``swift/arguments`` of its source, and transformers'
``TrainingArguments``.
"""

from collections.abc import Mapping
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.export.other_tools.imported_settings import ImportedSettings, listed
from workbench.export.other_tools.keys import resolve_path
from workbench.export.other_tools.swift_arguments import (
    DEFAULTS,
    DEFAULTS_OF,
    IGNORED,
    LACKING,
    LENGTH,
    ON,
    OPTIONS_OF,
    OTHER_TRAINING,
    RECORDS_PER_STEP,
    SAME,
    SAME_OF,
    STARTS,
)
from workbench.export.other_tools.swift_data import take_datasets
from workbench.objectives.table import choices_of
from workbench.recipe.schema import Recipe

_WAY = "Remove that setting only if training an adapter without it is what you want."


def is_swift(values: Mapping[str, object]) -> bool:
    """Whether these are ms-swift's arguments."""
    marks = ("tuner_type", "train_type", "sft_type", "rlhf_type", "dataset", "split_dataset_ratio", "swift_version")
    return isinstance(values.get("model"), str) and any(mark in values for mark in marks)


def from_swift(
    values: Mapping[str, object], folder: Path, origin: str, command: str = "", gpus: int = 1
) -> tuple[Recipe, list[str]]:
    """Convert arguments to a recipe; also lists those that a recipe does not support.

    Args:
        folder: the folder of the file, to which its paths are relative.
        origin: its name, for error messages.
        command: ``sft``, ``pt`` or ``rlhf``; empty where only the arguments are known, as of a file of them.
        gpus: how many GPUs the command trains on.

    Raises:
        WorkbenchError: they do not train an adapter, or have values that a recipe does not allow.
    """
    imported = ImportedSettings(values)
    kind = str(imported.take("tuner_type", imported.take("train_type", imported.take("sft_type", "lora"))))
    if kind not in SAME_OF:
        what = "trains all weights" if kind == "full" else "trains in a way that a recipe does not have"
        raise WorkbenchError(
            f"{origin} {what} (tuner_type: {kind}).", f"Use tuner_type: {', '.join(SAME_OF)}.", kind="recipe"
        )
    imported.refuse(OTHER_TRAINING, origin, _WAY)
    if not imported.has("dataset"):
        way = "Name the dataset that the tokens were made of: dataset."
        imported.refuse(("cached_dataset",), origin, way, "trains on tokens that only ms-swift reads")
    environment = imported.take("ENV", {})
    if isinstance(environment, dict) and str(count := environment.get("NPROC_PER_NODE", "")).isdecimal():
        gpus = max(int(count), 1)
    recipe = imported.recipe
    recipe["model.source"] = resolve_path(str(imported.take("model", "")), folder)
    imported.move(SAME)
    _take_adapter(imported, kind, folder)
    _take_quantization(imported)
    _take_steps(imported, gpus)
    imported.default({**DEFAULTS, **DEFAULTS_OF.get(kind, {})})
    recipe["data.packing"] = bool(imported.take("packing", False))
    take_datasets(imported, folder)
    _take_text(imported, command)
    _take_objective(imported, origin, command)
    if not command:
        what = "rlhf" if imported.has("rlhf_type") else "sft"
        imported.unsupported.append(
            f"the command says what is trained (swift sft, swift pt, swift rlhf); by its arguments it is {what}"
        )
    imported.take_noise("neftune_noise_alpha")
    imported.take_smoothing("label_smoothing_factor")
    imported.take_grouping()
    for key, instead in LACKING.items():
        if value := imported.take(key):
            imported.lack(key, value, instead)
    for key, instead in ON.items():
        if imported.take(key, True) is False:
            imported.lack(key, False, instead)
    imported.ignore(IGNORED)
    return imported.finish(origin, "dataset")


def _take_adapter(imported: ImportedSettings, kind: str, folder: Path) -> None:
    """Take the method, its places and its start."""
    recipe = imported.recipe
    imported.move(SAME_OF[kind])
    modules, pattern = imported.take("target_modules", "all-linear"), imported.take("target_regex")
    names = [str(name) for name in (modules if isinstance(modules, list) else [modules])]
    recipe["adapter.target_modules"] = pattern or ("all-linear" if "all-linear" in names else names)
    if saved := imported.take("modules_to_save"):
        recipe["adapter.modules_to_save"] = saved if isinstance(saved, list) else [saved]
    start = imported.take("init_weights", True)
    if kind != "lora":
        recipe["adapter.method"] = kind
        given = {name: imported.take(theirs, default) for theirs, (name, default) in OPTIONS_OF[kind].items()}
        recipe["adapter.options"] = given
    elif start in STARTS:
        imported.move({"init_weights": "adapter.init_lora_weights"})
    elif str(start).lower() != "true":
        imported.lack("init_weights", start, "the recipe has true: Kaiming A, zero B")
    if str(start) == "lora-ga":
        imported.ignore(f"lora_ga_{name}" for name in (
            "batch_size", "iters", "max_length", "direction", "scale", "stable_gamma"
        ))  # fmt: skip
    starts = listed(imported.take("adapters", []))
    if len(starts) == 1:
        recipe["adapter.continue_from"] = resolve_path(starts[0], folder)
    elif starts:
        imported.lack("adapters", starts, "a run starts from one adapter; merge the others first")


def _take_quantization(imported: ImportedSettings) -> None:
    recipe = imported.recipe
    method, bits = imported.take("quant_method"), imported.take("quant_bits")
    four = str(imported.take("bnb_4bit_quant_type", "nf4"))
    recipe["quantization.method"] = "none"
    if method in ("awq", "gptq", "gptq_v2"):
        imported.lack("quant_method", method, "a model that is stored quantized is trained as it is stored")
    elif method is not None:
        recipe["quantization.method"] = "int8" if bits == 8 else four
        if method != "bnb" or bits not in (4, 8):
            given = f"{method}, quant_bits: {bits}"
            imported.lack("quant_method", given, f"the recipe has {recipe['quantization.method']} of bitsandbytes")
    elif bits is not None:
        imported.lack("quant_bits", bits, "without quant_method, ms-swift loads the model unquantized")
    recipe["quantization.double_quant"] = bool(imported.take("bnb_4bit_use_double_quant", True))
    dtype = imported.take("torch_dtype", "bfloat16" if imported.take("bf16") else None)
    if imported.take("fp16"):
        dtype = "float16"
    if isinstance(dtype, str):
        recipe["quantization.compute_dtype"] = dtype.removeprefix("torch.")


def _take_steps(imported: ImportedSettings, gpus: int) -> None:
    """Take the optimizer, the schedule, the batch, evaluations and checkpoints."""
    recipe = imported.recipe
    imported.take_optimizer("optim")
    if (plugin := imported.take("optimizer")) is not None:
        imported.lack("optimizer", plugin, "the recipe has adamw_torch_fused, the nearest one")
    imported.take_schedule("lr_scheduler_type", "lr_scheduler_kwargs")
    if (most := imported.take("max_epochs")) is not None:
        recipe["training.num_train_epochs"] = most
    size = recipe.setdefault("training.per_device_train_batch_size", 1)
    if isinstance(size, int) and size > 0 and "training.gradient_accumulation_steps" not in recipe:
        recipe["training.gradient_accumulation_steps"] = max(1, -(-RECORDS_PER_STEP // (size * gpus)))
    if gpus > 1:
        imported.unsupported.append(
            f"NPROC_PER_NODE: {gpus}; the recipe's batch is that of one GPU: train on {gpus}, or multiply "
            "gradient_accumulation_steps"
        )
    imported.take_held_out_share("split_dataset_ratio")
    is_off = imported.take("eval_strategy") == "no"
    imported.take_interval("eval_steps", "training.eval_steps")
    imported.take_checkpoints()
    if is_off:
        recipe |= {"data.eval_fraction": 0.0, "training.eval_steps": 0}
    elif recipe["data.eval_fraction"] or recipe.get("data.eval_records"):
        # Its evaluations go with its checkpoints, of which transformers saves one every 500 steps.
        recipe.setdefault("training.eval_steps", recipe.get("training.save_steps", 500))
    imported.take_reporters("report_to")
    if imported.take("use_liger_kernel"):
        recipe["training.kernels"] = "liger"


def _take_text(imported: ImportedSettings, command: str) -> None:
    """Take what becomes of the records: template, length, and the tokens that are trained."""
    recipe, is_pretraining = imported.recipe, command == "pt"
    if not imported.has("max_length"):
        imported.lack("max_length", None, f"the model's own length there; the recipe cuts at {LENGTH} tokens")
        recipe["data.max_length"] = LENGTH
    if (longer := imported.take("truncation_strategy", "delete")) != "right":
        imported.lack("truncation_strategy", longer, "records that are longer than max_length are truncated here")
    if not imported.take("use_chat_template", not is_pretraining):
        recipe["data.template"] = "plain"
    elif (template := imported.take("template")) is not None:
        if template == "chatml":
            recipe["data.template"] = template
        else:
            imported.lack("template", template, "the model's own is used")
    imported.ignore(["template"])
    if (system := imported.take("system")) is not None:
        recipe["data.system"] = str(system).replace("\\n", "\n")
        if str(system).endswith(".txt"):
            imported.lack("system", system, "the text of that file there; the recipe has its name")
    usual = "all" if is_pretraining else "last_round" if command == "rlhf" else "default"
    base, *others = str(imported.take("loss_scale", usual)).split("+")
    if base not in ("default", "last_round", "all"):
        base, others = "default", [base, *others]
    recipe["data.completion_only"] = base != "all"
    if base == "last_round" and command != "rlhf":
        recipe["data.responses"] = "last"
    if others:
        imported.lack("loss_scale", "+".join(others), "all tokens of responses count the same")


def _take_objective(imported: ImportedSettings, origin: str, command: str) -> None:
    """Take the objective: of ``rlhf_type`` and its loss, or of ``task_type``.

    Raises:
        WorkbenchError: a recipe does not have it.
    """
    known = choices_of("swift")
    if command == "rlhf" or imported.has("rlhf_type"):
        choice, key = str(imported.take("rlhf_type", "dpo")), "rlhf_type"
        imported.ignore(["task_type", "num_labels", "problem_type"])
    else:
        choice, key = str(imported.take("task_type", "causal_lm")), "task_type"
    if choice == "causal_lm":
        imported.refuse(("loss_type",), origin, _WAY)
        return
    if choice not in known:
        names = [name for name in known if (name == "seq_cls") == (key == "task_type")]
        raise WorkbenchError(
            f"{origin} trains in a way that a recipe does not have ({key}: {choice}).",
            f"Use {key}: {', '.join(names)}" + (" or causal_lm." if key == "task_type" else "."),
            kind="recipe",
        )
    if choice == "seq_cls":
        labels, problem = imported.take("num_labels"), imported.take("problem_type")
        if problem not in (None, "single_label_classification") or (problem is None and labels == 1):
            name, value = ("problem_type", problem) if problem else ("num_labels", labels)
            raise WorkbenchError(
                f"{origin} trains in a way that a recipe does not have ({name}: {value}).",
                "A recipe's classification has one label a text, of two or more.",
                kind="recipe",
            )
        imported.ignore(["loss_type"])
    objective, other = known[choice]
    names = listed(imported.take("loss_type", []))
    if len(names) > 1:
        imported.refuse(("loss_type",), origin, "A recipe has one loss, and rpo_alpha for the likelihood beside it.")
    imported.take_objective(objective, other, choice)
    # Smoothing is of labels that are wrong in some pairs, which only some losses read here.
    if imported.recipe.get("objective.label_smoothing") and objective.kind == "dpo" and names != ["robust"]:
        smoothing = imported.recipe.pop("objective.label_smoothing")
        imported.lack("label_smoothing", smoothing, "the recipe's loss does not use it")
    if names and names != ["simpo"]:
        imported.recipe["objective.loss_type"] = names[0]
        if names[0] not in objective.loss_types:
            raise WorkbenchError(
                f"{origin} trains in a way that a recipe does not have (loss_type: {names[0]}).",
                f"Use loss_type: {', '.join(objective.loss_types)}." if objective.loss_types else _WAY,
                kind="recipe",
            )
    reference = imported.take("ref_adapters", [])
    if objective.has_reference and imported.has("adapters") != bool(reference):
        imported.lack("ref_adapters", reference, "the reference is what the run starts from: the base, or its adapter")
