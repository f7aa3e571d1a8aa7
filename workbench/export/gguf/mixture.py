"""Chooses the number type of each tensor in llama.cpp's mixtures ``Q4_K_M`` and ``Q5_K_M``.

The mixtures give more bits to the tensors that suffer most from rounding. The rules are those of ``llama-quantize``
(https://github.com/ggml-org/llama.cpp, ``src/llama-quant.cpp``); ``tests/export/test_llama_cpp.py`` compares them with
files that it wrote.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Mixture = Literal["q4_k_m", "q5_k_m"]
MIXTURES: dict[str, Mixture] = {"q4_k_m": "q4_k_m", "q5_k_m": "q5_k_m"}
"""The mixtures by their name."""

# The type of most tensors.
_DEFAULT = {"q4_k_m": "Q4_K", "q5_k_m": "Q5_K"}
# Numbers per block, and the type for tensors whose rows do not consist of whole blocks.
_BLOCK = {"Q4_K": 256, "Q5_K": 256, "Q6_K": 256, "Q8_0": 32, "Q5_0": 32, "Q5_1": 32}
_FALLBACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
# Small or sensitive tensors, which keep their type.
_KEPT = re.compile(
    r"_norm\.weight|ffn_gate_inp\.weight|ffn_gate_tid2eid|altup|laurel|per_layer_model_proj|ssm_conv1d"
    r"|shortconv\.conv\.weight|indexer\.[kq]_proj|time_mix_(first|w[012]|v[012]|a[012]|g[12]|decay_w[12]|lerp_fused)\."
    r"|attn_rel_b|^position_embd|^token_types|\.position_embd|\.rel_pos|\.patch_embd|\.patch_merger"
)
_EMBEDDINGS = ("token_embd.weight", "per_layer_token_embd.weight")
_LAYER = re.compile(r"blk\.(\d+)\.")
_MANY_LAYERS = 80


@dataclass(frozen=True)
class Tensor:
    """A tensor of a GGUF file: its name, its type, and its size with the length of a row last."""

    name: str
    kind: str
    shape: tuple[int, ...]


def kinds_in_mixture(
    tensors: Sequence[Tensor], mixture: Mixture, metadata: Mapping[str, bool | int | float | str]
) -> dict[str, str]:
    """The type of each tensor by its name.

    Args:
        metadata: the values of the file's header.
    """
    architecture = str(metadata.get("general.architecture", ""))
    layers = int(metadata.get(f"{architecture}.block_count", 0))
    experts = int(metadata.get(f"{architecture}.expert_count", 0))
    names = {tensor.name for tensor in tensors}
    values = [tensor.name for tensor in tensors if _is_value(tensor.name)]
    value_count, value_seen, down_seen = len(values), 0, 0
    kinds = {}
    for tensor in sorted(tensors, key=lambda tensor: (_layer(tensor.name), tensor.name)):
        name, kind, width = tensor.name, _DEFAULT[mixture], tensor.shape[-1]
        if not _is_quantized(tensor):
            kinds[name] = tensor.kind
            continue
        if name == "output.weight" or ("output.weight" not in names and name in _EMBEDDINGS):
            kind = "Q8_0" if architecture == "falcon" or width % _BLOCK[kind] else "Q6_K"
        elif _is_value(name):
            if _has_more_bits(value_seen, value_count):
                kind = "Q6_K"
            elif kind == "Q4_K" and layers == _MANY_LAYERS and architecture in ("llama", "qwen2"):
                kind = "Q5_K"
            kind = "Q8_0" if experts == 8 else kind
            value_seen += 1
        elif "attn_k.weight" in name and experts == 8:
            kind = "Q8_0"
        elif "ffn_down" in name:
            place = _layer(name) if experts > 1 else down_seen
            kind = _kind_of_down(kind, architecture, place, layers)
            down_seen += 1
        elif "attn_output.weight" in name and experts == 8 and kind == "Q4_K" and architecture != "falcon":
            kind = "Q5_K"
        kinds[name] = _fitting(kind, width)
    return kinds


def _kind_of_down(kind: str, architecture: str, place: int, layers: int) -> str:
    if architecture == "falcon" and kind == "Q4_K":
        if place < layers // 16:
            return "Q6_K"
        return "Q5_K" if _has_more_bits(place, layers) else "Q4_K"
    return "Q6_K" if _has_more_bits(place, layers) else kind


def _has_more_bits(place: int, count: int) -> bool:
    """Whether the tensor at this place among its kind gets more bits: the first, the last, and every third between."""
    eighth = count // 8
    return place < eighth or place >= 7 * count // 8 or (place - eighth) % 3 == 2


def _is_value(name: str) -> bool:
    """Whether a tensor computes values of attention, alone or together with queries and keys."""
    return any(part in name for part in ("attn_v.weight", "attn_qkv.weight", "attn_kv_b.weight"))


def _is_quantized(tensor: Tensor) -> bool:
    matrix = len([length for length in tensor.shape if length > 1]) > 1 and len(tensor.shape) > 1
    return matrix and tensor.name.endswith("weight") and _KEPT.search(tensor.name) is None


def _layer(name: str) -> int:
    found = _LAYER.search(name)
    return int(found[1]) if found else -1


def _fitting(kind: str, width: int) -> str:
    """The type, or another one of about as many bits whose blocks fit into a row."""
    if width % _BLOCK[kind]:
        kind = _FALLBACK.get(kind, kind)
    return "F16" if width % _BLOCK[kind] else kind
