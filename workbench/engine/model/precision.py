"""Which number types a run computes and keeps its adapter in, and why."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from workbench.machine.gpu import computes_bfloat16
from workbench.recipe.schema import QuantizationSection

ComputeType = Literal["bfloat16", "float16", "float32"]


@dataclass(frozen=True)
class Precision:
    """``compute``: type of the matrix products. ``adapter``: type the adapter is trained and kept in.

    Adapters follow bfloat16, as the QLoRA paper does (Dettmers et al. 2023, §3). Under float16 they stay float32, since
    its gradients need a scaler, and the scaler full-precision weights.
    """

    compute: ComputeType
    adapter: ComputeType
    reason: str


def choose_precision(quantization: QuantizationSection) -> Precision:
    """The types for this machine; ``compute_dtype: auto`` is resolved by what the device computes in hardware."""
    if quantization.compute_dtype != "auto":
        chosen: ComputeType = quantization.compute_dtype
        return Precision(chosen, _adapter_type(chosen), "set in the recipe")
    compute, reason = _fastest_here()
    return Precision(compute, _adapter_type(compute), reason)


@contextmanager
def tensor_float() -> Iterator[None]:
    """Within, a GPU that has TF32 units multiplies float32 in them: 10 bits of fraction, several times as fast.

    For training only; replies and figures in float32 are to be float32.
    """
    import torch

    before = torch.get_float32_matmul_precision()
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _adapter_type(compute: ComputeType) -> ComputeType:
    return "bfloat16" if compute == "bfloat16" else "float32"


def _fastest_here() -> tuple[ComputeType, str]:
    import torch

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name(0)
        # `is_bf16_supported` counts emulation as support unless told otherwise; a T4 emulates.
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bfloat16", f"{name} supports bfloat16"
        return "float16", f"{name} has no bfloat16 support, so float16 with a loss scaler"
    if computes_bfloat16(None):
        return "bfloat16", "this CPU supports bfloat16"
    return "float32", "this CPU has no bfloat16 support"
