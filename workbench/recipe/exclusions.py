"""Refuses settings of the training that the adapter, the objective or the records cannot use."""

from workbench.adapters.registry import method_of
from workbench.recipe.optimizers import DEFAULT, OPTIMIZERS
from workbench.recipe.sections.adapter import AdapterSection
from workbench.recipe.sections.data import DataSection
from workbench.recipe.sections.objective import ObjectiveSection
from workbench.recipe.sections.section import excluded
from workbench.recipe.sections.training import TrainingSection


def check_training(
    training: TrainingSection, adapter: AdapterSection, objective: ObjectiveSection, data: DataSection
) -> None:
    """Refuse each setting that another section excludes, by its name.

    Raises:
        PydanticCustomError: the first one.
    """
    _check_optimizer(training, adapter)
    if training.neftune_noise_alpha and objective.is_preference:
        raise excluded(
            "training.neftune_noise_alpha",
            f"{objective.kind} compares log-probabilities, which noise would change for each response apart",
            "set it to 0",
        )
    if training.group_by_length and objective.spec.records == "unpaired":
        raise excluded(
            "training.group_by_length",
            f"{objective.kind} compares each response with the one before it, so their order is fixed",
            "set it to false",
        )
    if training.group_by_length and data.packing:
        raise excluded("training.group_by_length", "packed sequences have one length (data.packing)", "set it to false")


def _check_optimizer(training: TrainingSection, adapter: AdapterSection) -> None:
    """Refuse what LoRA+ and LoRA-FA cannot be combined with. PEFT's LoRA-FA is an AdamW of its own for LoRA's B."""
    if training.loraplus_lr_ratio and adapter.method != "lora":
        raise excluded("training.loraplus_lr_ratio", f"{adapter.method} has no matrices A and B", "set it to 0")
    if OPTIMIZERS[training.optim].averages and method_of(adapter.method).allocates_ranks:
        raise excluded(
            "training.optim",
            f"{training.optim} averages weights of all steps, and {adapter.method} switches ranks off between them",
            f"set it to {DEFAULT}",
        )
    if not training.trains_b_only:
        return
    if adapter.method != "lora" or adapter.use_dora:
        name = "DoRA" if adapter.use_dora else adapter.method
        raise excluded(
            "training.optim", f"lora_fa trains LoRA's B alone, and the adapter is {name}", f"set it to {DEFAULT}"
        )
    if training.loraplus_lr_ratio:
        raise excluded(
            "training.loraplus_lr_ratio", "lora_fa leaves A frozen, so there is no second rate", "set it to 0"
        )
    for name in ("adam_beta1", "adam_beta2", "adam_epsilon"):
        default = TrainingSection.model_fields[name].default
        if getattr(training, name) != default:
            raise excluded(f"training.{name}", "lora_fa has its own: 0.9, 0.999 and 1e-6", f"set it to {default:g}")
