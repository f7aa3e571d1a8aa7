"""TRL 1.16's tiled loss on tensors without data: log-probabilities in tiles, never all logits. Imports torch.

``trl.kernels.chunked_logprob.ChunkedLogProbFunction`` allocates what :class:`TiledLoss` allocates, but needs data.
All positions count as supervised, which is the maximum, and the position that shifting drops is kept, so that sizes
stay products of batch and length.
"""

from typing import Any

import torch

from workbench.estimate.trace.points import LOSS


class TiledLoss(torch.autograd.Function):
    """Computes the mean loss from hidden states of shape (batch, length, hidden)."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: Any, recorder: Any) -> torch.Tensor:
        recorder.label = LOSS
        # `hidden[mask]` with the indices of all supervised positions
        picked = hidden.new_empty((*hidden.shape[:-1], 2), dtype=torch.long)
        rows = hidden.new_empty(hidden.shape)
        numbers = [hidden.new_empty(hidden.shape[:-1], dtype=torch.float32) for _ in range(7)]
        recorder.tile()
        results = [torch.empty_like(numbers[0]) for _ in range(4)]
        ctx.save_for_backward(rows, weight, results[0], results[1], picked)
        ctx.recorder = recorder
        ctx.needs_weight = weight.requires_grad
        ctx.bias = bias
        loss = results[2].sum()
        recorder.label = "backward"
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, None, None]:
        recorder = ctx.recorder
        recorder.handle()
        recorder.label = LOSS
        rows, weight = ctx.saved_tensors[:2]
        of_rows = torch.zeros(rows.shape, dtype=torch.float32, device=rows.device)
        of_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) if ctx.needs_weight else None
        recorder.tile()
        narrow = of_rows.to(rows.dtype)
        of_weight = None if of_weight is None else of_weight.to(weight.dtype)
        del of_rows
        # backward of `hidden[mask]`: the rows go back to their places in zeros
        placed = torch.zeros_like(narrow)
        del narrow
        recorder.label = "backward"
        return placed, of_weight, None, None
