"""CorDA (arXiv:2406.05223) and LoRA-GA (arXiv:2407.05000): A and B from the base's weights and records. Imports torch.

PEFT subtracts B·A from the weights at once. Here the weights are put back: the product of A and B as they are kept, in
their dtype, is subtracted when the adapter is attached, and in the same way when the run is resumed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from workbench.engine.model.base import LoadedBase
from workbench.engine.training.starts.batches import Batch, Steps, computed
from workbench.errors import WorkbenchError
from workbench.recipe.sections.adapter import AdapterSection

if TYPE_CHECKING:
    from peft import LoraConfig

# What PEFT's functions leave on the layers of the base.
_MARKS = ("eigens", "sample_count", "covariance_matrix", "corda_method", "rank", "_peft_loraga_grad",
          "_peft_loraga_grad_count")  # fmt: skip


def initialize(
    base: LoadedBase, adapter: AdapterSection, batches: Sequence[Batch], options: Mapping[str, Any], steps: Steps
) -> str:
    """Attach an adapter with PEFT's start, and restore the base's weights; returns what was done.

    Raises:
        WorkbenchError: the start cannot be computed from these records.
    """
    config = _config(base, adapter, options)
    weights = {
        module: module.weight.data
        for module in base.model.modules()
        if isinstance(getattr(module, "weight", None), torch.nn.Parameter)
    }
    prepare = _prepare_corda if config.init_lora_weights == "corda" else _prepare_lora_ga
    try:
        prepare(base, config, batches, steps)
        steps.next("decomposing")
        base.attach_new(adapter, config=config)
    except (ValueError, TypeError, AttributeError, torch.linalg.LinAlgError) as error:
        raise WorkbenchError(
            f"init_lora_weights: {config.init_lora_weights} cannot be computed from these records: "
            f"{str(error).splitlines()[0]}",
            "Set adapter.init_lora_weights to true, or leave out layers that no record reaches.",
            kind="adapter_start",
        ) from error
    finally:
        for module, weight in weights.items():
            module.weight.data = weight
        for module in base.model.modules():
            for mark in _MARKS:
                module.__dict__.pop(mark, None)
    # Kept as a plain adapter, which PEFT loads without the start.
    config.init_lora_weights, config.corda_config, config.lora_ga_config = True, None, None
    return f"{len(batches)} records"


def _config(base: LoadedBase, adapter: AdapterSection, options: Mapping[str, Any]) -> "LoraConfig":
    """PEFT's configuration with the start, and with the names of the layers instead of ``all-linear``."""
    from peft import LoraGAConfig
    from peft.tuners.lora.config import CordaConfig
    from peft.tuners.tuners_utils import _maybe_include_all_linear_layers

    if adapter.init_lora_weights == "corda":
        start = {"init_lora_weights": "corda", "corda_config": CordaConfig(**options)}
    else:
        start = {"init_lora_weights": "lora_ga", "lora_ga_config": LoraGAConfig(**options)}
    config: LoraConfig = _maybe_include_all_linear_layers(base.new_config(adapter, **start), base.model)
    return config


def _prepare_corda(base: LoadedBase, config: "LoraConfig", batches: Sequence[Batch], steps: Steps) -> None:
    from peft.tuners.lora.corda import preprocess_corda

    preprocess_corda(base.model, config, run_model=_pass(batches, steps, lambda batch: computed(base, batch)))


def _prepare_lora_ga(base: LoadedBase, config: "LoraConfig", batches: Sequence[Batch], steps: Steps) -> None:
    from peft.tuners.lora.loraga import preprocess_loraga

    def compute(batch: Batch) -> None:
        outputs = computed(base, batch)
        (-outputs.log_probs.sum() / outputs.label_mask.sum().clamp(min=1)).backward()

    preprocess_loraga(base.model, config, _pass(batches, steps, compute))


def _pass(batches: Sequence[Batch], steps: Steps, compute: Callable[[Batch], object]) -> Callable[[], None]:
    """A function that computes all batches, one after the other."""

    def run() -> None:
        for number, batch in enumerate(batches):
            steps.next(f"record {number + 1} of {len(batches)}", number / len(batches))
            compute(batch)

    return run
