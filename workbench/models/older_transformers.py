"""Adds to a folder that transformers 5 saved what transformers 4, and programs of its time, read instead.

Without these keys transformers 4 loads such a folder in silence with the default RoPE base of 10,000, and TGI finds no
chat template. transformers 5 reads the newer keys first, so both load the same model. The names are those of
transformers 4.57's configuration classes.
"""

import json
from collections.abc import Callable
from pathlib import Path

# Classes that transformers 4 does not have, by the name that both have.
_TOKENIZER_CLASSES = {"TokenizersBackend": "PreTrainedTokenizerFast"}


def add_older_keys(folder: Path) -> None:
    """Complete ``config.json`` and ``tokenizer_config.json`` of a folder, where they are.

    Raises:
        OSError: the disk is full or broken.
    """
    _update(folder / "config.json", lambda config: config | older_model_keys(config))
    template = folder / "chat_template.jinja"
    source = template.read_text(encoding="utf-8") if template.is_file() else ""
    _update(folder / "tokenizer_config.json", lambda config: older_tokenizer_config(config, source))


def older_model_keys(config: dict[str, object]) -> dict[str, object]:
    """The keys to add to a model's configuration: RoPE at the top level, and ``torch_dtype``; parts included."""
    new: dict[str, object] = {
        name: part | added
        for name, part in config.items()
        if name.endswith("_config") and isinstance(part, dict) and (added := older_model_keys(part))
    }
    if (dtype := config.get("dtype")) is not None:
        new["torch_dtype"] = dtype
    rope = config.get("rope_parameters")
    if not isinstance(rope, dict):
        return new
    if isinstance(everywhere := rope.get("full_attention"), dict):
        # One set for each type of layer, as in Gemma 3.
        if isinstance(sliding := rope.get("sliding_attention"), dict) and "rope_theta" in sliding:
            new["rope_local_base_freq"] = sliding["rope_theta"]
        rope = everywhere
    new |= {name: rope[name] for name in ("rope_theta", "partial_rotary_factor") if name in rope}
    if rope.get("rope_type", "default") != "default":
        new["rope_scaling"] = {name: value for name, value in rope.items() if name not in new}
    return new


def older_tokenizer_config(config: dict[str, object], template: str) -> dict[str, object]:
    """A tokenizer's configuration with a class that both versions know, and with the chat template."""
    older = dict(config)
    if template:
        older["chat_template"] = template
    if (known := _TOKENIZER_CLASSES.get(str(config.get("tokenizer_class")))) is not None:
        older["tokenizer_class"] = known
    if isinstance(tokens := config.get("extra_special_tokens"), list):
        # transformers 4 fails on a list under this name; transformers 5 reads the earlier name as well.
        del older["extra_special_tokens"]
        older["additional_special_tokens"] = tokens
    return older


def _update(file: Path, change: Callable[[dict[str, object]], dict[str, object]]) -> None:
    if not file.is_file():
        return
    config = change(json.loads(file.read_text(encoding="utf-8")))
    file.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
