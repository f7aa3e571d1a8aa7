"""Keeps the inputs of checkpointed layers in host memory between the forward and the backward pass. Imports torch.

TRL's ``OffloadActivations`` hooks every tensor that autograd saves, cannot be made without a GPU, and empties the
allocator's cache before each micro-batch. PyTorch's ``save_on_cpu`` waits for each copy. Here only what a checkpoint
keeps is moved, so that a layer's other tensors are those of a step without this.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

_FUNCTION = "_gradient_checkpointing_func"
"""The attribute of modules in which transformers keeps the function that computes a layer with a checkpoint."""

_STATES = "hidden_states"


class HostCheckpoints:
    """The checkpoints of one model, which :meth:`active` sends to host memory.

    On a GPU, copies run in a stream of their own: while a layer computes, the input of the one before is sent, and in
    the backward pass the input of the next one is fetched. So two of them at most are on the device. Host memory is
    pinned, and used again by the next micro-batch.

    Attributes:
        is_used: whether a checkpoint was ever sent; some architectures with code of their own have none to send.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._links: dict[torch.device, _Direct] = {}
        self._free: list[torch.Tensor] = []
        # The last one that was sent. Its tensor stays on the device until the next one is sent, or it is needed.
        self._newest: _Stored | None = None
        self.is_used = False

    @property
    def buffers(self) -> tuple[torch.Tensor, ...]:
        """The host memory that no checkpoint occupies."""
        return tuple(self._free)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within, the layers' checkpoints are sent to host memory; forward and backward pass must both lie within."""
        changed = [module for module in self._model.modules() if _FUNCTION in module.__dict__]
        before = [module.__dict__[_FUNCTION] for module in changed]
        for module, function in zip(changed, before, strict=True):
            module.__dict__[_FUNCTION] = partial(self._compute, function)
        try:
            yield
        finally:
            for module, function in zip(changed, before, strict=True):
                module.__dict__[_FUNCTION] = function
            self._newest = None
            for link in self._links.values():
                link.finish()

    def _compute(self, checkpoint: Callable[..., Any], layer: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Compute a layer with a checkpoint whose first tensor, the hidden states, is sent to the host."""
        if not args and isinstance(layer, partial) and isinstance(layer.keywords.get(_STATES), torch.Tensor):
            # Bound to the function, they would stay on the device with it.
            layer, args = partial(_by_name, layer), (layer.keywords.pop(_STATES),)
        states = next((value for value in args if isinstance(value, torch.Tensor)), None)
        if states is None or not states.is_contiguous():
            return checkpoint(layer, *args, **kwargs)
        storage = states.untyped_storage()._cdata

        def pack(tensor: torch.Tensor) -> torch.Tensor | _Stored:
            is_states = tensor.untyped_storage()._cdata == storage and tensor.is_contiguous()
            return self._send(tensor) if is_states else tensor

        with saved_tensors_hooks(pack, self._take):
            return checkpoint(layer, *args, **kwargs)

    def _send(self, tensor: torch.Tensor) -> _Stored:
        link = self._link(tensor.device)
        stored = _Stored(self, link, tensor, self._newest)
        if self._newest is not None:
            self._newest.leave()
        self._newest, self.is_used = stored, True
        return stored

    def _take(self, stored: torch.Tensor | _Stored) -> torch.Tensor:
        if isinstance(stored, torch.Tensor):
            return stored
        tensor = stored.take()
        self._newest = None
        if (before := stored.before()) is not None:
            before.fetch()
        return tensor

    def _link(self, device: torch.device) -> _Direct:
        if device not in self._links:
            links: dict[str, Callable[[torch.device], _Direct]] = {"cuda": _Stream, "meta": _Nowhere}
            self._links[device] = links.get(device.type, _Direct)(device)
        return self._links[device]

    def buffer(self, link: _Direct, size: int) -> torch.Tensor:
        """Host memory of at least ``size`` bytes; what is too small is replaced."""
        if self._free:
            found = self._free.pop()
            if found.numel() >= size:
                return found
            del found
            link.release_unused()
        return link.host_memory(size)

    def give_back(self, buffer: torch.Tensor) -> None:
        """Take back the host memory of a checkpoint that is no longer needed."""
        self._free.append(buffer)


class _Stored:
    """One checkpoint: on the host, on the device, or both."""

    def __init__(self, owner: HostCheckpoints, link: _Direct, tensor: torch.Tensor, before: _Stored | None) -> None:
        self._owner, self._link = owner, link
        self._shape, self._dtype, self._device = tensor.shape, tensor.dtype, tensor.device
        # Without the graph that it is a part of.
        self._tensor: torch.Tensor | None = tensor.detach()
        self._before = None if before is None else weakref.ref(before)
        size = tensor.numel() * tensor.element_size()
        self._buffer = owner.buffer(link, size)
        self._host = link.view(self._buffer, size, tensor)
        self._copied = link.copy(self._host, tensor)

    def __del__(self) -> None:
        self._owner.give_back(self._buffer)

    def before(self) -> _Stored | None:
        """The checkpoint of the layer before, which the backward pass needs next."""
        return None if self._before is None else self._before()

    def leave(self) -> None:
        """Give the device's memory free as soon as the copy is made."""
        self._link.wait(self._copied)
        self._tensor = None

    def fetch(self) -> None:
        """Begin to copy it to the device, unless it is there."""
        if self._tensor is None:
            self._tensor = torch.empty(self._shape, dtype=self._dtype, device=self._device)
            self._copied = self._link.copy(self._tensor, self._host)

    def take(self) -> torch.Tensor:
        """The tensor on the device, which is no longer kept here."""
        self.fetch()
        assert self._tensor is not None
        self._link.wait(self._copied)
        tensor, self._tensor = self._tensor, None
        return tensor


class _Direct:
    """How a device's tensors are copied to the host and back. This one copies at once."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def host_memory(self, size: int) -> torch.Tensor:
        return torch.empty(size, dtype=torch.uint8)

    def release_unused(self) -> None:
        """Return host memory that is no longer referred to."""

    def view(self, buffer: torch.Tensor, size: int, like: torch.Tensor) -> torch.Tensor:
        """A buffer's first bytes as a tensor of the type and shape of ``like``."""
        return buffer[:size].view(like.dtype).view(like.shape)

    def copy(self, to: torch.Tensor, source: torch.Tensor) -> object:
        """Begin to copy; returns what to wait for."""
        to.copy_(source.detach())
        return None

    def wait(self, copied: Any) -> None:
        pass

    def finish(self) -> None:
        pass


class _Stream(_Direct):
    """Copies in a CUDA stream of their own, to and from pinned memory.

    Tensors are allocated in the stream that computes, which waits for a copy before it uses the tensor, or lets its
    memory go.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._stream = torch.cuda.Stream(device)

    def host_memory(self, size: int) -> torch.Tensor:
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)

    def release_unused(self) -> None:
        # PyTorch keeps pinned memory for reuse.
        torch.accelerator.empty_host_cache()

    def copy(self, to: torch.Tensor, source: torch.Tensor) -> object:
        # What writes the source, and whoever had the target's memory before, comes first.
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            to.copy_(source.detach(), non_blocking=True)
            return self._stream.record_event()

    def wait(self, copied: Any) -> None:
        torch.cuda.current_stream(self._device).wait_event(copied)

    def finish(self) -> None:
        # After an error, tensors may be gone to which the stream still copies.
        torch.cuda.current_stream(self._device).wait_stream(self._stream)


class _Nowhere(_Direct):
    """Copies nothing: tensors on the meta device have no data."""

    def host_memory(self, size: int) -> torch.Tensor:
        return torch.empty(0, dtype=torch.uint8)

    def view(self, buffer: torch.Tensor, size: int, like: torch.Tensor) -> torch.Tensor:
        return buffer

    def copy(self, to: torch.Tensor, source: torch.Tensor) -> object:
        return None


def _by_name(layer: Callable[..., Any], states: torch.Tensor) -> Any:
    return layer(hidden_states=states)


def link_speed(device: torch.device, size: int = 1 << 26) -> float:
    """Bytes per second from the host's pinned memory to a device, measured on ``size`` bytes; takes some milliseconds.

    On a CPU it is the speed of a copy.
    """
    link = _Stream(device) if device.type == "cuda" else _Direct(device)
    host, there = link.host_memory(size), torch.empty(size, dtype=torch.uint8, device=device)
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        link.copy(there, host)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - begin)
    return size / min(seconds)
