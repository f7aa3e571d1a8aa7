"""The section ``objective``: what a run minimizes."""

from typing import Literal

from workbench.recipe.sections.section import Section, setting

ObjectiveKind = Literal["sft", "dpo"]
PreferenceLoss = Literal[
    "sigmoid", "sigmoid_norm", "hinge", "ipo", "robust", "nca_pair", "sppo_hard", "apo_zero", "apo_down"
]


class ObjectiveSection(Section):
    """What a run minimizes. A recipe without this section is supervised."""

    kind: ObjectiveKind = setting(
        "sft",
        "sft: supervised, learn the responses. dpo: learn to prefer the chosen response of each pair to the rejected "
        "one, compared with the base without the adapter (the reference). Runs without dropout, as in TRL.",
    )
    beta: float = setting(
        0.1,
        "Used with dpo only: how closely the adapter stays to the reference. Rewards are beta × log-ratio.",
        up="stays closer to the reference",
        steps=(0.01, 0.05, 0.1, 0.2, 0.5, 1.0),
        gt=0.0,
        le=100.0,
    )
    loss_type: PreferenceLoss = setting(
        "sigmoid",
        "Used with dpo only: the loss of a pair, by TRL's names. sigmoid: DPO. sigmoid_norm: per token. ipo: a "
        "margin of 1 / (2 beta) per token. hinge: SLiC. robust: some labels are wrong. apo_zero, apo_down: anchored.",
    )
    label_smoothing: float = setting(
        0.0,
        "Used with the loss robust only: probability that a pair is labeled the wrong way round.",
        steps=(0.0, 0.05, 0.1, 0.2),
        ge=0.0,
        lt=0.5,
    )

    @property
    def is_preference(self) -> bool:
        """Whether it trains on pairs of a chosen and a rejected response."""
        return self.kind == "dpo"
