"""Whether the attention that a recipe asks for can be computed here."""

from importlib.util import find_spec

from workbench.errors import WorkbenchError
from workbench.recipe.sections.model import AttentionName


def check_attention(name: AttentionName) -> None:
    """Check that the package and the device of an attention implementation are here. May import torch.

    Raises:
        WorkbenchError: they are not.
    """
    if name != "flash_attention_2":
        return
    if find_spec("flash_attn") is None:
        missing = "the package flash-attn is not installed"
    else:
        import torch

        if torch.cuda.is_available():
            return
        missing = "there is no GPU that PyTorch can use"
    raise WorkbenchError(
        f"model.attn_implementation is flash_attention_2, but {missing}.",
        "Set model.attn_implementation to auto: PyTorch has a flash attention of its own.",
        kind="attention",
    )
