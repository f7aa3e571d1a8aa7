"""GGUF files: read back with the model's own answers, its tokens, and the names that llama.cpp needs."""

import pytest

from tests.export.tiny_models import TEXTS, as_merged, save_model
from workbench.errors import WorkbenchError
from workbench.export.gguf.file import _rope_factors, check_gguf, write_gguf
from workbench.export.gguf.support import check_gguf_support
from workbench.export.gguf.vocabulary import vocabulary_of
from workbench.models.gguf import describe_gguf

# By family: architecture, kind of vocabulary and way to cut text, as llama.cpp names them.
FAMILIES = {
    "mistral": ("llama", "llama", "default"),
    "qwen2": ("qwen2", "gpt2", "qwen2"),
    "llama3": ("llama", "gpt2", "gpt-2"),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """``(name, folder)`` of a tiny model."""
    return request.param, save_model(tmp_path_factory.mktemp("models") / request.param, request.param)


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_a_file_answers_as_its_model(family, kind, tmp_path):
    name, folder = family
    merged = as_merged(folder)
    file = tmp_path / "model.gguf"
    write_gguf(merged, merged.tokenizer.chat_template, file, "a name", kind, "apache-2.0")
    _, figures = check_gguf(merged, file, kind)
    found = figures["gguf_against_merged"]
    assert found["positions"] > 100
    if kind == "f16":  # bfloat16 values of this size are exact in float16
        assert found["largest"] < 1e-3
    metadata = describe_gguf(file).metadata
    architecture, vocabulary, pre = FAMILIES[name]
    assert metadata["general.architecture"] == architecture
    assert metadata["tokenizer.ggml.model"] == vocabulary
    assert metadata["tokenizer.ggml.pre"] == pre
    assert metadata["general.license"] == "apache-2.0"
    assert metadata["tokenizer.ggml.eos_token_id"] == merged.tokenizer.eos_token_id
    assert metadata["tokenizer.chat_template"] == merged.tokenizer.chat_template


def test_transformers_reads_the_same_tokens_out_of_it(family, tmp_path):
    from transformers import AutoTokenizer

    merged = as_merged(family[1])
    write_gguf(merged, "", tmp_path / "model.gguf", "a name", "q8_0")
    read = AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    for text in TEXTS:
        if family[0] == "mistral" and text.startswith(("  ", "<|")):
            continue  # where a space is put before a text, transformers' reader of GGUF is not what llama.cpp is
        wanted = merged.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert read(text, add_special_tokens=False)["input_ids"] == wanted, text


def test_every_token_has_its_place_and_kind(family):
    merged = as_merged(family[1])
    rows = merged.model.get_input_embeddings().weight.shape[0]
    found = vocabulary_of(merged.tokenizer, merged.template.end_token_ids, "", rows)
    assert len(found.tokens) == len(found.types) == rows
    assert len(set(found.tokens)) == rows
    for token, place in merged.tokenizer.get_vocab().items():
        assert found.tokens[place] == token
    assert found.types[merged.tokenizer.eos_token_id] == 3
    assert found.types[-1] == 5
    if found.model == "llama":
        assert found.types[found.tokens.index("<0x0A>")] == 6
        assert found.adds_space


def test_positions_are_scaled_as_transformers_scales_them(tmp_path):
    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    merged = as_merged(save_model(tmp_path / "llama3", "llama3"))
    config = merged.model.config
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    size = config.head_dim
    plain = 1.0 / config.rope_parameters["rope_theta"] ** (torch.arange(0, size, 2).float() / size)
    factors = _rope_factors(config)
    assert factors.max() > 7.9, "some frequencies are slowed down"
    assert factors.min() == 1.0
    torch.testing.assert_close(plain / torch.from_numpy(factors), scaled)


def test_a_file_of_another_model_does_not_pass(family, tmp_path):
    import torch

    merged = as_merged(family[1])
    file = tmp_path / "model.gguf"
    write_gguf(merged, "", file, "a name", "f16")
    with torch.no_grad():
        for parameter in merged.model.parameters():
            parameter.add_(0.05)
    wrong = [torch.roll(part, 1, dims=-1) for part in merged.merged_logits]
    merged.merged_logits = wrong
    with pytest.raises(WorkbenchError, match="differs from the exported model"):
        check_gguf(merged, file, "f16")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"architectures": ["GemmaForCausalLM"]}, "GemmaForCausalLM cannot be exported as GGUF"),
        ({"architectures": [], "model_type": "t5"}, "t5 cannot"),
        ({"architectures": ["LlamaForCausalLM"], "rope_scaling": {"type": "yarn"}}, "with yarn positions"),
    ],
)
def test_others_are_refused_by_name_with_the_way_out(config, words):
    with pytest.raises(WorkbenchError, match=words) as caught:
        check_gguf_support(config)
    assert "convert_hf_to_gguf.py" in caught.value.cure


def test_a_tokenizer_that_cuts_in_an_unknown_way_is_refused(tmp_path):
    from tokenizers import Regex, pre_tokenizers

    merged = as_merged(save_model(tmp_path / "qwen2", "qwen2"))
    merged.tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\p{N}{1,2}|\p{L}"), "isolated"), pre_tokenizers.ByteLevel(use_regex=False)]
    )
    with pytest.raises(WorkbenchError, match="unsupported pre-tokenizer"):
        vocabulary_of(merged.tokenizer, (), "", 1000)
