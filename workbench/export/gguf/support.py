"""Which models can be written as GGUF here, from their configuration alone: no torch."""

from typing import Any

from workbench.errors import WorkbenchError

ARCHITECTURES = {"LlamaForCausalLM": "llama", "MistralForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2"}
"""transformers' class, and llama.cpp's name for the graph that computes it."""

_ROPE_TYPES = (None, "default", "linear", "llama3")


def check_gguf_support(config: dict[str, Any]) -> None:
    """Raises WorkbenchError, with the way out, for a model that cannot be written as GGUF here.

    Args:
        config: ``config.json`` as it is on disk.
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


def rope_of(config: dict[str, Any]) -> dict[str, Any]:
    """Settings of the rotary positions: those of transformers 5, or of the two keys it had before."""
    if isinstance(config.get("rope_parameters"), dict):
        return dict(config["rope_parameters"])
    scaling = config.get("rope_scaling") or {}
    return {
        **scaling,
        "rope_type": scaling.get("rope_type", scaling.get("type", "default")),
        "rope_theta": config.get("rope_theta", 10000.0),
    }
