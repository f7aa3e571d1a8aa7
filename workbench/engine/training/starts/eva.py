"""EVA (Paischer et al. 2024, arXiv:2410.07170): A from the main directions of the layers' inputs. Imports torch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from workbench.engine.model.base import LoadedBase
from workbench.engine.training.starts.batches import Batch, Endless, Steps, computed
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from peft import PeftModel

_PASSES = 20
_MOST = 400


def initialize(base: LoadedBase, model: "PeftModel", batches: Sequence[Batch], rho: float, steps: Steps) -> str:
    """Set A, and move ranks between layers, with PEFT's ``initialize_lora_eva_weights``; returns what it did.

    Raises:
        WorkbenchError: the directions do not settle.
    """
    from peft import EvaConfig, initialize_lora_eva_weights

    name = model.active_adapter
    config = model.peft_config[name]
    config.init_lora_weights, config.eva_config = "eva", EvaConfig(rho=rho)
    most = max(_MOST, _PASSES * len(batches))

    def unsettled() -> WorkbenchError:
        return WorkbenchError(
            f"EVA's directions have not settled after {most} batches of the training records.",
            "Lower adapter.r or rho, train on more records, or set adapter.init_lora_weights to true.",
            kind="adapter_start",
        )

    endless = Endless(batches, steps, most, unsettled)
    try:
        initialize_lora_eva_weights(
            model,
            endless,
            forward_fn=lambda _, inputs: computed(base, inputs),
            adapter_name=name,
            # Each process passes the same records.
            gather_distributed_inputs=False,
            show_progress_bar=False,
        )
    finally:
        _remove_hooks(model)
        config.init_lora_weights, config.eva_config = True, None
    ranks = [module.r[name] for module in model.modules() if name in getattr(module, "lora_A", {})]
    return f"ranks {min(ranks)} to {max(ranks)} in {len(ranks)} layers, {endless.taken} batches"


def _remove_hooks(model: "PeftModel") -> None:
    """Remove PEFT's hooks, which stay if its pass is left early."""
    for module in model.modules():
        for key, hook in list(module._forward_hooks.items()):
            if type(hook).__module__ == "peft.tuners.lora.eva":
                del module._forward_hooks[key]
