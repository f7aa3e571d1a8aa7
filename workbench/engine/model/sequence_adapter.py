"""What an adapter with a head of its own predicts: labels or a score; kept with it as ``labels.json``."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from workbench.errors import WorkbenchError

FILE = "labels.json"
TASK = "SEQ_CLS"
"""The task in ``adapter_config.json``."""
# Names that transformers' models for sequence classification give their heads. PEFT saves those with such an adapter.
SAVED_HEADS = frozenset({"score", "classifier"})


@dataclass(frozen=True)
class SequenceHead:
    """What a head's outputs mean.

    Attributes:
        kind: the objective that it was trained for.
        labels: the names of its outputs; one for a reward model.
        reads_turns: the labels are of conversations, as the template writes them, and not of plain texts.
    """

    kind: Literal["classification", "reward"]
    labels: tuple[str, ...]
    reads_turns: bool = False

    @property
    def outputs(self) -> int:
        return len(self.labels)

    @property
    def label(self) -> str:
        """What the adapter is, as text for the user."""
        if self.kind == "reward":
            return "a reward model, which scores replies and writes none"
        shown = ", ".join(self.labels[:5]) + (", …" if len(self.labels) > 5 else "")
        return f"a classifier ({shown}), which writes no replies"

    def save(self, folder: Path) -> None:
        """Write what the outputs mean, by transformers' names."""
        data = {
            "kind": self.kind,
            "reads": "conversation" if self.reads_turns else "text",
            "id2label": {str(place): label for place, label in enumerate(self.labels)},
            "label2id": {label: place for place, label in enumerate(self.labels)},
        }
        (folder / FILE).write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def of(cls, folder: Path, config: Mapping[str, object]) -> "SequenceHead | None":
        """What an adapter folder predicts; None if it predicts tokens. Without names its labels are ``LABEL_0``, ….

        Raises:
            WorkbenchError: its head is no single layer, or its labels are damaged.
        """
        if config.get("task_type") != TASK:
            return None
        outputs = _outputs(folder)
        if not (folder / FILE).is_file():
            names = tuple(f"LABEL_{place}" for place in range(outputs))
            return cls("reward" if outputs == 1 else "classification", names)
        try:
            data = json.loads((folder / FILE).read_text(encoding="utf-8"))
            names = tuple(str(data["id2label"][str(place)]) for place in range(outputs))
            kind: Literal["classification", "reward"] = "reward" if data["kind"] == "reward" else "classification"
            return cls(kind, names, data.get("reads") == "conversation")
        except (OSError, ValueError, KeyError, TypeError):
            raise WorkbenchError(
                f"{folder / FILE} does not name the {outputs} outputs of the adapter's head.",
                "Copy the file again from where the adapter was trained, or delete it: labels are then numbered.",
                kind="adapter",
            ) from None


def _outputs(folder: Path) -> int:
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        heads = [key for key in file.keys() if key.endswith(".score.weight")]  # noqa: SIM118  (no mapping)
        if len(heads) == 1:
            return int(file.get_slice(heads[0]).get_shape()[0])
    raise WorkbenchError(
        f"The adapter in {folder} was trained for classification with another head than a single layer named score.",
        "Use an adapter whose base is a causal language model.",
        kind="adapter",
    )
