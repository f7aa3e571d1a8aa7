"""Chooses the dtypes that a run computes in and stores its adapter in."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

from workbench.machine.hardware import computes_bfloat16
from workbench.recipe.sections.quantization import QuantizationSection

ComputeType = Literal["bfloat16", "float16", "float32"]
COMPUTE_TYPES: tuple[ComputeType, ...] = get_args(ComputeType)


@dataclass(frozen=True)
class Precision:
    """The dtypes of a run, and why they were chosen.

    Adapters are bfloat16 where the base computes in bfloat16, as in the QLoRA paper (Dettmers et al. 2023, §3). Under
    float16 they are float32: its gradients need a loss scaler, and the scaler needs full-precision weights.

    Attributes:
        compute: dtype of the matrix products.
        adapter: dtype in which the adapter is trained and stored.
    """

    compute: ComputeType
    adapter: ComputeType
    reason: str


def choose_precision(quantization: QuantizationSection) -> Precision:
    """Choose the dtypes for this machine; ``compute_dtype: auto`` takes the fastest one that its hardware supports."""
    if quantization.compute_dtype != "auto":
        chosen: ComputeType = quantization.compute_dtype
        return Precision(chosen, _adapter_type(chosen), "set in the recipe")
    compute, reason = _fastest_here()
    return Precision(compute, _adapter_type(compute), reason)


@contextmanager
def tensor_float() -> Iterator[None]:
    """Within, a GPU with TF32 units uses them for float32 products: 10 bits of fraction, several times faster.

    For training only; replies and metrics in float32 are computed in full float32.
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
        name = torch.cuda.get_device_name()
        # By default `is_bf16_supported` counts emulation as support; a T4 emulates.
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bfloat16", f"{name} supports bfloat16"
        return "float16", f"{name} has no bfloat16 support, so float16 with a loss scaler"
    if computes_bfloat16(None):
        return "bfloat16", "this CPU supports bfloat16"
    return "float32", "this CPU has no bfloat16 support"
