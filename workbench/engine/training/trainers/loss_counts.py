"""What a run counts since the last point of its loss curve: on the device, so that no step waits for a copy from it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch


class LossCounts:
    """Tokens, an objective's figures and the router's balancing loss, summed over micro-batches.

    Args:
        figure_names: what an objective records of each record beside the loss.
        device: where the sums are kept.
    """

    def __init__(self, figure_names: Sequence[str], device: torch.device | str) -> None:
        self._figure_names = tuple(figure_names)
        # Tokens predicted correctly, trained, and seen.
        self._tokens = torch.zeros(3, dtype=torch.long, device=device)
        # Sums of the figures, and of each the number of values.
        self._figures = torch.zeros(2, len(self._figure_names), dtype=torch.float64, device=device)
        # The sum over micro-batches, and their number.
        self._router_loss = torch.zeros(2, device=device)

    def add_tokens(self, correct: torch.Tensor, trained: torch.Tensor | int, seen: torch.Tensor | int) -> None:
        """Add a micro-batch's tokens: predicted correctly, trained, and seen without padding."""
        self._tokens += torch.stack([self._on_device(count) for count in (correct, trained, seen)])

    def _on_device(self, count: torch.Tensor | int) -> torch.Tensor:
        if isinstance(count, torch.Tensor):
            return count.to(self._tokens.device)
        # Filled in there: a copy from the host would wait until the GPU has done all that was queued.
        return torch.full((), count, dtype=self._tokens.dtype, device=self._tokens.device)

    def add_figures(self, sums: torch.Tensor, numbers: torch.Tensor) -> None:
        """Add a micro-batch's figures in the order of ``figure_names``: their sums, and the numbers of values."""
        self._figures += torch.stack([sums, numbers])

    def add_router_loss(self, loss: torch.Tensor) -> None:
        """Add a micro-batch's balancing loss."""
        value = loss.detach().float()
        self._router_loss += torch.stack([value, torch.ones_like(value)])

    def take_tokens(self, total: Callable[[torch.Tensor], torch.Tensor]) -> tuple[int, int, int]:
        """Tokens predicted correctly, trained and seen so far; counted anew from here.

        Args:
            total: sums a tensor over all processes; they call this together.
        """
        correct, trained, seen = total(self._tokens).tolist()
        self._tokens.zero_()
        return correct, trained, seen

    def take_figures(self, total: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, float]:
        """Means of the figures by name, as :meth:`take_tokens`; empty if there are none."""
        if not self._figure_names:
            return {}
        sums, numbers = total(self._figures).tolist()
        self._figures.zero_()
        found = zip(self._figure_names, sums, numbers, strict=True)
        return {name: value / number for name, value, number in found if number}

    def take_router_loss(self, total: Callable[[torch.Tensor], torch.Tensor]) -> float | None:
        """The mean balancing loss of a micro-batch, as :meth:`take_tokens`; None without one."""
        loss, batches = total(self._router_loss).tolist()
        self._router_loss.zero_()
        return float(loss / batches) if batches else None

    def copy(self) -> Self:
        """The same counts, which later additions do not change."""
        copy = type(self)(self._figure_names, self._tokens.device)
        copy.set(self)
        return copy

    def set(self, counts: "LossCounts") -> None:
        """Set all counts to those of another object."""
        self._tokens.copy_(counts._tokens)
        self._figures.copy_(counts._figures)
        self._router_loss.copy_(counts._router_loss)

    def as_json(self) -> dict[str, list[float]]:
        """The counts as a checkpoint stores them."""
        return {
            "tally": self._tokens.tolist(),
            "figures": self._figures.tolist(),
            "router_tally": self._router_loss.tolist(),
        }

    def add_json(self, stored: Mapping[str, Any]) -> None:
        """Add the counts that :meth:`as_json` returned; what an older checkpoint lacks is 0."""
        device = self._tokens.device
        self._tokens += torch.tensor(stored.get("tally", (0, 0, 0)), device=device)
        if figures := stored.get("figures"):
            self._figures += torch.tensor(figures, dtype=torch.float64, device=device)
        self._router_loss += torch.tensor(stored.get("router_tally", (0.0, 0.0)), device=device)
