"""Checks from a model's configuration whether it can be exported as GGUF. Needs no torch."""

from collections.abc import Mapping
from typing import Any

from workbench.errors import WorkbenchError

ARCHITECTURES = {"LlamaForCausalLM": "llama", "MistralForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2"}
"""The supported models: transformers' class, and llama.cpp's name of the architecture."""

_ROPE_TYPES = (None, "default", "linear", "llama3")


def check_gguf_support(config: Mapping[str, Any]) -> None:
    """Raise WorkbenchError for a model that cannot be exported as GGUF.

    Args:
        config: the content of ``config.json``.
    """
    name = next(iter(config.get("architectures") or ()), config.get("model_type") or "this model")
    if name not in ARCHITECTURES:
        raise WorkbenchError(
            f"{name} cannot be exported as GGUF; Llama, Mistral, Qwen2 and similar models can.",
            "Export it as `merged` and run llama.cpp's convert_hf_to_gguf.py on that folder.",
            kind="gguf_unsupported",
        )
    rope = rope_of(config)
    if rope.get("rope_type") not in _ROPE_TYPES:
        raise WorkbenchError(
            f"{name} with {rope['rope_type']} positions cannot be exported as GGUF.",
            "Export it as `merged` and run llama.cpp's convert_hf_to_gguf.py on that folder.",
            kind="gguf_unsupported",
        )


def rope_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the rotary positions, from transformers 5's key or from the two keys of earlier versions."""

    if isinstance(config.get("rope_parameters"), dict):
        return dict(config["rope_parameters"])
    scaling = config.get("rope_scaling") or {}
    return {
        **scaling,
        "rope_type": scaling.get("rope_type", scaling.get("type", "default")),
        "rope_theta": config.get("rope_theta", 10000.0),
    }
