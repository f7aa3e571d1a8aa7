"""Trains on batches without padding: records are concatenated in one row, and no layer lets them see each other.

Attention goes through transformers' interface for attention functions, with one that handles each record by itself.
Layers that mix tokens in another way (short convolutions, state-space models, attention written out by hand) are called
once per record. Everything else sees one row. An exported script contains this text: nothing of the project is
imported.
"""

import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from functools import cache, cached_property, partial
from itertools import pairwise
from typing import ClassVar

import torch
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

# The attention implementation's name in transformers, which builds no mask for a name that it does not know.
PER_RECORD, PER_RECORD_EAGER = "per_record", "per_record_eager"
_KERNEL_DTYPES = {torch.bfloat16, torch.float16}
# What a head may have in the GPU's variable-length kernel: so many values at most, and a multiple of so many.
_KERNEL_WIDTH, _KERNEL_MULTIPLE = 256, 8
# Keywords that reach an attention function and say nothing about what it computes within one record.
_WITHOUT_MEANING = {
    "cache_position",
    "cu_seq_lens_k",
    "cu_seq_lens_q",
    "is_causal",
    "max_length_k",
    "max_length_q",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "position_ids",
    "return_dict",
    "seq_idx",
    "use_cache",
}
# Keywords that say where the records of a row lie.
_OF_ROWS = {"cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx"}
# Layers that mix tokens without an attention function, by class name.
_MIXER = re.compile(
    r"(Mixer|MambaLayer|ShortConv|ShortConvolution|DeltaNet|DeltaAttention|LightningAttention|LinearAttention"
    r"|RecurrentBlock)$"
)
_ATTENTION = re.compile(r"Attention(V2)?$")


class _Row:
    """Where the records of a row lie.

    Attributes:
        current: the row that is being computed. Not an argument: several models do not pass keywords on to their
            attention, and a checkpointed layer is computed again in the backward pass, on a GPU in another thread.
        starts: start of each record, and the end of the last one, on the model's device; (records + 1,).
        longest: tokens of the longest record.
    """

    current: "ClassVar[_Row | None]" = None

    def __init__(self, starts: torch.Tensor, longest: int) -> None:
        self.starts = starts
        self.longest = longest

    @cached_property
    def slices(self) -> list[slice]:
        """Each record's tokens. On a GPU this waits for the device, once per batch."""
        return [slice(start, end) for start, end in pairwise(self.starts.tolist())]


def per_record_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    position_bias: torch.Tensor | None = None,
    is_eager: bool = False,
    **others: object,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each record of a row, as a transformers attention function.

    On a GPU this is PyTorch's variable-length kernel; elsewhere ``scaled_dot_product_attention`` is called once per
    record, so that nothing is computed and then masked. Capped scores and attention sinks are computed by the model's
    own ``eager_attention_forward``, once per record.

    Args:
        query: (1, heads, tokens, width); key and value may have fewer heads.
        s_aux, sinks: one score per head that takes part in the softmax and has no value.
        position_bias: added to the scores; (1, heads, tokens, tokens).
        is_eager: compute with the model's own ``eager_attention_forward`` in any case.

    Returns:
        (1, tokens, heads, width), and no attention weights.

    Raises:
        NotImplementedError: this model's attention needs something that this function does not support.
    """
    if attention_mask is not None:
        raise NotImplementedError("its attention has a mask of its own")
    meant = [name for name, given in others.items() if name not in _WITHOUT_MEANING and given is not None]
    if meant:
        raise NotImplementedError(f"its attention has further inputs ({', '.join(sorted(meant))})")
    if others.get("is_causal") is False or getattr(module, "is_causal", True) is False:
        raise NotImplementedError("its attention is not causal")
    row = _Row.current
    assert row is not None
    options = {"softcap": softcap, "s_aux": s_aux, "sinks": sinks}
    eager = {name: given for name, given in options.items() if given is not None}
    if getattr(module, "sinks", None) is not None:
        eager.setdefault("s_aux", module.sinks)
    own = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    is_own = bool(eager) or is_eager
    if is_own and own is None:
        raise NotImplementedError("it has no eager_attention_forward")
    if query.is_cuda and not dropout and not is_own and position_bias is None:
        return _varlen_attention(query, key, value, row, scaling, sliding_window), None
    outputs = []
    for tokens in row.slices:
        record = [states[:, :, tokens] for states in (query, key, value)]
        length = tokens.stop - tokens.start
        if is_own:
            assert own is not None
            mask = _added_mask(length, sliding_window, query)
            output, _ = own(module, *record, mask, scaling=scaling, dropout=dropout, **eager)
        else:
            mask = _window_mask(length, sliding_window, query.device)
            bias = position_bias[..., tokens, tokens] if position_bias is not None else None
            # The window's mask is already causal.
            output, _ = sdpa_attention_forward(
                module, *record, mask, dropout=dropout, scaling=scaling, is_causal=mask is None, position_bias=bias
            )
        outputs.append(output)
    return torch.cat(outputs, dim=1), None


def _varlen_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    row: _Row,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    if query.dtype not in _KERNEL_DTYPES:
        raise NotImplementedError(f"the GPU's variable-length attention does not compute in {query.dtype}")
    width = value.shape[-1]
    if query.shape[-1] > _KERNEL_WIDTH or query.shape[-1] % _KERNEL_MULTIPLE or width > query.shape[-1]:
        widths = f"{query.shape[-1]} values" + (f" and {width}" if width != query.shape[-1] else "")
        raise NotImplementedError(f"the GPU's variable-length attention has no heads of {widths}")
    # Latent attention has values narrower than its keys; the kernel wants one width.
    value = torch.nn.functional.pad(value, (0, query.shape[-1] - width))
    query, key, value = (states[0].transpose(0, 1).contiguous() for states in (query, key, value))
    output = varlen_attn(
        query,
        key,
        value,
        row.starts,
        row.starts,
        row.longest,
        row.longest,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
        **({"enable_gqa": True} if key.shape[1] != query.shape[1] and _asks_for_shared_heads() else {}),
    )
    return output[None, ..., :width]


@cache
def _asks_for_shared_heads() -> bool:
    """Whether the kernel wants to be told that keys have fewer heads; before PyTorch 2.13 it took them as they came."""
    from torch.nn.attention.varlen import varlen_attn

    return "enable_gqa" in inspect.signature(varlen_attn).parameters


def _window_mask(tokens: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """The mask of a sliding window; (1, 1, tokens, tokens). None where the whole record fits into the window."""
    if window is None or window >= tokens:
        return None
    return _visible(tokens, window, device)


def _added_mask(tokens: int, window: int | None, query: torch.Tensor) -> torch.Tensor:
    """A causal mask to add to scores; (1, 1, tokens, tokens)."""
    mask = torch.zeros(1, 1, tokens, tokens, dtype=query.dtype, device=query.device)
    visible = _visible(tokens, window or tokens, query.device)
    return mask.masked_fill(~visible, torch.finfo(query.dtype).min)


def _visible(tokens: int, window: int, device: torch.device) -> torch.Tensor:
    position = torch.arange(tokens, device=device)
    distance = position[:, None] - position[None, :]
    return ((distance >= 0) & (distance < window))[None, None]


ALL_ATTENTION_FUNCTIONS.register(PER_RECORD, per_record_attention)
ALL_ATTENTION_FUNCTIONS.register(PER_RECORD_EAGER, partial(per_record_attention, is_eager=True))


def enable_padding_free(model: PreTrainedModel) -> Callable[[], None]:
    """Make a causal language model keep the records of one row apart; returns how to undo it.

    Batches that say where records begin (``cu_seq_lens_q``) are rows of records; all others are computed as usual.
    """
    usual = model.config._attn_implementation
    per_record = PER_RECORD
    if usual == "flash_attention_2":
        per_record = usual  # which keeps the records of a row apart by itself
    elif usual == "eager" and model._supports_sdpa:
        per_record = PER_RECORD_EAGER  # it was asked for
    is_pluggable = has_attention_interface(model)
    accepted = _keywords(model)

    def choose_attention(
        _: PreTrainedModel, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> tuple[tuple[object, ...], dict[str, object]]:
        # Not reset after the forward pass: checkpointed layers are computed again in the backward pass.
        starts, longest = kwargs.get("cu_seq_lens_q"), kwargs.get("max_length_q")
        _Row.current = None
        if isinstance(starts, torch.Tensor) and isinstance(longest, int):
            _Row.current = _Row(starts, longest)
        if is_pluggable:
            model.config._attn_implementation = usual if _Row.current is None else per_record
        return args, {name: value for name, value in kwargs.items() if name not in _OF_ROWS or name in accepted}

    mixers = mixing_layers(model)
    for mixer in mixers:
        mixer.__dict__["forward"] = _called_per_record(mixer)
    hook = model.register_forward_pre_hook(choose_attention, with_kwargs=True)

    def undo() -> None:
        _Row.current = None
        hook.remove()
        for mixer in mixers:
            mixer.__dict__.pop("forward", None)
        model.config._attn_implementation = usual

    return undo


def _keywords(model: PreTrainedModel) -> set[str]:
    """Those of :data:`_OF_ROWS` that a model's forward accepts."""
    parameters = inspect.signature(type(model).forward).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return _OF_ROWS
    return _OF_ROWS & parameters.keys()


def has_attention_interface(model: PreTrainedModel) -> bool:
    """Whether a model's attention, if it has one, is computed by a function that can be chosen."""
    return "ALL_ATTENTION_FUNCTIONS" in vars(sys.modules[type(model).__module__])


def mixing_layers(model: PreTrainedModel) -> list[torch.nn.Module]:
    """The outermost layers of a model that mix tokens and have to be called once per record."""
    is_pluggable = has_attention_interface(model)
    found: dict[str, torch.nn.Module] = {}
    for name, module in model.named_modules():
        kind = type(module).__name__
        if not (_MIXER.search(kind) or (not is_pluggable and _ATTENTION.search(kind))):
            continue
        if not any(name.startswith(outer + ".") for outer in found) and not _has_kernels_for_rows(module):
            found[name] = module
    # A layer with a forward of its own was placed on a device by accelerate, or patched by somebody else.
    return [module for module in found.values() if "forward" not in module.__dict__]


def _has_kernels_for_rows(module: torch.nn.Module) -> bool:
    """Whether a layer hands on where records lie, to kernels that keep them apart and are installed."""
    source = inspect.getsource(type(module).forward)
    if not next(module.parameters()).is_cuda or not re.search(
        r"causal_conv1d_fn\([^()]*(\([^()]*\)[^()]*)*\*\*kwargs", source
    ):
        return False
    needed = ["causal_conv1d", *(["fla"] if "delta_rule" in source else [])]
    return all(importlib.util.find_spec(package) is not None for package in needed)


def _called_per_record(module: torch.nn.Module) -> Callable[..., object]:
    """The forward of a layer, called with the tokens of one record at a time where a row is computed."""
    own = type(module).forward
    signature = inspect.signature(own)
    var_keywords = [name for name, parameter in signature.parameters.items() if parameter.kind is parameter.VAR_KEYWORD]

    def forward(*args: object, **kwargs: object) -> object:
        row = _Row.current
        if row is None or len(row.slices) == 1:
            return own(module, *args, **kwargs)
        bound = signature.bind(module, *args, **kwargs)
        given = dict(list(bound.arguments.items())[1:])
        for collected in var_keywords:
            given |= given.pop(collected, {})
        given = {name: value for name, value in given.items() if name not in _OF_ROWS}
        results = [
            own(module, **{name: _of_record(name, value, tokens) for name, value in given.items()})
            for tokens in row.slices
        ]
        if isinstance(results[0], tuple):
            return (torch.cat([result[0] for result in results], dim=1), *[None] * (len(results[0]) - 1))
        return torch.cat(results, dim=1)

    # How many records there are differs from batch to batch.
    uncompiled: Callable[..., object] = torch.compiler.disable(forward)
    return uncompiled


def _of_record(name: str, value: object, tokens: slice) -> object:
    """The part of a layer's argument that belongs to the tokens of one record.

    Raises:
        NotImplementedError: it is not known which dimension of the argument is the tokens'.
    """
    if isinstance(value, tuple) and name == "position_embeddings":
        return tuple(part[..., tokens, :] for part in value)
    if not isinstance(value, torch.Tensor):
        return value
    if name in ("hidden_states", "residual", "input_states", "x"):
        return value[:, tokens]
    if name in ("position_ids", "alibi", "position_bias"):
        return value[..., tokens]
    if name == "cache_position":
        return value[tokens]
    if name in ("attention_mask", "causal_mask", "conv_mask"):
        return value[..., tokens, tokens] if value.dim() == 4 else value[:, tokens]
    raise NotImplementedError(f"its {name} cannot be divided among the records")
