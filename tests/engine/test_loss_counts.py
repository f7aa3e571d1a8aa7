"""What is counted between two points of the loss curve, and how a checkpoint carries it over."""

import json

import torch

from workbench.engine.training.trainers.loss_counts import LossCounts


def in_two_processes(counts: torch.Tensor) -> torch.Tensor:
    return 2 * counts


def counted() -> LossCounts:
    counts = LossCounts(("reward", "margin"), "cpu")
    counts.add_tokens(torch.tensor(3), torch.tensor(4), 10)
    counts.add_tokens(torch.tensor(1), 2, torch.tensor(5))
    counts.add_figures(torch.tensor([1.0, 3.0], dtype=torch.float64), torch.tensor([2.0, 2.0], dtype=torch.float64))
    counts.add_router_loss(torch.tensor(0.5))
    return counts


def test_what_is_taken_is_summed_over_processes_and_counted_once() -> None:
    counts = counted()
    assert counts.take_tokens(in_two_processes) == (8, 12, 30)
    assert counts.take_figures(in_two_processes) == {"reward": 0.5, "margin": 1.5}
    assert counts.take_router_loss(in_two_processes) == 0.5
    assert counts.take_tokens(in_two_processes) == (0, 0, 0)
    assert counts.take_figures(in_two_processes) == {}
    assert counts.take_router_loss(in_two_processes) is None
    assert LossCounts((), "cpu").take_figures(in_two_processes) == {}


def test_a_step_that_starts_over_is_not_counted_twice() -> None:
    counts = counted()
    before = counts.copy()
    counts.add_tokens(torch.tensor(7), 7, 7)
    counts.set(before)
    assert counts.as_json() == before.as_json() == counted().as_json()


def test_a_checkpoint_carries_it_over_and_an_older_one_lacks_some() -> None:
    counts = counted()
    counts.add_json(json.loads(json.dumps(counted().as_json())))
    assert counts.take_tokens(lambda sums: sums) == (8, 12, 30)
    assert counts.take_figures(lambda sums: sums) == {"reward": 0.5, "margin": 1.5}
    older = LossCounts(("reward", "margin"), "cpu")
    older.add_json({"tally": [1, 2, 3]})
    assert older.take_tokens(lambda sums: sums) == (1, 2, 3)
    assert older.take_router_loss(lambda sums: sums) is None


def test_counting_copies_nothing_from_the_host():
    """On a GPU a copy waits until all that was queued is computed. The GPU here is one that only says that it is."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils._python_dispatch import TorchDispatchMode

    copies = []

    class Watched(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            places = {value.device.type for value in (*args, result) if isinstance(value, torch.Tensor)}
            if len(places) > 1 or "local_scalar" in str(func):
                copies.append(str(func))
            return result

    torch._C._ensureCUDADeviceGuardSet()
    with FakeTensorMode(), Watched():
        counts = LossCounts(("a", "b"), "cuda")
        count = torch.zeros((), dtype=torch.long, device="cuda")
        counts.add_tokens(count, count, 70)
        counts.add_figures(*torch.zeros(2, 2, dtype=torch.float64, device="cuda").unbind())
        counts.add_router_loss(torch.zeros((), device="cuda"))
        assert not copies
        # The watch itself sees what a copy would be.
        torch.as_tensor(70, device="cuda")
        assert copies
