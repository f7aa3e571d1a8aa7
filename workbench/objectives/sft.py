"""Supervised fine-tuning: the mean negative log-likelihood of the trained tokens."""

from workbench.objectives.objective import Objective, OtherTool

SFT = Objective(
    kind="sft",
    label="supervised",
    help="supervised, learn the responses.",
    records="texts",
    keys=("label_smoothing",),
    llamafactory=OtherTool({"sft": {}, "pt": {}}),
)
