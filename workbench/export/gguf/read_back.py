"""Checks a GGUF file where llama.cpp's library is not here: with transformers, or by its tensors."""

from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.export.gguf.file import check_gguf
from workbench.export.request import Figures, GgufType
from workbench.export.weights import Merged
from workbench.models.child import report


def check_read_back(merged: Merged, file: Path, kind: GgufType) -> tuple[str, Figures]:
    """Compare the file's logits with those of the merged model where transformers reads the architecture from GGUF.

    Elsewhere only the tensors are read, and their sizes compared. The merged model is released first.

    Returns:
        The result as a sentence and as numbers.

    Raises:
        WorkbenchError: the file has other logits, or fewer numbers than the model.
    """
    assert merged.model is not None
    count = sum(parameter.numel() for parameter in merged.model.parameters())
    try:
        return check_gguf(merged, file, kind)
    except WorkbenchError:
        raise
    except Exception as error:  # transformers raises many types for an architecture that it does not read
        return _check_tensors(file, count, str(error).splitlines()[0] if str(error) else type(error).__name__)


def _check_tensors(file: Path, parameters: int, reason: str) -> tuple[str, Figures]:
    """Read every tensor, and compare how many numbers there are with the model."""
    import gguf
    import numpy as np

    count, broken = 0, []
    tensors = gguf.GGUFReader(file).tensors
    for number, tensor in enumerate(tensors):
        report("checking", number / len(tensors), tensor.name)
        count += int(tensor.n_elements)
        if not np.isfinite(gguf.dequantize(tensor.data, tensor.tensor_type)).all():
            broken.append(tensor.name)
    # A head that is tied to the embeddings is stored once; tensors that a family computes from its settings are added.
    if broken or count < 0.5 * parameters:
        raise WorkbenchError(
            f"The GGUF file is not the exported model: it has {count:,} numbers, the model has {parameters:,}"
            + (f", and {broken[0]} is not finite." if broken else "."),
            "Export it as `merged`, and report this with the model's name.",
            kind="export_check",
        )
    sentence = (
        f"The GGUF file's {len(tensors)} tensors were read back ({count:,} numbers, {parameters:,} in the model). Its "
        f"replies were not compared: llama.cpp's library is not here (--download), and transformers does not read it "
        f"({reason})."
    )
    return sentence, {"gguf_tensors": {"numbers": float(count), "parameters": float(parameters)}}
