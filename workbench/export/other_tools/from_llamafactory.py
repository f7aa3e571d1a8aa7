"""Converts LLaMA-Factory configurations to recipes. What a file leaves out is that tool's default, not the one here.

Keys and defaults: https://llamafactory.readthedocs.io, and those of transformers' ``TrainingArguments``.
"""

import json
from pathlib import Path

from workbench.adapters.registry import method_of
from workbench.data.rows.dataset_info import FILE as INFO
from workbench.errors import WorkbenchError
from workbench.export.other_tools.imported_settings import ImportedSettings, weighted
from workbench.export.other_tools.keys import resolve_path
from workbench.export.other_tools.llamafactory import OFT, SAME, SAME_OF, TEMPLATES
from workbench.objectives.table import choices_of
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.section import OFFLOAD

_TAKEN_APART = ("optim", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_ratio", "warmup_steps", "eval_steps",
                "neftune_noise_alpha")  # fmt: skip
_DEFAULTS: dict[str, object] = {
    "data.max_length": 2048,
    "data.packing": False,
    "training.num_train_epochs": 3.0,
    "training.per_device_train_batch_size": 8,
    "training.gradient_accumulation_steps": 1,
    "training.learning_rate": 5e-5,
    "training.lr_scheduler_type": "linear",
    "training.warmup_ratio": 0.0,
    "training.weight_decay": 0.0,
    "training.max_grad_norm": 1.0,
    "training.optim": "adamw_torch_fused",
    "training.seed": 42,
}
# Without lora_alpha, it is twice the rank there too.
_DEFAULTS_OF: dict[str, dict[str, object]] = {"lora": {"adapter.r": 8, "adapter.lora_dropout": 0.0}, "oft": {}}
# Settings that train something else than an adapter on these records.
_OTHER_TRAINING = (
    "use_galore", "use_apollo", "use_badam", "use_adam_mini", "use_dft_loss", "use_asft_loss", "use_eaft_loss",
    "mixture_of_depths", "train_from_scratch", "use_llama_pro", "ref_model_adapters", "use_mca",
)  # fmt: skip
# Settings that do something else than train.
_NO_TRAINING = ("export_dir", "do_predict", "predict_with_generate", "infer_backend", "infer_dtype")
_IGNORED = (
    "do_train", "do_eval", "output_dir", "overwrite_output_dir", "overwrite_cache", "preprocessing_num_workers",
    "preprocessing_batch_size", "dataloader_num_workers", "dataloader_pin_memory", "plot_loss", "ddp_timeout",
    "flash_attn", "run_name", "eval_strategy", "evaluation_strategy", "per_device_eval_batch_size",
    "include_num_input_tokens_seen", "resume_from_checkpoint", "low_cpu_mem_usage", "use_fast_tokenizer",
    "pissa_convert", "use_reentrant_gc", "tokenized_path", "cache_dir", "logging_dir", "pure_bf16", "use_swanlab",
    "swanlab_project", "swanlab_run_name", "swanlab_mode", "eval_on_each_dataset", "media_dir", "swanlab_workspace",
    "freeze_vision_tower", "freeze_multi_modal_projector", "enable_thinking", "create_new_adapter",
)  # fmt: skip
# How several datasets are mixed: LLaMA-Factory's name, and ``data.stopping``.
_MIXES = {
    "interleave_under": "first_exhausted",
    "interleave_over": "all_exhausted",
    "interleave_once": "all_exhausted_without_replacement",
}


def from_llamafactory(values: dict[str, object], folder: Path, origin: str) -> tuple[Recipe, list[str]]:
    """Convert a configuration to a recipe; also lists its settings that a recipe does not support.

    Args:
        folder: the configuration's folder, to which its paths are relative.
        origin: the configuration's name, for error messages.

    Raises:
        WorkbenchError: it does not train an adapter, or has values that a recipe does not allow.
    """
    imported = ImportedSettings(values)
    if not values.get("do_train"):
        way = "Give a file that trains: do_train: true, with a dataset."
        imported.refuse(_NO_TRAINING, origin, way, "does not train")
    stage, kind = imported.take("stage", "sft"), str(imported.take("finetuning_type", "lora"))
    known = choices_of("llamafactory")
    losses = [choice.partition("/")[2] for choice in known if choice.startswith("dpo/")]
    stages = list(dict.fromkeys(choice.partition("/")[0] for choice in known))
    loss = str(imported.take("pref_loss", "sigmoid")) if stage == "dpo" else ""
    if stage not in stages or kind not in SAME_OF:
        raise WorkbenchError(
            f"{origin} trains in a way that a recipe does not have (stage: {stage}, finetuning_type: {kind}).",
            f"Use stage: {', '.join(stages)}, and finetuning_type: {' or '.join(SAME_OF)}.",
            kind="recipe",
        )
    way = "Remove that setting only if training an adapter without it is what you want."
    imported.refuse(_OTHER_TRAINING, origin, way)
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
    imported.move({theirs: path for theirs, path in SAME.items() if theirs not in _TAKEN_APART})
    _take_adapter(imported, kind, folder)
    imported.take_optimizer("optim")
    if imported.take("use_muon"):
        imported.lack("use_muon", True, "the recipe has adamw_torch_fused, the nearest one")
    imported.take_schedule("lr_scheduler_type", "lr_scheduler_kwargs")
    imported.take_interval("eval_steps", "training.eval_steps")
    _take_quantization(imported)
    imported.take_reporters("report_to")
    if values.get("use_swanlab"):
        recipe["training.report_to"] = ["swanlab"]
    recipe["data.completion_only"] = not imported.take("train_on_prompt", False)
    if imported.take("mask_history"):
        recipe["data.responses"] = "last"
    recipe["training.gradient_checkpointing"] = not imported.take("disable_gradient_checkpointing", False)
    if imported.take("use_unsloth_gc") and recipe["training.gradient_checkpointing"]:
        recipe["training.gradient_checkpointing"] = OFFLOAD
    if imported.take("enable_liger_kernel"):
        recipe["training.kernels"] = "liger"
    _take_datasets(imported, folder)
    _take_template(imported)
    if objective.is_preference:
        imported.take_objective(objective, other, choice)
    else:
        _take_packing(imported, is_pretraining=stage == "pt")
    imported.take_held_out_share("val_size")
    imported.take_checkpoints()
    _take_knobs(imported)
    imported.default({**_DEFAULTS, **_DEFAULTS_OF[kind]})
    imported.ignore(_IGNORED)
    return imported.finish(origin, "dataset")


def _take_knobs(imported: ImportedSettings) -> None:
    """Take what changes the loss, the order of the records and the evaluations."""
    imported.take_noise("neftune_noise_alpha")
    imported.take_smoothing("label_smoothing_factor")
    imported.take_grouping()
    imported.move({"eval_on_start": "training.eval_on_start"})


def _take_adapter(imported: ImportedSettings, kind: str, folder: Path) -> None:
    """Take the method, its places and its start."""
    recipe = imported.recipe
    imported.move(SAME_OF[kind])
    target = str(imported.take(f"{kind}_target", "all"))
    recipe["adapter.target_modules"] = "all-linear" if target == "all" else _listed(target)
    if extra := imported.take("additional_target"):
        recipe["adapter.modules_to_save"] = _listed(str(extra))
    if kind != "lora":
        recipe["adapter.method"] = kind
        options = method_of(kind).options
        given = {name: imported.take(name, options[name].default) for name in OFT}
        recipe["adapter.options"] = {name: value for name, value in given.items() if value != options[name].default}
    elif imported.take("pissa_init"):
        recipe["adapter.init_lora_weights"] = "pissa"
        if (steps := imported.take("pissa_iter", 16)) != -1:
            imported.lack("pissa_iter", steps, "the recipe has the exact decomposition, as -1 there")
    imported.ignore(["pissa_iter"])
    start = _listed(str(imported.take("adapter_name_or_path", "")))
    if len(start) == 1:
        recipe["adapter.continue_from"] = resolve_path(start[0], folder)
    elif start:
        imported.lack("adapter_name_or_path", start, "a run starts from one adapter; merge the others first")


def _take_quantization(imported: ImportedSettings) -> None:
    recipe = imported.recipe
    bits, method = imported.take("quantization_bit"), imported.take("quantization_method", "bnb")
    four = str(imported.take("quantization_type", "nf4"))
    recipe["quantization.method"] = "none" if bits is None else "int8" if bits == 8 else four
    if bits is not None and (bits not in (4, 8) or method not in ("bnb", "bitsandbytes")):
        key, value = ("quantization_bit", bits) if bits not in (4, 8) else ("quantization_method", method)
        imported.lack(key, value, f"the recipe has {recipe['quantization.method']} of bitsandbytes")
    recipe["quantization.double_quant"] = bool(imported.take("double_quantization", True))
    imported.ignore(["bf16"])
    if imported.take("fp16") is True:
        recipe["quantization.compute_dtype"] = "float16"


def _take_template(imported: ImportedSettings) -> None:
    if name := imported.take("template"):
        if name in TEMPLATES:
            imported.recipe["data.template"] = name
        else:
            imported.lack("template", name, "the model's own is used")
    if (system := imported.take("default_system")) is not None:
        imported.recipe["data.system"] = system


def _take_packing(imported: ImportedSettings, *, is_pretraining: bool) -> None:
    """Take packing, which is on in pre-training until it is set. Only the neat kind keeps records apart there."""
    neat, plain = imported.take("neat_packing"), imported.recipe.pop("data.packing", is_pretraining)
    imported.recipe["data.packing"] = bool(neat or plain)
    if plain and not neat:
        imported.lack("packing", True, "records do not see each other here, as with neat_packing there")


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _take_datasets(imported: ImportedSettings, folder: Path) -> None:
    """Take the datasets, which are named by their entries in ``dataset_info.json``.

    A name without an entry is taken as it is, so that a run says what it lacks and trains on nothing else.
    """
    place = str(imported.take("dataset_dir", "data"))
    file = _dataset_folder(place, folder) / INFO
    try:
        listed = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        listed = {}
    known = listed if isinstance(listed, dict) else {}

    def found(names: object) -> dict[str, dict[str, object]]:
        entries = {name: known.get(name) for name in _names(names)}
        if place != "ONLINE":
            where = place if place.startswith("REMOTE:") else file
            imported.unsupported += [f"{name!r} is not in {where}" for name, entry in entries.items() if not entry]
        return {name: entry if isinstance(entry, dict) else {} for name, entry in entries.items()}

    trained = found(imported.take("dataset", ""))
    sources: list[dict[str, object]] = [{"source": _source(name, entry, file)} for name, entry in trained.items()]
    mix = str(imported.take("mix_strategy", "concat"))
    weights = _names(imported.take("interleave_probs", ""))
    if mix in _MIXES and len(sources) > 1:
        imported.set_sources(weighted(sources, weights), _MIXES[mix])
    else:
        imported.set_sources(sources)
    most = imported.take("max_samples")
    if isinstance(most, int) and sources:
        # Of each dataset; a split of an entry's own comes before the name.
        imported.recipe["data.split"] = f"train[:{most}]"
    held_out = found(imported.take("eval_dataset", ""))
    imported.check_held_out(*([_place(name, entry) for name, entry in some.items()] for some in (held_out, trained)))


def _names(value: object) -> list[str]:
    return [str(name) for name in value] if isinstance(value, list) else _listed(str(value))


def _place(name: str, entry: dict[str, object]) -> str:
    return str(entry.get("hf_hub_url") or entry.get("file_name") or name)


def _source(name: str, entry: dict[str, object], file: Path) -> str:
    """An entry as a source: its file or hub id where it has no more to say, else the entry itself."""
    is_place = entry.keys() <= {"hf_hub_url", "file_name"}
    return resolve_path(_place(name, entry), file.parent) if is_place else f"{file}:{name}"


def _dataset_folder(name: str, folder: Path) -> Path:
    """Where ``dataset_info.json`` is: LLaMA-Factory looks from the folder it is started in, mostly its own checkout.

    Args:
        name: ``dataset_dir``.
        folder: the configuration's folder. It and the folders above it are searched, then the working directory.
    """
    places = [base / Path(name).expanduser() for base in (folder, *folder.parents, Path.cwd())]
    return next((place for place in places if (place / INFO).is_file()), places[0])
