"""Attention without padding: each kernel against each record alone, then whole models against their own ``forward``."""

import time
from dataclasses import asdict
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, NamedTuple

from bench.gpu.part import Work

# Records of a row, in tokens; none a multiple of a kernel's block.
_LENGTHS = (1, 37, 200, 129, 513, 64)
_TOY_LENGTHS = (1, 7, 20)
# A result is rounded to its dtype, and so are the probabilities that it was summed up with.
_BOUND = {"bfloat16": 3 * 2.0**-8, "float16": 3 * 2.0**-11, "float32": 1e-4}


class Shape(NamedTuple):
    """Heads of queries and of keys, values in a head of queries and of values, and a window."""

    heads: int
    key_heads: int
    width: int
    value_width: int
    window: int | None = None


_SHAPES = {
    "8 heads of 64": Shape(8, 8, 64, 64),
    "32 heads of 128, 8 of keys": Shape(32, 8, 128, 128),
    "8 heads of 80": Shape(8, 8, 80, 80),
    "8 heads of 256, 4 of keys, window 100": Shape(8, 4, 256, 256, 100),
    "16 heads of 192 with values of 128": Shape(16, 16, 192, 128),
    "4 heads of 128, window 2": Shape(4, 4, 128, 128, 2),
}
_UNSUPPORTED = {"8 heads of 512": Shape(8, 1, 512, 512), "8 heads of 36": Shape(8, 8, 36, 36)}

# Tiny models with heads that the kernel takes; ``padded`` where batches are padded for a reason.
_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", {}),
    "mistral, window 8": ("MistralForCausalLM", {"sliding_window": 8}),
    "qwen3": ("Qwen3ForCausalLM", {"head_dim": 64}),
    "gemma 2 (capped scores)": ("Gemma2ForCausalLM", {"head_dim": 64, "sliding_window": 8}),
    "gemma 3": ("Gemma3ForCausalLM", {"head_dim": 64, "sliding_window": 8}),
    "gpt-oss (sinks)": (
        "GptOssForCausalLM",
        {"head_dim": 64, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8},
    ),
    "qwen3 moe": (
        "Qwen3MoeForCausalLM",
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 64},
    ),
}


def measure(work: Work) -> None:
    dtypes = ("bfloat16", "float16") if work.device == "cuda" else ("float32",)
    for dtype in dtypes:
        for name, shape in _SHAPES.items():
            differs = _kernel(shape, dtype, work)
            work.note(**{f"{name}, {dtype}": differs})
            work.check(f"{name}, {dtype}", max(differs.values()) <= _BOUND[dtype], differs)
    if work.device == "cuda":
        for name, shape in _UNSUPPORTED.items():
            work.check(f"{name} is refused", _refusal(shape, work), "it was computed")
    _models(work)
    work.verdict()


def _kernel(shape: Shape, dtype: str, work: Work) -> dict[str, float]:
    """Relative differences of the output and of the three gradients from those of each record alone in float32."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    lengths = _TOY_LENGTHS if work.toy else _LENGTHS
    query, key, value = _states(shape, dtype, sum(lengths), work.device)
    output = _attention(query, key, value, shape, lengths)
    weight = torch.randn_like(output)
    gradients = torch.autograd.grad((output * weight).sum(), (query, key, value))
    exact = [states.detach().float().requires_grad_() for states in (query, key, value)]
    rows = []
    starts = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    for start, end in pairwise(starts):
        place = torch.arange(end - start, device=work.device)
        distance = place[:, None] - place[None, :]
        seen = (distance >= 0) & (distance < (shape.window or len(place)))
        record = [states[:, :, start:end] for states in exact]
        out = scaled_dot_product_attention(*record, attn_mask=seen, enable_gqa=shape.heads != shape.key_heads)
        rows.append(out.transpose(1, 2))
    expected = torch.cat(rows, dim=1)
    wanted = torch.autograd.grad((expected * weight.float()).sum(), exact)
    names = ("output", "query", "key", "value")
    pairs = zip(names, (output, *gradients), (expected, *wanted), strict=True)
    return {name: float((ours.float() - theirs).norm() / theirs.norm()) for name, ours, theirs in pairs}


def _states(shape: Shape, dtype: str, tokens: int, device: str) -> list[Any]:
    import torch

    torch.manual_seed(0)
    sizes = ((shape.heads, shape.width), (shape.key_heads, shape.width), (shape.key_heads, shape.value_width))
    kind = getattr(torch, dtype)
    return [torch.randn(1, h, tokens, w, device=device).to(kind).requires_grad_() for h, w in sizes]


def _attention(query: Any, key: Any, value: Any, shape: Shape, lengths: tuple[int, ...]) -> Any:
    """The attention that a model without padding calls, on one row."""
    import torch

    from workbench.engine.kernels import padding_free

    starts = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32).to(query.device)
    padding_free._Row.current = padding_free._Row(starts, max(lengths))
    try:
        module = SimpleNamespace(num_key_value_groups=shape.heads // shape.key_heads, is_causal=True, training=True)
        output, _ = padding_free.per_record_attention(module, query, key, value, sliding_window=shape.window)
    finally:
        padding_free._Row.current = None
    return output


def _refusal(shape: Shape, work: Work) -> str:
    """Why a kernel does not compute this; empty if it does."""
    try:
        _attention(*_states(shape, "bfloat16", sum(_LENGTHS), work.device), shape, _LENGTHS)
    except NotImplementedError as error:
        return str(error)
    return ""


def _models(work: Work) -> None:
    """Whole tiny models: the check that each run makes, with an adapter attached."""
    import transformers

    from tests.conftest import make_tiny_model
    from workbench.engine.kernels.loss_path import LossPath
    from workbench.engine.model.load_base import load_base
    from workbench.engine.model.loss_check.check import check_loss, why_padded_here
    from workbench.recipe.sections.adapter import AdapterSection
    from workbench.recipe.sections.model import ModelSection
    from workbench.recipe.sections.quantization import QuantizationSection

    names = list(_MODELS)[:2] if work.toy else list(_MODELS)
    ways = (
        [("none", "bfloat16"), ("nf4", "bfloat16"), ("none", "float16")]
        if work.device == "cuda"
        else [("none", "float32")]
    )
    lengths = (21, 5, 34, 13)
    records = [
        {"input_ids": ids, "labels": [-100, -100, *ids[2:]]}
        for start, length in enumerate(lengths, 3)
        for ids in [[(start * 31 + 7 * place * place) % 300 for place in range(length)]]
    ]
    for name in names:
        kind, settings = _MODELS[name]
        folder = make_tiny_model(work.folder / f"tiny-{names.index(name)}", getattr(transformers, kind), **settings)
        for method, dtype in ways:
            started = time.perf_counter()
            section = QuantizationSection(method=method, compute_dtype=dtype)
            base = load_base(work.home, ModelSection(source=str(folder)), section, lambda _: None, lambda: False)
            base.attach_new(AdapterSection(target_modules=["q_proj", "v_proj"]))
            found = check_loss(base, records)
            title = f"{name}, {method}, {dtype}"
            told = {**asdict(found), "path": str(found.path), "seconds": round(time.perf_counter() - started, 2)}
            work.note(**{title: told})
            if not (padded := why_padded_here(base)):
                work.check(title, found.path == LossPath(), found.problem)
            else:
                work.note(**{title: {**told, "padded_here": padded}})
