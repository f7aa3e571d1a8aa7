"""Conversion of GGUF files: one written on the spot from a tiny Llama, so that every weight can be compared."""

import json
from pathlib import Path

import pytest

from tests.helper_process import work_here
from workbench.errors import WorkbenchError
from workbench.models import gguf as models_gguf
from workbench.models.gguf import convert_gguf, converted_folder, describe_gguf, find_converted, sha256_of
from workbench.models.sources import fetch_model, find_local, local_models, remove_model
from workbench.progress import Progress
from workbench.recipe.sections.model import ModelSection
from workbench.storage.paths import Home


def quietly(step: Progress) -> None:
    """Progress that nobody watches."""


def never() -> bool:
    return False


# transformers' names → GGUF's
TENSORS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_gguf(folder: Path, target: Path, *, end_of_turn: int | None = None, quantised: bool = False) -> Path:
    """Write a Llama in ``folder`` as a GGUF file, as llama.cpp's converter does (q and k are permuted for its RoPE)."""
    import gguf
    import numpy as np
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = model.config
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_name("tiny")
    writer.add_license("apache-2.0")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    words = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    writer.add_token_list(words)
    writer.add_token_types([3 if index < 3 else 1 for index in range(len(words))])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    if end_of_turn is not None:
        writer.add_eot_token_id(end_of_turn)
    writer.add_chat_template(tokenizer.chat_template)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        values = tensor.numpy()
        short = name.removesuffix(".weight")
        if short.startswith("model.layers."):
            _, _, index, part = short.split(".", 3)
            new = f"blk.{index}.{TENSORS[part]}.weight"
            if count := heads.get(TENSORS[part]):
                rows = values.shape[0]
                values = values.reshape(count, 2, rows // count // 2, -1).swapaxes(1, 2).reshape(values.shape)
        else:
            new = {"model.embed_tokens": "token_embd.weight", "model.norm": "output_norm.weight"}[short]
        if quantised and values.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(new, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(new, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


@pytest.fixture(scope="module")
def tiny_gguf(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tiny_llama, tmp_path_factory.mktemp("gguf") / "tiny.gguf", end_of_turn=1)


@pytest.fixture
def convert_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversions are made in this process instead of a helper process."""
    import gguf

    work_here(monkeypatch, models_gguf)
    # A conversion replaces these for its process.
    for name in ("GGUFReader", "get_tensor_name_map"):
        monkeypatch.setattr(gguf, name, getattr(gguf, name))


@pytest.fixture(scope="module")
def converted(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, Path, list[Progress]]:
    home = Home(tmp_path_factory.mktemp("home"))
    seen: list[Progress] = []
    model = fetch_model(home, ModelSection(source=str(tiny_gguf)), seen.append, never)
    assert model.origin == "gguf"
    return home, model.folder, seen


def test_the_header_is_read_without_a_library(tiny_gguf: Path) -> None:
    facts = describe_gguf(tiny_gguf)
    assert (facts.architecture, facts.name, facts.license) == ("llama", "tiny", "apache-2.0")
    assert facts.tensors == 20
    assert facts.metadata["llama.embedding_length"] == 64
    assert facts.metadata["tokenizer.ggml.eos_token_id"] == 2


def test_every_weight_survives(converted: tuple[Home, Path, list[Progress]], tiny_llama: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    before = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype="bfloat16").state_dict()
    after = AutoModelForCausalLM.from_pretrained(converted[1])
    assert after.dtype == torch.bfloat16
    assert before.keys() == after.state_dict().keys()
    for name, tensor in after.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.usefixtures("convert_here")
def test_quantised_weights_come_back_close(tiny_llama: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    folder = convert_gguf(
        write_gguf(tiny_llama, tmp_path / "q8.gguf", quantised=True), tmp_path / "models", quietly, never
    )
    before = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype="float32").state_dict()
    for name, tensor in AutoModelForCausalLM.from_pretrained(folder, dtype="float32").state_dict().items():
        # Q8_0 rounds to 1/127 of the largest of 32 values; bfloat16 keeps 8 bits.
        assert torch.allclose(tensor, before[name], atol=float(before[name].abs().max()) / 100), name


def test_tokenizer_and_ends_of_a_turn(converted: tuple[Home, Path, list[Progress]], tiny_llama: Path) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    before, after = AutoTokenizer.from_pretrained(tiny_llama), AutoTokenizer.from_pretrained(converted[1])
    text = "Ahoy, how do I sort a list?"
    assert after(text)["input_ids"] == before(text)["input_ids"]
    assert after.chat_template == before.chat_template
    assert (after.eos_token, after.pad_token, after.model_max_length) == ("<|im_end|>", "<|endoftext|>", 512)
    # The vocabulary's rule: each digit alone, the spaces before them together.
    assert after.tokenize("1  23")[0] == "1"
    assert after.tokenize("1  23")[-2:] == ["2", "3"]
    generation = GenerationConfig.from_pretrained(converted[1])
    assert generation.eos_token_id == [2, 1]
    assert generation.pad_token_id == 0


def test_progress_reaches_the_end(converted: tuple[Home, Path, list[Progress]]) -> None:
    phases = list(dict.fromkeys(step.phase for step in converted[2]))
    assert phases == ["checking tiny.gguf", "reading the GGUF file", "converting to safetensors", "saving"]
    assert any(step.fraction == 1.0 for step in converted[2] if step.phase == "converting to safetensors")


def test_it_is_found_again_without_reading_it(converted: tuple[Home, Path, list[Progress]], tiny_gguf: Path) -> None:
    home, folder, _ = converted
    found = find_local(home, ModelSection(source=str(tiny_gguf)))
    assert found
    assert found.folder == folder
    listed = [model for model in local_models(home) if model.origin == "gguf"]
    assert [(model.source, model.license, model.missing) for model in listed] == [(str(tiny_gguf), "apache-2.0", "")]
    assert listed[0].facts
    assert listed[0].facts.parameters == 384 * 64 + 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64) + 64


def test_a_copy_elsewhere_is_known_by_its_content(
    converted: tuple[Home, Path, list[Progress]], tiny_gguf: Path, tmp_path: Path
) -> None:
    home, folder, _ = converted
    copy = tmp_path / "tiny.gguf"
    copy.write_bytes(tiny_gguf.read_bytes())
    assert find_converted(home.models, copy) is None
    seen: list[Progress] = []
    assert convert_gguf(copy, home.models, seen.append, never) == folder
    assert {step.phase for step in seen} == {"checking tiny.gguf"}
    assert find_converted(home.models, copy) == folder
    convert_gguf(tiny_gguf, home.models, quietly, never)


def test_a_broken_off_conversion_leaves_nothing(tiny_gguf: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    # What a process that died left behind; no process has this number.
    (models / ".partial-4194399-dead").mkdir(parents=True)
    seen: list[Progress] = []
    with pytest.raises(WorkbenchError) as caught:
        convert_gguf(tiny_gguf, models, seen.append, lambda: any("reading" in step.phase for step in seen))
    assert caught.value.kind == "cancelled"
    assert list(models.iterdir()) == []


@pytest.mark.parametrize("size", [0, 10, 100, 3000])
def test_a_file_cut_short_is_refused(tiny_gguf: Path, tmp_path: Path, size: int) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny_gguf.read_bytes()[:size])
    with pytest.raises(WorkbenchError) as caught:
        describe_gguf(cut)
    assert caught.value.kind == "model_damaged"


@pytest.mark.usefixtures("convert_here")
def test_weights_cut_short_are_refused(tiny_gguf: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny_gguf.read_bytes()[:-5000])
    with pytest.raises(WorkbenchError) as caught:
        convert_gguf(cut, tmp_path / "models", quietly, never)
    assert "cut.gguf" in caught.value.message
    assert list((tmp_path / "models").iterdir()) == []


def test_another_file_is_no_gguf(tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(WorkbenchError, match="start with GGUF"):
        describe_gguf(other)


@pytest.mark.usefixtures("convert_here")
def test_an_architecture_that_transformers_does_not_convert(tmp_path: Path) -> None:
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "odd.gguf", "clip")
    writer.add_name("odd")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(WorkbenchError) as caught:
        convert_gguf(tmp_path / "odd.gguf", tmp_path / "models", quietly, never)
    assert caught.value.kind == "gguf_unsupported"
    assert "clip" in caught.value.message


def test_file_names_cannot_leave_the_folder(tmp_path: Path) -> None:
    digest = "0" * 64
    for name in ("../../x.gguf", "..gguf", "a/b.gguf", "\x1b[31mred.gguf", ""):
        assert converted_folder(tmp_path, name, digest).parent == tmp_path


def test_checksum_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "abc"
    file.write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert sha256_of(file, quietly, never) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.usefixtures("convert_here")
def test_a_converted_model_can_be_removed_and_no_other(tiny_gguf: Path, tmp_path: Path) -> None:
    home = Home(tmp_path)
    fetch_model(home, ModelSection(source=str(tiny_gguf)), quietly, never)
    (facts,) = (model for model in local_models(home) if model.origin == "gguf")
    remove_model(home, facts)
    assert not facts.folder.exists()
    with pytest.raises(WorkbenchError):
        remove_model(home, facts)


@pytest.mark.usefixtures("convert_here")
def test_a_half_deleted_conversion_is_made_again(tiny_gguf: Path, tmp_path: Path) -> None:
    folder = convert_gguf(tiny_gguf, tmp_path, quietly, never)
    (folder / "model.safetensors").unlink()
    (folder / "of before").touch()
    assert find_converted(tmp_path, tiny_gguf) is None
    assert convert_gguf(tiny_gguf, tmp_path, quietly, never) == folder
    assert find_converted(tmp_path, tiny_gguf) == folder
    assert (folder / "model.safetensors").is_file()
    assert not (folder / "of before").exists()
    assert list(tmp_path.iterdir()) == [folder]
