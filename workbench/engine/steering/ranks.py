"""The processes that train one run together. Most runs have one; every method then does nothing, at no cost.

Several are started by ``accelerate launch``, which also makes the group in which they compute. What they agree on
between two steps goes through a group of its own, over TCP and the processor: a wait for a command never holds the GPU
up, and never runs into the time limit of the other group.
"""

import os
import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

T = TypeVar("T")

# A peer that is gone is noticed at once, by its closed connection; a pause may last for days.
_PATIENCE = timedelta(days=30)


class Ranks:
    """This process among those of its run: ``index`` of ``count``, counted from 0; the first one tells the story.

    ``local`` is the index on this machine. Methods are collective: all processes call them at the same place in the
    same order, each waiting for the others.
    """

    def __init__(self, index: int = 0, count: int = 1, local: int = 0, group: Any = None) -> None:
        self.index = index
        self.count = count
        self.local = local
        self._group = group

    @classmethod
    def join(cls) -> "Ranks":
        """Meet the others that ``accelerate launch`` started; alone where it did not. Imports torch.

        Each process then has its own GPU as PyTorch's present device.
        """
        import torch
        from accelerate import PartialState

        state = PartialState(cpu=not torch.cuda.is_available())
        if state.num_processes == 1:
            return cls()
        group = torch.distributed.new_group(backend="gloo", timeout=_PATIENCE)
        return cls(state.process_index, state.num_processes, state.local_process_index, group)

    @property
    def is_first(self) -> bool:
        return self.index == 0

    def broadcast(self, value: T | None) -> T | None:
        """What the first process has. None is the cheap case: one number goes round."""
        if self.count == 1:
            return value
        import torch
        import torch.distributed as dist

        there_is = torch.tensor([value is not None], dtype=torch.uint8)
        dist.broadcast(there_is, 0, group=self._group)
        if not there_is.item():
            return None
        box = [value]
        dist.broadcast_object_list(box, 0, group=self._group)
        return box[0]

    def gather(self, value: T) -> list[T]:
        """What each process has, in their order."""
        if self.count == 1:
            return [value]
        import torch.distributed as dist

        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, value, group=self._group)
        return found

    def add(self, values: Sequence[float]) -> list[float]:
        """Sums over all processes, in float64, which counts tokens exactly."""
        return [sum(column) for column in zip(*self.gather(list(values)), strict=True)]

    def wait_for_all(self) -> None:
        """Go on when all have come here."""
        self.gather(None)

    def first_before_others(self, work: Callable[[], T]) -> T:
        """Work that finds what it has done before, as a download does: one process of each machine, then the rest."""
        if self.local != 0:
            self.wait_for_all()
            return work()
        result = work()
        self.wait_for_all()
        return result

    def together(self, work: Callable[[], T]) -> T:
        """Do ``work`` in each process.

        Raises:
            Exception: it failed here.
            OSError: it failed elsewhere, by the system.
            RuntimeError: it failed elsewhere.
        """
        if self.count == 1:
            return work()
        result: T
        problem: Exception | None = None
        try:
            result = work()
        except Exception as error:
            problem = error
        told = self.gather(_in_words(problem) if problem else None)
        if problem is not None:
            raise problem
        for index, words in enumerate(told):
            if words is not None:
                number, text = words
                text = f"process {index + 1} of {self.count}: {text}"
                raise OSError(number, text) if number is not None else RuntimeError(text)
        return result


ALONE = Ranks()


def tells_of_lost_process(error: BaseException) -> bool:
    """Whether an error only says that another process of the run is gone; why, that one would know."""
    return bool(_LOST.search(f"{type(error).__name__}: {error}"))


_LOST = re.compile(r"DistBackendError|DistNetworkError|gloo|NCCL|Connection (closed|reset) by|Broken pipe", re.I)


def _in_words(error: Exception) -> tuple[int | None, str]:
    """Error number and text: exceptions of libraries do not all survive the way to another process."""
    number = error.errno if isinstance(error, OSError) else None
    return number, os.strerror(number) if number is not None else f"{type(error).__name__}: {error}"
