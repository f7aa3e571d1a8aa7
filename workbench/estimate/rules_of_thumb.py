"""Figures that tutorials pass on, kept apart from our own and always shown under that name."""

from dataclasses import dataclass

from workbench.models.skeleton import Skeleton

# Billions of parameters → GB (10⁹ bytes) for LoRA on a 16-bit base, and for QLoRA.
_PUBLISHED = {7: (16, 6), 13: (30, 10), 33: (70, 20), 70: (150, 40)}


@dataclass(frozen=True)
class RuleOfThumb:
    """What a table says of a model of about this size, in GB (10⁹ bytes)."""

    billions: int
    lora_gb: int
    qlora_gb: int

    @property
    def label(self) -> str:
        return f"rule of thumb for {self.billions}B: {self.lora_gb} GB (16-bit LoRA), {self.qlora_gb} GB (QLoRA)"


def rule_of_thumb(skeleton: Skeleton) -> RuleOfThumb | None:
    """The published row within a fifth of the model's size; None between the rows."""
    billions = skeleton.parameters / 1e9
    nearest = min(_PUBLISHED, key=lambda row: abs(row - billions))
    if abs(nearest - billions) > nearest / 5:
        return None
    return RuleOfThumb(nearest, *_PUBLISHED[nearest])
