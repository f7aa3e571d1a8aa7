"""Makes the optimizers that transformers does not make itself, and groups of parameters with rates of their own.

Imports torch.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from workbench.adapters.methods.lora import lora_fa_refusal
from workbench.errors import WorkbenchError
from workbench.recipe.optimizers import OPTIMIZERS
from workbench.recipe.sections.training import TrainingSection

if TYPE_CHECKING:
    from peft import PeftModel
    from torch.optim import Optimizer


@dataclass(frozen=True)
class OptimizerKnobs:
    """What a recipe asks of its optimizer beside what transformers' arguments say.

    Attributes:
        loraplus_lr_ratio: LoRA+'s ratio of the learning rates of B and A; 0: one learning rate for both.
        embedding_learning_rate: of trained embeddings and output layers; 0: that of the others.
        trains_b_only: LoRA-FA, which leaves A frozen.
        averages: what is evaluated and saved is an average of the weights that are trained (schedule-free).
    """

    loraplus_lr_ratio: float = 0.0
    embedding_learning_rate: float = 0.0
    trains_b_only: bool = False
    averages: bool = False

    @classmethod
    def of(cls, training: TrainingSection) -> "OptimizerKnobs":
        return cls(
            training.loraplus_lr_ratio,
            training.embedding_learning_rate,
            training.trains_b_only,
            OPTIMIZERS[training.optim].averages,
        )


def freeze_a(model: torch.nn.Module) -> None:
    """Freeze the A of every layer, as PEFT's LoRA-FA does when its optimizer is made.

    Raises:
        WorkbenchError: a layer is adapted that PEFT's LoRA-FA computes wrongly.
    """
    for name, parameter in model.named_parameters():
        if "lora_embedding_A" in name or ("lora_A" in name and parameter.dim() != 2):
            raise lora_fa_refusal(name.partition(".lora_")[0])
        if "lora_A" in name:
            parameter.requires_grad_(False)


def lorafa_optimizer(model: "PeftModel", rate: float, weight_decay: float) -> "Optimizer":
    """PEFT's LoRA-FA. The rank and alpha that it takes are not used: each layer has its own scaling."""
    from peft.optimizers import create_lorafa_optimizer

    config = model.peft_config[model.active_adapter]
    return create_lorafa_optimizer(model, config.r, config.lora_alpha, rate, weight_decay)


def loraplus_optimizer(
    model: "PeftModel", kind: "type[Optimizer]", ratio: float, weight_decay: float, options: dict[str, Any]
) -> "Optimizer":
    """An optimizer with PEFT's groups of LoRA+."""
    from peft.optimizers import create_loraplus_optimizer

    return create_loraplus_optimizer(
        model, kind, loraplus_lr_ratio=ratio, loraplus_weight_decay=weight_decay, **options
    )


def trained_embeddings(model: "PeftModel") -> list[torch.nn.Parameter]:
    """The trained parameters of embeddings and output layer: whole copies, LoRA on them, and rows of new tokens."""
    base = model.get_base_model()
    layers = (base.get_input_embeddings(), base.get_output_embeddings())
    parameters = [parameter for layer in layers if layer is not None for parameter in layer.parameters()]
    return [parameter for parameter in parameters if parameter.requires_grad]


def check_trains_embeddings(model: "PeftModel", rate: float) -> None:
    """Refuse a learning rate for embeddings if none are trained.

    Raises:
        WorkbenchError: says how to train them.
    """
    if rate and not trained_embeddings(model):
        raise WorkbenchError(
            f"training.embedding_learning_rate is {rate:g}, and the adapter trains no embedding and no output layer.",
            "Name them in adapter.modules_to_save, such as [embed_tokens, lm_head], or set "
            "training.embedding_learning_rate to 0.",
            kind="adapter",
        )


def give_own_rate(optimizer: "Optimizer", parameters: Iterable[torch.nn.Parameter], rate: float) -> None:
    """Move parameters to groups of their own, which differ from their old ones in the learning rate alone."""
    chosen = {id(parameter) for parameter in parameters}
    for group in list(optimizer.param_groups):
        here = [id(parameter) in chosen for parameter in group["params"]]
        if not any(here):
            continue
        own = dict(group) | {"lr": rate}
        # LoRA-FA lists a name and a scaling for each parameter.
        for key, value in group.items():
            if isinstance(value, list) and len(value) == len(here):
                own[key] = [item for item, is_own in zip(value, here, strict=True) if is_own]
                group[key] = [item for item, is_own in zip(value, here, strict=True) if not is_own]
        optimizer.add_param_group(own)


@contextmanager
def averaged_weights(optimizer: Any) -> Iterator[None]:
    """Within, the weights are the averages that a schedule-free optimizer is about; afterwards exactly as before."""
    if optimizer is None or not optimizer.param_groups[0].get("train_mode"):
        yield
        return
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    before = [parameter.detach().clone() for parameter in trained]
    optimizer.eval()
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, weights in zip(trained, before, strict=True):
                parameter.copy_(weights)
        for group in optimizer.param_groups:
            group["train_mode"] = True
