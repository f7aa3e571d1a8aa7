"""Tiny configurations of every architecture in transformers: the default one, each number shrunk by its role.

:func:`tiny_config` gives a configuration object. Roles are known by the names of keys; what that does not get right is
in ``REPAIRS``, by model type. Factors that are 1 by default are given values that show in a loss, and so are caps.
"""

import re
from typing import Any

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INNER, EXPERTS, TOP_K = 64, 4, 2, 16, 128, 4, 2
VOCAB = 320

# Role → names of keys; matched whole.
ROLES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "hidden": (
        HIDDEN,
        (
            "hidden_size",
            "n_embd",
            "d_model",
            "dim",
            "model_dim",
            "word_embed_proj_dim",
            "embed_dim",
            "embedding_size",
            "attention_hidden_size",
            "lru_width",
            "out_hidden_size",
            "hidden_dim",
            "projector_hidden_size",
            "text_hidden_size",
            "vision_output_dim",
            "language_hidden_size",
            "input_hidden_size",
            "d_embed",
            "output_dim",
            "embedding_dim",
        ),
    ),
    "inner": (
        INNER,
        (
            "intermediate_size",
            "ffn_dim",
            "ffn_hidden_size",
            "n_inner",
            "d_ff",
            "dim_feedforward",
            "dff",
            "intermediate_size_mlp",
            "mlp_intermediate_size",
            "dense_intermediate_size",
            "block_ff_dim",
            "prefix_dense_intermediate_size",
            "mamba_intermediate_size",
            "ffn_intermediate_size",
        ),
    ),
    "expert inner": (
        64,
        (
            "moe_intermediate_size",
            "shared_expert_intermediate_size",
            "expert_ffn_hidden_size",
            "shared_intermediate_size",
            "moe_shared_expert_intermediate_size",
            "expert_hidden_size",
            "moe_shared_intermediate_size",
            "shared_expert_hidden_size",
            "moe_ffn_hidden_size",
        ),
    ),
    "heads": (
        HEADS,
        (
            "num_attention_heads",
            "n_head",
            "n_heads",
            "num_heads",
            "num_query_heads",
            "attention_heads",
            "decoder_attention_heads",
            "encoder_attention_heads",
            "attn_heads",
        ),
    ),
    "kv": (
        KV_HEADS,
        (
            "num_key_value_heads",
            "num_kv_heads",
            "n_kv_heads",
            "num_global_key_value_heads",
            "attention_num_key_value_heads",
        ),
    ),
    "head width": (
        HEAD_DIM,
        (
            "head_dim",
            "v_head_dim",
            "attention_head_dim",
            "kv_channels",
            "qk_nope_head_dim",
            "global_head_dim",
            "d_kv",
            "swa_head_dim",
            "swa_v_head_dim",
            "index_head_dim",
        ),
    ),
    "rope width": (8, ("qk_rope_head_dim",)),
    "low rank": (32, ("q_lora_rank", "kv_lora_rank", "o_lora_rank", "expert_lora_rank", "rank", "gate_lora_rank")),
    "experts": (
        EXPERTS,
        (
            "num_experts",
            "num_local_experts",
            "n_routed_experts",
            "moe_num_experts",
            "num_moe_experts",
            "moe_n_routed_experts",
        ),
    ),
    "top k": (
        TOP_K,
        (
            "num_experts_per_tok",
            "num_experts_per_token",
            "moe_k",
            "top_k_experts",
            "moe_topk",
            "moe_top_k",
            "num_selected_experts",
            "moe_router_topk",
            "experts_per_token",
            "num_experts_per_topk",
        ),
    ),
    "one": (
        1,
        (
            "n_group",
            "topk_group",
            "moe_n_group",
            "n_groups",
            "mamba_n_groups",
            "ssm_n_groups",
            "mamba_ngroups",
            "num_expert_group",
            "moe_topk_group",
        ),
    ),
    "places": (
        2048,
        (
            "max_position_embeddings",
            "n_positions",
            "n_ctx",
            "max_sequence_length",
            "max_seq_len",
            "context_length",
            "max_window_layers_length",
            "original_max_position_embeddings",
        ),
    ),
    "window": (32, ("sliding_window", "attention_window_size", "sliding_window_size", "window_size")),
    "state": (16, ("state_size", "mamba_d_state", "ssm_state_size", "mamba_d_ssm_state")),
    "chunk": (16, ("chunk_size", "mamba_chunk_size", "attention_chunk_size", "chunk_length", "mamba_chunk")),
    "linear heads": (2, ("linear_num_key_heads",)),
    "linear value heads": (4, ("linear_num_value_heads",)),
    "linear width": (16, ("linear_key_head_dim", "linear_value_head_dim")),
    "picture": (28, ("image_size",)),
    "patch": (14, ("patch_size",)),
}
OF_KEY = {key: (role, value) for role, (value, keys) in ROLES.items() for key in keys}
LAYER_KEYS = (
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "num_blocks",
    "decoder_layers",
    "encoder_layers",
    "depth",
)
# Hybrids and whatever has several kinds of layers need room for them.
LAYERS, TOWER_LAYERS = 4, 2
SOFT_CAP = re.compile(r".*(logit|logits|output_logit)_?soft_?cap(ping)?$")
IDS = re.compile(r".*(token_id|token_index|_token)$|^(bos|eos|pad|sep|decoder_start)_token_id$")


def thinned(values: list[Any], count: int) -> list[Any]:
    """``count`` of a long list of kinds of layers: each kind at least once, in the order of first appearance."""
    if len(values) <= count:
        return values
    kinds: list[Any] = []
    for value in values:
        if value not in kinds:
            kinds.append(value)
    kinds = kinds[:count]
    # As they come, beginning with the first; the rest of the kinds are put at the end.
    rest = [kind for kind in kinds if kind not in values[: count - len(kinds) + 1]]
    head = values[: count - len(rest)]
    return [*head, *rest]


def shrink(config: dict[str, Any], *, is_tower: bool = False) -> dict[str, Any]:  # noqa: PLR0912  (a rule a branch)
    """A copy with all sizes small; sub-configurations likewise (``is_tower``: of pictures or sounds)."""
    made: dict[str, Any] = {}
    layers = TOWER_LAYERS if is_tower else LAYERS
    before = next((config[key] for key in LAYER_KEYS if isinstance(config.get(key), int)), None)
    heads_before = next((config[k] for k in ROLES["heads"][1] if isinstance(config.get(k), int)), None)
    for key, value in config.items():
        if key in ("id2label", "label2id"):
            continue
        if isinstance(value, dict):
            if key in ("rope_scaling", "rope_parameters") or "rope" in key:
                made[key] = value
            else:
                tower = is_tower or bool(re.search(r"vision|audio|image|speech|vit|vq|encoder", key))
                made[key] = shrink(value, is_tower=tower)
        elif key in LAYER_KEYS and isinstance(value, int):
            made[key] = min(value, layers)
        elif isinstance(value, list) and before and len(value) in (before, before + 1) and before > 1:
            made[key] = thinned(value, layers + len(value) - before)
        elif (
            re.search(r"drop(out)?|jitter|layerdrop|pdrop", key)
            and isinstance(value, int | float)
            and not isinstance(value, bool)
        ):
            made[key] = type(value)(0)
        elif key in ("vocab_size", "vocab_size_per_layer_input") and isinstance(value, int):
            made[key] = VOCAB
        elif IDS.match(key) and key not in OF_KEY:
            made[key] = _token(key, value)
        elif SOFT_CAP.match(key) and isinstance(value, int | float) and value:
            # So low that a cap left out is seen in the loss.
            made[key] = 2.0
        elif key in OF_KEY and isinstance(value, int) and not isinstance(value, bool):
            role, small = OF_KEY[key]
            if role == "kv" and heads_before is not None and value == heads_before:
                small = HEADS
            if role == "kv" and value == 1:
                small = 1
            made[key] = small if role in ("picture", "patch") else min(value, small) if value > 0 else value
        else:
            made[key] = value
    return made


def _token(key: str, value: Any) -> Any:
    fixed = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    if key in fixed and isinstance(value, int | list):
        return fixed[key]
    if isinstance(value, int) and value >= 17:
        # Ids of pictures and the like, out of the way of those in the records.
        return VOCAB - 1 - (sum(map(ord, key)) % 17)
    return value


def tiny_config(model_type: str) -> Any:
    from transformers import CONFIG_MAPPING

    made = CONFIG_MAPPING[model_type]
    small = shrink(made().to_dict())
    small.pop("transformers_version", None)
    if model_type in REPAIRS:
        small = REPAIRS[model_type](small) or small
    _mend_rope(small)
    return made.from_dict(small)


def _mend_rope(config: dict[str, Any]) -> None:
    """Lists of factors as long as the head is wide now; a context to scale from that is short."""
    for value in config.values():
        if isinstance(value, dict):
            _mend_rope(value)
    for key in ("rope_scaling", "rope_parameters"):
        rope = config.get(key)
        if isinstance(rope, dict):
            for part in [rope, *(v for v in rope.values() if isinstance(v, dict))]:
                if "original_max_position_embeddings" in part:
                    part["original_max_position_embeddings"] = 1024
                if "mrope_section" in part:
                    part["mrope_section"] = [2, 3, 3]


def _set(**values: Any) -> Any:
    def repair(config: dict[str, Any]) -> dict[str, Any]:
        target = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
        for key, value in values.items():
            (config if key in config else target)[key] = value
        return config

    return repair


def _text(**values: Any) -> Any:
    def repair(config: dict[str, Any]) -> dict[str, Any]:
        config["text_config"].update(values)
        return config

    return repair


def _mamba_heads(config: dict[str, Any]) -> None:
    """Heads times their width is ``expand`` times the hidden size."""
    inner = HIDDEN * config.get("mamba_expand", config.get("expand", 2))
    for heads, width in (
        ("mamba_n_heads", "mamba_d_head"),
        ("mamba_num_heads", "mamba_head_dim"),
        ("num_heads", "head_dim"),
    ):
        if heads in config and width in config:
            config[heads], config[width] = 8, inner // 8
            return


def _hybrid(kinds: list[str], key: str = "layer_types", **values: Any) -> Any:
    def repair(config: dict[str, Any]) -> dict[str, Any]:
        target = config["text_config"] if isinstance(config.get("text_config"), dict) else config
        target[key] = kinds
        if "num_hidden_layers" in target:
            target["num_hidden_layers"] = len(kinds)
        target.update(values)
        if any(name in target for name in ("mamba_n_heads", "mamba_num_heads")):
            _mamba_heads(target)
        return config

    return repair


def _gemma(config: dict[str, Any]) -> dict[str, Any]:
    """Gemma 3n and 4: tokens of their own a layer, layers that share keys, widths a layer."""
    target = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    target.update(layer_types=["sliding_attention", "full_attention", "sliding_attention", "full_attention"])
    if target.get("hidden_size_per_layer_input"):
        target["hidden_size_per_layer_input"] = 16
    if "num_kv_shared_layers" in target:
        target["num_kv_shared_layers"] = 2 if target["num_kv_shared_layers"] else 0
    if "per_layer_config" in target:
        target["per_layer_config"] = {"1": {"head_dim": 32}, "3": {"head_dim": 32}}
    if isinstance(target.get("intermediate_size"), list):
        target["intermediate_size"] = [INNER] * 4
    if "laurel_rank" in target:
        target["laurel_rank"] = 16
    # Published Gemma 4 models cap their logits.
    target["final_logit_softcapping"] = 2.0
    return config


def _multipliers(**values: Any) -> Any:
    """Factors that are 1 by default and not in published models."""
    return _set(**values)


def _both(*repairs: Any) -> Any:
    def repair(config: dict[str, Any]) -> dict[str, Any]:
        for one in repairs:
            config = one(config) or config
        return config

    return repair


_GRANITE = {"embedding_multiplier": 2.0, "logits_scaling": 4.0, "residual_multiplier": 0.5, "attention_multiplier": 0.2}
_QWEN4 = {
    "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 16, "indexer_budget": 16,
    "indexer_compress_ratio": 4, "hc_lowrank": 16, "ple_embed_dim": 64, "ngram_vocab_size_base": 1000,
    "split_ngram_parts": 2,
}  # fmt: skip
LINEAR, FULL, SLIDING = "linear_attention", "full_attention", "sliding_attention"
# What the roles do not get right. Multipliers that are 1 by default are made to matter.
REPAIRS: dict[str, Any] = {
    "bamba": _both(_mamba_heads, _set(attn_layer_indices=[1, 3])),
    "codegen": _set(rotary_dim=8),
    "gptj": _set(rotary_dim=8),
    "cohere_compass_text": _set(
        rope_parameters={FULL: {"rope_type": "default", "rope_theta": 10000.0}}, logit_scale=0.5
    ),
    "deepseek_v2": _set(num_experts_per_tok=2, first_k_dense_replace=1, n_shared_experts=1, qk_head_dim=24, head_dim=8),
    "deepseek_v3": _set(head_dim=8, qk_head_dim=24, first_k_dense_replace=1),
    "axk1": _set(head_dim=8, qk_head_dim=24),
    "youtu": _set(head_dim=8, qk_head_dim=24),
    "longcat_flash": _set(head_dim=8, qk_head_dim=24, zero_expert_num=2, num_layers=2),
    "kimi_linear": _set(head_dim=8, qk_head_dim=24, linear_head_dim=16, linear_num_heads=4),
    "bailing_hybrid": _set(head_dim=8, first_k_dense_replace=1),
    "minicpm3": _set(head_dim=8, qk_head_dim=24, initializer_range=0.02, dim_model_base=16),
    "dots1": _set(
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_shared_experts=1,
        first_k_dense_replace=1,
        layer_types=[SLIDING, FULL, SLIDING, FULL],
    ),
    "gemma2": _set(final_logit_softcapping=2.0),
    "gemma3": _text(final_logit_softcapping=None),
    "granite": _multipliers(**_GRANITE),
    "granite_swa": _multipliers(**_GRANITE),
    "granitemoe": _multipliers(**_GRANITE),
    "granitemoe_swa": _multipliers(**_GRANITE),
    "granitemoeshared": _multipliers(**_GRANITE, shared_intermediate_size=64),
    "granitemoehybrid": _both(
        _multipliers(**_GRANITE, shared_intermediate_size=64), _hybrid([LINEAR, FULL, LINEAR, FULL])
    ),
    "hyperclovax": _multipliers(logits_scaling=0.5),
    "falcon_h1": _both(
        _mamba_heads, _set(mamba_d_ssm=128, lm_head_multiplier=0.5, key_multiplier=0.5, embedding_multiplier=2.0)
    ),
    "hunyuan_v1_dense": _set(head_dim=16),
    "hunyuan_v1_moe": _set(head_dim=16, num_experts=4, moe_topk=2),
    "lfm2_moe": _hybrid(["conv", FULL, "conv", FULL], num_dense_layers=1),
    "lfm2": _hybrid(["conv", FULL, "conv", FULL]),
    "mamba2": _mamba_heads,
    "ministral": _set(head_dim=16, layer_types=[SLIDING, FULL, SLIDING, FULL]),
    "nemotron": _set(num_key_value_heads=2),
    "nemotron_h": _mamba_heads,
    "qwen4_exp_text": _set(**_QWEN4),
    "qwen4_exp": _text(**_QWEN4),
    "zamba": _both(
        _set(attention_hidden_size=128, attention_head_dim=32, mamba_dt_rank=4, num_hidden_layers=5),
        _hybrid([LINEAR, LINEAR, "hybrid", LINEAR, "hybrid"], "layers_block_type", num_hidden_layers=5),
    ),
    "zamba2": _both(
        _hybrid(
            [LINEAR, "hybrid", LINEAR, "hybrid"],
            "layers_block_type",
            n_mamba_heads=8,
            mamba_headdim=16,
            hybrid_layer_ids=[1, 3],
            adapter_rank=16,
            attention_hidden_size=128,
            attention_head_dim=32,
        )
    ),
    "mllama": _text(cross_attention_layers=[1, 3]),
    "muse_glimmer": _text(output_multiplier=0.5),
    "gemma4_assistant": _both(_gemma, _text(hidden_size_per_layer_input=0)),
    "gemma4_unified_assistant": _both(_gemma, _text(hidden_size_per_layer_input=0)),
    **dict.fromkeys(("gemma3n", "gemma3n_text", "gemma4", "gemma4_text"), _gemma),
    **dict.fromkeys(("gemma4_unified", "gemma4_unified_text"), _gemma),
    "dots3_note": _text(per_layer_config=None, qk_head_dim=24),
    "dots3_note_text": _set(per_layer_config=None, qk_head_dim=24),
    **{
        name: _text(rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]})
        for name in ("qwen2_vl", "qwen2_5_vl")
    },
}
