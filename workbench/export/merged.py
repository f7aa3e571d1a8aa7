"""Merged weights as any program loads them: safetensors, configuration, tokenizer, template, generation settings."""

from pathlib import Path
from typing import Any

from workbench.errors import WorkbenchError
from workbench.export.weights import Merged, difference, load, logits
from workbench.models.child import report

_SHARD = "4GB"


def write_merged(merged: Merged, folder: Path) -> None:
    """Save the model into ``folder``; what it needs to chat lies beside the weights."""
    report("saving", None, "safetensors and tokenizer")
    set_ends(merged)
    for name in ("quantization_config", "_name_or_path"):
        merged.model.config.__dict__.pop(name, None)
    merged.model.save_pretrained(folder, max_shard_size=_SHARD)
    save_tokenizer(merged, folder)


def save_tokenizer(merged: Merged, folder: Path) -> None:
    """Tokenizer and template; the template is the one of training, under the name that every program looks for."""
    merged.tokenizer.save_pretrained(folder)
    merged.template.save(folder)
    (folder / "template.json").unlink()


def set_ends(merged: Merged) -> None:
    """What training puts at the end of a reply ends one in every program that reads the generation settings."""
    settings = merged.model.generation_config
    known = settings.eos_token_id
    ends = [known] if isinstance(known, int) else list(known or [])
    ends = list(dict.fromkeys([*ends, *merged.template.end_token_ids]))
    if ends:
        settings.eos_token_id = ends[0] if len(ends) == 1 else ends
    if settings.pad_token_id is None and merged.tokenizer.pad_token_id is not None:
        settings.pad_token_id = merged.tokenizer.pad_token_id


def check_read_back(merged: Merged, folder: Path, trust_remote_code: bool) -> tuple[str, dict[str, Any]]:
    """Load what was written and ask it the same; the model in memory is given up first.

    Raises:
        WorkbenchError: it answers otherwise than the model that was saved.
    """
    merged.model = None
    report("checking", None, "verifying the files")
    model, _ = load(folder, trust_remote_code)
    found = difference(merged.merged_logits, logits(model, merged.prompts))
    if found.largest > 1e-3:
        raise WorkbenchError(
            f"The files differ from the saved model: {found}.",
            "Please report this with the model's name. The adapter itself can be exported.",
            kind="export_check",
        )
    return f"Verified from its files: {found}.", {"read_back_against_merged": found.as_json()}
