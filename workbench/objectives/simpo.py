"""SimPO: the mean log-probability per token is the reward, with a margin (Meng et al. 2024)."""

from typing import TYPE_CHECKING

from workbench.objectives.cpo import smoothed
from workbench.objectives.objective import Objective, OtherTool, PairScores, Settings, Trl

if TYPE_CHECKING:
    import torch


def _simpo(pairs: PairScores, settings: Settings) -> "torch.Tensor":
    return smoothed(pairs.per_token.difference - settings.simpo_gamma / settings.beta, settings)


SIMPO = Objective(
    kind="simpo",
    label="preference (SimPO)",
    help="prefer the chosen response by its mean log-probability per token, without a reference; beta is 2 to 2.5 in "
    "the paper.",
    records="pairs",
    keys=("beta", "label_smoothing", "simpo_gamma", "cpo_alpha"),
    defaults={"beta": 2.0, "cpo_alpha": 0.0},
    losses={"simpo": _simpo},
    rewards_per_token=lambda settings: True,
    likelihood=lambda settings: "response" if settings.cpo_alpha else "none",
    likelihood_weight=lambda settings: settings.cpo_alpha,
    price_note="estimated as a supervised step on both responses of each pair.",
    trl=Trl(
        "trl.experimental.cpo",
        "CPOTrainer",
        "CPOConfig",
        ("beta", "label_smoothing", "simpo_gamma", "cpo_alpha"),
        {"loss_type": "simpo"},
    ),
    axolotl=OtherTool(
        {"simpo": {"beta": 0.1, "cpo_alpha": 1.0}},
        {"rl_beta": "beta", "simpo_gamma": "simpo_gamma", "cpo_alpha": "cpo_alpha"},
    ),
    llamafactory=OtherTool(
        {"dpo/simpo": {"beta": 0.1}},
        {"pref_beta": "beta", "simpo_gamma": "simpo_gamma", "pref_ftx": "cpo_alpha"},
    ),
    swift=OtherTool(
        {"simpo": {"simpo_gamma": 1.0, "cpo_alpha": 1.0}},
        {"beta": "beta", "simpo_gamma": "simpo_gamma", "cpo_alpha": "cpo_alpha", "label_smoothing": "label_smoothing"},
    ),
)
