"""Compares what a model's ``config.json`` says about stored quantization with the tensors in its files.

Merging an adapter into a quantized base, for one, often leaves ``quantization_config`` beside weights in 16 bits, which
transformers would take for packed ones.
"""

from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.models.local import safetensors_header, weight_files
from workbench.models.stored_quantization import StoredQuantization

# What bitsandbytes stores beside each weight, by part of its name.
_BESIDE = {"nf4": "quant_state", "fp4": "quant_state", "int8": "SCB"}


def check_stored_weights(folder: Path, stored: StoredQuantization) -> None:
    """Check that weights that are said to be stored by bitsandbytes are, if they are in the folder.

    Raises:
        WorkbenchError: they are not; kind ``stored_quantization``.
    """
    if stored.method is None:
        return
    beside, dtypes = _BESIDE[stored.method], set()
    for file in weight_files(folder)[0]:
        try:
            header = safetensors_header(file)
        except (OSError, ValueError):
            return  # it is missing or damaged, which loading it explains
        if any(beside in name for name in header):
            return
        dtypes |= {tensor["dtype"] for tensor in header.values()}
    if dtypes:
        raise WorkbenchError(
            f"The config.json in {folder} says that the base is stored as {stored.label}, but its weights are not "
            f"quantized ({', '.join(sorted(dtypes))}).",
            "Remove quantization_config from that config.json: the base is then quantized as the recipe asks.",
            kind="stored_quantization",
        )
