"""Attaches a run's new adapter, with the start that its recipe asks for. Imports torch."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from workbench.adapters.starts import Start, start_of
from workbench.data.tokens.encode import EncodedData
from workbench.engine.kernels.loss_path import PADDED
from workbench.engine.kernels.residual_start import save_as_plain, subtract_start
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.saving import load_adapter, save_adapter
from workbench.engine.model.sequence_adapter import TASK, SequenceHead
from workbench.engine.model.sharded import is_spread
from workbench.engine.training.session.context import Context
from workbench.engine.training.starts import batches, eva, loftq, residual
from workbench.errors import WorkbenchError
from workbench.recipe.sections.adapter import AdapterSection
from workbench.runs.events import Phase

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

# Of these records, PEFT's guides say that they are enough.
_CORDA_RECORDS = 256
_LORA_GA_RECORDS = 64
_EVA_BATCHES = 256


def attach_adapter(context: Context, base: LoadedBase, data: EncodedData, head: SequenceHead | None) -> "PeftModel":
    """Attach the adapter of a run, ready for training. A start that the engine makes is made once and kept.

    Raises:
        WorkbenchError: PEFT rejects the adapter, or its start cannot be made.
        StoppedBeforeFirstStep: the run was stopped meanwhile.
    """
    recipe = context.recipe
    adapter, seed = recipe.trained_adapter, recipe.training.seed
    start = start_of(adapter.init_lora_weights)
    if start is None:
        return base.attach_new(adapter, head, seed)
    if is_spread():
        raise WorkbenchError(
            f"init_lora_weights: {start.name} needs whole layers, and this base is sharded across GPUs.",
            "Set adapter.init_lora_weights to true.",
            kind="adapter_start",
        )
    context.ranks.run_on_all(lambda: _keep(context, base, data, start) if context.ranks.is_first else None)
    model = base.attach_new(adapter, head, seed, _kept_config(context.run.start, adapter, head))
    load_adapter(model, context.run.start)
    base.cast_adapter()
    if start.moves_base:
        subtract_start(model)
        save_as_plain(model, context.run.start)
    return model


def _kept_config(folder: Path, adapter: AdapterSection, head: SequenceHead | None) -> "LoraConfig":
    """The configuration of the kept start: EVA has given its layers other ranks than the recipe."""
    from peft import LoraConfig

    config: LoraConfig = LoraConfig.from_pretrained(str(folder))
    config.inference_mode = False
    config.modules_to_save = adapter.modules_to_save
    config.task_type = "CAUSAL_LM" if head is None else TASK
    return config


def _keep(context: Context, base: LoadedBase, data: EncodedData, start: Start) -> None:
    """Make the start, and keep it in the run's folder, unless it is there."""
    folder = context.run.start
    if (folder / "adapter_config.json").is_file():
        return
    try:
        with base.loss_path(PADDED):
            done = _make(context, base, data, start)
        save_adapter(base, data.template, folder)
    except BaseException:
        # PEFT may have left marks and hooks on the layers.
        base.is_altered = True
        raise
    base.detach_all()
    context.journal.write(Phase(phase="preparing", detail=f"{start.label}: {done}"))


def _make(context: Context, base: LoadedBase, data: EncodedData, start: Start) -> str:
    """Attach an adapter with the start; returns what was done, in words."""
    recipe = context.recipe
    adapter = recipe.trained_adapter.model_copy(update={"modules_to_save": None})
    options = {name: adapter.options.get(name, option.default) for name, option in start.options.items()}
    steps = batches.Steps(start.label, context.report, context.controls.local.is_stopped)
    seed, order, pad = recipe.training.seed, recipe.training.order_seed, base.tokenizer.pad_token_id or 0
    torch.manual_seed(seed)
    match start.name:
        case "loftq":
            return loftq.initialize(base.attach_new(adapter), base.local.folder, steps)
        case "eva":
            rho = float(options["rho"])
            least = round(max(adapter.r, *adapter.rank_pattern.values(), 0) * rho)
            found = batches.large_batches(data.train, order, pad, least, _EVA_BATCHES)
            return eva.initialize(base, base.attach_new(adapter), found, rho, steps)
        case _:
            count = _CORDA_RECORDS if start.name == "corda" else _LORA_GA_RECORDS
            return residual.initialize(
                base, adapter, batches.record_batches(data.train, order, pad, count), options, steps
            )
