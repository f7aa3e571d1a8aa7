"""Lets IA³'s layers on a quantized base return the dtype that they were given."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor, nn

_MARK = "_keeps_output_dtype"


def keep_output_dtype(peft: "PeftModel") -> None:
    """Convert the outputs of such layers.

    PEFT computes them in float32 and returns that. Attention with an adapter on keys and values alone, IA³'s usual
    targets, would then get queries of another dtype, which PyTorch refuses.
    """
    for module in peft.modules():
        if type(module).__module__ == "peft.tuners.ia3.bnb" and not hasattr(module, _MARK):
            setattr(module, _MARK, True)
            module.register_forward_hook(_as_given)


def _as_given(module: "nn.Module", arguments: tuple[Any, ...], output: "Tensor") -> "Tensor":
    return output.to(arguments[0].dtype)
