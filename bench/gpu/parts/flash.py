"""PyTorch's attention by rows against the function of the flash-attn package: difference and time."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from bench.gpu.part import Work

_LENGTHS = (512, 1900, 300, 1024, 360)


def measure(work: Work) -> None:
    import torch
    from flash_attn import flash_attn_varlen_func
    from torch.nn.attention.varlen import varlen_attn

    tokens, longest = sum(_LENGTHS), max(_LENGTHS)
    starts = torch.tensor([0, *_LENGTHS], device="cuda").cumsum(0, dtype=torch.int32)
    for heads, keys, width in ((32, 32, 64), (32, 32, 128)):
        torch.manual_seed(0)
        states = [
            torch.randn(tokens, count, width, device="cuda", dtype=torch.bfloat16, requires_grad=True)
            for count in (heads, keys, keys)
        ]
        kernels = {
            "torch": partial(varlen_attn, *states, starts, starts, longest, longest, window_size=(-1, 0)),
            "flash_attn": partial(flash_attn_varlen_func, *states, starts, starts, longest, longest, causal=True),
        }
        outputs = {name: kernel() for name, kernel in kernels.items()}
        differs = float(
            (outputs["torch"] - outputs["flash_attn"]).float().norm() / outputs["flash_attn"].float().norm()
        )
        times = {name: _milliseconds(kernel, states) for name, kernel in kernels.items()}
        work.note(**{f"{heads} heads of {width}": {"differs": differs, "milliseconds": times}})
        work.check(f"{heads} heads of {width}: the same", differs < 3 * 2.0**-8, differs)
    work.verdict()


def _milliseconds(kernel: Callable[[], Any], inputs: Sequence[Any]) -> float:
    """Forward and backward, the mean of ten after three."""
    import torch

    for _ in range(3):
        torch.autograd.grad(kernel().sum(), inputs)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(10):
        torch.autograd.grad(kernel().sum(), inputs)
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / 10
