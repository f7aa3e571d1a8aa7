"""KTO: learn from responses that are good or bad, each by itself (Ethayarajh et al. 2024)."""

from typing import TYPE_CHECKING

from workbench.objectives.objective import Objective, OtherTool, Settings, Trl, UnpairedLoss, UnpairedScores

if TYPE_CHECKING:
    import torch


def _kto(scores: UnpairedScores, settings: Settings) -> "torch.Tensor":
    """Equation 7 of Ethayarajh et al.: the log-ratio of a good response to the reference should lie above the mean
    divergence from it, that of a bad one below."""
    gain = settings.beta * (scores.ratio - scores.kl)
    return _weighted_loss(scores, 1 - gain.sigmoid(), 1 - (-gain).sigmoid(), settings)


def _apo_zero_unpaired(scores: UnpairedScores, settings: Settings) -> "torch.Tensor":
    """D'Oosterlinck et al. 2024, equation 7 without pairs: no divergence is estimated."""
    value = (settings.beta * scores.ratio).sigmoid()
    return _weighted_loss(scores, 1 - value, value, settings)


def _weighted_loss(
    scores: UnpairedScores, good: "torch.Tensor", bad: "torch.Tensor", settings: Settings
) -> "torch.Tensor":
    import torch

    return torch.where(scores.good, settings.desirable_weight * good, settings.undesirable_weight * bad)


def estimates_divergence(settings: Settings) -> bool:
    """Whether the loss compares with the divergence from the reference."""
    return settings.loss_type == "kto"


_LOSSES: dict[str, UnpairedLoss] = {"kto": _kto, "apo_zero_unpaired": _apo_zero_unpaired}

KTO = Objective(
    kind="kto",
    label="preference (KTO)",
    help="learn from responses that are labeled good or bad, or from pairs, compared with a reference.",
    records="unpaired",
    keys=("beta", "loss_type", "desirable_weight", "undesirable_weight"),
    unpaired_losses=_LOSSES,
    has_reference=True,
    # A response is exchanged with another one of its micro-batch.
    least_micro_batch=lambda settings: 2 if estimates_divergence(settings) else 1,
    # One of the reference on the responses. For the divergence, one of it and one of the adapter on exchanged ones:
    # each prompt with the response of the record before it.
    extra_passes=lambda settings: 3 if estimates_divergence(settings) else 1,
    price_note="estimated as a supervised step. Passes without a gradient come first and free their memory: the "
    "reference's, and with loss_type kto two on exchanged responses that estimate the divergence from it; their time "
    "is not predicted.",
    trl=Trl("trl", "KTOTrainer", "KTOConfig", ("beta", "loss_type", "desirable_weight", "undesirable_weight")),
    axolotl=OtherTool(
        {"kto": {}},
        {
            "rl_beta": "beta",
            "kto_desirable_weight": "desirable_weight",
            "kto_undesirable_weight": "undesirable_weight",
        },
    ),
    llamafactory=OtherTool(
        {"kto": {}},
        {"pref_beta": "beta", "kto_chosen_weight": "desirable_weight", "kto_rejected_weight": "undesirable_weight"},
    ),
    swift=OtherTool(
        {"kto": {}},
        {"beta": "beta", "desirable_weight": "desirable_weight", "undesirable_weight": "undesirable_weight"},
    ),
)
