"""ORPO: supervised training on the chosen response plus its odds against the rejected one (Hong et al. 2024)."""

from typing import TYPE_CHECKING

from workbench.objectives.objective import Objective, OtherTool, PairScores, Settings, Trl

if TYPE_CHECKING:
    import torch


def log_odds(pairs: PairScores) -> "torch.Tensor":
    """The logarithm of the odds of the chosen response over those of the rejected one; (pairs,)."""
    mean = pairs.per_token
    return mean.difference - (_log_of_complement(mean.chosen) - _log_of_complement(mean.rejected))


def _log_of_complement(log_probability: "torch.Tensor") -> "torch.Tensor":
    """log(1 − p) of a log-probability, exact for p near 0 and near 1 (Mächler 2012)."""
    import torch

    # A certain response would have infinite odds, and no gradient that is a number.
    bounded = log_probability.clamp(max=-1e-7)
    near_one = torch.log(-torch.expm1(bounded))
    return torch.where(bounded > -0.693, near_one, torch.log1p(-torch.exp(bounded)))


def _odds_ratio(pairs: PairScores, settings: Settings) -> "torch.Tensor":
    """Equation 7 of the paper, whose λ is beta here as in TRL."""
    from torch.nn.functional import logsigmoid

    return -settings.beta * logsigmoid(log_odds(pairs))


ORPO = Objective(
    kind="orpo",
    label="preference (ORPO)",
    help="supervised training on the chosen responses that also lowers the odds of the rejected ones; needs no "
    "reference and no supervised training before.",
    records="pairs",
    keys=("beta",),
    losses={"orpo": _odds_ratio},
    rewards_per_token=lambda settings: True,
    likelihood=lambda settings: "whole",
    price_note="estimated as a supervised step on both responses of each pair.",
    trl=Trl("trl.experimental.orpo", "ORPOTrainer", "ORPOConfig", ("beta",)),
    axolotl=OtherTool({"orpo": {}}, {"orpo_alpha": "beta", "rl_beta": "beta"}),
    llamafactory=OtherTool(
        {"dpo/orpo": {}},
        {"pref_beta": "beta"},
        note="LLaMA-Factory's ORPO learns the chosen response only, TRL's and this one its prompt too",
    ),
    swift=OtherTool({"orpo": {}}, {"beta": "beta"}),
)
