"""Writes a merged model as a GGUF file and verifies the file.

Layout and key names: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. What llama.cpp additionally needs for
Llama models (reordered rows of q and k, factors of the rotary frequencies as a tensor) follows its
``convert_hf_to_gguf.py``. The functions import torch and gguf, so they are called only in the helper process.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from workbench.errors import WorkbenchError
from workbench.export.gguf.support import ARCHITECTURES, USE_CONVERTER, check_gguf_support, rope_of
from workbench.export.gguf.vocabulary import Vocabulary, vocabulary_of
from workbench.export.request import Figures, GgufType
from workbench.export.weights import Merged, difference, logits
from workbench.models.child import report

if TYPE_CHECKING:
    import gguf
    import torch
    from transformers import PreTrainedConfig

# The largest mean KL divergence, in nats, that rounding to each type can explain.
_MAX_DIVERGENCE: dict[GgufType, float] = {"f16": 1e-3, "q8_0": 5e-2, "q5_k_m": 0.25, "q4_k_m": 0.6}
# Numbers per block of q8_0.
_BLOCK = 32


@dataclass(frozen=True)
class GgufTensor:
    """A tensor to write.

    Attributes:
        name, kind: its name and number type in the file.
        source: its name in the transformers model.
        heads: number of attention heads if its rows have to be reordered for llama.cpp, else 0.
    """

    name: str
    kind: "gguf.GGMLQuantizationType"
    source: str
    heads: int = 0


def write_gguf(merged: Merged, chat_template: str, file: Path, name: str, kind: GgufType, licence: str = "") -> None:
    """Write a merged model to ``file``, one tensor at a time.

    Raises:
        WorkbenchError: the architecture or the tokenizer is not supported.
    """
    import gguf

    assert merged.model is not None
    config = merged.model.config
    check_gguf_support(config.to_dict())
    architecture = ARCHITECTURES[config.architectures[0]]
    weights = merged.model.state_dict()
    rows = merged.model.get_input_embeddings().weight.shape[0]
    vocabulary = vocabulary_of(merged.tokenizer, merged.template.end_token_ids, chat_template, rows)
    writer = gguf.GGUFWriter(file, architecture)
    _write_metadata(writer, config, name, kind, licence)
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


def check_gguf(merged: Merged, file: Path, kind: GgufType) -> tuple[str, Figures]:
    """Load the file with transformers and compare its logits with those of the merged model, which is released first.

    Returns:
        The result as a sentence and as numbers.

    Raises:
        WorkbenchError: the logits differ by more than rounding explains.
    """
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    assert merged.model is not None
    dtype, config = merged.model.dtype, merged.model.config
    # Unlike llama.cpp, transformers does not read scaled rotary positions from a GGUF file.
    is_scaled = rope_of(config.to_dict()).get("rope_type") not in (None, "default")
    overrides = {"config": config} if is_scaled else {}
    merged.model = None
    report("checking", None, f"reading {file.name} back")
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, quantization_config=GgufConfig(dequantize=True), dtype=dtype, **overrides
    ).eval()
    with torch.no_grad():
        rounding = difference(merged.merged_logits, logits(model, merged.prompts))
    if not rounding.divergence <= _MAX_DIVERGENCE[kind]:
        raise WorkbenchError(
            f"The GGUF file differs from the exported model: {rounding}.",
            "Let llama.cpp's converter write it (--download), or export it as `merged`.",
            kind="export_check",
        )
    sentence = f"GGUF ({kind}) loaded with transformers vs. merged: {rounding}."
    return sentence, {"gguf_against_merged": rounding.as_json()}


def _write_metadata(
    writer: "gguf.GGUFWriter", config: "PreTrainedConfig", name: str, kind: GgufType, licence: str
) -> None:
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


def _write_vocabulary(writer: "gguf.GGUFWriter", vocabulary: Vocabulary, rows: int) -> None:
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


def _tensors(
    weights: "dict[str, torch.Tensor]", config: "PreTrainedConfig", architecture: str, kind: GgufType
) -> Iterator[GgufTensor]:
    """Yield the tensors to write: matrices as ``kind``, vectors as float32."""
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
                USE_CONVERTER,
                kind="gguf_unsupported",
            )
        heads = 0
        if architecture == "llama" and ".q_proj." in source:
            heads = config.num_attention_heads
        elif architecture == "llama" and ".k_proj." in source:
            heads = config.num_key_value_heads
        yield GgufTensor(name, _kind_of(weight, kind), source, heads)


def _kind_of(weight: "torch.Tensor", kind: GgufType) -> "gguf.GGMLQuantizationType":
    import gguf

    if weight.dim() < 2:
        return gguf.GGMLQuantizationType.F32
    if kind == "q8_0" and weight.shape[-1] % _BLOCK == 0:
        return gguf.GGMLQuantizationType.Q8_0
    return gguf.GGMLQuantizationType.F16


def _placeholder(kind: "gguf.GGMLQuantizationType") -> type[np.float16] | type[np.float32]:
    """A dtype to declare the tensor with, so that the writer takes its shape in elements and not in packed bytes."""
    return np.float16 if kind.name == "F16" else np.float32


def _data(weight: "torch.Tensor", tensor: GgufTensor) -> "npt.NDArray[np.generic]":
    """The data of a weight as it is stored in the file."""
    import gguf

    values: npt.NDArray[np.float32] = weight.detach().float().numpy()
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
    quantized: npt.NDArray[np.uint8] = gguf.quantize(np.ascontiguousarray(values), tensor.kind)
    return quantized


def _interleaved(values: "npt.NDArray[np.float32]", heads: int) -> "npt.NDArray[np.float32]":
    """Reorder the rows of q or k for llama.cpp, which rotates rows (i, i+1), transformers (i, i + half a head)."""
    return (
        values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
    )


def _rope_factors(config: "PreTrainedConfig") -> "npt.NDArray[np.float32] | None":
    """The divisors of the rotary frequencies for Llama 3.1 and later, ``[head size / 2]``; None for other models.

    Computed as in transformers' ``_compute_llama3_parameters``.
    """

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
