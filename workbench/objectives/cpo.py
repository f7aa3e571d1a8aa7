"""CPO: a preference loss without a reference, beside supervised training on the chosen response (Xu et al. 2024)."""

from typing import TYPE_CHECKING

from workbench.objectives.objective import Objective, OtherTool, PairScores, Settings, Trl

if TYPE_CHECKING:
    import torch


def smoothed(difference: "torch.Tensor", settings: Settings) -> "torch.Tensor":
    """The logistic loss of a difference of log-probabilities, if some pairs are labeled the wrong way round."""
    from torch.nn.functional import logsigmoid

    right, wrong = logsigmoid(settings.beta * difference), logsigmoid(-settings.beta * difference)
    return -right * (1 - settings.label_smoothing) - wrong * settings.label_smoothing


def _hinge(pairs: PairScores, settings: Settings) -> "torch.Tensor":
    return (1 - settings.beta * pairs.difference).relu()


def _ipo(pairs: PairScores, settings: Settings) -> "torch.Tensor":
    return (pairs.per_token.difference - 1 / (2 * settings.beta)) ** 2


CPO = Objective(
    kind="cpo",
    label="preference (CPO)",
    help="like dpo without a reference, which saves its pass; supervised training on the chosen responses keeps the "
    "model from drifting.",
    records="pairs",
    keys=("beta", "loss_type", "label_smoothing", "cpo_alpha"),
    losses={
        "sigmoid": lambda pairs, settings: smoothed(pairs.difference, settings),
        "hinge": _hinge,
        "ipo": _ipo,
    },
    rewards_per_token=lambda settings: settings.loss_type == "ipo",
    likelihood=lambda settings: "response" if settings.cpo_alpha else "none",
    likelihood_weight=lambda settings: settings.cpo_alpha,
    price_note="estimated as a supervised step on both responses of each pair.",
    trl=Trl(
        "trl.experimental.cpo",
        "CPOTrainer",
        "CPOConfig",
        ("beta", "loss_type", "label_smoothing", "cpo_alpha"),
    ),
    swift=OtherTool({"cpo": {}}, {"beta": "beta", "cpo_alpha": "cpo_alpha", "label_smoothing": "label_smoothing"}),
)
