"""Folders that transformers 5 saved, for transformers 4: the keys that it reads, and its own replies."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig
from transformers.models.auto import CONFIG_MAPPING

from workbench.models.older_transformers import add_older_keys, older_model_keys

OLDER = os.environ.get("LORAWORKBENCH_PYTHON_WITH_TRANSFORMERS_4", "")
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
# What transformers 4.57's own configuration classes call it, written down from them.
KEYS = {
    "llama": (
        {"rope_parameters": {**LLAMA3, "rope_theta": 500000.0}},
        {"rope_theta": 500000.0, "rope_scaling": LLAMA3},
    ),
    "qwen3": ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, {"rope_theta": 1e6}),
    "phi": (
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e5, "partial_rotary_factor": 0.5}},
        {"rope_theta": 1e5, "partial_rotary_factor": 0.5},
    ),
    "gemma3_text": (
        {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8},
        {"rope_theta": 1e6, "rope_local_base_freq": 1e4},
    ),
    "gpt2": ({}, {}),
}
SAYS = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, kind = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype="auto")
reply = model.generate(torch.arange(20)[None], max_new_tokens=12, do_sample=False)[0].tolist()
tokenizer = AutoTokenizer.from_pretrained(folder)
messages = [{"role": "user", "content": "Hi <tool>"}]
text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
print(json.dumps([reply, text, tokenizer(text)["input_ids"]]))
"""


def config_of(kind: str) -> PreTrainedConfig:
    sizes = {
        "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8,
        "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 512, "dtype": "float32",
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    return CONFIG_MAPPING[kind](**{**sizes, **KEYS[kind][0]})


@pytest.mark.parametrize("kind", KEYS)
def test_the_keys_of_transformers_4_are_added(kind: str) -> None:
    added = older_model_keys(config_of(kind).to_dict())
    assert added == {"torch_dtype": "float32", **KEYS[kind][1]}


def test_parts_of_a_configuration_get_theirs() -> None:
    whole = {"model_type": "x", "text_config": config_of("qwen3").to_dict(), "vision_config": {"depth": 2}}
    added = older_model_keys(whole)
    assert added == {"text_config": {**whole["text_config"], "rope_theta": 1e6, "torch_dtype": "float32"}}


def saved(kind: str, folder: Path, tiny_llama: Path) -> tuple[list[int], str, list[int]]:
    """A random model as it is exported; what it replies, its prompt, and the prompt's tokens, before it was saved."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_of(kind)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<tool>"]})
    tokenizer.save_pretrained(folder)
    add_older_keys(folder)
    reply = model.generate(torch.arange(20)[None], max_new_tokens=12, do_sample=False)[0].tolist()
    messages = [{"role": "user", "content": "Hi <tool>"}]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return reply, text, tokenizer(text)["input_ids"]


@pytest.mark.parametrize("kind", KEYS)
def test_transformers_5_reads_the_same_model(kind: str, tmp_path: Path, tiny_llama: Path) -> None:
    reply, text, ids = saved(kind, tmp_path, tiny_llama)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.generate(torch.arange(20)[None], max_new_tokens=12, do_sample=False)[0].tolist() == reply
    read = AutoTokenizer.from_pretrained(tmp_path)
    assert read(text)["input_ids"] == ids
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["chat_template"] == read.chat_template


@pytest.mark.skipif(not OLDER, reason="LORAWORKBENCH_PYTHON_WITH_TRANSFORMERS_4 names no Python with transformers 4")
@pytest.mark.parametrize("kind", KEYS)
def test_transformers_4_replies_alike(kind: str, tmp_path: Path, tiny_llama: Path) -> None:
    reply, text, ids = saved(kind, tmp_path, tiny_llama)
    said = subprocess.run([OLDER, "-c", SAYS, str(tmp_path), kind], capture_output=True, text=True, check=True)
    assert json.loads(said.stdout.splitlines()[-1]) == [reply, text, ids]
