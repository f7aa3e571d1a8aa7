"""Computes the MLP of each layer in pieces of the sequence, so that only one piece's activations are alive.

Imports torch. The idea is that of TiledMLP (Bekman et al. 2025, arXiv:2506.13996). Where layers are checkpointed, no
MLP is computed more often than without it: a layer that is recomputed stops where its MLP begins, and each piece is
recomputed in its own backward pass. An exported script contains this text: nothing of the project is imported.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

PIECES = 8
"""Pieces of a sequence. An MLP's activations are then less than those of the attention in front of it."""

_MLP = re.compile(r"(MLP|Mlp|FeedForward|FFN)$")
_MAX_DIFFERENCE = 1e-2
"""Largest relative difference of the pieces' output, in 16 bits: other shapes round otherwise."""


def tiled_modules(model: nn.Module) -> list[nn.Module]:
    """The MLPs of a model that handle each token alone: dense ones, which take the hidden states and nothing else."""
    layers = (module for module in model.modules() if isinstance(module, GradientCheckpointingLayer))
    return [child for layer in layers for child in layer.children() if _is_dense_mlp(child)]


def _is_dense_mlp(module: nn.Module) -> bool:
    if not _MLP.search(type(module).__name__) or any(parameter.dim() > 2 for parameter in module.parameters()):
        return False
    parameters = list(inspect.signature(type(module).forward).parameters.values())[1:]
    required = [parameter for parameter in parameters if parameter.default is parameter.empty]
    return len(required) == 1 and required[0].kind is not inspect.Parameter.VAR_POSITIONAL


class TiledMlps:
    """The MLPs of one model, which :meth:`active` computes in pieces.

    Args:
        recomputing: a context for the pieces that are recomputed in the backward pass, which knows no autocast.

    Attributes:
        modules: those that are computed in pieces; empty for an architecture that has none.
    """

    def __init__(
        self, model: nn.Module, recomputing: Callable[[], AbstractContextManager[object]] = nullcontext
    ) -> None:
        self.modules = tiled_modules(model)
        self._recomputing = recomputing

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within, MLPs are computed in pieces while gradients are."""
        before = [module.__dict__.get("forward") for module in self.modules]
        for module in self.modules:
            module.__dict__["forward"] = _Tiled(module, self._recomputing)
        try:
            yield
        finally:
            for module, forward in zip(self.modules, before, strict=True):
                if forward is None:
                    del module.__dict__["forward"]
                else:
                    module.__dict__["forward"] = forward

    def differing(self) -> str:
        """The class of an MLP whose output differs in pieces, which needs another token's; empty if there is none."""
        for module in {type(module): module for module in self.modules}.values():
            weight, was_training = next(module.parameters()), module.training
            module.eval()
            try:
                if _differs(module, weight.device):
                    return type(module).__name__
            finally:
                module.train(was_training)
        return ""


class _Tiled:
    """The forward of one MLP in pieces."""

    def __init__(self, module: nn.Module, recomputing: Callable[[], AbstractContextManager[object]]) -> None:
        self._forward: Callable[[torch.Tensor], torch.Tensor] = module.forward
        self._trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._has_dropout = any(isinstance(part, nn.Dropout) and part.p > 0 for part in module.modules())
        self._recomputing = recomputing

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        if not (torch.is_grad_enabled() and states.requires_grad) or states.shape[-2] < PIECES:
            return self._forward(states)
        kept = _Keep.apply(states)
        again = _Circumstances(states.device, self._recomputing, keeps_random_state=self._has_dropout)
        out: torch.Tensor = _Pieces.apply(kept, kept.grad_fn, self._forward, again, *self._trained)
        return out


class _Circumstances:
    """Autocast and random numbers as they are now, for a later computation of the same."""

    def __init__(
        self,
        device: torch.device,
        recomputing: Callable[[], AbstractContextManager[object]],
        *,
        keeps_random_state: bool,
    ) -> None:
        self._device, self._recomputing = device, recomputing
        self._dtype: torch.dtype | None = None
        if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
            self._dtype = torch.get_autocast_dtype(device.type)
        self._states: tuple[torch.Tensor, ...] = ()
        if keeps_random_state and device.type != "meta":
            self._states = (torch.get_rng_state(),)
            if device.type == "cuda":
                self._states += (torch.cuda.get_rng_state(device),)

    @contextmanager
    def again(self) -> Iterator[None]:
        """Within, a piece is computed as it was then."""
        with ExitStack() as stack:
            stack.enter_context(self._recomputing())
            if self._dtype is not None:
                stack.enter_context(torch.autocast(self._device.type, self._dtype))
            if self._states:
                devices = [self._device] if self._device.type == "cuda" else []
                stack.enter_context(torch.random.fork_rng(devices))
                torch.set_rng_state(self._states[0])
                if devices:
                    torch.cuda.set_rng_state(self._states[1], self._device)
            yield


class _Keep(torch.autograd.Function):
    """Keeps the hidden states for :class:`_Pieces`, before that computes anything.

    A checkpoint stops recomputing a layer once the last tensor is there that the layer keeps. That is this one, unless
    something comes after the MLP.
    """

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(states)
        return states.view_as(states)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient


class _Pieces(torch.autograd.Function):
    """An MLP, piece by piece; each is computed again for its backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        keeper: Any,
        forward: Callable[[torch.Tensor], torch.Tensor],
        circumstances: _Circumstances,
        *trained: nn.Parameter,
    ) -> torch.Tensor:
        ctx.keeper, ctx.forward_of, ctx.circumstances, ctx.trained = keeper, forward, circumstances, trained
        out: torch.Tensor | None = None
        for begin, count in _bounds(states):
            piece = forward(states.narrow(-2, begin, count))
            if out is None:
                out = piece.new_empty((*states.shape[:-1], piece.shape[-1]))
            out.narrow(-2, begin, count).copy_(piece)
            del piece
        assert out is not None
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (states,) = ctx.keeper.saved_tensors
        needs_states, *needs = ctx.needs_input_grad[:1] + ctx.needs_input_grad[4:]
        trained = [parameter for parameter, is_needed in zip(ctx.trained, needs, strict=True) if is_needed]
        back = torch.empty_like(states) if needs_states else None
        sums: list[torch.Tensor] = []
        with ctx.circumstances.again(), torch.enable_grad():
            for begin, count in _bounds(states):
                piece = states.narrow(-2, begin, count).detach().requires_grad_(needs_states)
                out = ctx.forward_of(piece)
                wanted = [*([piece] if needs_states else []), *trained]
                found = list(torch.autograd.grad(out, wanted, gradient.narrow(-2, begin, count)))
                if back is not None:
                    back.narrow(-2, begin, count).copy_(found.pop(0))
                sums = _added(sums, found)
                del piece, out, found
        gradients = iter(sums)
        return (back, None, None, None, *(next(gradients) if is_needed else None for is_needed in needs))


def _added(sums: list[torch.Tensor], found: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    if not sums:
        return list(found)
    for total, one in zip(sums, found, strict=True):
        total.add_(one)
    return sums


def _bounds(states: torch.Tensor) -> Iterator[tuple[int, int]]:
    """Begin and length of each piece.

    On the meta device all are equally long, and the last two overlap: sizes are then products of the sequence's.
    """
    length = int(states.shape[-2])
    count = -(-length // PIECES)
    for begin in range(0, length, count):
        if states.device.type == "meta":
            yield min(begin, length - count), count
        else:
            yield begin, min(count, length - begin)


@torch.no_grad()  # type: ignore[untyped-decorator]
def _differs(module: nn.Module, device: torch.device) -> bool:
    """Whether states of a sequence give another output in pieces."""
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    for width in _widths(module):
        # Not random: a run's random numbers stay as they are.
        states = torch.linspace(-500, 500, 2 * PIECES * width).sin().reshape(1, -1, width).to(device, dtype)
        try:
            whole = module(states)
        except RuntimeError:
            continue  # not the width of its input
        pieces = torch.cat([module(piece) for piece in states.split(2, -2)], -2)
        return bool((whole - pieces).abs().max() > _MAX_DIFFERENCE * whole.abs().max())
    return True


def _widths(module: nn.Module) -> list[int]:
    """What may be the width of an MLP's input: widths of its linear layers."""
    layers = [part for part in module.modules() if hasattr(part, "in_features")]
    return list(dict.fromkeys(int(part.in_features) for part in layers)) or [int(next(module.parameters()).shape[0])]
