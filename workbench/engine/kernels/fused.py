"""Applies fused kernels (Liger's, or those on the Hugging Face hub) to one model for training, and removes them again.

The loss is not among them: it never holds all logits anyway (:mod:`workbench.engine.kernels.padding_free`).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.errors import WorkbenchError
from workbench.recipe.fused_kernels import Fused

if TYPE_CHECKING:
    from kernels import RepositoryProtocol
    from torch.nn import Module
    from transformers import PreTrainedModel

    # As in ``kernels``: layer name → device → a repository, or a repository for each mode.
    KernelMapping = Mapping[str, Mapping[object, RepositoryProtocol | dict[object, RepositoryProtocol]]]

_WITHOUT = "Set training.kernels to none, or report the error to the kernels' authors."


@dataclass(frozen=True)
class AppliedKernels:
    """Fused kernels that are active on a model.

    Attributes:
        description: whose kernels they are, and on how many modules; empty where none was applied.
        notices: what else the user should know.
        remove: removes them.
    """

    description: str
    notices: tuple[str, ...]
    remove: Callable[[], None]


def check_device(kernels: str) -> None:
    """Check that the kernels can run on this machine; called before a model is loaded. Imports torch.

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


def apply_fused_kernels(model: "PreTrainedModel", kernels: Fused, *, trusts_code: bool) -> AppliedKernels:
    """Replace forwards of a model's modules with fused kernels; nothing else in the process changes.

    Args:
        trusts_code: whether to use kernels from publishers that the hub has not verified.

    Raises:
        WorkbenchError: the kernels are not available, or do not run on this device.
    """
    if kernels == "liger":
        return _apply_liger(model)
    return _apply_hub(model, trusts_code)


def _apply_liger(model: "PreTrainedModel") -> AppliedKernels:
    from workbench.engine.kernels.liger import apply_kernels, liger_operations

    try:
        counts, remove = apply_kernels(liger_operations(), model)
    except Exception as error:
        raise WorkbenchError(
            f"The Liger kernels do not run here: {_short(error)}.", _WITHOUT, kind="kernels"
        ) from error
    return _applied("Liger", counts, (), remove)


def _apply_hub(model: "PreTrainedModel", trusts_code: bool) -> AppliedKernels:
    """Do what transformers' ``kernelize`` does, but undoably, and without leaving a process-wide kernel mapping."""
    from kernels import KernelizeFallback, Mode, kernelize, use_kernel_mapping
    from transformers.integrations.hub_kernels import get_kernel_mapping_transformers
    from transformers.utils.import_utils import get_device_type

    mapping, unverified = get_kernel_mapping_transformers(), set[str]()
    if not trusts_code:
        mapping, unverified = verified_kernels(mapping)

    def replace() -> None:
        with use_kernel_mapping(mapping, inherit_mapping=False):
            kernelize(
                model,
                mode=Mode.TRAINING,
                device=get_device_type(model.device),
                use_fallback=KernelizeFallback.ALL,
            )

    counts, remove = replace_forwards(replace, model)
    notices = ["Hub kernels are on: they run downloaded compiled code."] if counts else []
    if skipped := sorted(unverified & {getattr(type(layer), "kernel_layer_name", "") for layer in _layers(model)}):
        notices.append(
            f"Skipped kernels for {', '.join(skipped)}: their publisher is not verified by the hub. "
            "model.trust_remote_code: true allows them."
        )
    return _applied("Hub", counts, tuple(notices), remove)


def verified_kernels(mapping: "KernelMapping") -> "tuple[KernelMapping, set[str]]":
    """Keep the kernels from publishers that the hub has verified; also returns the layers that lose a kernel."""
    verified: dict[str, dict[object, RepositoryProtocol | dict[object, RepositoryProtocol]]] = {}
    affected = set()
    for layer, devices in mapping.items():
        for device, entry in devices.items():
            by_mode = entry if isinstance(entry, dict) else {None: entry}
            trusted = {mode: repository for mode, repository in by_mode.items() if not repository._trust_remote_code}
            if len(trusted) < len(by_mode):
                affected.add(layer)
            if trusted:
                verified.setdefault(layer, {})[device] = trusted if isinstance(entry, dict) else trusted[None]
    return verified, affected


def replace_forwards(
    replace: Callable[[], None], model: "PreTrainedModel"
) -> tuple[Counter[tuple[str, str]], Callable[[], None]]:
    """Call a function that replaces forwards of a model's layers; returns how many by class, and how to undo it.

    Raises:
        WorkbenchError: the function failed; the layers are unchanged.
    """
    before = {id(layer): (layer, layer.__dict__.get("forward")) for layer in _layers(model)}

    def remove() -> None:
        for layer, forward in before.values():
            layer.__dict__.pop("forward", None)
            if forward is not None:
                layer.forward = forward

    try:
        replace()
    except Exception as error:
        remove()
        raise WorkbenchError(
            f"The hub kernels are not available: {_short(error)}.", _WITHOUT, kind="kernels"
        ) from error
    counts: Counter[tuple[str, str]] = Counter()
    for layer, forward in before.values():
        now = layer.__dict__.get("forward")
        # `kernelize` sets the class's own forward as an attribute where it has no kernel.
        if now is not None and now is not forward and getattr(now, "__func__", None) is not type(layer).forward:
            counts["layer", getattr(type(layer), "kernel_layer_name", type(layer).__name__)] += 1
    return counts, remove


def _layers(model: "PreTrainedModel") -> "Iterator[Module]":
    """A model's modules, and the functions that transformers attaches to them, which models of a class share."""
    for module in model.modules():
        yield module
        yield from module.__dict__.get("_kernel_funcs", {}).values()


def _applied(
    source: str, counts: Counter[tuple[str, str]], notices: tuple[str, ...], remove: Callable[[], None]
) -> AppliedKernels:
    if not counts:
        none = f"{source} kernels: no layer of this model is supported, so it trains without them."
        return AppliedKernels("", (*notices, none), remove)
    modules = [f"{count} {kind}{'s' * (count != 1)} ({name})" for (kind, name), count in counts.most_common()]
    return AppliedKernels(f"{source} kernels: {', '.join(modules)}", notices, remove)


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
