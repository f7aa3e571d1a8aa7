"""The losses on pairs of responses, per pair, as TRL's ``DPOTrainer`` computes them. Imports torch.

TRL computes them inside one method that copies a dozen metrics from the device after each micro-batch. Here they are
functions of log-probabilities; tests compare each with TRL's own trainer.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import logsigmoid

from workbench.recipe.sections.objective import ObjectiveSection, PreferenceLoss

if TYPE_CHECKING:
    from peft import PeftModel

FIGURES = ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies")
"""What is recorded of each pair, by TRL's names; see :meth:`PairScores.figures`."""


@dataclass(frozen=True)
class PairScores:
    """How much likelier the model makes each response than the reference does; tensors of (pairs,).

    Attributes:
        chosen, rejected: log-ratios, summed over the trained tokens.
        chosen_tokens, rejected_tokens: numbers of these tokens.
    """

    chosen: torch.Tensor
    rejected: torch.Tensor
    chosen_tokens: torch.Tensor
    rejected_tokens: torch.Tensor

    @classmethod
    def of(cls, model: torch.Tensor, reference: torch.Tensor, trained: tuple[int, ...]) -> "PairScores":
        """From log-probabilities of 2n texts, the n chosen ones first, and their numbers of trained tokens."""
        chosen, rejected = (model - reference).chunk(2)
        tokens = torch.tensor(trained, dtype=model.dtype).to(model.device, non_blocking=True).clamp(min=1)
        return cls(chosen, rejected, *tokens.chunk(2))

    def losses(self, objective: ObjectiveSection) -> torch.Tensor:
        """The loss of each pair; (pairs,)."""
        return _LOSSES[objective.loss_type](self, objective.beta, objective.label_smoothing)

    def figures(self, beta: float) -> torch.Tensor:
        """:data:`FIGURES` of each pair; (4, pairs). The last one is 1 if the chosen response has the higher reward."""
        chosen, rejected = beta * self.chosen.detach(), beta * self.rejected.detach()
        return torch.stack([chosen, rejected, chosen - rejected, (chosen > rejected).to(chosen.dtype)])

    @property
    def difference(self) -> torch.Tensor:
        return self.chosen - self.rejected

    @property
    def difference_per_token(self) -> torch.Tensor:
        return self.chosen / self.chosen_tokens - self.rejected / self.rejected_tokens


Loss = Callable[[PairScores, float, float], torch.Tensor]


def _robust(pairs: PairScores, beta: float, smoothing: float) -> torch.Tensor:
    """Chowdhury et al. 2024: unbiased if a share of the labels is wrong."""
    right, wrong = logsigmoid(beta * pairs.difference), logsigmoid(-beta * pairs.difference)
    return (-(1 - smoothing) * right + smoothing * wrong) / (1 - 2 * smoothing)


def _nca_pair(pairs: PairScores, beta: float, _: float) -> torch.Tensor:
    """Chen et al. 2024: raises the chosen response instead of only the difference."""
    chosen, rejected = beta * pairs.chosen, beta * pairs.rejected
    return -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)


_LOSSES: dict[PreferenceLoss, Loss] = {
    # Rafailov et al. 2023.
    "sigmoid": lambda pairs, beta, _: -logsigmoid(beta * pairs.difference),
    "sigmoid_norm": lambda pairs, beta, _: -logsigmoid(beta * pairs.difference_per_token),
    # Zhao et al. 2023.
    "hinge": lambda pairs, beta, _: torch.relu(1 - beta * pairs.difference),
    # Azar et al. 2023, equation 17, per token as its authors do.
    "ipo": lambda pairs, beta, _: (pairs.difference_per_token - 1 / (2 * beta)) ** 2,
    "robust": _robust,
    "nca_pair": _nca_pair,
    # Wu et al. 2024, with the probability of winning set to 1.
    "sppo_hard": lambda pairs, beta, _: (pairs.chosen - 0.5 / beta) ** 2 + (pairs.rejected + 0.5 / beta) ** 2,
    # D'Oosterlinck et al. 2024, equations 7 and 8.
    "apo_zero": lambda pairs, beta, _: 1 - torch.sigmoid(beta * pairs.chosen) + torch.sigmoid(beta * pairs.rejected),
    "apo_down": lambda pairs, beta, _: torch.sigmoid(beta * pairs.chosen) + 1 - torch.sigmoid(beta * pairs.difference),
}


class Reference:
    """The base without the adapter, which a preference run compares with; and no dropout, as in TRL.

    Args:
        model: the PEFT model that is trained.
    """

    def __init__(self, model: "PeftModel") -> None:
        self._model = model
        self._trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._dropouts = [
            (module, module.p) for module in model.modules() if isinstance(module, torch.nn.Dropout) and module.p
        ]

    def log_probs(self, compute: Callable[["PeftModel"], torch.Tensor]) -> torch.Tensor:
        """What ``compute`` returns for the base; without a gradient."""
        with torch.no_grad(), self._model.disable_adapter():
            values = compute(self._model)
        # PEFT switches gradients by its own rules when an adapter is switched on.
        for parameter in self._trained:
            parameter.requires_grad_(True)
        return values

    def without_dropout(self) -> AbstractContextManager[None]:
        """The context in which steps are computed, forward and backward."""
        return _WithoutDropout(self._dropouts)


class _WithoutDropout(AbstractContextManager[None]):
    def __init__(self, modules: list[tuple[torch.nn.Dropout, float]]) -> None:
        self._modules = modules

    def __enter__(self) -> None:
        for module, _ in self._modules:
            module.p = 0.0

    def __exit__(self, *_: object) -> None:
        for module, probability in self._modules:
            module.p = probability
