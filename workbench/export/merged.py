"""Writes a merged model as a transformers folder with safetensors, tokenizer and template, and verifies the files."""

import shutil
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.export.request import Figures
from workbench.export.weights import Merged, difference, load, logits
from workbench.models.child import report
from workbench.models.older_transformers import add_older_keys
from workbench.models.tokenizers import PROCESSOR_FILES

_MAX_SHARD_SIZE = "4GB"


def write_merged(merged: Merged, folder: Path, base: Path) -> None:
    """Save model, tokenizer, template and generation config into ``folder``.

    Args:
        base: folder of the base, whose processor is copied if it has one: a model that reads images keeps doing so.
    """
    assert merged.model is not None
    report("saving", None, "safetensors and tokenizer")
    set_stop_tokens(merged)
    for name in ("quantization_config", "_name_or_path"):
        merged.model.config.__dict__.pop(name, None)
    merged.model.save_pretrained(folder, max_shard_size=_MAX_SHARD_SIZE)
    save_tokenizer(merged, folder)
    for name in PROCESSOR_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
    add_older_keys(folder)


def save_tokenizer(merged: Merged, folder: Path) -> None:
    """Save the tokenizer, with the training template as ``chat_template.jinja``, where other programs look for it."""
    merged.tokenizer.save_pretrained(folder)
    merged.template.save(folder)
    (folder / "template.json").unlink()


def set_stop_tokens(merged: Merged) -> None:
    """Add the token that ends a reply in training to the stop tokens of the generation config."""
    assert merged.model is not None
    generation = merged.model.generation_config
    current = generation.eos_token_id
    stops = [current] if isinstance(current, int) else list(current or [])
    stops = list(dict.fromkeys([*stops, *merged.template.end_token_ids]))
    if stops:
        generation.eos_token_id = stops[0] if len(stops) == 1 else stops
    if generation.pad_token_id is None and merged.tokenizer.pad_token_id is not None:
        generation.pad_token_id = merged.tokenizer.pad_token_id


def check_read_back(merged: Merged, folder: Path, trust_remote_code: bool) -> tuple[str, Figures]:
    """Load the written files and compare their logits with those of the merged model, which is released first.

    Returns:
        The result as a sentence and as numbers.

    Raises:
        WorkbenchError: the logits differ.
    """
    merged.model = None
    report("checking", None, "verifying the files")
    model, _ = load(folder, trust_remote_code)
    rounding = difference(merged.merged_logits, logits(model, merged.prompts))
    if rounding.largest > 1e-3:
        raise WorkbenchError(
            f"The files differ from the saved model: {rounding}.",
            "Please report this with the model's name. The adapter itself can be exported.",
            kind="export_check",
        )
    return f"Verified from its files: {rounding}.", {"read_back_against_merged": rounding.as_json()}
