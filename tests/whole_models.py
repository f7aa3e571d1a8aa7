"""Tiny random models that read images beside text, made from their configurations."""

from pathlib import Path
from typing import Any

from tests.conftest import _tiny_tokenizer

_TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    # Wide enough that attention and each layer matter to the loss.
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
}
_QWEN_VISION = {"depth": 1, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 64}
_MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}}
_QWEN_IDS = {"image_token_id": 3, "video_token_id": 4, "vision_start_token_id": 5, "vision_end_token_id": 6}

CONFIGS: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {
        "text_config": {**_TEXT, **_MROPE, "model_type": "qwen2_5_vl_text"},
        "vision_config": _QWEN_VISION,
        **_QWEN_IDS,
    },
    "qwen3_vl": {
        "text_config": {
            **_TEXT,
            "rope_parameters": {**_MROPE["rope_parameters"], "mrope_interleaved": True},
            "model_type": "qwen3_vl_text",
        },
        "vision_config": {**_QWEN_VISION, "deepstack_visual_indexes": [0], "num_position_embeddings": 16},
        **_QWEN_IDS,
    },
    "mistral3": {
        "text_config": {**_TEXT, "model_type": "mistral", "sliding_window": None},
        "vision_config": {**_VISION, "model_type": "pixtral", "patch_size": 14},
        "image_token_index": 3,
    },
    "gemma3": {
        # Shorter than the records, so that the window matters.
        "text_config": {**_TEXT, "model_type": "gemma3_text", "sliding_window": 8, "query_pre_attn_scalar": 16},
        "vision_config": {**_VISION, "model_type": "siglip_vision_model", "patch_size": 14},
        "mm_tokens_per_image": 4,
        "boi_token_index": 3,
        "eoi_token_index": 4,
        "image_token_index": 5,
    },
    "llama4": {
        "text_config": {
            **_TEXT,
            "model_type": "llama4_text",
            "intermediate_size_mlp": 128,
            "num_local_experts": 2,
            "interleave_moe_layer_step": 2,
            "attn_temperature_tuning": False,
        },
        "vision_config": {**_VISION, "patch_size": 14, "vision_output_dim": 32, "projector_input_dim": 32,
                          "projector_output_dim": 32, "pixel_shuffle_ratio": 0.5},
        "image_token_index": 3,
        "boi_token_index": 4,
        "eoi_token_index": 5,
    },
    "llava": {
        "text_config": {**_TEXT, "model_type": "llama"},
        "vision_config": {**_VISION, "model_type": "clip_vision_model", "patch_size": 14},
        "image_token_index": 3,
        "vision_feature_layer": -1,
    },
    "smolvlm": {
        "text_config": {**_TEXT, "model_type": "llama"},
        "vision_config": {**_VISION, "patch_size": 14},
        "scale_factor": 2,
        "image_token_id": 3,
    },
}  # fmt: skip


def config_of(name: str, rows: int = 384) -> dict[str, Any]:
    """The content of a ``config.json``."""
    config = CONFIGS[name]
    text = {**config["text_config"], "vocab_size": rows}
    return {"model_type": name, "tie_word_embeddings": False, **config, "text_config": text}


def make_whole_model(folder: Path, name: str) -> Path:
    """A random model in bfloat16, with a tokenizer and a processor's file, in ``folder``."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForImageTextToText

    rows = _tiny_tokenizer(folder)
    torch.manual_seed(0)
    config = CONFIG_MAPPING[name].from_dict(config_of(name, rows))
    AutoModelForImageTextToText.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"image_processor_type": "SiglipImageProcessor"}\n')
    return folder
