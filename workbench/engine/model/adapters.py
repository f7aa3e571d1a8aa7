"""Selects which adapters are active on the base in memory: none, one, or a weighted sum of several.

An adapter is read from disk once and stays attached next to the others; switching only activates another one. Adapters
that cannot share the base get one of their own, or are refused: those of another model, those that change the base's
weights, and merged ones.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.adapters.registry import adapter_method
from workbench.engine.model.adapter_folder import adapter_stamp, check_adapter
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.new_rows import embedding_rows, expose_bias
from workbench.engine.model.output_dtype import keep_output_dtype
from workbench.engine.model.sequence_adapter import TASK, SequenceHead
from workbench.engine.model.vocabulary import adapters_tokenizer, enlarge_vocabulary, rows_to_add
from workbench.errors import WorkbenchError
from workbench.recipe.sections.model import ModelSection

if TYPE_CHECKING:
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer

_COMBINED = "combined"
# The layer of a tensor in an adapter's file, and of LoRA's two which of them it is.
_WEIGHT = r"base_model\.model\.(.+)\.{prefix}(?:([AB])\.weight|.+)"


@dataclass(frozen=True)
class ActiveAdapters:
    """Which adapters to add to the base, each times its weight, and the sum times ``scale``.

    Attributes:
        parts: adapter folders and weights; empty for the base alone.
        merged: add the sum to the weights themselves, in 16 bits.
    """

    parts: tuple[tuple[Path, float], ...] = ()
    scale: float = 1.0
    merged: bool = False

    @property
    def folders(self) -> tuple[Path, ...]:
        return tuple(folder for folder, _ in self.parts)


def can_use(base: LoadedBase, adapters: ActiveAdapters) -> bool:
    """Whether the base in memory can be used with these adapters, without loading it again.

    An adapter with more rows in its vocabulary gets a base of its own too.

    A base that an adapter was merged into, or whose weights an adapter changed, serves only that adapter.
    """
    if base.merged is not None or adapters.merged:
        return base.merged == (adapters, *map(adapter_stamp, adapters.folders))
    if base.is_altered:
        return adapters.folders != () and base.altered_by == (adapters.folders, adapter_stamp(adapters.folders[0]))
    return base.peft is None or not any(
        changes_base_weights(check_adapter(folder)) or rows_to_add(base.model, folder) for folder in adapters.folders
    )


def changes_base_weights(config: Mapping[str, object]) -> bool:
    """Whether PEFT changes the base's own weights when it loads this adapter: trained biases, or a PiSSA-like start."""
    return adapter_method(config).moves_base(config)


@contextmanager
def use_adapters(base: LoadedBase, adapters: ActiveAdapters) -> Iterator[None]:
    """Within, ``base.active`` computes with these adapters. New ones are attached; nothing is reloaded.

    Raises:
        WorkbenchError: an adapter does not exist, belongs to another base, or cannot be scaled or combined.
    """
    if base.merged is not None or (base.peft is None and not adapters.parts):
        yield
    elif base.peft is not None and not adapters.parts:
        with base.peft.disable_adapter():
            yield
    else:
        _check_parts(adapters)
        names = [attach(base, folder) for folder in adapters.folders]
        weights = [weight for _, weight in adapters.parts]
        if len(names) == 1:
            name, factor = names[0], adapters.scale * weights[0]
        else:
            name, factor = _combine(base, names, weights), adapters.scale
        peft = base.active
        if peft.active_adapter != name:
            peft.set_adapter(name)
        with scaled(peft, name, factor):
            yield


def merge(base: LoadedBase, adapters: ActiveAdapters) -> None:
    """Merge adapters into the base's weights permanently. The base must have 16 bits or more.

    Raises:
        WorkbenchError: as :func:`use_adapters`.
    """
    for folder in adapters.folders:
        if (head := SequenceHead.of(folder, check_adapter(folder))) is not None:
            raise WorkbenchError(
                f"The adapter in {folder} is {head.label}: there is no model for it to be merged into.",
                "Use it unmerged.",
                kind="cannot_merge",
            )
    with use_adapters(base, ActiveAdapters(adapters.parts, adapters.scale)):
        base.model = base.active.merge_and_unload()
    base.peft, base.is_altered = None, True
    base.adapters.clear()
    base.merged = (adapters, *map(adapter_stamp, adapters.folders))


def attach(base: LoadedBase, folder: Path) -> str:
    """Attach the adapter in a folder, unless it is attached and unchanged; returns its name inside PEFT.

    Raises:
        WorkbenchError: there is no adapter, or it belongs to another base.
    """
    from peft import PeftModel

    stamp, before = adapter_stamp(folder), base.adapters.get(folder)
    if before is not None and base.stamps.get(before) == stamp:
        return before
    config = check_adapter(folder)
    head = SequenceHead.of(folder, config)
    if base.peft is not None and (
        head != base.head
        or any(one.peft_type != adapter_method(config).peft_type for one in base.peft.peft_config.values())
    ):
        # PEFT attaches adapters of one method and one task at a time.
        base.detach_all()
    rows = check_fit(base, folder, config)
    if rows:
        base.notices.append(enlarge_vocabulary(base.model, rows, folder))
        base.tokenizer = adapters_tokenizer(folder, base.tokenizer, rows)
        base.is_altered, base.altered_by = True, ((folder,), stamp)
    if head is not None and base.head is None:
        base.add_head(head)
    base.attached += 1
    name = f"adapter{base.attached}"
    try:
        with base.packing.without_unpacking():
            if base.peft is None:
                base.peft = PeftModel.from_pretrained(base.model, folder, adapter_name=name)
            else:
                base.peft.load_adapter(folder, adapter_name=name)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        # Some of the layers may have been changed already.
        base.is_altered = True
        raise _of_another_base(base, folder, config, str(error).splitlines()[0]) from error
    expose_bias(base.model)
    keep_output_dtype(base.active)
    base.adapters[folder], base.stamps[name] = name, stamp
    if changes_base_weights(config):
        base.is_altered, base.altered_by = True, ((folder,), stamp)
    if before is not None:
        base.peft.set_adapter(name)
        base.peft.delete_adapter(before)
    base.active.eval()
    return name


def check_same_base(base: LoadedBase, model: ModelSection, name: str) -> None:
    """Check that an adapter of ``model`` belongs to this base.

    Raises:
        WorkbenchError: it belongs to another one; names both.
    """
    if model == base.section or (model.revision is None and base.is_named(model.source)):
        return
    theirs, ours = (f"{m.source} at {m.revision}" if m.revision else m.source for m in (model, base.section))
    raise WorkbenchError(
        f"{name} was trained on {theirs}; the base in memory is {ours}.",
        "Adapters can be compared, switched and combined only on the same base. Chat with this one alone.",
        kind="adapter_of_another_base",
    )


def check_scale(name: object, config: Mapping[str, object]) -> None:
    """Check that an adapter consists of low-rank matrices only, so that it can be scaled and combined.

    Raises:
        WorkbenchError: it does not; with the reason.
    """
    method = adapter_method(config)
    reasons = {
        f"it is a {method.label} adapter, and only LoRA adapters can be": not method.scales,
        "it is a DoRA adapter, whose magnitudes cannot be scaled": config.get("use_dora"),
        "it predicts labels or a score with a head of its own": config.get("task_type") == TASK,
        "it contains whole modules": config.get("modules_to_save") or config.get("trainable_token_indices"),
        "it changes the base's own weights": changes_base_weights(config),
    }
    for reason, holds in reasons.items():
        if holds:
            raise WorkbenchError(
                f"The adapter of {name} cannot be scaled or combined: {reason}.",
                "Use it alone, at scale 1.",
                kind="adapter",
            )


def _check_parts(adapters: ActiveAdapters) -> None:
    if len(adapters.parts) > 1 or adapters.scale * adapters.parts[0][1] != 1:
        for folder in adapters.folders:
            check_scale(folder, check_adapter(folder))


def _combine(base: LoadedBase, names: list[str], weights: list[float]) -> str:
    """Make the exact sum Σ wᵢ·ΔWᵢ an adapter, by concatenating the matrices (PEFT's ``cat``); returns its name."""
    parts = tuple(zip(names, weights, strict=True))
    if base.combined == parts:
        return _COMBINED
    peft = base.active
    if base.combined is not None:
        peft.set_adapter(names[0])
        peft.delete_adapter(_COMBINED)
        base.combined = None
    try:
        with base.packing.without_unpacking():
            peft.add_weighted_adapter(names, weights, _COMBINED, combination_type="cat")
    except (ValueError, TypeError) as error:
        raise WorkbenchError(
            f"PEFT cannot combine these adapters: {str(error).splitlines()[0]}",
            "Choose adapters on the same layers.",
            kind="adapter",
        ) from error
    base.combined = parts
    peft.set_adapter(_COMBINED)
    for layer in _lora_layers(peft):
        if not _has_adapter(layer, _COMBINED) and any(_has_adapter(layer, name) for name in names):
            raise WorkbenchError(
                "These adapters target different layers; PEFT would drop those that the first one lacks.",
                "Put the adapter with the most layers first.",
                kind="adapter",
            )
        # PEFT copies rsLoRA's √r from the first adapter, although the matrices already contain each one's scaling.
        if _COMBINED in layer.scaling:
            layer.scaling[_COMBINED] = 1.0
    base.active.eval()
    return _COMBINED


@contextmanager
def scaled(peft: "PeftModel", name: str, factor: float) -> Iterator[None]:
    """Within, ΔW of one adapter is multiplied by ``factor``."""
    if factor == 1:
        yield
        return
    before = [(layer, layer.scaling[name]) for layer in _lora_layers(peft) if name in layer.scaling]
    for layer, scaling in before:
        layer.scaling[name] = scaling * factor
    try:
        yield
    finally:
        for layer, scaling in before:
            layer.scaling[name] = scaling


def _lora_layers(peft: "PeftModel") -> "Iterator[LoraLayer]":
    from peft.tuners.lora import LoraLayer

    return (module for module in peft.modules() if isinstance(module, LoraLayer))


def _has_adapter(layer: "LoraLayer", name: str) -> bool:
    return name in layer.lora_A or name in layer.lora_embedding_A


def check_fit(base: LoadedBase, folder: Path, config: Mapping[str, object]) -> int:
    """Compare an adapter's shapes with the base's before PEFT changes anything.

    Returns:
        The rows of the adapter's vocabulary if they are more than the base's; else 0.

    Raises:
        WorkbenchError: it belongs to another base, or its file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    available = embedding_rows(base.model)
    if (largest := _largest_trained_row(config)) >= available:
        raise _of_another_base(
            base,
            folder,
            config,
            f"it trains row {largest} of the embeddings, which have {available} (model.resize_embeddings)",
        )
    modules = dict(base.model.named_modules())
    method = adapter_method(config)
    pattern = re.compile(_WEIGHT.format(prefix=method.prefix))
    present = missing = 0
    rows = rows_to_add(base.model, folder)
    head = base.model.get_output_embeddings()
    try:
        with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
            for key in file.keys():  # noqa: SIM118  (no mapping)
                if (match := pattern.fullmatch(key)) is None:
                    continue
                module = modules.get(match[1])
                present, missing = present + (module is not None), missing + (module is None)
                if match[2] is None:
                    continue
                size, axis = ("in_features", 1) if match[2] == "A" else ("out_features", 0)
                expected = getattr(module, size, None)
                shape = file.get_slice(key).get_shape()
                if rows and module is head and match[2] == "B":
                    expected = rows
                if expected is not None and len(shape) == 2 and shape[axis] != expected:
                    raise _of_another_base(
                        base, folder, config, f"{match[1]} has {expected} {size.replace('_', ' ')}, not {shape[axis]}"
                    )
    except SafetensorError as error:
        raise WorkbenchError(
            f"{folder / 'adapter_model.safetensors'} is damaged: {error}.", "Save the adapter again.", kind="adapter"
        ) from None
    if missing and not present:
        raise _of_another_base(base, folder, config, "none of its layers exist in this model")
    return rows


def _largest_trained_row(config: Mapping[str, object]) -> int:
    """The largest token id whose row an adapter trains; -1 if it trains none."""
    listed = config.get("trainable_token_indices") or []
    ids = [number for rows in listed.values() for number in rows] if isinstance(listed, dict) else listed
    return max((number for number in ids if isinstance(number, int)), default=-1) if isinstance(ids, list) else -1


def _of_another_base(base: LoadedBase, folder: Path, config: Mapping[str, object], reason: str) -> WorkbenchError:
    trained_on = config.get("base_model_name_or_path") or "an unnamed base"
    return WorkbenchError(
        f"The adapter in {folder} was trained on {trained_on} and does not fit {base.section.source}: {reason}.",
        "Chat with it on the base it was trained on.",
        kind="adapter_of_another_base",
    )
