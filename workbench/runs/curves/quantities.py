"""The quantities that charts show over the steps of a run, chosen from what its journal holds."""

from collections.abc import Callable
from dataclasses import dataclass

from workbench.runs.events import Step, memory_bytes
from workbench.units import GIB


@dataclass(frozen=True)
class Quantity:
    """A number of each logged point. A new one needs a row in :data:`QUANTITIES` and nothing else.

    Attributes:
        title: for the chart. label: short, for the values at the cursor.
        of: its value at a point; None if the point has none.
    """

    title: str
    label: str
    of: Callable[[Step], float | str | None]


def _vram(step: Step) -> float | None:
    return memory_bytes(step.vram, "reserved") / GIB or None


def _reward(name: str) -> Callable[[Step], float | None]:
    return lambda step: step.rewards.get(name) if step.rewards else None  # type: ignore[return-value]


QUANTITIES: tuple[Quantity, ...] = (
    Quantity("learning rate", "lr", lambda step: step.learning_rate),
    Quantity("grad norm", "grad norm", lambda step: step.grad_norm),
    Quantity("tokens per second", "tok/s", lambda step: step.tokens_per_second),
    Quantity("VRAM reserved (GiB)", "VRAM", _vram),
    Quantity("accuracy", "accuracy", lambda step: step.accuracy),
    Quantity("reward margin", "margin", _reward("margin")),
    Quantity("reward accuracy", "reward acc.", _reward("accuracy")),
    Quantity("divergence from the reference (KL)", "KL", _reward("kl")),
    Quantity("likelihood of the chosen responses (NLL)", "NLL", _reward("nll")),
)
"""Besides the loss, which has two curves."""
