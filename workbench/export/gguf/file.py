"""A merged model as one GGUF file, and the check that it holds the model.

Layout and key names: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. What llama.cpp wants of a Llama beyond
them (rows of q and k in another order, factors of the rotary positions as a tensor) is that of its
``convert_hf_to_gguf.py``. Imports torch and gguf inside its functions: only for the helper process.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.errors import WorkbenchError
from workbench.export.gguf.support import ARCHITECTURES, check_gguf_support, rope_of
from workbench.export.gguf.vocabulary import Vocabulary, vocabulary_of
from workbench.export.request import GgufType
from workbench.export.weights import Merged, difference, logits
from workbench.models.child import report

# Mean KL divergence, in nats, that writing a model in this type may cost; beyond it something is wrong.
_MOST = {"f16": 1e-3, "q8_0": 5e-2}
_BLOCK = 32


@dataclass(frozen=True)
class GgufTensor:
    """One tensor on its way into the file: its name and kind there, and where it comes from."""

    name: str
    kind: Any
    source: str
    heads: int = 0


def write_gguf(merged: Merged, chat_template: str, file: Path, name: str, kind: GgufType, licence: str = "") -> None:
    """Write ``merged`` to ``file``, a tensor at a time.

    Raises:
        WorkbenchError: the model or its tokenizer is of a kind that cannot be written.
    """
    import gguf

    config = merged.model.config
    check_gguf_support(config.to_dict())
    architecture = ARCHITECTURES[config.architectures[0]]
    weights = merged.model.state_dict()
    rows = merged.model.get_input_embeddings().weight.shape[0]
    vocabulary = vocabulary_of(merged.tokenizer, merged.template.end_token_ids, chat_template, rows)
    writer = gguf.GGUFWriter(file, architecture)
    _write_facts(writer, config, name, kind, licence)
    _write_vocabulary(writer, vocabulary, rows)
    factors = _rope_factors(config)
    tensors = list(_tensors(weights, config, architecture, kind))
    if factors is not None:
        writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
    for tensor in tensors:
        shape = tuple(weights[tensor.source].shape)
        size = math.prod(gguf.quant_shape_to_byte_shape(shape, tensor.kind))
        writer.add_tensor_info(tensor.name, shape, _placeholder(tensor.kind), size, raw_dtype=tensor.kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if factors is not None:
        writer.write_tensor_data(factors)
    for number, tensor in enumerate(tensors):
        report(f"writing {file.name}", number / len(tensors), tensor.name)
        writer.write_tensor_data(_data(weights[tensor.source], tensor))
    writer.close()


def check_gguf(merged: Merged, file: Path, kind: GgufType) -> tuple[str, dict[str, Any]]:
    """Have transformers load the file and ask it the same; the model in memory is given up first.

    Raises:
        WorkbenchError: it answers otherwise than the model that was written.
    """
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    dtype, config = merged.model.dtype, merged.model.config
    # transformers reads no scaled positions from a GGUF file; llama.cpp does.
    known = {} if rope_of(config.to_dict()).get("rope_type") in (None, "default") else {"config": config}
    merged.model = None
    report("checking", None, f"reading {file.name} back")
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, quantization_config=GgufConfig(dequantize=True), dtype=dtype, **known
    ).eval()
    with torch.no_grad():
        found = difference(merged.merged_logits, logits(model, merged.prompts))
    if not found.divergence <= _MOST[kind]:
        raise WorkbenchError(
            f"The GGUF file differs from the exported model: {found}.",
            "Export it as `merged` and run llama.cpp's convert_hf_to_gguf.py on that folder.",
            kind="export_check",
        )
    return f"GGUF ({kind}) loaded with transformers vs. merged: {found}.", {"gguf_against_merged": found.as_json()}


def _write_facts(writer: Any, config: Any, name: str, kind: GgufType, licence: str) -> None:
    import gguf

    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    rope = rope_of(config.to_dict())
    writer.add_type("model")
    writer.add_name(name)
    if licence:
        writer.add_license(licence)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if kind == "f16" else gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(float(rope.get("rope_theta") or 10000.0))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))


def _write_vocabulary(writer: Any, vocabulary: Vocabulary, rows: int) -> None:
    writer.add_vocab_size(rows)
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(vocabulary.adds_space)
    for name, token in vocabulary.ids.items():
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", token)
    writer.add_add_bos_token(vocabulary.adds_bos)
    writer.add_add_eos_token(vocabulary.adds_eos)
    if vocabulary.template:
        writer.add_chat_template(vocabulary.template)


def _tensors(weights: dict[str, Any], config: Any, architecture: str, kind: GgufType) -> Iterator[GgufTensor]:
    """Every weight under its name in the file: matrices in ``kind``, vectors in float32."""
    import gguf

    arch = next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for source, weight in weights.items():
        if source == "lm_head.weight" and config.tie_word_embeddings:
            continue
        name = names.get_name(source, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise WorkbenchError(
                f"The model has a weight that GGUF does not support: {source}.",
                "Export it as `merged` and run llama.cpp's convert_hf_to_gguf.py on that folder.",
                kind="gguf_unsupported",
            )
        heads = 0
        if architecture == "llama" and ".q_proj." in source:
            heads = config.num_attention_heads
        elif architecture == "llama" and ".k_proj." in source:
            heads = config.num_key_value_heads
        yield GgufTensor(name, _kind_of(weight, kind), source, heads)


def _kind_of(weight: Any, kind: GgufType) -> Any:
    import gguf

    if weight.dim() < 2:
        return gguf.GGMLQuantizationType.F32
    if kind == "q8_0" and weight.shape[-1] % _BLOCK == 0:
        return gguf.GGMLQuantizationType.Q8_0
    return gguf.GGMLQuantizationType.F16


def _placeholder(kind: Any) -> Any:
    """A number type that the writer does not take for packed bytes: shapes are given in elements."""
    import numpy as np

    return np.float16 if kind.name == "F16" else np.float32


def _data(weight: Any, tensor: GgufTensor) -> Any:
    """The bytes of a weight as they lie in the file."""
    import gguf
    import numpy as np

    values = weight.detach().float().numpy()
    if tensor.heads:
        values = _interleaved(values, tensor.heads)
    if tensor.kind.name == "F32":
        return np.ascontiguousarray(values)
    if tensor.kind.name == "F16":
        halves = values.astype(np.float16)
        if not np.isfinite(halves).all():
            raise WorkbenchError(
                f"{tensor.source} has values outside the range of GGUF's 16-bit floats.",
                "Export with --type q8_0.",
                kind="gguf_unsupported",
            )
        return halves
    return gguf.quantize(np.ascontiguousarray(values), tensor.kind)


def _interleaved(values: Any, heads: int) -> Any:
    """Rows of q or k as llama.cpp turns them: pairs (i, i+1) in place of transformers' (i, i + half a head)."""
    return (
        values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
    )


def _rope_factors(config: Any) -> Any:
    """The divisors of the rotary frequencies of Llama 3.1 and later, ``[head size / 2]``; None for other models.

    As transformers computes them (``_compute_llama3_parameters``).
    """
    import numpy as np

    rope = rope_of(config.to_dict())
    if rope.get("rope_type") != "llama3":
        return None
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    frequencies = 1.0 / rope["rope_theta"] ** (np.arange(0, size, 2, dtype=np.float64) / size)
    original = rope["original_max_position_embeddings"]
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    wavelengths = 2 * np.pi / frequencies
    smooth = (original / wavelengths - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    factors = np.where(wavelengths > original / low, factor, np.where(wavelengths < original / high, 1.0, between))
    return factors.astype(np.float32)
