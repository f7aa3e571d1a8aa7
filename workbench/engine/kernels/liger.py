"""Applies Liger's fused kernels to the norms and gated MLPs of one model, and removes them again.

Liger's own ``_apply_liger_kernel_to_instance`` goes by a list of architectures and also replaces functions and classes
of transformers for the whole process. This module compares instead: a module gets a kernel if its own forward and the
kernel give the same output for the same input, otherwise it stays as it is. An exported script contains this text:
nothing of the project is imported.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import MethodType

import torch
from torch import nn
from transformers import PreTrainedModel

# What is added to the weight, and whether the weight is applied before or after the cast back from float32: Llama and
# Qwen, OLMo 2, Gemma.
# https://github.com/linkedin/Liger-Kernel/blob/main/src/liger_kernel/transformers/rms_norm.py
_NORMS = ((0.0, "llama"), (0.0, "gemma"), (1.0, "gemma"))
# In float32. GELU and its tanh approximation differ by 5e-4 at 2; a fused product and PyTorch's by 5e-7.
_ROUNDING = 3e-5


@dataclass(frozen=True)
class FusedOperations:
    """Operations that each run in one kernel.

    Attributes:
        rms_norm: of states (…, width), weight (width,), epsilon, the offset added to the weight, and ``llama`` or
            ``gemma`` for the position of the cast.
        silu_mul: silu(gate) · up.
        gelu_mul: gelu(gate) · up, with the tanh approximation.
    """

    rms_norm: Callable[[torch.Tensor, torch.Tensor, float, float, str], torch.Tensor]
    silu_mul: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    gelu_mul: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def liger_operations() -> FusedOperations:
    """The operations of the installed liger-kernel.

    Raises:
        ImportError: it is not installed, or no longer has them.
    """
    from liger_kernel.ops.geglu import LigerGELUMulFunction
    from liger_kernel.ops.rms_norm import LigerRMSNormFunction
    from liger_kernel.ops.swiglu import LigerSiLUMulFunction

    def rms_norm(states: torch.Tensor, weight: torch.Tensor, eps: float, offset: float, cast: str) -> torch.Tensor:
        # Not in place: that would overwrite a gradient which a residual path may still need.
        return LigerRMSNormFunction.apply(states, weight, eps, offset, cast, False)

    return FusedOperations(rms_norm, LigerSiLUMulFunction.apply, LigerGELUMulFunction.apply)


def apply_kernels(
    operations: FusedOperations, model: PreTrainedModel
) -> tuple[Counter[tuple[str, str]], Callable[[], None]]:
    """Replace the forward of each norm and gated MLP for which a kernel computes the same.

    Includes the copies of whole modules that PEFT trains. Adapters inside an MLP are still called.

    Returns:
        how many modules were replaced, by kind (``norm``, ``MLP``) and class; and a function that removes the kernels.

    Raises:
        Exception: a kernel does not run here, as raised by Triton; the model is unchanged.
    """
    replaced: list[nn.Module] = []

    def remove() -> None:
        for module in replaced:
            module.__dict__.pop("forward", None)

    counts: Counter[tuple[str, str]] = Counter()
    try:
        for module in model.modules():
            # A forward on the instance was put there by somebody else.
            fused = None if "forward" in module.__dict__ else _fused(operations, module, model.dtype, model.device)
            if fused is not None:
                kind, forward = fused
                # A bound method, so that a copy of the module calls itself and not this one.
                module.forward = MethodType(forward, module)
                replaced.append(module)
                counts[kind, type(module).__name__] += 1
    except Exception:
        remove()
        raise
    return counts, remove


def _fused(
    operations: FusedOperations, module: nn.Module, dtype: torch.dtype, device: torch.device
) -> tuple[str, Callable[..., torch.Tensor]] | None:
    with torch.no_grad():
        if type(module).__name__.endswith("RMSNorm"):
            norm = _norm(operations, module, dtype, device)
            return ("norm", norm) if norm else None
        mlp = _mlp(operations, module, dtype, device)
        return ("MLP", mlp) if mlp else None


def _norm(
    operations: FusedOperations, module: nn.Module, dtype: torch.dtype, device: torch.device
) -> Callable[..., torch.Tensor] | None:
    weight, eps = module._parameters.get("weight"), _epsilon(module)
    if weight is None or weight.dim() != 1 or eps is None:
        return None
    # Small states too, so that the epsilon matters.
    sizes = torch.tensor([[1e-3], [1.0], [30.0]], device=device)
    states = torch.arange(3 * len(weight), device=device).view(3, -1).mul(0.7).sin() * sizes
    expected = _class_forward(module, states)
    variants = [
        variant
        for variant in _NORMS
        if expected is not None and _is_same(expected, operations.rms_norm(states, weight, eps, *variant))
    ]
    states = states.to(dtype)
    expected = _class_forward(module, states) if variants else None
    if expected is None or expected.dtype != dtype:
        return None
    outputs = {variant: operations.rms_norm(states, weight, eps, *variant) for variant in variants}
    # In float32 there is no cast; in 16 bits its position is the difference between the variants.
    offset, cast = min(outputs, key=lambda variant: float((outputs[variant].float() - expected.float()).abs().mean()))
    if not _is_same(expected, outputs[offset, cast]):
        return None

    return _norm_forward(operations.rms_norm, eps, offset, cast)


# Cached: torch.compile compiles modules that share one function only once.
@cache
def _norm_forward(
    rms_norm: Callable[..., torch.Tensor], eps: float, offset: float, cast: str
) -> Callable[..., torch.Tensor]:
    def forward(self: nn.Module, *args: torch.Tensor, **kwargs: torch.Tensor) -> torch.Tensor:
        # Some callers pass the states by name.
        (states,) = (*args, *kwargs.values())
        return rms_norm(states, self.weight, eps, offset, cast)

    return forward


def _epsilon(module: nn.Module) -> float | None:
    values = (getattr(module, name, None) for name in ("variance_epsilon", "eps"))
    return next((float(value) for value in values if isinstance(value, float | int)), None)


def _mlp(
    operations: FusedOperations, module: nn.Module, dtype: torch.dtype, device: torch.device
) -> Callable[..., torch.Tensor] | None:
    if {"gate_proj", "up_proj", "down_proj"} <= module._modules.keys():
        fused_forward = _separate_mlp_forward
    elif {"gate_up_proj", "down_proj"} <= module._modules.keys():
        fused_forward = _joint_mlp_forward
    else:
        return None
    states = torch.linspace(-6, 6, 1024, device=device).view(1, 2, 512)
    stand_in = _SimpleProjections(module)
    # In float32 first, where the activation functions can be told apart.
    expected = [(inputs, _class_forward(module, inputs, stand_in)) for inputs in (states, states.to(dtype))]
    candidates = (fused_forward(multiply) for multiply in (operations.silu_mul, operations.gelu_mul))
    return next(
        (
            forward
            for forward in candidates
            if all(output is not None and _is_same(output, forward(stand_in, inputs)) for inputs, output in expected)
        ),
        None,
    )


@cache
def _separate_mlp_forward(
    multiply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> Callable[..., torch.Tensor]:
    def forward(self: nn.Module, *args: torch.Tensor, **kwargs: torch.Tensor) -> torch.Tensor:
        (states,) = (*args, *kwargs.values())
        return self.down_proj(multiply(self.gate_proj(states), self.up_proj(states)))

    return forward


@cache
def _joint_mlp_forward(
    multiply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> Callable[..., torch.Tensor]:
    def forward(self: nn.Module, *args: torch.Tensor, **kwargs: torch.Tensor) -> torch.Tensor:
        (states,) = (*args, *kwargs.values())
        gate, up = self.gate_up_proj(states).chunk(2, dim=-1)
        return self.down_proj(multiply(gate, up))

    return forward


class _SimpleProjections:
    """Stands in for an MLP with elementwise projections: shows what the MLP computes between them.

    Calling the real projections would repack 4-bit weights, and their sizes differ from model to model.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __getattr__(self, name: str) -> object:
        return getattr(self._module, name)

    def gate_proj(self, states: torch.Tensor) -> torch.Tensor:
        return states

    def up_proj(self, states: torch.Tensor) -> torch.Tensor:
        return states.flip(-1) * 0.1 + 1.5

    def gate_up_proj(self, states: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.gate_proj(states), self.up_proj(states)], dim=-1)

    def down_proj(self, states: torch.Tensor) -> torch.Tensor:
        return states * 0.5 + 0.25


def _class_forward(
    module: nn.Module, states: torch.Tensor, stand_in: _SimpleProjections | None = None
) -> torch.Tensor | None:
    """The output of the forward of a module's class; None where that needs other arguments or returns no tensor.

    Args:
        stand_in: passed to the forward as ``self`` in place of the module.
    """
    try:
        output = type(module).forward(module if stand_in is None else stand_in, states)
    except Exception:
        return None
    return output if isinstance(output, torch.Tensor) else None


def _is_same(one: torch.Tensor, other: torch.Tensor) -> bool:
    rounding = max(_ROUNDING, 4 * torch.finfo(one.dtype).eps)
    same_form = one.shape == other.shape and one.dtype == other.dtype
    return same_form and bool(torch.allclose(one, other, rtol=rounding, atol=rounding / 10))
