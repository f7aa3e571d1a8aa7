"""The section ``model``: the base, and where it comes from."""

from workbench.recipe.sections.section import Section, setting

DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


class ModelSection(Section):
    source: str = setting(DEFAULT_MODEL, "Base model: a Hugging Face id, a local folder or a GGUF file.", min_length=1)
    revision: str | None = setting(None, "Branch, tag or commit of the hub repository. Empty: main.")
    trust_remote_code: bool = setting(
        False, "Allow the repository's own Python code to run on this machine. Enable it only after reading that code."
    )
    resize_embeddings: bool = setting(
        False,
        "If the tokenizer has more tokens than the model's embedding has rows: add the rows and train them, with the "
        "rest of the embedding frozen.",
    )
