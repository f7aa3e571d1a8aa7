"""Classification: the label of a text, from a head on the state of its last token (PEFT's SEQ_CLS)."""

from typing import TYPE_CHECKING

from workbench.objectives.objective import LabelScores, Objective, OtherTool, Settings, Trl

if TYPE_CHECKING:
    import torch


def _cross_entropy(scores: LabelScores, settings: Settings) -> "torch.Tensor":
    from torch.nn.functional import cross_entropy

    smoothing = settings.label_smoothing
    return cross_entropy(scores.logits, scores.label, reduction="none", label_smoothing=smoothing)


CLASSIFICATION = Objective(
    kind="classification",
    label="classification",
    help="learn the label of a text, with a head that is trained with the adapter; labels are found in the data.",
    records="labeled",
    keys=("label_smoothing",),
    label_losses={"cross_entropy": _cross_entropy},
    head="labels",
    price_note="no logits of the vocabulary are computed: a head of one row a label reads the last token of each text.",
    trl=Trl("transformers", "Trainer", "TrainingArguments"),
    swift=OtherTool({"seq_cls": {}}),
)
