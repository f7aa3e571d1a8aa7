"""Known failures: each raised for real where this machine can raise it, else with the text of the library's source."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from workbench.diagnose import diagnose, diagnose_exit, diagnose_text
from workbench.errors import WorkbenchError


def _raised(action: Callable[[], object]) -> BaseException:
    try:
        action()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def out_of_vram(_: Path) -> object:
    import torch

    raise torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 15.77 GiB."
    )


def out_of_host_memory(_: Path) -> object:
    import torch

    return torch.empty(10**15)


def out_of_python_memory(_: Path) -> object:
    return bytearray(1 << 60)


def no_cuda_in_torch(_: Path) -> object:
    import torch

    if torch.version.cuda:
        raise AssertionError("Torch not compiled with CUDA enabled")
    return torch.zeros(1).cuda()


def old_driver(_: Path) -> object:
    # torch/csrc/cuda: what `torch.cuda.init` raises.
    raise RuntimeError(
        "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by "
        "downloading and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx"
    )


def no_kernel_image(_: Path) -> object:
    raise RuntimeError("CUDA error: no kernel image is available for execution on the device")


def device_assert(_: Path) -> object:
    raise RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported")


def bitsandbytes_without_library(_: Path) -> object:
    """The object that bitsandbytes puts in place of a native library that does not load: its first use raises."""
    from bitsandbytes.cextension import ErrorHandlerMockBNBNativeLibrary

    return ErrorHandlerMockBNBNativeLibrary("libbitsandbytes_cuda128.so: cannot open shared object file").cquantize()


def bitsandbytes_missing(_: Path) -> object:
    raise ImportError(
        "Using `bitsandbytes` 4-bit quantization requires bitsandbytes: `pip install -U bitsandbytes>=0.46.1`"
    )


def no_chat_template(folder: Path) -> object:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = None
    return tokenizer.apply_chat_template([{"role": "user", "content": "hi"}])


def code_not_trusted(folder: Path) -> object:
    from transformers import AutoConfig

    config = {"model_type": "home-made", "auto_map": {"AutoConfig": "configuration_home_made.HomeMadeConfig"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "configuration_home_made.py").write_text("raise SystemExit")
    return AutoConfig.from_pretrained(folder, trust_remote_code=False)


def unknown_model_type(folder: Path) -> object:
    from transformers import AutoConfig

    (folder / "config.json").write_text('{"model_type": "model-of-next-year"}')
    return AutoConfig.from_pretrained(folder)


def no_language_model(_: Path) -> object:
    from transformers import AutoModelForCausalLM, ViTConfig

    return AutoModelForCausalLM.from_config(ViTConfig())


def tokenizer_library_missing(_: Path) -> object:
    from transformers.utils import import_utils

    text = import_utils.SENTENCEPIECE_IMPORT_ERROR.format("LlamaTokenizer")
    raise ImportError(text)


def damaged_weights(folder: Path) -> object:
    from transformers import AutoModelForCausalLM

    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    return AutoModelForCausalLM.from_pretrained(folder)


def damaged_header(folder: Path) -> object:
    from safetensors import safe_open

    weights = folder / "model.safetensors"
    weights.write_bytes((1 << 60).to_bytes(8, "little"))
    return safe_open(weights, "pt")


def adapter_of_another_base(folder: Path) -> object:
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    get_peft_model(AutoModelForCausalLM.from_pretrained(folder), LoraConfig(target_modules=["q_proj"])).save_pretrained(
        folder / "adapter"
    )
    other = LlamaForCausalLM(
        LlamaConfig(vocab_size=16, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    )
    return PeftModel.from_pretrained(other, folder / "adapter")


def no_such_target(folder: Path) -> object:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    return get_peft_model(AutoModelForCausalLM.from_pretrained(folder), LoraConfig(target_modules=["query"]))


def no_adapter(folder: Path) -> object:
    from peft import PeftConfig

    return PeftConfig.from_pretrained(str(folder))


def numbers_overflowed(_: Path) -> object:
    import torch

    return torch.multinomial(torch.full((4,), float("nan")), 1)


def disk_full(_: Path) -> object:
    with Path("/dev/full").open("wb", buffering=0) as file:
        return file.write(b"x")


def not_allowed(_: Path) -> object:
    """The kernel refuses this to root too."""
    return Path("/sys/loraworkbench").mkdir()


def no_connection(_: Path) -> object:
    import httpx

    return httpx.get("http://127.0.0.1:9")


def no_name(_: Path) -> object:
    import socket

    return socket.getaddrinfo("no-such-host.invalid", 443)


CASES = [
    (out_of_vram, "out_of_vram", "2.50 GiB"),
    (out_of_host_memory, "out_of_memory", "4000000000000000 bytes"),
    (out_of_python_memory, "out_of_memory", "memory"),
    (no_cuda_in_torch, "no_driver", "GPU"),
    (old_driver, "driver_too_old", "driver"),
    (no_kernel_image, "gpu_architecture", "generation"),
    (device_assert, "cuda", "GPU"),
    (bitsandbytes_without_library, "bitsandbytes", "bitsandbytes"),
    (bitsandbytes_missing, "bitsandbytes", "bitsandbytes"),
    (no_chat_template, "no_chat_template", "template"),
    (code_not_trusted, "untrusted_code", "code"),
    (unknown_model_type, "unknown_architecture", "architecture"),
    (no_language_model, "unknown_architecture", "architecture"),
    (tokenizer_library_missing, "tokenizer_library", "library"),
    (damaged_weights, "model_damaged", "weight file"),
    (damaged_header, "model_damaged", "weight file"),
    (adapter_of_another_base, "other_base", "adapter"),
    (no_such_target, "target_modules", "target_modules"),
    (no_adapter, "no_adapter", "adapter"),
    (numbers_overflowed, "nan_loss", "overflowed"),
    (disk_full, "disk_full", "disk"),
    (not_allowed, "not_allowed", "may not"),
    (no_connection, "unreachable", "reached"),
    (no_name, "unreachable", "reached"),
]


@pytest.fixture
def copy_of_tiny(tiny_llama: Path, tmp_path: Path) -> Path:
    import shutil

    shutil.copytree(tiny_llama, tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.mark.parametrize(("cause", "kind", "word"), CASES, ids=[case[0].__name__ for case in CASES])
def test_known_failures(cause: Callable[[Path], object], kind: str, word: str, copy_of_tiny: Path) -> None:
    error = _raised(lambda: cause(copy_of_tiny))
    known = diagnose(error)
    assert known.kind == kind, f"{type(error).__name__}: {error}"
    assert word in known.message
    assert known.message.endswith(".")
    assert known.cure.endswith(".")
    # The same from the words alone, as a log keeps them; a number of the system is lost there.
    if not isinstance(error, OSError):
        assert diagnose_text(type(error).__name__, str(error)).kind == kind


def test_the_cause_behind_a_wrapper_is_found() -> None:
    def wrap() -> None:
        try:
            out_of_vram(Path())
        except RuntimeError as error:
            raise ValueError("training failed") from error

    assert diagnose(_raised(wrap)).kind == "out_of_vram"


def test_an_unknown_error_keeps_its_words() -> None:
    known = diagnose(ValueError("the flux\n  capacitor " + "x" * 1000))
    assert known.kind == "unknown"
    assert known.message.startswith("ValueError: the flux capacitor x")
    assert len(known.message) < 330


def test_a_sentence_stays_as_it_is() -> None:
    error = WorkbenchError("No.", "Yes.", kind="own")
    assert diagnose(error) is error
    assert diagnose(KeyboardInterrupt()).kind == "cancelled"


def test_hub_refusals_are_known_without_the_model() -> None:
    import httpx2
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    request = httpx2.Request("GET", "https://hub/api/models/a/b")
    assert diagnose(GatedRepoError("gated", response=httpx2.Response(403, request=request))).kind == "gated"
    missing = RepositoryNotFoundError("gone", response=httpx2.Response(404, request=request))
    assert diagnose(missing).kind == "model_not_found"


def _run(code: str) -> tuple[int, str]:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return run.returncode, run.stderr


def test_a_process_killed_by_the_system() -> None:
    code, log = _run("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    known = diagnose_exit(code, log)
    assert (code, known.kind) == (-signal.SIGKILL, "killed")
    assert "memory ran out" in known.message


def test_a_process_that_was_asked_to_end() -> None:
    code, log = _run("import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
    assert diagnose_exit(code, log).message == "The engine was ended from outside (SIGTERM)."


def test_a_crash_in_native_code() -> None:
    code, log = _run("import ctypes; ctypes.string_at(0)")
    known = diagnose_exit(code, log, what="the conversion")
    assert known.kind == "crashed"
    assert known.message == "The conversion crashed in native code (SIGSEGV)."


def test_a_traceback_in_the_log_is_read() -> None:
    code, log = _run("raise MemoryError('no')")
    assert diagnose_exit(code, log).kind == "out_of_memory"
    code, log = _run("raise OSError(28, 'No space left on device')")
    assert diagnose_exit(code, log).kind == "disk_full"
    code, log = _run("raise ValueError('the flux capacitor')")
    assert diagnose_exit(code, log).message == "ValueError: the flux capacitor"


def test_an_end_without_a_word() -> None:
    code, log = _run("raise SystemExit(3)")
    known = diagnose_exit(code, log)
    assert known.message == "The engine ended with code 3: it printed nothing"
    assert known.cure
