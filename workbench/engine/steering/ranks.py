"""Communication between the processes that train one run. With one process, every method returns at once.

``accelerate launch`` starts the processes and makes the group in which they compute. Between two steps they communicate
through a second group, over TCP and on the CPU: waiting for a command never blocks the GPU, and never exceeds the time
limit of the first group.
"""

import os
import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

T = TypeVar("T")

# A pause may last for days. A process that died is noticed at once, since its connection breaks.
_TIMEOUT = timedelta(days=30)


class Ranks:
    """This process among the processes of its run.

    Methods are collective: all processes call them at the same point in the same order, and each waits for the others.

    Attributes:
        index: rank of this process, from 0; the first one writes the journal.
        count: number of processes.
        local: rank on this machine.
    """

    def __init__(self, index: int = 0, count: int = 1, local: int = 0, group: "ProcessGroup | None" = None) -> None:
        self.index = index
        self.count = count
        self.local = local
        self._group = group

    @classmethod
    def join(cls) -> "Ranks":
        """Connect with the other processes that ``accelerate launch`` started, if it did. Imports torch.

        Afterwards PyTorch's current device is the GPU of this process.
        """
        import torch
        from accelerate import PartialState

        state = PartialState(cpu=not torch.cuda.is_available())
        if state.num_processes == 1:
            return cls()
        group = torch.distributed.new_group(backend="gloo", timeout=_TIMEOUT)
        return cls(state.process_index, state.num_processes, state.local_process_index, group)

    @property
    def is_first(self) -> bool:
        return self.index == 0

    def broadcast(self, value: T | None) -> T | None:
        """Return the first process's value in all processes. None is cheap: only one number is sent."""
        if self.count == 1:
            return value
        import torch
        import torch.distributed as dist

        has_value = torch.tensor([value is not None], dtype=torch.uint8)
        dist.broadcast(has_value, 0, group=self._group)
        if not has_value.item():
            return None
        box = [value]
        dist.broadcast_object_list(box, 0, group=self._group)
        return box[0]

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, in rank order."""
        if self.count == 1:
            return [value]
        import torch.distributed as dist

        values = [value] * self.count
        dist.all_gather_object(values, value, group=self._group)
        return values

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sum each value over all processes, in float64, which counts tokens exactly."""
        return [sum(column) for column in zip(*self.gather(list(values)), strict=True)]

    def wait_for_all(self) -> None:
        """Wait until all processes have called this."""
        self.gather(None)

    def first_before_others(self, work: Callable[[], T]) -> T:
        """Do ``work`` in one process of each machine, then in the others, which find its result, e.g. a download."""
        if self.local != 0:
            self.wait_for_all()
            return work()
        result = work()
        self.wait_for_all()
        return result

    def run_on_all(self, work: Callable[[], T]) -> T:
        """Do ``work`` in each process; if it fails in one, all of them raise.

        Raises:
            Exception: the error of this process.
            OSError: another process failed with one.
            RuntimeError: another process failed with any other error.
        """
        if self.count == 1:
            return work()
        result: T
        problem: Exception | None = None
        try:
            result = work()
        except Exception as error:
            problem = error
        problems = self.gather(_error_data(problem) if problem else None)
        if problem is not None:
            raise problem
        for index, data in enumerate(problems):
            if data is not None:
                number, text = data
                text = f"process {index + 1} of {self.count}: {text}"
                raise OSError(number, text) if number is not None else RuntimeError(text)
        return result


ALONE = Ranks()


def is_lost_process(error: BaseException) -> bool:
    """Whether an error only means that another process of the run has died; the reason is in that process."""
    return bool(_LOST.search(f"{type(error).__name__}: {error}"))


_LOST = re.compile(r"DistBackendError|DistNetworkError|gloo|NCCL|Connection (closed|reset) by|Broken pipe", re.I)


def _error_data(error: Exception) -> tuple[int | None, str]:
    """Error number and text: not every library's exceptions can be pickled for another process."""
    number = error.errno if isinstance(error, OSError) else None
    return number, os.strerror(number) if number is not None else f"{type(error).__name__}: {error}"
