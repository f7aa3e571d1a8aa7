"""Records the allocation and release of every tensor storage on a device type. Imports torch."""

import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Workspace(NamedTuple):
    """Bytes of each block that an operator's kernel allocates temporarily: before its results, and after them."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


WorkspaceOf = Callable[[Any, tuple[Any, ...], dict[str, Any]], Workspace]

WORKSPACE = "workspace"


class StorageRecorder(TorchDispatchMode):
    """A dispatch mode that records allocations and releases of storages.

    ``events`` has (storage number, bytes, label) for an allocation and (storage number, 0, label) for a release. The
    label is ``self.label`` at allocation; set it to the part of the step that runs. Storages passed to :meth:`ignore`
    are not recorded: memory allocated before the step is computed exactly elsewhere.
    """

    def __init__(self, device_type: str, workspace: WorkspaceOf | None = None) -> None:
        super().__init__()
        self.label = ""
        self.events: list[tuple[int, int, str]] = []
        self._device_type = device_type
        self._workspace = workspace
        self._known: dict[int, Any] = {}
        self._count = 0

    def ignore(self, tensors: Iterable[torch.Tensor]) -> None:
        """Do not record these tensors' storages."""
        for tensor in tensors:
            if tensor.device.type == self._device_type:
                storage = tensor.untyped_storage()
                self._known[storage._cdata] = storage

    def number_of(self, tensor: torch.Tensor) -> int | None:
        """The number of a recorded tensor's storage; None if it is not recorded."""
        entry = self._known.get(tensor.untyped_storage()._cdata)
        return entry[1] if isinstance(entry, tuple) else None

    def passing(self, size: int, label: str) -> None:
        """Record a block that is allocated and released at once."""
        self._count += 1
        self.events.append((self._count, size, label))
        self.events.append((self._count, 0, label))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        workspace = self._workspace(func, args, kwargs) if self._workspace else Workspace()
        out = func(*args, **kwargs)
        # The kernel's temporary blocks are alive together with its results.
        taken = [*self._taken(workspace.before)]
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._birth(leaf)
        taken += self._taken(workspace.after)
        self.events += [(number, 0, WORKSPACE) for number in taken]
        return out

    def _taken(self, sizes: Iterable[int]) -> Iterator[int]:
        """Record temporary blocks of these sizes; yields their numbers."""
        for size in sizes:
            self._count += 1
            self.events.append((self._count, size, WORKSPACE))
            yield self._count

    def _birth(self, tensor: torch.Tensor) -> None:
        if tensor.device.type != self._device_type:
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        size = storage.nbytes()
        if key in self._known or size == 0:
            return
        self._count += 1
        number, label = self._count, self.label
        self.events.append((number, size, label))

        def death(_: object) -> None:
            del self._known[key]
            self.events.append((number, 0, label))

        self._known[key] = (weakref.ref(storage, death), number)
