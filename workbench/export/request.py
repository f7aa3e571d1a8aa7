"""What can be exported, what is asked for, and what came of it: plain data for the command line, screen and helper."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from workbench.errors import WorkbenchError

Target = Literal[
    "adapter",
    "merged",
    "gguf",
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
GgufType = Literal["f16", "q8_0"]

TARGETS: dict[Target, str] = {
    "adapter": "PEFT folder with template and model card, for transformers and PEFT-compatible tools",
    "merged": "base with the adapter merged in, 16-bit safetensors, for any tool that loads a model",
    "gguf": "one GGUF file for llama.cpp-compatible tools",
    "ollama": "GGUF file and Modelfile, for `ollama create`",
    "vllm": "weights and the command that serves them with vLLM",
    "tgi": "weights and the command that serves them with Text Generation Inference",
    "hub": "repository on the Hugging Face hub, private by default",
    "script": "plain Python script that repeats the run without this program",
    "notebook": "the same as a Jupyter notebook",
    "axolotl": "configuration and records for Axolotl",
    "llamafactory": "configuration and records for LLaMA-Factory",
}
"""What each target is, in one line."""

# These take either kind of weights.
WITH_CHOICE = ("vllm", "tgi", "hub")
# These need the recipe and the records only, not what was trained.
WITHOUT_WEIGHTS = ("script", "notebook", "axolotl", "llamafactory")


@dataclass(frozen=True)
class Request:
    """One export that is asked for.

    Attributes:
        folder: the folder to make; absolute.
        weights: for targets that serve either.
        type: number type of a GGUF file's matrices.
        repo: ``owner/name`` on the hub, for ``hub``; made private unless ``public``.
        force: replace an earlier export in ``folder``.
    """

    target: Target
    folder: Path
    weights: Weights = "adapter"
    type: GgufType = "f16"
    repo: str | None = None
    public: bool = False
    force: bool = False

    @property
    def merges(self) -> bool:
        """Whether the base is loaded and the adapter merged into it."""
        return self.target in ("merged", "gguf", "ollama") or (self.target in WITH_CHOICE and self.weights == "merged")

    @property
    def makes_gguf(self) -> bool:
        return self.target in ("gguf", "ollama")

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Request":
        return cls(**{**data, "folder": Path(data["folder"])})


def target_named(name: str) -> Target:
    """The target of this name.

    Raises:
        WorkbenchError: there is none.
    """
    if name in get_args(Target):
        return name  # type: ignore[return-value]
    raise WorkbenchError(f"Unknown export target {name!r}.", f"Choose one of {', '.join(TARGETS)}.", kind="no_target")


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        files: path inside ``folder`` and size in bytes, in order.
        check: what a comparison with the weights that were trained gave, in words; empty where none is made.
        command: what to type next; empty where there is nothing to.
        notices: what the user should know of it.
        figures: the check's numbers, by what was compared.
    """

    folder: Path
    files: tuple[tuple[str, int], ...] = ()
    check: str = ""
    command: str = ""
    notices: tuple[str, ...] = ()
    figures: dict[str, Any] = field(default_factory=dict, hash=False)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder), "files": [list(file) for file in self.files]}
