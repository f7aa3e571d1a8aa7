"""DPO and its relatives: prefer the chosen response of each pair, compared with a reference (Rafailov et al. 2023)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from workbench.objectives.objective import Loss, Objective, OtherTool, PairScores, Settings, Trl

if TYPE_CHECKING:
    import torch


def _sigmoid(pairs: PairScores, settings: Settings) -> "torch.Tensor":
    from torch.nn.functional import logsigmoid

    return -logsigmoid(settings.beta * pairs.difference)


def _robust(pairs: PairScores, settings: Settings) -> "torch.Tensor":
    """Chowdhury et al. 2024: unbiased if a share of the labels is wrong."""
    from torch.nn.functional import logsigmoid

    smoothing, difference = settings.label_smoothing, settings.beta * pairs.difference
    return (-(1 - smoothing) * logsigmoid(difference) + smoothing * logsigmoid(-difference)) / (1 - 2 * smoothing)


def _nca_pair(pairs: PairScores, settings: Settings) -> "torch.Tensor":
    """Chen et al. 2024: raises the chosen response instead of only the difference."""
    from torch.nn.functional import logsigmoid

    chosen, rejected = settings.beta * pairs.chosen, settings.beta * pairs.rejected
    return -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)


def _hinge(pairs: PairScores, settings: Settings) -> "torch.Tensor":
    """Zhao et al. 2023."""
    return (1 - settings.beta * pairs.difference).relu()


def _ipo(pairs: PairScores, settings: Settings) -> "torch.Tensor":
    """Azar et al. 2023, equation 17, per token as its authors do."""
    return (pairs.per_token.difference - 1 / (2 * settings.beta)) ** 2


def _sppo_hard(pairs: PairScores, settings: Settings) -> "torch.Tensor":
    """Wu et al. 2024, with the probability of winning set to 1."""
    return (pairs.chosen - 0.5 / settings.beta) ** 2 + (pairs.rejected + 0.5 / settings.beta) ** 2


def _apo_zero(pairs: PairScores, settings: Settings) -> "torch.Tensor":
    """D'Oosterlinck et al. 2024, equation 7."""
    return 1 - (settings.beta * pairs.chosen).sigmoid() + (settings.beta * pairs.rejected).sigmoid()


def _apo_down(pairs: PairScores, settings: Settings) -> "torch.Tensor":
    """D'Oosterlinck et al. 2024, equation 8."""
    return (settings.beta * pairs.chosen).sigmoid() + 1 - (settings.beta * pairs.difference).sigmoid()


_LOSSES: dict[str, Loss] = {
    "sigmoid": _sigmoid,
    "sigmoid_norm": lambda pairs, settings: _sigmoid(pairs.per_token, settings),
    "hinge": _hinge,
    "ipo": _ipo,
    "robust": _robust,
    "nca_pair": _nca_pair,
    "sppo_hard": _sppo_hard,
    "apo_zero": _apo_zero,
    "apo_down": _apo_down,
}


def _with_likelihood(settings: Settings) -> Mapping[str, object]:
    """TRL adds the likelihood of the chosen response (RPO, Pang et al. 2024) as a second loss."""
    if not settings.rpo_alpha:
        return {}
    return {"loss_type": [settings.loss_type, "sft"], "loss_weights": [1.0, settings.rpo_alpha]}


DPO = Objective(
    kind="dpo",
    label="preference (DPO)",
    help="learn to prefer the chosen response of each pair to the rejected one, compared with a reference (the base "
    "without the adapter); the usual choice after supervised training.",
    records="pairs",
    keys=("beta", "loss_type", "label_smoothing", "rpo_alpha"),
    losses=_LOSSES,
    has_reference=True,
    likelihood=lambda settings: "response" if settings.rpo_alpha else "none",
    likelihood_weight=lambda settings: settings.rpo_alpha,
    extra_passes=lambda settings: 1,
    price_note="estimated as a supervised step on both responses of each pair. The reference's pass comes first and "
    "frees its memory; its time is not predicted.",
    trl=Trl("trl", "DPOTrainer", "DPOConfig", ("beta", "loss_type", "label_smoothing"), derived=_with_likelihood),
    axolotl=OtherTool(
        {"dpo": {}, "ipo": {"loss_type": "ipo"}},
        {"rl_beta": "beta", "dpo_beta": "beta", "dpo_label_smoothing": "label_smoothing", "rpo_alpha": "rpo_alpha"},
        loss_key="dpo_loss_type",
    ),
    llamafactory=OtherTool(
        {"dpo/sigmoid": {}, "dpo/hinge": {"loss_type": "hinge"}, "dpo/ipo": {"loss_type": "ipo"}},
        {"pref_beta": "beta", "pref_ftx": "rpo_alpha"},
    ),
    swift=OtherTool({"dpo": {}}, {"beta": "beta", "label_smoothing": "label_smoothing", "rpo_alpha": "rpo_alpha"}),
)
