"""Reward model: a score of each response, higher for the chosen one (Ouyang et al. 2022, after Bradley and Terry)."""

from typing import TYPE_CHECKING

from workbench.objectives.objective import Objective, OtherTool, PairScores, Settings, Trl

if TYPE_CHECKING:
    import torch


def _bradley_terry(pairs: PairScores, settings: Settings) -> "torch.Tensor":
    """Equation 1 of Ouyang et al.; centered as in Eisenstein et al. 2023, equation 2."""
    from torch.nn.functional import logsigmoid

    center = settings.center_rewards_coefficient * (pairs.chosen + pairs.rejected) ** 2
    return center - logsigmoid(pairs.difference)


REWARD = Objective(
    kind="reward",
    label="reward model",
    help="learn to score responses, the chosen one of each pair higher than the rejected one; it scores replies and "
    "writes none.",
    records="pairs",
    keys=("center_rewards_coefficient",),
    losses={"bradley_terry": _bradley_terry},
    head="score",
    price_note="no logits of the vocabulary are computed: a head of one row reads the last token of both responses of "
    "each pair.",
    trl=Trl("trl", "RewardTrainer", "RewardConfig", ("center_rewards_coefficient",)),
    axolotl=OtherTool({"reward": {}}, {"center_rewards_coefficient": "center_rewards_coefficient"}),
    llamafactory=OtherTool(
        {"rm": {}}, note="LLaMA-Factory's reward model has a value head of its own, with a bias and dropout"
    ),
    swift=OtherTool({"rm": {}}, {"center_rewards_coefficient": "center_rewards_coefficient"}),
)
