"""Which weights answer: the base, an adapter on it, or several added up. All share one base in memory.

An adapter is read from the disk once and stays beside the others; to switch is to name another one. What shares no
base is refused, or has a base loaded for itself: an adapter of another model, one that changes the base's own weights,
and one that was merged.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.engine.model.base import LoadedBase, adapter_stamp, check_adapter
from workbench.errors import WorkbenchError
from workbench.recipe.schema import ModelSection

_COMBINED = "combined"
_WEIGHT = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
# Ways to begin that take part of the base's weights out of it and into the adapter.
_TAKES_FROM_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True)
class Voice:
    """The base with these adapters added to it, each times its weight, and all of them times ``scale``.

    No parts: the base alone. ``merged``: the sum is in the weights themselves, in 16 bits.
    """

    parts: tuple[tuple[Path, float], ...] = ()
    scale: float = 1.0
    merged: bool = False

    @property
    def folders(self) -> tuple[Path, ...]:
        return tuple(folder for folder, _ in self.parts)


def can_speak(base: LoadedBase, voice: Voice) -> bool:
    """Whether a base, as it lies in memory, can answer so. One that is altered or merged has only that one voice."""
    if base.merged is not None or voice.merged:
        return base.merged == (voice, *map(adapter_stamp, voice.folders))
    if base.is_altered:
        return voice.folders != () and base.altered_by == (voice.folders, adapter_stamp(voice.folders[0]))
    return base.peft is None or not any(alters_base(check_adapter(folder)) for folder in voice.folders)


def alters_base(config: dict[str, Any]) -> bool:
    """Whether PEFT changes the base's own weights when it loads an adapter: trained biases, or what PiSSA took."""
    start = str(config.get("init_lora_weights", "")).lower()
    return config.get("bias", "none") != "none" or start.startswith(_TAKES_FROM_BASE)


@contextmanager
def speaking(base: LoadedBase, voice: Voice) -> Iterator[None]:
    """Within, ``base.active`` answers with this voice. Nothing is reloaded; adapters that are new are attached.

    Raises:
        WorkbenchError: there is no such adapter, it belongs to another base, or it cannot be scaled or added up.
    """
    if base.merged is not None or (base.peft is None and not voice.parts):
        yield
    elif not voice.parts:
        with base.peft.disable_adapter():
            yield
    else:
        _check_parts(voice)
        names = [attach(base, folder) for folder in voice.folders]
        weights = [weight for _, weight in voice.parts]
        if len(names) == 1:
            name, factor = names[0], voice.scale * weights[0]
        else:
            name, factor = _combination(base, names, weights), voice.scale
        if base.peft.active_adapter != name:
            base.peft.set_adapter(name)
        with scaled(base.peft, name, factor):
            yield


def merge(base: LoadedBase, voice: Voice) -> None:
    """Put a voice's adapters into the base's weights for good. The base is to be one of 16 bits or more.

    Raises:
        WorkbenchError: as :func:`speaking`.
    """
    with speaking(base, Voice(voice.parts, voice.scale)):
        base.model = base.peft.merge_and_unload()
    base.peft, base.is_altered = None, True
    base.adapters.clear()
    base.merged = (voice, *map(adapter_stamp, voice.folders))


def attach(base: LoadedBase, folder: Path) -> str:
    """The name inside PEFT of the adapter in a folder, which is read the first time and when it was written anew.

    Raises:
        WorkbenchError: there is no adapter, or it belongs to another base.
    """
    from peft import PeftModel

    stamp, before = adapter_stamp(folder), base.adapters.get(folder)
    if before is not None and base.stamps.get(before) == stamp:
        return before
    config = check_adapter(folder)
    _check_fit(base, folder, config)
    base.attached += 1
    name = f"adapter{base.attached}"
    try:
        with base.packing.kept():
            if base.peft is None:
                base.peft = PeftModel.from_pretrained(base.model, folder, adapter_name=name)
            else:
                base.peft.load_adapter(folder, adapter_name=name)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        # It may have come as far as some of the layers.
        base.is_altered = True
        raise _of_another_base(base, folder, config, str(error).splitlines()[0]) from error
    base.adapters[folder], base.stamps[name] = name, stamp
    if alters_base(config):
        base.is_altered, base.altered_by = True, ((folder,), stamp)
    if before is not None:
        base.peft.set_adapter(name)
        base.peft.delete_adapter(before)
    base.active.eval()
    return name


def check_same_base(base: LoadedBase, model: ModelSection, name: str) -> None:
    """That an adapter of ``model`` may be put on this base.

    Raises:
        WorkbenchError: it belongs to another one; with the two names.
    """
    if model == base.section or (model.revision is None and base.goes_by(model.source)):
        return
    theirs, ours = (f"{m.source} at {m.revision}" if m.revision else m.source for m in (model, base.section))
    raise WorkbenchError(
        f"{name} was trained on {theirs}; the base in memory is {ours}.",
        "Adapters can be compared, switched and combined only on the same base. Chat with this one alone.",
        kind="adapter_of_another_base",
    )


def check_scale(name: object, config: dict[str, Any]) -> None:
    """That an adapter is all low rank, so that it can be scaled and added to another one.

    Raises:
        WorkbenchError: it is not; with the reason.
    """
    reasons = {
        "it is a DoRA adapter, whose magnitudes cannot be scaled": config.get("use_dora"),
        "it contains whole modules": config.get("modules_to_save") or config.get("trainable_token_indices"),
        "it changes the base's own weights": alters_base(config),
    }
    for reason, holds in reasons.items():
        if holds:
            raise WorkbenchError(
                f"The adapter of {name} cannot be scaled or combined: {reason}.",
                "Use it alone, at scale 1.",
                kind="adapter",
            )


def _check_parts(voice: Voice) -> None:
    if len(voice.parts) > 1 or voice.scale * voice.parts[0][1] != 1:
        for folder in voice.folders:
            check_scale(folder, check_adapter(folder))


def _combination(base: LoadedBase, names: list[str], weights: list[float]) -> str:
    """The name of the sum Σ wᵢ·ΔWᵢ, exact: the matrices side by side, of the ranks' sum (PEFT's ``cat``)."""
    wanted = tuple(zip(names, weights, strict=True))
    if base.combined == wanted:
        return _COMBINED
    peft = base.peft
    if base.combined is not None:
        peft.set_adapter(names[0])
        peft.delete_adapter(_COMBINED)
        base.combined = None
    try:
        with base.packing.kept():
            peft.add_weighted_adapter(names, weights, _COMBINED, combination_type="cat")
    except (ValueError, TypeError) as error:
        raise WorkbenchError(
            f"PEFT cannot combine these adapters: {str(error).splitlines()[0]}",
            "Choose adapters on the same layers.",
            kind="adapter",
        ) from error
    base.combined = wanted
    peft.set_adapter(_COMBINED)
    for layer in _layers(peft):
        if not _has(layer, _COMBINED) and any(_has(layer, name) for name in names):
            raise WorkbenchError(
                "These adapters target different layers; PEFT would drop those that the first one lacks.",
                "Put the adapter with the most layers first.",
                kind="adapter",
            )
        # PEFT takes over rsLoRA's √r from the first one, though every scale is in the matrices already.
        if _COMBINED in layer.scaling:
            layer.scaling[_COMBINED] = 1.0
    base.active.eval()
    return _COMBINED


@contextmanager
def scaled(peft: Any, name: str, factor: float) -> Iterator[None]:
    """Within, ΔW of one adapter counts times ``factor``."""
    if factor == 1:
        yield
        return
    before = [(layer, layer.scaling[name]) for layer in _layers(peft) if name in layer.scaling]
    for layer, scaling in before:
        layer.scaling[name] = scaling * factor
    try:
        yield
    finally:
        for layer, scaling in before:
            layer.scaling[name] = scaling


def _layers(peft: Any) -> Iterator[Any]:
    from peft.tuners.lora import LoraLayer

    return (module for module in peft.modules() if isinstance(module, LoraLayer))


def _has(layer: Any, name: str) -> bool:
    return name in layer.lora_A or name in layer.lora_embedding_A


def _check_fit(base: LoadedBase, folder: Path, config: dict[str, Any]) -> None:
    """Compare an adapter's shapes with the base's before PEFT changes anything."""
    from safetensors import SafetensorError, safe_open

    modules = dict(base.model.named_modules())
    found = missing = 0
    try:
        with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
            for key in file.keys():  # noqa: SIM118  (no mapping)
                if (match := _WEIGHT.fullmatch(key)) is None:
                    continue
                module = modules.get(match[1])
                found, missing = found + (module is not None), missing + (module is None)
                size, has = ("in_features", 1) if match[2] == "A" else ("out_features", 0)
                expected = getattr(module, size, None)
                shape = file.get_slice(key).get_shape()
                if expected is not None and len(shape) == 2 and shape[has] != expected:
                    raise _of_another_base(
                        base, folder, config, f"{match[1]} has {expected} {size.replace('_', ' ')}, not {shape[has]}"
                    )
    except SafetensorError as error:
        raise WorkbenchError(
            f"{folder / 'adapter_model.safetensors'} is damaged: {error}.", "Save the adapter again.", kind="adapter"
        ) from None
    if missing and not found:
        raise _of_another_base(base, folder, config, "none of its layers exist in this model")


def _of_another_base(base: LoadedBase, folder: Path, config: dict[str, Any], why: str) -> WorkbenchError:
    own = config.get("base_model_name_or_path") or "an unnamed base"
    return WorkbenchError(
        f"The adapter in {folder} was trained on {own} and does not fit {base.section.source}: {why}.",
        "Chat with it on the base it was trained on.",
        kind="adapter_of_another_base",
    )
