"""Chooses what writes a GGUF file, from the model's configuration: llama.cpp's converter, or our own writer.

llama.cpp's converter writes every family that it knows. Our own writer needs no other program, for three families in 16
or 8 bits: exports of the default model work offline. Needs no torch.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from workbench.adapters.registry import adapter_method
from workbench.errors import WorkbenchError
from workbench.export.gguf.fetched_tools import DOWNLOAD_BYTES
from workbench.export.gguf.tools import LlamaCppTools
from workbench.export.request import GgufType
from workbench.units import size_in

ARCHITECTURES = {"LlamaForCausalLM": "llama", "MistralForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2"}
"""The models of our own writer: transformers' class, and llama.cpp's name of the architecture."""

USE_CONVERTER = (
    "llama.cpp's converter may know it: add --download, or put convert_hf_to_gguf.py on PATH. Or export it as `merged`."
)
"""What to do where our own writer does not know something."""

_ROPE_TYPES = (None, "default", "linear", "llama3")
_OWN_KINDS = ("f16", "q8_0")


@dataclass(frozen=True)
class Writer:
    """What writes the file: our own writer, llama.cpp's converter, or the latter once it has been downloaded."""

    kind: Literal["own", "converter", "download"]
    missing: str = ""

    @property
    def download_bytes(self) -> int:
        return DOWNLOAD_BYTES if self.kind == "download" else 0

    def refusal(self) -> WorkbenchError:
        """The error for an export whose user has not agreed to the download."""
        return WorkbenchError(
            f"{self.missing}, which is not on this machine.",
            f"Add --download to fetch llama.cpp's converter and library ({size_in('MB', DOWNLOAD_BYTES, 0)}, kept in "
            "the home's cache); or name a checkout of llama.cpp (`llama_cpp` in settings.json); or export as `merged`.",
            kind="needs_download",
        )


def choose_writer(
    tools: LlamaCppTools,
    config: Mapping[str, Any],
    kind: GgufType,
    *,
    download: bool = False,
    is_adapter: bool = False,
) -> Writer:
    """Choose what writes a file.

    Args:
        config: the content of ``config.json``.
        download: the user agreed to download llama.cpp's converter where it is missing.
        is_adapter: the file has an adapter alone, which our own writer cannot write.

    Raises:
        WorkbenchError: neither knows the model.
    """
    name = _class_name(config)
    if tools.converter is None:
        if _is_own(config, kind) and not download and not is_adapter:
            return Writer("own")
        what = "A LoRA in GGUF" if is_adapter else kind.upper() if kind not in _OWN_KINDS else f"GGUF of {name}"
        return Writer("download", f"{what} needs llama.cpp's converter")
    if not tools.converter.knows(name):
        if _is_own(config, kind) and not is_adapter:
            return Writer("own")
        raise WorkbenchError(
            f"llama.cpp's converter ({' '.join(tools.converter.command[-1:])}) does not know {name}.",
            "A newer llama.cpp may: name its checkout (`llama_cpp` in settings.json). Or export it as `merged`.",
            kind="gguf_unsupported",
        )
    if download and tools.library is None:
        return Writer("download", "The check of the file needs llama.cpp's library")
    if kind not in _OWN_KINDS and not tools.can_quantize:
        return Writer("download", f"{kind.upper()} needs llama-quantize or llama.cpp's library")
    return Writer("converter")


def check_gguf_support(config: Mapping[str, Any]) -> None:
    """Raise WorkbenchError for a model that our own writer does not know.

    Args:
        config: the content of ``config.json``.
    """
    name = _class_name(config)
    if name not in ARCHITECTURES:
        raise WorkbenchError(
            f"{name} cannot be exported as GGUF without llama.cpp; Llama, Mistral, Qwen2 and similar models can.",
            USE_CONVERTER,
            kind="gguf_unsupported",
        )
    rope = rope_of(config)
    if rope.get("rope_type") not in _ROPE_TYPES:
        raise WorkbenchError(
            f"{name} with {rope['rope_type']} positions cannot be exported as GGUF without llama.cpp.",
            USE_CONVERTER,
            kind="gguf_unsupported",
        )


def check_is_low_rank(config: Mapping[str, object]) -> None:
    """Check that an adapter consists of low-rank matrices alone, which is all that llama.cpp adds.

    Args:
        config: the content of ``adapter_config.json``.

    Raises:
        WorkbenchError: it has something else; names what.
    """
    method = adapter_method(config)
    targets = config.get("target_modules")
    names = [targets] if isinstance(targets, str) else list(targets) if isinstance(targets, list) else []
    reasons = {
        f"it is a {method.label} adapter": method.name != "lora",
        "it is a DoRA adapter, with magnitudes beside its matrices": config.get("use_dora"),
        "it trains whole modules (modules_to_save)": config.get("modules_to_save"),
        "it trains rows of the embeddings": config.get("trainable_token_indices"),
        "it trains biases": config.get("bias", "none") != "none" or config.get("lora_bias"),
        "it changes the base's own weights": method.moves_base(config),
        "it is on the embeddings": any(re.search(r"embed|wte", str(name)) for name in names),
    }
    for reason, holds in reasons.items():
        if holds:
            raise WorkbenchError(
                f"The adapter cannot be written as GGUF without its base: {reason}, and llama.cpp adds only low-rank "
                "matrices to linear layers.",
                "Export it merged, as `gguf`.",
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


def _is_own(config: Mapping[str, Any], kind: GgufType) -> bool:
    if kind not in _OWN_KINDS:
        return False
    try:
        check_gguf_support(config)
    except WorkbenchError:
        return False
    return True


def _class_name(config: Mapping[str, Any]) -> str:
    return str(next(iter(config.get("architectures") or ()), config.get("model_type") or "this model"))
