"""What a run trains on is what plain transformers and PEFT compute, for some forty architectures.

Each is a tiny random model in float32. Our first two losses and gradients are compared with those of a loop that
computes each record alone from the model's own logits (``bench/architectures.py``, which has all architectures).
"""

import pytest

from bench.architectures import compare

# Those that people tune, and those that something of their own sets apart.
PADDING_FREE = (
    "llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen3_next", "gemma", "gemma2",
    "gemma3_text", "phi", "phi3", "gpt2", "gpt_neox", "gpt_oss", "opt", "bloom", "falcon", "mpt", "stablelm",
    "starcoder2", "olmo2", "olmo3", "olmoe", "granite", "granitemoe", "cohere", "cohere2", "glm4", "deepseek_v2",
    "deepseek_v3", "smollm3", "lfm2", "mamba", "mamba2", "jamba", "nemotron", "recurrent_gemma", "mimo_v2_flash",
    "modernbert-decoder", "inkling_text",
)  # fmt: skip
# Their layers carry a state from token to token that no mask can cut.
PADDED = ["xlstm", "rwkv"]


@pytest.mark.parametrize("name", [*PADDING_FREE, *PADDED])
def test_the_loss_and_the_gradient_are_those_of_plain_transformers(name):
    row = compare(name)
    assert not row.plain_error
    assert not row.error
    loss, gradient = row.differences
    assert loss <= 1e-5, row
    assert gradient <= 1e-4, row
    assert row.path == ("padding-free" if name in PADDING_FREE else "padded"), row.problem
