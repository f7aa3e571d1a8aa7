"""The section ``model``: the base, and where it comes from."""

from pathlib import PurePosixPath
from typing import Literal, Self

from pydantic import model_validator

from workbench.recipe.sections.section import Section, excluded, setting

DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


AttentionName = Literal["auto", "sdpa", "eager", "flash_attention_2"]


class ModelSection(Section):
    source: str = setting(DEFAULT_MODEL, "Base model: a Hugging Face id, a local folder or a GGUF file.", min_length=1)
    revision: str | None = setting(None, "Branch, tag or commit of the hub repository. Empty: main.")
    subfolder: str | None = setting(
        None, "Folder inside the repository or folder of model.source that has the model. Empty: its top level."
    )
    trust_remote_code: bool = setting(
        False, "Allow the repository's own Python code to run on this machine. Enable it only after reading that code."
    )
    resize_embeddings: bool = setting(
        False,
        "If the tokenizer has more tokens than the model's embedding has rows: add the rows and train them, with the "
        "rest of the embedding frozen.",
    )

    attn_implementation: AttentionName = setting(
        "auto",
        "How attention is computed. auto: the fused kernel that the architecture allows. sdpa: PyTorch's. eager: the "
        "model's own code, which holds all scores in memory. flash_attention_2: the package flash-attn, on a GPU.",
    )

    @model_validator(mode="after")
    def _subfolder_is_inside(self) -> Self:
        if self.subfolder is not None:
            path = PurePosixPath(self.subfolder)
            if not path.parts or path.is_absolute() or ".." in path.parts:
                raise excluded(
                    "model.subfolder",
                    f"{self.subfolder!r} is not a folder inside the repository",
                    "write it without a leading / and without ..",
                )
        return self
