"""Liger's fused kernels on the norms and gated MLPs of one model: put on its modules, and taken off again.

Liger's own ``_apply_liger_kernel_to_instance`` also replaces functions and classes of transformers for the whole
process, by a list of architectures. Here it is tried, on each module itself: where its own forward and a kernel say the
same of the same numbers, the module gets the kernel; where not, it stays as it is. An exported script carries this text
along: nothing of the project is imported.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import MethodType
from typing import Any

import torch

# A weight is added to by this much and applied before or after the cast back from float32: Llama and Qwen, OLMo 2,
# Gemma. https://github.com/linkedin/Liger-Kernel/blob/main/src/liger_kernel/transformers/rms_norm.py
_NORMS = ((0.0, "llama"), (0.0, "gemma"), (1.0, "gemma"))
# In float32. GELU and its approximation by tanh differ by 5e-4 at 2; a fused product and that of PyTorch by 5e-7.
_ROUNDING = 3e-5


@dataclass(frozen=True)
class Operations:
    """What is computed in one kernel each.

    Attributes:
        rms_norm: of states (…, width), weight (width,), epsilon, what is added to the weight, and ``llama`` or
            ``gemma`` for the place of the cast.
        silu_mul: silu(gate) · up.
        gelu_mul: gelu(gate) · up, in the approximation by tanh.
    """

    rms_norm: Callable[[torch.Tensor, torch.Tensor, float, float, str], torch.Tensor]
    silu_mul: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    gelu_mul: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def liger_operations() -> Operations:
    """Those of the installed liger-kernel.

    Raises:
        ImportError: it is not installed, or knows them no more.
    """
    from liger_kernel.ops.geglu import LigerGELUMulFunction
    from liger_kernel.ops.rms_norm import LigerRMSNormFunction
    from liger_kernel.ops.swiglu import LigerSiLUMulFunction

    def rms_norm(states: torch.Tensor, weight: torch.Tensor, eps: float, offset: float, cast: str) -> torch.Tensor:
        # Not in place: that would write into a gradient which a residual path may still need.
        return LigerRMSNormFunction.apply(states, weight, eps, offset, cast, False)

    return Operations(rms_norm, LigerSiLUMulFunction.apply, LigerGELUMulFunction.apply)


def compute_with(operations: Operations, model: Any) -> tuple[Counter[tuple[str, str]], Callable[[], None]]:
    """Give each norm and gated MLP of a model its kernel, where that computes the same.

    Whole modules that PEFT trains are replaced too, and adapters inside of an MLP go on to be called.

    Returns:
        how many were replaced, by kind (``norm``, ``MLP``) and class; and what takes the kernels off.

    Raises:
        Exception: a kernel does not run here, in Triton's words; the model is as it was.
    """
    replaced: list[Any] = []

    def take_off() -> None:
        for module in replaced:
            module.__dict__.pop("forward", None)

    counts: Counter[tuple[str, str]] = Counter()
    try:
        for module in model.modules():
            # One with a forward of its own has it from somebody else.
            found = None if "forward" in module.__dict__ else _fused(operations, module, model.dtype, model.device)
            if found is not None:
                kind, forward = found
                # A method, so that a copy of the module would call itself.
                module.forward = MethodType(forward, module)
                replaced.append(module)
                counts[kind, type(module).__name__] += 1
    except Exception:
        take_off()
        raise
    return counts, take_off


def _fused(
    operations: Operations, module: Any, dtype: torch.dtype, device: torch.device
) -> tuple[str, Callable[..., torch.Tensor]] | None:
    with torch.no_grad():
        if type(module).__name__.endswith("RMSNorm"):
            norm = _norm(operations, module, dtype, device)
            return ("norm", norm) if norm else None
        mlp = _mlp(operations, module, dtype, device)
        return ("MLP", mlp) if mlp else None


def _norm(
    operations: Operations, module: Any, dtype: torch.dtype, device: torch.device
) -> Callable[..., torch.Tensor] | None:
    weight, eps = module._parameters.get("weight"), _epsilon(module)
    if weight is None or weight.dim() != 1 or eps is None:
        return None
    # Small states too, so that the epsilon counts.
    sizes = torch.tensor([[1e-3], [1.0], [30.0]], device=device)
    states = torch.arange(3 * len(weight), device=device).view(3, -1).mul(0.7).sin() * sizes
    own = _own(module, states)
    ways = [way for way in _NORMS if own is not None and _is_same(own, operations.rms_norm(states, weight, eps, *way))]
    states = states.to(dtype)
    own = _own(module, states) if ways else None
    if own is None or own.dtype != dtype:
        return None
    said = {way: operations.rms_norm(states, weight, eps, *way) for way in ways}
    # In float32 the cast is nowhere; in 16 bits its place is what the two differ by.
    offset, cast = min(said, key=lambda way: float((said[way].float() - own.float()).abs().mean()))
    if not _is_same(own, said[offset, cast]):
        return None

    return _normed(operations.rms_norm, eps, offset, cast)


# Each is made once: torch.compile takes modules with one function for alike, and compiles them once.
@cache
def _normed(rms_norm: Callable[..., torch.Tensor], eps: float, offset: float, cast: str) -> Callable[..., torch.Tensor]:
    def forward(self: Any, *given: Any, **named: Any) -> torch.Tensor:
        # Some callers name it.
        (states,) = (*given, *named.values())
        return rms_norm(states, self.weight, eps, offset, cast)

    return forward


def _epsilon(module: Any) -> float | None:
    values = (getattr(module, name, None) for name in ("variance_epsilon", "eps"))
    return next((float(value) for value in values if isinstance(value, float | int)), None)


def _mlp(
    operations: Operations, module: Any, dtype: torch.dtype, device: torch.device
) -> Callable[..., torch.Tensor] | None:
    if {"gate_proj", "up_proj", "down_proj"} <= module._modules.keys():
        fuse = _apart
    elif {"gate_up_proj", "down_proj"} <= module._modules.keys():
        fuse = _joint
    else:
        return None
    states = torch.linspace(-6, 6, 1024, device=device).view(1, 2, 512)
    stand_in = _Weightless(module)
    # In float32 first, which tells one activation from another.
    said = [(of, _own(module, of, stand_in)) for of in (states, states.to(dtype))]
    found = (fuse(multiply) for multiply in (operations.silu_mul, operations.gelu_mul))
    return next(
        (
            forward
            for forward in found
            if all(own is not None and _is_same(own, forward(stand_in, of)) for of, own in said)
        ),
        None,
    )


@cache
def _apart(multiply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
    def forward(self: Any, *given: Any, **named: Any) -> torch.Tensor:
        (states,) = (*given, *named.values())
        return self.down_proj(multiply(self.gate_proj(states), self.up_proj(states)))

    return forward


@cache
def _joint(multiply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
    def forward(self: Any, *given: Any, **named: Any) -> torch.Tensor:
        (states,) = (*given, *named.values())
        gate, up = self.gate_up_proj(states).chunk(2, dim=-1)
        return self.down_proj(multiply(gate, up))

    return forward


class _Weightless:
    """An MLP with easy projections: what it does beside them is seen, and no weight is touched or packed for that."""

    def __init__(self, module: Any) -> None:
        self._of = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of, name)

    def gate_proj(self, states: torch.Tensor) -> torch.Tensor:
        return states

    def up_proj(self, states: torch.Tensor) -> torch.Tensor:
        return states.flip(-1) * 0.1 + 1.5

    def gate_up_proj(self, states: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.gate_proj(states), self.up_proj(states)], dim=-1)

    def down_proj(self, states: torch.Tensor) -> torch.Tensor:
        return states * 0.5 + 0.25


def _own(module: Any, states: torch.Tensor, itself: Any = None) -> torch.Tensor | None:
    """What a module says of states by its class's own forward; None where that wants something else."""
    try:
        said = type(module).forward(module if itself is None else itself, states)
    except Exception:
        return None
    return said if isinstance(said, torch.Tensor) else None


def _is_same(one: torch.Tensor, other: torch.Tensor) -> bool:
    rounding = max(_ROUNDING, 4 * torch.finfo(one.dtype).eps)
    same_form = one.shape == other.shape and one.dtype == other.dtype
    return same_form and bool(torch.allclose(one, other, rtol=rounding, atol=rounding / 10))
