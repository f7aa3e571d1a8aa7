"""The export targets, and the types for a request and its result, shared by command line, screen and helper process."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from workbench.errors import WorkbenchError

Target = Literal[
    "adapter",
    "merged",
    "gguf",
    "gguf-lora",
    "ollama",
    "vllm",
    "tgi",
    "hub",
    "script",
    "notebook",
    "axolotl",
    "llamafactory",
]
Weights = Literal["adapter", "merged"]
GgufType = Literal["f16", "q8_0", "q5_k_m", "q4_k_m"]

TARGETS: dict[Target, str] = {
    "adapter": "PEFT folder with template and model card, for transformers and PEFT-compatible tools",
    "merged": "base with the adapter merged in, 16-bit safetensors, for any tool that loads a model",
    "gguf": "one GGUF file for llama.cpp-compatible tools",
    "gguf-lora": "the LoRA adapter alone as GGUF, to add to a GGUF file of the base in llama.cpp",
    "ollama": "GGUF file and Modelfile, for `ollama create`",
    "vllm": "weights and the command that serves them with vLLM",
    "tgi": "weights and the command that serves them with Text Generation Inference",
    "hub": "repository on the Hugging Face hub, private by default",
    "script": "plain Python script that repeats the run without this program",
    "notebook": "the same as a Jupyter notebook",
    "axolotl": "configuration and records for Axolotl",
    "llamafactory": "configuration and records for LLaMA-Factory",
}
"""What each target produces, in one line."""

# Targets for which the user chooses the number type of a GGUF file.
WITH_TYPE = ("gguf", "ollama")
# Targets for which the user chooses between adapter and merged weights.
WITH_CHOICE = ("vllm", "tgi", "hub")
# Targets that use only the recipe and the records.
WITHOUT_WEIGHTS = ("script", "notebook", "axolotl", "llamafactory")
# Targets of a run with a head of its own: labels or a score.
WITH_HEAD = ("adapter", "hub", "script", "notebook")
# Targets that learn such a head from the recipe, if they have its objective.
TRAINING_HEADS = ("axolotl", "llamafactory")
# Targets that publish nothing.
LOCAL = tuple(target for target in TARGETS if target != "hub")

Figures = dict[str, dict[str, float]]
"""The numbers of the checks: by comparison, then by the name of the number."""


@dataclass(frozen=True)
class Request:
    """An export to make.

    Attributes:
        folder: the folder to create; absolute.
        weights: what to export, for the targets in :data:`WITH_CHOICE`.
        type: number type of a GGUF file's matrices.
        repo: ``owner/name`` on the hub, for target ``hub``; created as private unless ``public``.
        force: replace an earlier export in ``folder``.
        base: source of the base, in the place of the run's own; empty for that.
        download: fetch llama.cpp's converter and library where they are needed and missing.
    """

    target: Target
    folder: Path
    weights: Weights = "adapter"
    type: GgufType = "f16"
    repo: str | None = None
    public: bool = False
    force: bool = False
    base: str = ""
    download: bool = False

    @property
    def merges(self) -> bool:
        """Whether the adapter is merged into the base."""
        return self.target in ("merged", *WITH_TYPE) or (self.target in WITH_CHOICE and self.weights == "merged")

    @property
    def makes_gguf(self) -> bool:
        """Whether a GGUF file is written."""
        return self.target in WITH_TYPE

    def as_json(self) -> dict[str, object]:
        """The request as JSON data."""
        return {**asdict(self), "folder": str(self.folder)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Request":
        """Read what :meth:`as_json` wrote."""
        return cls(**{**data, "folder": Path(data["folder"])})


def target_named(name: str) -> Target:
    """The target with this name.

    Raises:
        WorkbenchError: there is no such target.
    """
    for target in TARGETS:
        if target == name:
            return target
    raise WorkbenchError(f"Unknown export target {name!r}.", f"Choose one of {', '.join(TARGETS)}.", kind="no_target")


@dataclass(frozen=True)
class HelperResult:
    """What the helper process reports about an export, with the fields of :class:`Exported`."""

    check: str
    command: str
    notices: list[str]
    figures: Figures
    url: str = ""


@dataclass(frozen=True)
class Exported:
    """A finished export.

    Attributes:
        files: path inside ``folder`` and size in bytes, sorted.
        check: result of the comparison with the trained weights, as a sentence; empty if none was made.
        command: the command to run next, in ``folder``; empty if there is none.
        notices: what the user should know about the export.
        figures: the numbers of the check.
        url: where it was uploaded to; empty if it was not.
    """

    folder: Path
    files: tuple[tuple[str, int], ...] = ()
    check: str = ""
    command: str = ""
    notices: tuple[str, ...] = ()
    figures: Figures = field(default_factory=dict, hash=False)
    url: str = ""

    def as_json(self) -> dict[str, object]:
        """The result as JSON data."""

        return {**asdict(self), "folder": str(self.folder), "files": [list(file) for file in self.files]}
