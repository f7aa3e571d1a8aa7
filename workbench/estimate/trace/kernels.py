"""Makes the meta device allocate as CUDA does: attention and dropout kernels, and temporary kernel memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from workbench.estimate.trace.recorder import Workspace

ATTENTION, FLASH_ATTENTION = "traced", "traced_in_16_bits"
"""Names in transformers' registry; a name with "flash" in it would be taken for a package to import."""


def workspace_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Workspace:
    """The blocks that an operator's CUDA kernel allocates in addition to its results, each by itself.

    - ``bitsandbytes::gemm_4bit`` (bitsandbytes 0.50, ``backends/cuda/ops.py``): above 512 rows it unpacks the whole
      weight into the compute type; with double quantization also the blocks' largest values, once as float32 and once
      with the offset added.
    - flash attention's backward (``mha_bwd``): the row sums, dq in float32 with the width of a head rounded up, and key
      and value gradients of every query head where heads share them.
    - memory-efficient attention's backward: row sums, and dq in float32 for 16-bit inputs.
    """
    name = func._schema.name
    if name == "bitsandbytes::gemm_4bit":
        if args[0].numel() // args[0].shape[-1] <= 512:
            return Workspace()
        weight = int(args[2][0] * args[2][1])
        has_nested = (len(args) > 7 and args[7] is not None) or kwargs.get("absmax_8bit") is not None
        largest = (4 * (weight // args[4]),) * 2 if has_nested else ()
        return Workspace(before=(*largest, weight * int(args[0].element_size())))
    if name == "aten::_scaled_dot_product_flash_attention_backward":
        query, key = args[1], args[2]
        batch, heads, length, width = map(int, query.shape)
        rounded = 32 * -(-width // 32) if width <= 192 else 256
        shared = batch * heads * int(key.shape[2]) * width * query.element_size()
        blocks = (4 * batch * heads * length, 4 * batch * heads * length * rounded)
        return Workspace(after=blocks + ((shared,) * 2 if key.shape[1] != heads else ()))
    if name == "aten::_scaled_dot_product_efficient_attention_backward":
        batch, heads, length, width = map(int, args[1].shape)
        widened = (4 * batch * heads * length * width,) if args[1].element_size() < 4 else ()
        return Workspace(after=(4 * batch * heads * length, *widened))
    return Workspace()


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """transformers' ``sdpa`` for a batch without padding, which needs no mask."""
    out = _scaled_dot_product(query, key, value, is_causal=True, scale=scaling, enable_gqa=True)
    return out.transpose(1, 2).contiguous(), None


def flash_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None = None,
    **options: object,
) -> tuple[torch.Tensor, None]:
    """transformers' ``flash_attention_2``: wider inputs are cast to 16 bits, and padding is left out, not masked."""
    if query.element_size() > 2:
        # The type of a quantized layer's input, or of autocast, as ``get_target_dtype`` finds it.
        query, key, value = (states.to(torch.bfloat16) for states in (query, key, value))
    return attention(module, query, key, value, None, scaling, **options)


def _scaled_dot_product(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """``scaled_dot_product_attention`` with the kernel that torch chooses on CUDA.

    Flash attention for 16-bit inputs without a mask, heads shared inside it; else memory-efficient attention; else
    the plain formula: where float32 heads are shared, no other kernel can.
    """
    ops = torch.ops.aten
    if torch.is_autocast_enabled("cuda"):
        dtype = torch.get_autocast_dtype("cuda")
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if query.element_size() < 4 and attn_mask is None:
        return ops._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, scale=scale)[0]
    if query.shape[1] == key.shape[1]:
        if attn_mask is not None:
            attn_mask = attn_mask.to(query.dtype).expand(*query.shape[:2], -1, -1)
        efficient = ops._scaled_dot_product_efficient_attention
        return efficient(query, key, value, attn_mask, True, dropout_p, is_causal, scale=scale)[0]
    return _PLAIN(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)


_PLAIN = torch.nn.functional.scaled_dot_product_attention


def register_attention() -> None:
    """Register both functions with transformers, which builds no masks for an attention that it does not know."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, attention)
    AttentionInterface.register(FLASH_ATTENTION, flash_attention)


@contextmanager
def cuda_like() -> Iterator[None]:
    """Within this context, operations on the meta device allocate as on CUDA for a batch without padding.

    Dropout keeps a mask of one byte per element, attention uses CUDA's kernels, masks are built as for real tokens, and
    autocast accepts the device type.
    """
    from torch.nn import functional
    from transformers import masking_utils

    def dropout(
        input: torch.Tensor,  # noqa: A002
        p: float = 0.5,
        training: bool = True,
        inplace: bool = False,
    ) -> torch.Tensor:
        return torch.native_dropout(input, p, True)[0] if training and p > 0 else input

    def autocast(device_type: str, *args: object, **kwargs: object) -> torch.autocast:
        return plain_autocast("cpu" if device_type == "meta" else device_type, *args, **kwargs)

    plain_autocast = torch.autocast
    replacements: list[tuple[object, str, object]] = [
        (functional, "dropout", dropout),
        (functional, "scaled_dot_product_attention", _scaled_dot_product),
        (torch, "autocast", autocast),
        (masking_utils, "is_tracing", lambda *_: False),
        (masking_utils, "find_packed_sequence_indices", lambda *_: None),
    ]
    kept = [(place, name, getattr(place, name)) for place, name, _ in replacements]
    for place, name, replacement in replacements:
        setattr(place, name, replacement)
    try:
        yield
    finally:
        for place, name, original in kept:
            setattr(place, name, original)
