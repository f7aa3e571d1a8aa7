"""The head of an adapter that a run starts from: taken over, put into the order of the records' labels, or refused."""

from typing import TYPE_CHECKING

from workbench.engine.model.sequence_adapter import SequenceHead
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

_FILE = "adapter_model.safetensors"


def check_starting_head(name: str, kind: str, head: SequenceHead | None, theirs: SequenceHead | None) -> None:
    """Refuse an adapter whose head cannot become the recipe's. One that predicts tokens fits: the head is a new one.

    Args:
        name: the adapter, as the recipe names it; ``kind``: the recipe's objective.
        head: what the recipe's adapter predicts; ``theirs``: what the adapter predicts that it starts from.

    Raises:
        WorkbenchError: with what differs.
    """
    if theirs is None:
        return
    if head is None:
        problem = f"is {theirs.label}, and objective.kind is {kind}, which trains on tokens"
        cure = f"Set objective.kind to {theirs.kind}, or continue an adapter that writes replies."
    elif head.kind != theirs.kind:
        problem, cure = f"is {theirs.label}, and objective.kind is {kind}", f"Set objective.kind to {theirs.kind}."
    elif set(head.labels) != set(theirs.labels):
        problem = f"has the labels {', '.join(theirs.labels)}, and the records have {', '.join(head.labels)}"
        cure = "Train on records with the same labels, or leave adapter.continue_from empty."
    else:
        return
    raise WorkbenchError(f"adapter.continue_from: {name} {problem}.", cure, kind="adapter")


def reorder_head(folder: "Path", theirs: SequenceHead, head: SequenceHead) -> None:
    """Put the rows of a head in an adapter folder into the order of the recipe's labels."""
    if theirs.labels == head.labels:
        return
    from safetensors.torch import load_file, save_file

    file = folder / _FILE
    rows = [theirs.labels.index(label) for label in head.labels]
    weights = {key: weight[rows].contiguous() if _is_head(key) else weight for key, weight in load_file(file).items()}
    save_file(weights, file, {"format": "pt"})
    head.save(folder)


def complete_head(folder: "Path", state: "Mapping[str, torch.Tensor]") -> None:
    """Add a new head to the kept file of an adapter that predicts tokens; does nothing if none is new.

    Args:
        state: of the attached adapter, by the keys of an adapter's file.
    """
    heads = {key: weight.detach().cpu().contiguous() for key, weight in state.items() if _is_head(key)}
    if not heads or any(map(_is_head, keys_of(folder))):
        return
    from safetensors.torch import load_file, save_file

    file = folder / _FILE
    save_file(load_file(file) | heads, file, {"format": "pt"})


def keys_of(folder: "Path") -> set[str]:
    """The keys of an adapter's file."""
    from safetensors import safe_open

    with safe_open(folder / _FILE, "pt") as file:
        return set(file.keys())


def _is_head(key: str) -> bool:
    return key.endswith(".score.weight")
