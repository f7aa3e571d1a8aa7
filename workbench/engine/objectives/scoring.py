"""From log-probabilities of a batch to the losses and figures of its records. Imports torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from workbench.engine.objectives.texts import rows_of, sums_by_text, token_counts
from workbench.objectives.objective import LabelScores, PairScores, UnpairedScores
from workbench.recipe.sections.objective import ObjectiveSection

if TYPE_CHECKING:
    from workbench.engine.batches.parts import Batch

PAIR_FIGURES = ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies")
"""What is recorded of each pair, by TRL's names."""
UNPAIRED_FIGURES = ("rewards/chosen", "rewards/rejected", "rewards/accuracies", "kl")
"""The same of unpaired responses: means over the good ones, the bad ones, and all of them."""
LABEL_FIGURES = ("accuracy",)
"""The same of texts with labels: whether the likeliest label is the right one."""
LIKELIHOOD = "nll_loss"
"""The negative log-likelihood per token that is part of a loss."""


@dataclass(frozen=True)
class Scored:
    """What one batch gives.

    Attributes:
        losses: of each record, without the likelihood; (records,).
        figures: values by figure and record; (figures, records). NaN where a record has none.
        likelihood: the negative log-likelihood that is part of the loss, summed over tokens; None if there is none.
        likelihood_tokens: the number of these tokens.
    """

    losses: torch.Tensor
    figures: torch.Tensor
    likelihood: torch.Tensor | None = None
    likelihood_tokens: int = 0


def figure_names(objective: ObjectiveSection) -> tuple[str, ...]:
    """The figures that are recorded of each record, in the order of :attr:`Scored.figures`; then the likelihood's."""
    spec = objective.spec
    if spec.records == "unpaired":
        return UNPAIRED_FIGURES
    if spec.records == "labeled":
        return LABEL_FIGURES
    return (*PAIR_FIGURES, LIKELIHOOD) if objective.likelihood != "none" else PAIR_FIGURES


def score_pairs(
    objective: ObjectiveSection, batch: "Batch", log_probs: torch.Tensor, reference: torch.Tensor | None
) -> Scored:
    """Score a batch of pairs.

    Args:
        log_probs: of the predicted tokens, as the model returns them.
        reference: sums by text of the reference's; None for objectives without one.
    """
    spec, rows = objective.spec, rows_of(batch)
    sums = sums_by_text(log_probs, batch)
    scores = PairScores.of(sums if reference is None else sums - reference, token_counts(rows.trained, sums))
    losses = spec.losses[objective.loss_type if spec.loss_types else next(iter(spec.losses))](scores, objective)
    rewarded = scores.per_token if objective.rewards_per_token else scores
    figures = _reward_figures(objective.beta * rewarded.chosen.detach(), objective.beta * rewarded.rejected.detach())
    tokens = likelihood_tokens(objective, batch)
    if not tokens:
        return Scored(losses, figures)
    half = len(rows.rows)
    return Scored(losses, figures, -sums_by_text(log_probs, batch, responses=False)[:half].sum(), tokens)


def score_rewards(objective: ObjectiveSection, batch: "Batch", rewards: torch.Tensor) -> Scored:
    """Score a batch of pairs whose rewards a head gives.

    Args:
        rewards: of each text; (texts,).
    """
    (loss,) = objective.spec.losses.values()
    scores = PairScores.of(rewards, token_counts(rows_of(batch).trained, rewards))
    return Scored(loss(scores, objective), _reward_figures(scores.chosen.detach(), scores.rejected.detach()))


def _reward_figures(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    return torch.stack([chosen, rejected, chosen - rejected, (chosen > rejected).to(chosen.dtype)])


def score_labels(objective: ObjectiveSection, batch: "Batch", logits: torch.Tensor) -> Scored:
    """Score a batch of texts with labels.

    Args:
        logits: of each label; (texts, labels).
    """
    (loss,) = objective.spec.label_losses.values()
    label = torch.tensor([row["label"] for row in rows_of(batch).rows]).to(logits.device, non_blocking=True)
    right = (logits.detach().argmax(-1) == label).to(logits.dtype)
    return Scored(loss(LabelScores(logits, label), objective), right[None])


def likelihood_tokens(objective: ObjectiveSection, batch: "Batch") -> int:
    """The tokens of a batch of pairs whose likelihood is part of the loss."""
    if objective.likelihood == "none":
        return 0
    rows = rows_of(batch)
    return sum(rows.predicted[: len(rows.rows)])


def score_unpaired(
    objective: ObjectiveSection,
    batch: "Batch",
    log_probs: torch.Tensor,
    reference: torch.Tensor,
    divergence: torch.Tensor,
) -> Scored:
    """Score a batch of unpaired responses.

    Args:
        reference: sums by text of the reference's log-probabilities.
        divergence: the estimated divergence of the whole micro-batch; a number.
    """
    ratio = sums_by_text(log_probs, batch) - reference
    good = torch.tensor([bool(row["good"]) for row in rows_of(batch).rows]).to(ratio.device, non_blocking=True)
    losses = objective.spec.unpaired_losses[objective.loss_type](UnpairedScores(ratio, good, divergence), objective)
    rewards, nothing = objective.beta * ratio.detach(), torch.full_like(ratio.detach(), torch.nan)
    # Right is a good response above the divergence, and a bad one below it.
    right = (ratio.detach() > divergence) == good
    figures = [
        torch.where(good, rewards, nothing),
        torch.where(good, nothing, rewards),
        right.to(rewards.dtype),
        divergence.to(rewards.dtype).expand_as(rewards),
    ]
    return Scored(losses, torch.stack(figures))
