"""Exports a run as a Python script or notebook that repeats it with transformers, PEFT, TRL and bitsandbytes alone.

That of preference training is in :mod:`workbench.export.preference_script`.

The script does the same as :mod:`workbench.engine`, in the same order, because the random numbers for A and for dropout
depend on the order. The records are exported as token ids and labels, so that templates and truncation cannot differ.
"""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import workbench.engine.batches
import workbench.engine.kernels
import workbench.layers
from workbench.adapters.registry import method_of, peft_arguments
from workbench.adapters.settings import AdapterSettings
from workbench.adapters.starts import keeps_start, start_of
from workbench.data.sources import load_records
from workbench.data.templates.template import Template
from workbench.data.tokens.encode import EncodedData, encode_dataset
from workbench.engine.kernels.loss_path import PADDED, LossPath
from workbench.engine.model.hardware import library_versions
from workbench.engine.model.precision import COMPUTE_TYPES, Precision, choose_precision
from workbench.engine.objectives.order import in_trained_order
from workbench.engine.training.trainers.optimizer import optimizer_here
from workbench.errors import WorkbenchError
from workbench.estimate.adapter.new_rows import token_rows
from workbench.export.notebook import notebook_of
from workbench.export.plan import local_base
from workbench.export.preference_script import (
    batches_and_training,
    imports_of,
    smoothing_argument,
    training_arguments,
    trl_of,
)
from workbench.export.script_optimizer import after_training, before_training, saved_at_a_step
from workbench.export.script_text import (
    ABOUT_RECIPE,
    ABOUT_RUN,
    ALLOCATION,
    ARGUMENTS,
    CALLBACK,
    COMPILED,
    EXPOSE_BIAS,
    HEAD,
    LIGER,
    LOAD,
    LOSS,
    OFFLOADING,
    PADDING_FREE,
    RESIZE,
    RESULT_OF_RECIPE,
    RESULT_OF_RUN,
    START,
    SUBTRACT,
    SUPERVISED_IMPORT,
    TILED,
    TRAIN,
)
from workbench.export.work import Job
from workbench.models.child import report
from workbench.models.language_part import exclusion_pattern
from workbench.models.tokenizers import load_tokenizer
from workbench.models.trees import tree_in
from workbench.progress import Progress
from workbench.recipe.optimizers import OPTIMIZERS, name_there
from workbench.recipe.resolved import ResolvedRecipe
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.section import OFFLOAD
from workbench.runs.folder import RunFolder
from workbench.runs.replay import Replay

RECORDS = "records.jsonl"
_LENGTH_GROUPS = Path(workbench.engine.batches.__path__[0]) / "length_groups.py"
_ATTACH = 'model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **ADAPTER))\n'
_TRAIN = "\ntrainer.train()\n"
_CAST_NEW = f"{_ATTACH}cast_adapter(model)\n"
# Arguments of transformers that are written where they are not at their defaults.
_RARELY_SET = ("lr_scheduler_kwargs", "adam_beta1", "adam_beta2", "adam_epsilon", "neftune_noise_alpha")
_DEFAULTS = {name: Recipe().get(f"training.{name}") for name in _RARELY_SET}
# TRL's configurations with its activation_offloading.
_OFFLOADING = ("SFTConfig", "DPOConfig", "KTOConfig", "RewardConfig")
_PINNED_PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "datasets")


def make(job: Job) -> None:
    """Write ``train.py`` or ``train.ipynb``, the tokenized records, the template and ``requirements.txt``."""
    local = local_base(job.home, job.recipe)
    tokenizer = load_tokenizer(local.folder, job.recipe.model.trust_remote_code)
    template = Template.for_model(tokenizer, job.recipe.data.template, job.recipe.data.system)
    records = load_records(job.recipe.data, job.home, kind=job.recipe.objective.spec.records)
    data = encode_dataset(records, template, job.recipe.data, _report)
    _write_records(job, data)
    data.template.save(job.folder)
    (job.folder / "template.json").unlink()
    if keeps_start(job.recipe.adapter):
        shutil.copytree(_kept_start(job), job.folder / "start")
    is_notebook = job.request.target == "notebook"
    text = script_of(job, *job.name_base(), is_notebook, data.labels)
    if not job.is_trained:
        text = text.replace(RESULT_OF_RUN, RESULT_OF_RECIPE)
    if is_notebook:
        job.write("train.ipynb", notebook_of(text))
        job.command = "jupyter lab train.ipynb"
    else:
        job.write("train.py", text)
        job.command = "python train.py"
    job.write("requirements.txt", _requirements(job.facts.versions or library_versions(), job.recipe))
    _add_notices(job, data)


def script_of(
    job: Job, model: str, revision: str | None, is_notebook: bool = False, labels: tuple[str, ...] = ()
) -> str:
    """Write the script's text. The run's settings are in it as Python literals, and the ``labels`` of a classifier."""
    recipe, training = job.recipe, job.recipe.training
    precision = _precision(job)
    outcome = _Outcome(job.run)
    rows, method = _token_rows(job), method_of(recipe.adapter.method)
    trl = trl_of(recipe)
    arguments = sft_arguments(job, precision)
    constants = {
        "MODEL": model,
        "REVISION": revision,
        "TRUST_REMOTE_CODE": recipe.model.trust_remote_code,
        "SEED": training.seed,
        "COMPUTE_DTYPE": precision.compute,
        "ADAPTER_DTYPE": precision.adapter,
        "ADAPTER": peft_arguments(recipe.trained_adapter, rows, _excluded(job))[1] | _of_start(job),
        "FLOAT32": method.float32,
        "QUANTIZATION": _quantization(recipe.quantization.method, recipe.quantization.double_quant),
        "TRAINING": training_arguments(arguments, recipe) if trl else arguments,
        **({"OBJECTIVE": trl.values(recipe.objective), "MAX_LENGTH": recipe.data.max_length} if trl else {}),
        **({"LABELS": labels or ("score",)} if recipe.objective.spec.has_head else {}),
        "STOP_AFTER": outcome.stop_after,
        "KEEP_STEP": outcome.kept_step,
        "LAST_LOSS_OF_THE_RUN": outcome.last_loss,
    }
    lines = "\n".join(f"{name} = {_literal(value)}" for name, value in constants.items())
    here = "Path.cwd()" if is_notebook else "Path(__file__).resolve().parent"
    title = re.sub(r"[^\w .-]", "_", job.run.id)
    path = _loss_path(job)
    padding_free = path.padding_free
    liger = training.kernels == "liger"
    modules = {
        "loss_head": True,
        "padding_free": padding_free,
        "liger": liger,
        "compiled_layers": training.torch_compile,
        "tiled_mlp": training.tiled_mlp,
    }
    grouping = _module_text(_LENGTH_GROUPS) if training.group_by_length else ""
    included = [name for name, is_needed in modules.items() if is_needed]
    head, load = (part.replace("AutoModelForCausalLM", job.loader) for part in (HEAD, LOAD))
    if (attention := recipe.model.attn_implementation) != "auto":
        load = load.replace("    MODEL,\n", f'    MODEL,\n    attn_implementation="{attention}",\n')
    if recipe.objective.spec.has_head:
        load = load.replace("    MODEL,\n", "    MODEL,\n    num_labels=len(LABELS),\n")
    if trl is not None:
        head = head.replace(SUPERVISED_IMPORT, imports_of(trl))
    about = ABOUT_RUN if job.is_trained else ABOUT_RECIPE
    head = head.format(about=about.format(title=title), here=here)
    compiled = COMPILED.format(uncompiled="[PER_RECORD]" if padding_free else "[]") if training.torch_compile else ""
    train = TRAIN.format(
        loss=LOSS.format(in_tiles=path.in_tiles, padding_free=padding_free, smoothing=smoothing_argument(recipe)),
        padding_free=PADDING_FREE if padding_free else "",
        liger=LIGER if liger else "",
        compiled=compiled,
        tiled=TILED if training.tiled_mlp else "",
    )
    allocation = f"\n{_kernel_text('rank_allocation')}{ALLOCATION}" if method.allocates_ranks else ""
    train_around = before_training(recipe) + allocation + _TRAIN + after_training(recipe)
    resize = RESIZE.format(rows=1 + max(map(max, rows.values()))) if rows else ""
    if trl is not None:
        text = "".join((head, lines, "\n\n\n", CALLBACK, grouping, load, resize, batches_and_training(job, trl)))
        if recipe.objective.spec.has_head:
            text = text.replace('task_type="CAUSAL_LM"', 'task_type="SEQ_CLS"')
        if _offloads(recipe, trl.config):
            text = text.replace(ARGUMENTS, OFFLOADING)
        return _finished(text, recipe, train_around)
    text = "".join((head, lines, "\n\n\n", CALLBACK, *map(_kernel_text, included), grouping, load, resize, train))
    if keeps_start(recipe.adapter):
        text = text.replace(_CAST_NEW, _CAST_NEW + START)
    if _offloads(recipe, "SFTConfig"):
        text = text.replace(ARGUMENTS, OFFLOADING)
    # PEFT would save the whole resized embedding beside the rows that are trained.
    saved = 'model.save_pretrained(HERE / "adapter"'
    if rows:
        text = text.replace(f"{saved})", f"{saved}, save_embedding_layers=False)").replace(
            _ATTACH, _ATTACH + EXPOSE_BIAS
        )
    return _finished(text, recipe, train_around)


def _finished(text: str, recipe: Recipe, train_around: str) -> str:
    """The script with what depends on the adapter's method and start."""
    start = start_of(recipe.adapter.init_lora_weights)
    if start is not None and start.moves_base:
        text = text.replace(START, f"{START}\n{_kernel_text('residual_start')}{SUBTRACT}")
    text = text.replace("LoraConfig", method_of(recipe.adapter.method).config_class)
    return saved_at_a_step(recipe, text.replace(_TRAIN, train_around))


def _kept_start(job: Job) -> Path:
    """The folder with the weights that the run started from.

    Raises:
        WorkbenchError: there are none yet, as the run has not begun.
    """
    if (job.run.start / "adapter_config.json").is_file():
        return job.run.start
    adapter = job.recipe.adapter
    raise WorkbenchError(
        f"The first weights are made when a run begins ({adapter.continue_from or adapter.init_lora_weights}), and "
        "this one has not begun.",
        "Export the script of a run, or set adapter.init_lora_weights to true.",
        kind="no_adapter",
    )


def _of_start(job: Job) -> dict[str, object]:
    """What EVA has changed in the adapter's configuration."""
    if start_of(job.recipe.adapter.init_lora_weights) is None:
        return {}
    config = json.loads((_kept_start(job) / "adapter_config.json").read_text(encoding="utf-8"))
    return {name: config[name] for name in ("target_modules", "rank_pattern", "alpha_pattern")}


def _offloads(recipe: ResolvedRecipe, config: str) -> bool:
    """Whether TRL is to keep what it recomputes from in host memory, as far as its configuration can say so."""
    return recipe.training.gradient_checkpointing == OFFLOAD and config in _OFFLOADING


def _token_rows(job: Job) -> dict[str, list[int]]:
    """The rows of embeddings that the run added and trained, by name of the layer."""
    if not job.recipe.model.resize_embeddings:
        return {}
    skeleton = tree_in(local_base(job.home, job.recipe).folder, job.recipe.model)
    return token_rows(skeleton, AdapterSettings.of(job.recipe.adapter))


def _excluded(job: Job) -> str:
    """``exclude_modules`` of PEFT's configuration, for a model with parts that get no adapter."""
    skeleton = tree_in(local_base(job.home, job.recipe).folder, job.recipe.model)
    return exclusion_pattern(part.name for part in skeleton.frozen_parts)


def _kernel_text(name: str) -> str:
    package = workbench.layers if name == "tiled_mlp" else workbench.engine.kernels
    return _module_text(Path(package.__path__[0]) / f"{name}.py")


def _module_text(file: Path) -> str:
    """The source of a module that imports nothing from this project, as a cell of the script."""
    text = file.read_text(encoding="utf-8")
    _, about, code = text.split('"""', 2)
    return "# %% " + "\n# ".join(line for line in about.strip().splitlines() if line) + code + "\n\n"


def sft_arguments(job: Job, precision: Precision) -> dict[str, object]:
    """The arguments of ``trl.SFTConfig``, as in :mod:`workbench.engine.model.translate` but without checkpoints."""
    recipe, training = job.recipe, job.recipe.training
    same = (
        "num_train_epochs",
        "max_steps",
        "learning_rate",
        "lr_scheduler_type",
        "weight_decay",
        "max_grad_norm",
        "logging_steps",
        "seed",
    )
    return {
        **{name: getattr(training, name) for name in same},
        **_batches(job),
        "router_aux_loss_coef": training.router_aux_loss,
        "optim": name_there(optimizer_here(training.optim)[0]),
        "warmup_steps": training.warmup,
        **{name: value for name in _RARELY_SET if (value := getattr(training, name)) != _DEFAULTS[name]},
        "gradient_checkpointing": bool(training.gradient_checkpointing),
        "gradient_checkpointing_kwargs": {"use_reentrant": recipe.quantization.method == "int8"},
        "data_seed": training.order_seed,
        "logging_nan_inf_filter": False,
        "eval_strategy": "no",
        "save_strategy": "no",
        "bf16": False,
        "fp16": precision.compute == "float16",
        "max_length": recipe.data.max_length,
        "packing": recipe.data.packing,
        "disable_tqdm": True,
        "report_to": list(training.report_to),
        **({"run_name": recipe.output.name} if training.report_to else {}),
    }


def _batches(job: Job) -> dict[str, int]:
    """Micro-batch and accumulation. Where the run computed each record by itself, so does the script."""
    training = job.recipe.training
    size, accumulation = training.per_device_train_batch_size, training.gradient_accumulation_steps
    if _loss_path(job).one_record:
        size, accumulation = 1, size * accumulation
    return {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}


def _loss_path(job: Job) -> LossPath:
    """How the run computed its loss. Runs of old versions do not state it; they were padded."""
    return LossPath.recorded(job.facts.precision.get("batches")) or PADDED


class _Outcome:
    """How the run ended, as far as the recipe does not say it.

    Attributes:
        stop_after: the step at which the run was stopped early, or None.
        kept_step: the step whose adapter was kept, if it is not the last one.
        last_loss: the last training loss.
    """

    def __init__(self, run: RunFolder) -> None:
        replay = Replay.of(run.journal)
        ended, summary = replay.ended, replay.summary
        step = ended.step if ended is not None else None
        self.stop_after = step if step and step < summary.max_steps else None
        self.kept_step = replay.kept_step if replay.kept_step != step else None
        self.last_loss = summary.loss


def _precision(job: Job) -> Precision:
    """The dtypes of the run according to its journal, or else those that this machine would use."""
    types = {str(name): name for name in COMPUTE_TYPES}
    compute = types.get(job.facts.precision.get("compute_dtype") or "")
    adapter = types.get(job.facts.precision.get("adapter_dtype") or "")
    if compute and adapter:
        return Precision(compute, adapter, "as the run")
    return choose_precision(job.recipe.quantization)


def _quantization(method: str, double_quant: bool) -> dict[str, object] | None:
    if method == "none":
        return None
    if method == "int8":
        return {"load_in_8bit": True}
    return {"load_in_4bit": True, "bnb_4bit_quant_type": method, "bnb_4bit_use_double_quant": double_quant}


def _literal(value: object) -> str:
    if not isinstance(value, dict) or not value:
        return repr(value)
    return "{\n" + "".join(f"    {name!r}: {item!r},\n" for name, item in value.items()) + "}"


def _write_records(job: Job, data: EncodedData) -> None:
    with (job.folder / RECORDS).open("w", encoding="utf-8") as file:
        for row in in_trained_order(data.train, job.recipe):
            file.write(json.dumps(row) + "\n")


def _requirements(versions: Mapping[str, str], recipe: Recipe) -> str:
    package = OPTIMIZERS[recipe.training.optim].package
    more = [package.distribution] if package is not None and package.distribution not in _PINNED_PACKAGES else []
    names = (*_PINNED_PACKAGES, *(["liger-kernel"] if recipe.training.kernels == "liger" else []))
    # Without the local part of a version, such as +cpu or +cu126: no index has it for every machine.
    pinned = [f"{name}=={versions[name].partition('+')[0]}" for name in names if name in versions]
    return "".join(f"{line}\n" for line in (*pinned, *more, *recipe.training.report_to))


def _add_notices(job: Job, data: EncodedData) -> None:
    """Warn about differences between the run and what the script will do."""
    then, now = job.facts.counts, data.counts
    names, tokens_then = ("train_records", "tokens"), then.get("tokens")
    if then and any(then.get(name) != now.get(name) for name in names):
        job.notices.append(
            f"The records have changed since the run: {now['train_records']:,} with "
            f"{now['tokens']['total']:,} tokens now, {then.get('train_records') or 0:,} with "
            f"{(tokens_then.get('total') if isinstance(tokens_then, dict) else None) or 0:,} then."
        )
    changes = [change for change in job.facts.changes if not change.startswith("resumed")]
    if changes:
        job.notices.append(f"The script does not reproduce: {'; '.join(changes)}.")
    if data.labels and job.recipe.adapter.has_dropout and job.recipe.adapter.lora_dropout:
        job.notices.append(
            "The script pads its batches, so that dropout drops other numbers than in the run: losses differ by that."
        )
    trl = trl_of(job.recipe)
    if job.recipe.training.gradient_checkpointing == OFFLOAD and trl is not None and trl.config not in _OFFLOADING:
        job.notices.append(f"The script keeps checkpoints on the GPU: {trl.config} has no activation_offloading.")
    if job.recipe.training.tiled_mlp and trl is not None:
        job.notices.append("The script computes MLPs whole: it needs more memory, and losses differ by rounding.")
    if job.recipe.training.kernels == "hub":
        job.notices.append("The script does not use the hub kernels, so its losses match only up to rounding.")


def _report(progress: Progress) -> None:

    report(progress.phase, progress.fraction, progress.detail)
