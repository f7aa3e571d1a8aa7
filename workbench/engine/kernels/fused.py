"""With which fused kernels a base computes while it is trained: put on its modules, and taken off again.

What the loss needs no kernel for: its logits are never held (:mod:`workbench.engine.kernels.padding_free`).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from workbench.errors import WorkbenchError
from workbench.recipe.fused_kernels import Fused

_WITHOUT = "Set training.kernels to none, or report the error to the kernels' authors."


@dataclass(frozen=True)
class Kernels:
    """Kernels that are on. ``told``: whose, and on how many modules; ``notices``: what else a run should say."""

    told: str
    notices: tuple[str, ...]
    take_off: Callable[[], None]


def check_device(kernels: str) -> None:
    """Whether the kernels can run here, which takes torch to know; to be asked before a model is loaded.

    Raises:
        WorkbenchError: there is no GPU, or transformers wants another version of the package.
    """
    if kernels == "none":
        return
    import torch

    if not torch.cuda.is_available():
        raise WorkbenchError(
            f"training.kernels is {kernels}, which needs a GPU, and PyTorch finds none.",
            "Set training.kernels to none; `loraworkbench doctor` checks the GPU.",
            kind="kernels",
        )
    if kernels == "hub":
        from transformers.utils.import_utils import KERNELS_MAX_VERSION, KERNELS_MIN_VERSION, is_kernels_available

        if not is_kernels_available():
            raise WorkbenchError(
                "training.kernels is hub, and this transformers version does not support the installed "
                "kernels package.",
                f"`pip install 'kernels>={KERNELS_MIN_VERSION},<{KERNELS_MAX_VERSION}'` and `loraworkbench engine "
                "restart`, or set training.kernels to liger or none.",
                kind="kernels",
            )


def put_on(model: Any, kernels: Fused, *, trusts_code: bool) -> Kernels:
    """Let a model of transformers compute with fused kernels, module by module; nothing else in the process changes.

    Args:
        trusts_code: whether kernels are taken from publishers whom the hub does not vouch for.

    Raises:
        WorkbenchError: the kernels cannot be had, or do not run on this device.
    """
    if kernels == "liger":
        return _put_liger_on(model)
    return _put_hub_on(model, trusts_code)


def _put_liger_on(model: Any) -> Kernels:
    from workbench.engine.kernels.liger import compute_with, liger_operations

    try:
        counts, take_off = compute_with(liger_operations(), model)
    except Exception as error:
        raise WorkbenchError(
            f"The Liger kernels do not run here: {_short(error)}.", _WITHOUT, kind="kernels"
        ) from error
    return _kernels("Liger", counts, (), take_off)


def _put_hub_on(model: Any, trusts_code: bool) -> Kernels:
    """As transformers' ``kernelize``, without what that leaves behind: a mapping for the process, and no way back."""
    from kernels import KernelizeFallback, Mode, kernelize, use_kernel_mapping
    from transformers.integrations.hub_kernels import get_kernel_mapping_transformers
    from transformers.utils.import_utils import get_device_type

    mapping, distrusted = get_kernel_mapping_transformers(), set[str]()
    if not trusts_code:
        mapping, distrusted = vouched_for(mapping)

    def replace() -> None:
        with use_kernel_mapping(mapping, inherit_mapping=False):
            kernelize(
                model,
                mode=Mode.TRAINING,
                device=get_device_type(model.device),
                use_fallback=KernelizeFallback.ALL,
            )

    counts, take_off = replaced_by(replace, model)
    notices = ["Hub kernels are on: they run downloaded compiled code."] if counts else []
    if left := sorted(distrusted & {getattr(type(layer), "kernel_layer_name", "") for layer in _layers(model)}):
        notices.append(
            f"Skipped kernels for {', '.join(left)}: their publisher is not verified by the hub. "
            "model.trust_remote_code: true allows them."
        )
    return _kernels("Hub", counts, tuple(notices), take_off)


def vouched_for(mapping: Mapping[str, Mapping[Any, Any]]) -> tuple[dict[str, dict[Any, Any]], set[str]]:
    """The part of a kernel mapping whose repositories the hub vouches for, and the layers that lack one by that."""
    kept: dict[str, dict[Any, Any]] = {}
    left = set()
    for layer, devices in mapping.items():
        for device, entry in devices.items():
            by_mode = entry if isinstance(entry, dict) else {None: entry}
            trusted = {mode: repo for mode, repo in by_mode.items() if not repo._trust_remote_code}
            if len(trusted) < len(by_mode):
                left.add(layer)
            if trusted:
                kept.setdefault(layer, {})[device] = trusted if isinstance(entry, dict) else trusted[None]
    return kept, left


def replaced_by(replace: Callable[[], None], model: Any) -> tuple[Counter[tuple[str, str]], Callable[[], None]]:
    """Call what replaces forwards of a model's layers; returns whose it replaced, and what undoes it.

    Raises:
        WorkbenchError: it failed; the layers are as they were.
    """
    before = {id(layer): (layer, layer.__dict__.get("forward")) for layer in _layers(model)}

    def take_off() -> None:
        for layer, forward in before.values():
            layer.__dict__.pop("forward", None)
            if forward is not None:
                layer.forward = forward

    try:
        replace()
    except Exception as error:
        take_off()
        raise WorkbenchError(
            f"The hub kernels are not available: {_short(error)}.", _WITHOUT, kind="kernels"
        ) from error
    counts: Counter[tuple[str, str]] = Counter()
    for layer, forward in before.values():
        now = layer.__dict__.get("forward")
        # What has no kernel gets its own forward, as an attribute.
        if now is not None and now is not forward and getattr(now, "__func__", None) is not type(layer).forward:
            counts["layer", getattr(type(layer), "kernel_layer_name", type(layer).__name__)] += 1
    return counts, take_off


def _layers(model: Any) -> Iterator[Any]:
    """A model's modules, and the functions that transformers ties to them, which all models of a kind share."""
    for module in model.modules():
        yield module
        yield from module.__dict__.get("_kernel_funcs", {}).values()


def _kernels(
    whose: str, counts: Counter[tuple[str, str]], notices: tuple[str, ...], take_off: Callable[[], None]
) -> Kernels:
    if not counts:
        none = f"{whose} kernels: no layer of this model is supported, so it trains without them."
        return Kernels("", (*notices, none), take_off)
    words = [f"{count} {kind}{'s' * (count != 1)} ({name})" for (kind, name), count in counts.most_common()]
    return Kernels(f"{whose} kernels: {', '.join(words)}", notices, take_off)


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
