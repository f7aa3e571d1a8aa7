"""LoftQ (Li et al. 2023, arXiv:2310.08659): A and B from what 4-bit quantization lost. Imports torch."""

from pathlib import Path
from typing import TYPE_CHECKING

from workbench.engine.training.starts.batches import Steps
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from peft import PeftModel


def initialize(model: "PeftModel", folder: Path, steps: Steps) -> str:
    """Set A and B as PEFT's ``replace_lora_weights_loftq`` does, on the device of the base; returns what it did.

    PEFT's function computes on CUDA only.

    Args:
        folder: of the model's files.

    Raises:
        WorkbenchError: the unquantized weights cannot be read.
    """
    import bitsandbytes
    import torch
    from peft.tuners.lora import Linear4bit
    from peft.utils.loftq_utils import _low_rank_decomposition, _SafetensorLoader

    name = model.active_adapter
    layers = [(path, layer) for path, layer in model.named_modules() if isinstance(layer, Linear4bit)]
    try:
        files = _SafetensorLoader(model, str(folder))
        before = after = 0.0
        for number, (path, layer) in enumerate(layers):
            steps.next(f"layer {number + 1} of {len(layers)}", number / len(layers))
            weight = files.get_tensor(path.removeprefix("base_model.model.") + ".weight")
            quantized = layer.get_base_layer().weight
            with torch.no_grad():
                stored = bitsandbytes.functional.dequantize_4bit(quantized.data, quantized.quant_state)
                lost = weight.to(device=stored.device, dtype=torch.float32) - stored
                parts = _low_rank_decomposition(lost, reduced_rank=layer.r[name])
                layer.lora_A[name].weight.data, layer.lora_B[name].weight.data = parts["R"], parts["L"]
                before += lost.square().sum().item()
                after += (lost - parts["L"] @ parts["R"]).square().sum().item()
    except (OSError, KeyError, ValueError) as error:
        raise WorkbenchError(
            f"init_lora_weights: loftq needs the unquantized weights as safetensors files, and cannot read them: "
            f"{str(error).splitlines()[0]}",
            "Set adapter.init_lora_weights to true.",
            kind="adapter_start",
        ) from error
    share = (after / before) ** 0.5 if before else 1.0
    return f"{share:.0%} of the quantization error is left in {len(layers)} layers"
