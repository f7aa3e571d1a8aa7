"""The section ``objective``: what a run minimizes. :mod:`workbench.objectives` has the kinds."""

from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator

from workbench.objectives.objective import Likelihood, Objective
from workbench.objectives.table import OBJECTIVES, loss_types, using
from workbench.recipe.sections.section import Section, setting

if TYPE_CHECKING:
    ObjectiveKind = str
    LossType = str
else:
    # The choices of the table, as literals: forms, errors and the JSON Schema read them from here.
    ObjectiveKind = Literal[tuple(OBJECTIVES)]
    LossType = Literal[tuple(loss_types())]


class ObjectiveSection(Section):
    """What a run minimizes. A recipe without this section is supervised. :mod:`workbench.objectives` has the kinds."""

    kind: ObjectiveKind = setting(
        "sft",
        " ".join(f"{objective.kind}: {objective.help}" for objective in OBJECTIVES.values())
        + " All but sft and classification run without dropout, as in TRL.",
    )
    beta: float = setting(
        0.1,
        f"Used with {using('beta')}: how closely the adapter stays to the reference (orpo: weight of the odds). "
        "Rewards are beta × log-ratio. Default 0.1, 2 with simpo.",
        up="stays closer to the reference",
        steps=(0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0),
        gt=0.0,
        le=100.0,
    )
    loss_type: LossType = setting(
        "sigmoid",
        f"Used with {using('loss_type')}: the loss, by TRL's names. sigmoid: DPO. sigmoid_norm: per token. ipo: a "
        "margin of 1 / (2 beta) per token. hinge: SLiC. robust: some labels are wrong. apo_zero, apo_down: anchored. "
        "kto: compared with the divergence from the reference. apo_zero_unpaired: compared with 0.",
    )
    label_smoothing: float = setting(
        0.0,
        "sft and classification: share of the probability that is spread over all tokens or labels, against "
        "overconfidence; held-out losses are without it. cpo, simpo and the loss robust of dpo: probability that a "
        "pair is labeled the wrong way round.",
        steps=(0.0, 0.05, 0.1, 0.2),
        ge=0.0,
        lt=0.5,
    )
    simpo_gamma: float = setting(
        0.5,
        f"Used with {using('simpo_gamma')}: margin between both mean log-probabilities, times beta.",
        up="demands a larger margin",
        steps=(0.0, 0.3, 0.5, 1.0, 1.6),
        ge=0.0,
        le=100.0,
    )
    cpo_alpha: float = setting(
        1.0,
        f"Used with {using('cpo_alpha')}: weight of the supervised loss on the chosen response. 0 with simpo.",
        steps=(0.0, 0.05, 0.5, 1.0),
        ge=0.0,
        le=100.0,
    )
    rpo_alpha: float = setting(
        0.0,
        f"Used with {using('rpo_alpha')}: weight of the supervised loss on the chosen response (RPO), which keeps its "
        "likelihood from falling.",
        steps=(0.0, 0.05, 0.1, 0.5, 1.0),
        ge=0.0,
        le=100.0,
    )
    desirable_weight: float = setting(
        1.0,
        f"Used with {using('desirable_weight')}: weight of good responses; raise it if they are the fewer ones.",
        steps=(0.5, 1.0, 1.33, 2.0),
        gt=0.0,
        le=100.0,
    )
    undesirable_weight: float = setting(
        1.0,
        f"Used with {using('undesirable_weight')}: weight of bad responses; raise it if they are the fewer ones.",
        steps=(0.5, 1.0, 1.33, 2.0),
        gt=0.0,
        le=100.0,
    )

    center_rewards_coefficient: float = setting(
        0.0,
        f"Used with {using('center_rewards_coefficient')}: pulls the scores of a pair towards 0, 0.01 in the paper.",
        steps=(0.0, 0.01, 0.1),
        ge=0.0,
        le=100.0,
    )

    @model_validator(mode="after")
    def _link_defaults(self) -> Self:
        # As `lora_alpha` of the adapter section: what nobody has set follows the objective.
        spec = self.spec
        first = {"loss_type": spec.loss_types[0]} if spec.loss_types else {}
        self.__dict__.update({**first, **spec.defaults} | {name: getattr(self, name) for name in self.model_fields_set})
        return self

    @property
    def spec(self) -> Objective:
        """The objective's row in the table."""
        return OBJECTIVES[self.kind]

    @property
    def is_preference(self) -> bool:
        """Whether it learns from responses that are compared or labeled good or bad."""
        return self.spec.is_preference

    @property
    def likelihood(self) -> Likelihood:
        """The tokens whose negative log-likelihood is added to the loss."""
        return self.spec.likelihood(self)

    @property
    def likelihood_weight(self) -> float:
        """The weight of that likelihood."""
        return self.spec.likelihood_weight(self)

    @property
    def rewards_per_token(self) -> bool:
        """Whether rewards are means over the tokens instead of sums."""
        return self.spec.rewards_per_token(self)

    @property
    def least_micro_batch(self) -> int:
        """The smallest number of records that a micro-batch may have."""
        return self.spec.least_micro_batch(self)

    @property
    def extra_passes(self) -> int:
        """Forward passes without a gradient in each step."""
        return self.spec.extra_passes(self)

    @property
    def unused_keys(self) -> list[str]:
        """The keys that have been set, and that the objective does not use."""
        return [
            name
            for name in self.spec.unused(self.model_fields_set)
            if getattr(self, name) != type(self).model_fields[name].default
        ]
