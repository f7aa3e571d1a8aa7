"""Checks that a model's files have all of its weights: transformers fills the others with random numbers."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import WorkbenchError
from workbench.models.language_part import frozen_parts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NAMED = 3


def load_whole(loader: Any, folder: Path, **arguments: Any) -> "tuple[PreTrainedModel, tuple[str, ...]]":
    """Load a model from a folder with ``loader.from_pretrained``, and compare its weights with those in the files.

    Args:
        loader: an auto class of transformers.

    Returns:
        The model, and notices: parts that text does not reach without weights, and weights that were not used.

    Raises:
        WorkbenchError: the files lack weights of the language part; kind ``model_damaged``.
    """
    model, info = loader.from_pretrained(folder, output_loading_info=True, **arguments)
    missing = sorted(info["missing_keys"])
    frozen = tuple(f"{name}." for name in frozen_parts(model)) if missing else ()
    needed = [name for name in missing if not name.startswith(frozen)] if frozen else missing
    if needed:
        raise WorkbenchError(
            f"The weight files in {folder} lack {_count(needed)} of {type(model).__name__}: {_names(needed)}. "
            "transformers would fill them with random numbers.",
            "Copy or download the model again; or check that architectures and model_type in its config.json are those "
            "of its weights.",
            kind="model_damaged",
        )
    notices = []
    if missing:
        notices.append(
            f"The weight files lack {_count(missing)} of parts that text does not reach, which are random: "
            f"{_names(missing)}. An export of the whole model would contain them."
        )
    if unused := sorted(info["unexpected_keys"]):
        verb = "is" if len(unused) == 1 else "are"
        notices.append(
            f"{_count(unused)} of the files {verb} not used by {type(model).__name__} and "
            f"will not be in a merged export: {_names(unused)}."
        )
    return model, tuple(notices)


def _count(names: list[str]) -> str:
    return "1 tensor" if len(names) == 1 else f"{len(names):,} tensors"


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
