"""What the program knows about an objective: its records, keys, loss, figures and cost, and its names elsewhere.

Losses are functions of log-probabilities, so that one trainer serves all objectives of a kind of records. torch is
imported inside them: forms and the command line read this table too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import torch

RecordKind = Literal["texts", "pairs", "unpaired", "labeled"]
"""``texts``: one response per prompt, or plain text. ``pairs``: a chosen and a rejected response to the same prompt.
``unpaired``: responses that a label calls good or bad; pairs become two of them. ``labeled``: a text or conversation
and its label."""

Head = Literal["vocabulary", "labels", "score"]
"""What a model predicts: the next token; the label of a text; or the score of a text, a number. The last two are linear
layers on the state of a text's last token, trained with the adapter (PEFT's ``SEQ_CLS``)."""

Likelihood = Literal["none", "response", "whole"]
"""The tokens of the chosen side whose negative log-likelihood is part of the loss: none, those of the response, or
those of the prompt too."""


class Settings(Protocol):
    """The keys of a recipe's section ``objective`` that losses read."""

    @property
    def loss_type(self) -> str: ...
    @property
    def beta(self) -> float: ...
    @property
    def label_smoothing(self) -> float: ...
    @property
    def simpo_gamma(self) -> float: ...
    @property
    def cpo_alpha(self) -> float: ...
    @property
    def rpo_alpha(self) -> float: ...
    @property
    def desirable_weight(self) -> float: ...
    @property
    def undesirable_weight(self) -> float: ...
    @property
    def center_rewards_coefficient(self) -> float: ...


@dataclass(frozen=True)
class PairScores:
    """Log-probabilities of the responses of pairs; tensors of (pairs,).

    Attributes:
        chosen, rejected: summed over the trained tokens; minus those of the reference, if there is one.
        chosen_tokens, rejected_tokens: numbers of these tokens.
    """

    chosen: "torch.Tensor"
    rejected: "torch.Tensor"
    chosen_tokens: "torch.Tensor"
    rejected_tokens: "torch.Tensor"

    @classmethod
    def of(cls, log_probs: "torch.Tensor", tokens: "torch.Tensor") -> "PairScores":
        """From the sums of 2n texts, the n chosen ones first, and their numbers of trained tokens."""
        return cls(*log_probs.chunk(2), *tokens.clamp(min=1).chunk(2))

    @property
    def per_token(self) -> "PairScores":
        """The same scores as means over the tokens."""
        return PairScores(
            self.chosen / self.chosen_tokens,
            self.rejected / self.rejected_tokens,
            self.chosen_tokens,
            self.rejected_tokens,
        )

    @property
    def difference(self) -> "torch.Tensor":
        return self.chosen - self.rejected


@dataclass(frozen=True)
class UnpairedScores:
    """Log-ratios between model and reference of single responses.

    Attributes:
        ratio: summed over the trained tokens; (responses,).
        good: whether the label calls the response good; (responses,).
        kl: the estimated divergence from the reference, at least 0; a number without a gradient.
    """

    ratio: "torch.Tensor"
    good: "torch.Tensor"
    kl: "torch.Tensor"


@dataclass(frozen=True)
class LabelScores:
    """What a head says of texts.

    Attributes:
        logits: of each label; (texts, labels).
        label: the id of each text's label; (texts,).
    """

    logits: "torch.Tensor"
    label: "torch.Tensor"


Loss = Callable[[PairScores, Settings], "torch.Tensor"]
UnpairedLoss = Callable[[UnpairedScores, Settings], "torch.Tensor"]
LabelLoss = Callable[[LabelScores, Settings], "torch.Tensor"]


@dataclass(frozen=True)
class Trl:
    """TRL's own trainer for an objective, which exported scripts use.

    Attributes:
        module: where the two classes are imported from.
        arguments: names of the section's keys that its configuration takes, under the same name.
        fixed: what else its configuration is given.
        derived: what else follows from the section; it replaces ``arguments`` of the same name.
    """

    module: str
    trainer: str
    config: str
    arguments: tuple[str, ...] = ()
    fixed: Mapping[str, object] = field(default_factory=dict)
    derived: Callable[[Settings], Mapping[str, object]] = lambda settings: {}

    def values(self, settings: Settings) -> dict[str, object]:
        """What its configuration is given for the section."""
        named = {name: getattr(settings, name) for name in self.arguments}
        return {**named, **self.fixed, **self.derived(settings)}


@dataclass(frozen=True)
class OtherTool:
    """How another tool's configuration names an objective.

    Attributes:
        choices: by their value, what it sets in the section; the first one is exported.
        keys: their name of a setting, and the key of the section.
        loss_key: their setting that names any other loss, as a list; empty if there is none.
        note: where the same settings mean something else there; empty if they do not.
    """

    choices: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    loss_key: str = ""
    note: str = ""


@dataclass(frozen=True)
class Objective:
    """One objective.

    What depends on the settings is a function of them; :class:`~workbench.recipe.sections.objective.ObjectiveSection`
    has the values for a recipe, under the same names.

    Attributes:
        kind: its name in ``objective.kind``.
        label: its name in the form.
        help: what it learns, and when to take it, in one sentence.
        records: the records that it reads.
        keys: the keys of the section that it uses, beside ``kind``.
        defaults: their defaults where they differ from the section's.
        losses: by ``loss_type``, the loss of each pair. The first one is the default.
        unpaired_losses: the same of single responses. label_losses: the same of labeled texts.
        head: what the model predicts. The rewards of a ``score`` are the scores themselves.
        has_reference: compares with the base without the adapter, or with the adapter of ``continue_from``.
        rewards_per_token: whether rewards are means over the tokens instead of sums.
        likelihood, likelihood_weight: the negative log-likelihood that is added to the loss, and its weight.
        least_micro_batch: the smallest number of records that a micro-batch may have.
        extra_passes: forward passes without a gradient in each step, for the count of FLOPs.
        price_note: how its step is priced, as a sentence.
        trl: for exported scripts; transformers' own trainer where TRL has none.
        axolotl: its values of ``rl:``. llamafactory: its values of ``stage:``, or ``dpo/`` and one of ``pref_loss:``.
        swift: ms-swift's values of ``rlhf_type``, or of ``task_type``.
    """

    kind: str
    label: str
    help: str
    records: RecordKind
    keys: tuple[str, ...] = ()
    defaults: Mapping[str, object] = field(default_factory=dict)
    losses: Mapping[str, Loss] = field(default_factory=dict)
    unpaired_losses: Mapping[str, UnpairedLoss] = field(default_factory=dict)
    label_losses: Mapping[str, LabelLoss] = field(default_factory=dict)
    head: Head = "vocabulary"
    has_reference: bool = False
    rewards_per_token: Callable[[Settings], bool] = lambda settings: False
    likelihood: Callable[[Settings], Likelihood] = lambda settings: "none"
    likelihood_weight: Callable[[Settings], float] = lambda settings: 1.0
    least_micro_batch: Callable[[Settings], int] = lambda settings: 1
    extra_passes: Callable[[Settings], int] = lambda settings: 0
    price_note: str = ""
    trl: Trl | None = None
    axolotl: OtherTool = OtherTool()
    llamafactory: OtherTool = OtherTool()
    swift: OtherTool = OtherTool()

    @property
    def loss_types(self) -> tuple[str, ...]:
        """The values of ``loss_type`` that it has; empty if it has one loss without a name."""
        names = (*self.losses, *self.unpaired_losses)
        return names if "loss_type" in self.keys else ()

    @property
    def is_preference(self) -> bool:
        """Whether it learns from responses that are compared or labeled good or bad."""
        return self.records in ("pairs", "unpaired")

    @property
    def smooths_tokens(self) -> bool:
        """Whether ``label_smoothing`` spreads the probability of each trained token over the vocabulary."""
        return self.records == "texts" and "label_smoothing" in self.keys

    @property
    def has_head(self) -> bool:
        """Whether a head of its own is trained with the adapter, in place of predicting tokens."""
        return self.head != "vocabulary"

    @property
    def shown_as(self) -> RecordKind | None:
        """As what raw records are read: as what they look like, or, since any column may be a label, as labeled."""
        return "labeled" if self.records == "labeled" else None

    @property
    def texts_per_record(self) -> int:
        """The number of texts that a record has."""
        return 2 if self.records == "pairs" else 1

    @property
    def records_in_words(self) -> str:
        """The records that it reads, as text for the user."""
        return _RECORDS_IN_WORDS[self.records]

    def unused(self, names: frozenset[str] | set[str]) -> list[str]:
        """Of these keys of the section, those that it does not use."""
        return sorted(names - {"kind", *self.keys})


_RECORDS_IN_WORDS: Mapping[RecordKind, str] = {
    "texts": "one response per prompt",
    "pairs": "pairs of a chosen and a rejected response",
    "unpaired": "responses with a label that says whether they are good, or pairs of a chosen and a rejected one",
    "labeled": "texts with a label",
}
