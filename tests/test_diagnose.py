"""Known failures: each raised for real where this machine can raise it, else with the text of the library's source."""

import json
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from workbench.errors import WorkbenchError
from workbench.failures.diagnose import diagnose, diagnose_exit, diagnose_text, explain_death
from workbench.failures.known_failures import KNOWN
from workbench.machine.oom_killer import oom_kills


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


def no_model_type(folder: Path) -> object:
    from transformers import AutoConfig

    (folder / "config.json").write_text("{}")
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


def model_dispatched_to_the_host(_: Path) -> object:
    # transformers/quantizers/quantizer_bnb_4bit.py
    raise ValueError(
        "Some modules are dispatched on the CPU or the disk. Make sure you have enough GPU RAM to fit the "
        "quantized model. If you want to dispatch the model on the CPU or the disk while keeping these modules "
        "in 32-bit, you need to set `llm_int8_enable_fp32_cpu_offload=True` and pass a custom `device_map`"
    )


def vram_gone_in_cublas(_: Path) -> object:
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def driver_and_library_apart(_: Path) -> object:
    raise RuntimeError("Failed to initialize NVML: Driver/library version mismatch")


def gpu_held_by_another(_: Path) -> object:
    raise RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable")


def gpu_with_broken_memory(_: Path) -> object:
    raise RuntimeError("CUDA error: uncorrectable ECC error encountered")


def gpu_taken_away_from_bitsandbytes(_: Path) -> object:
    """What transformers says where no device of the machine is one of bitsandbytes's."""
    import bitsandbytes
    from transformers.integrations.bitsandbytes import validate_bnb_backend_availability

    before = bitsandbytes.supported_torch_devices
    try:
        bitsandbytes.supported_torch_devices = {"xpu"}
        return validate_bnb_backend_availability(raise_exception=True)
    finally:
        bitsandbytes.supported_torch_devices = before


def processes_apart(_: Path) -> object:
    raise RuntimeError(
        "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]"
    )


def port_in_use(_: Path) -> object:
    from torch.distributed import TCPStore

    first = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    return TCPStore("127.0.0.1", first.port, is_master=True, wait_for_workers=False)


def messages_that_the_template_refuses(folder: Path) -> object:
    """As Gemma's template refuses a system prompt."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    return tokenizer.apply_chat_template([{"role": "system", "content": "Be brief."}])


def no_tokenizer(folder: Path) -> object:
    from transformers import AutoTokenizer

    for file in folder.glob("tokenizer*"):
        file.unlink()
    return AutoTokenizer.from_pretrained(folder)


def no_safetensors(folder: Path) -> object:
    from transformers import AutoModelForCausalLM

    (folder / "model.safetensors").unlink()
    return AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True)


def damaged_config(folder: Path) -> object:
    from transformers import AutoConfig

    (folder / "config.json").write_text('{"model_type": "lla')
    return AutoConfig.from_pretrained(folder)


def damaged_index(_: Path) -> object:
    raise OSError("Unable to load weights from checkpoint: Error while deserializing header: invalid JSON in header")


def a_norm_as_target(folder: Path) -> object:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    return get_peft_model(AutoModelForCausalLM.from_pretrained(folder), LoraConfig(target_modules=["norm"]))


def token_outside_the_vocabulary(folder: Path) -> object:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)(input_ids=torch.tensor([[100_000]]))


def two_dtypes(_: Path) -> object:
    import torch

    return torch.ones(2, 2) @ torch.ones(2, 2, dtype=torch.bfloat16)


def nothing_takes_a_gradient(folder: Path) -> object:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).requires_grad_(False)
    ids = torch.tensor([[1, 2, 3]])
    return model(input_ids=ids, labels=ids).loss.backward()


def gated(_: Path) -> object:
    # transformers/utils/hub.py
    raise OSError(
        "You are trying to access a gated repo.\nMake sure to have access to it at https://huggingface.co/a/b."
    )


def gated_in_the_hubs_words(_: Path) -> object:
    import httpx2
    from huggingface_hub.errors import GatedRepoError

    request = httpx2.Request("GET", "https://hub/api/models/a/b")
    raise GatedRepoError("Access to model a/b is restricted.", response=httpx2.Response(403, request=request))


def no_such_model(_: Path) -> object:
    # transformers/utils/hub.py
    raise OSError(
        "a/b is not a local folder and is not a valid model identifier listed on 'https://huggingface.co/models'"
    )


def not_in_the_cache(_: Path) -> object:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained("nobody/no-such-model", local_files_only=True)


def certificate_of_a_proxy(_: Path) -> object:
    import ssl

    raise ssl.SSLCertVerificationError(
        1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate in certificate chain"
    )


def shared_library_missing(_: Path) -> object:
    import ctypes

    return ctypes.CDLL("libcudart-of-next-year.so.99")


def package_missing(_: Path) -> object:
    import importlib

    return importlib.import_module("package_of_next_year")


def package_of_the_model_missing(_: Path) -> object:
    from transformers.utils import import_utils

    raise ImportError(import_utils.TIMM_IMPORT_ERROR.format("TimmWrapperModel"))


def pillow_missing(_: Path) -> object:
    from transformers.utils import import_utils

    raise ImportError(import_utils.VISION_IMPORT_ERROR.format("CLIPImageProcessor"))


def packages_of_the_models_code_missing(folder: Path) -> object:
    from transformers.dynamic_module_utils import check_imports

    (folder / "modeling_own.py").write_text("import package_of_next_year\n")
    return check_imports(folder / "modeling_own.py")


def packages_that_do_not_fit(_: Path) -> object:
    from peft import LoraConfigOfNextYear  # type: ignore[attr-defined]

    return LoraConfigOfNextYear


CASES = [
    (vram_gone_in_cublas, "out_of_vram", "GPU"),
    (model_dispatched_to_the_host, "out_of_vram", "does not fit"),
    (driver_and_library_apart, "driver_mismatch", "versions"),
    (gpu_held_by_another, "gpu_busy", "Another process"),
    (gpu_with_broken_memory, "gpu_fault", "hardware"),
    (gpu_taken_away_from_bitsandbytes, "bitsandbytes", "finds no usable GPU"),
    (processes_apart, "gpus_apart", "lost their connection"),
    (port_in_use, "port_busy", "port"),
    (messages_that_the_template_refuses, "template", "template"),
    (no_tokenizer, "no_tokenizer", "tokenizer"),
    (no_safetensors, "no_safetensors", "safetensors"),
    (damaged_config, "model_damaged", "config.json"),
    (damaged_index, "model_damaged", "weight file"),
    (a_norm_as_target, "target_modules", "LoRA"),
    (token_outside_the_vocabulary, "token_range", "vocabulary"),
    (two_dtypes, "dtype", "different dtypes"),
    (nothing_takes_a_gradient, "nothing_to_train", "No parameter"),
    (gated, "gated", "license"),
    (gated_in_the_hubs_words, "gated", "license"),
    (no_such_model, "model_not_found", "private"),
    (not_in_the_cache, "unreachable", "reached"),
    (certificate_of_a_proxy, "certificate", "certificate"),
    (shared_library_missing, "library_mismatch", "library"),
    (package_missing, "import", "package_of_next_year"),
    (package_of_the_model_missing, "missing_package", "package timm"),
    (pillow_missing, "missing_package", "package pillow"),
    (packages_of_the_models_code_missing, "missing_package", "package_of_next_year"),
    (packages_that_do_not_fit, "import", "LoraConfigOfNextYear"),
    (out_of_vram, "out_of_vram", "2.50 GiB"),
    (out_of_host_memory, "out_of_memory", "4000000000000000 more bytes"),
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
    (no_model_type, "unknown_architecture", "architecture"),
    (no_language_model, "unknown_architecture", "architecture"),
    (tokenizer_library_missing, "tokenizer_library", "library"),
    (damaged_weights, "model_damaged", "weight file"),
    (damaged_header, "model_damaged", "weight file"),
    (adapter_of_another_base, "other_base", "adapter"),
    (no_such_target, "target_modules", "target_modules"),
    (no_adapter, "no_adapter", "adapter"),
    (numbers_overflowed, "nan_loss", "overflowed"),
    (disk_full, "disk_full", "disk"),
    (not_allowed, "not_allowed", "no permission"),
    (no_connection, "unreachable", "reached"),
    (no_name, "unreachable", "reached"),
]


@pytest.fixture
def copy_of_tiny(tiny_llama: Path, tmp_path: Path) -> Path:
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
    # The same from the words alone, as a log keeps them.
    assert diagnose_text(type(error).__name__, str(error)).kind == kind


def test_every_row_of_the_table_is_proved_by_a_failure(copy_of_tiny: Path, tmp_path: Path) -> None:
    proved = set()
    for number, (cause, _, _) in enumerate(CASES):
        folder = tmp_path / str(number)
        shutil.copytree(copy_of_tiny, folder)
        error: BaseException | None = _raised(lambda cause=cause, folder=folder: cause(folder))
        while error is not None:
            names = {base.__name__ for base in type(error).__mro__}
            if row := next((row for row in KNOWN if row.match(names, str(error))), None):
                proved.add(row)
            error = error.__cause__ or error.__context__
    assert [f"{row.kind}: {row.pattern}" for row in KNOWN if row not in proved] == []


def test_the_cause_behind_a_wrapper_is_found() -> None:
    def wrap() -> None:
        try:
            out_of_vram(Path())
        except RuntimeError as error:
            raise ValueError("training failed") from error

    assert diagnose(_raised(wrap)).kind == "out_of_vram"


def test_an_error_that_nobody_foresaw_keeps_its_words_and_says_whose_fault_it_is(tmp_path: Path) -> None:
    def raising() -> None:
        raise ValueError("the flux\n  capacitor " + "x" * 1000)

    log = tmp_path / "home" / "terminal.log"
    told = diagnose(_raised(raising), "starting the run", log)
    assert told.kind == "unforeseen"
    assert told.message.startswith("loraworkbench failed while starting the run. This is a fault of loraworkbench")
    assert "ValueError: the flux capacitor x" in told.message
    assert "test_diagnose.py, line" in told.message
    assert len(told.message) < 550
    assert "loraworkbench doctor" in told.cure
    assert str(log) in told.cure
    assert "failed while starting the run:\nTraceback" in log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_an_error_without_words_is_no_class_name_alone() -> None:
    told = diagnose(AttributeError())
    assert "failed while doing what was asked" in told.message
    assert "AttributeError: no text" in told.message
    assert "engine.log" in told.cure


def test_a_log_that_cannot_be_written_hides_no_error(tmp_path: Path) -> None:
    assert diagnose(AttributeError("x"), "trying", tmp_path).kind == "unforeseen"


def test_what_an_inner_part_did_not_foresee_is_logged_by_the_outer_one(tmp_path: Path) -> None:
    def inner() -> None:
        try:
            raise KeyError("lm_head")
        except KeyError as error:
            raise diagnose(error, "loading the model") from error

    log = tmp_path / "engine.log"
    told = diagnose(_raised(inner), "training run tiny-01", log)
    assert told.kind == "unforeseen"
    assert "KeyError: 'lm_head'" in told.message
    assert str(log) in told.cure
    assert "KeyError: 'lm_head'" in log.read_text()


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
    assert "ran out of memory" in known.message


def test_a_process_that_was_asked_to_end() -> None:
    code, log = _run("import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
    assert diagnose_exit(code, log).message == "The engine was terminated by another program (SIGTERM)."


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
    told = diagnose_exit(code, log)
    assert told.kind == "unforeseen"
    assert told.message.startswith("loraworkbench failed while running the engine.")
    assert told.message.endswith("ValueError: the flux capacitor")


def test_an_end_without_a_word() -> None:
    code, log = _run("raise SystemExit(3)")
    known = diagnose_exit(code, log)
    assert known.message == "The engine ended with code 3: it printed nothing"
    assert known.cure


def test_a_kill_for_want_of_memory_is_told_from_another() -> None:
    assert explain_death(-signal.SIGKILL, "", oom_kills=1).kind == "out_of_memory"
    assert "did not kill it for memory" in explain_death(-signal.SIGKILL, "", oom_kills=0).message
    assert "most likely" in explain_death(-signal.SIGKILL, "").message
    # As a shell, or a launcher, tells it.
    assert explain_death(137, "", oom_kills=1).kind == "out_of_memory"
    # Who did not start the engine does not know its exit code, but sees the kernel's count.
    assert explain_death(None, "loading weights", oom_kills=2).kind == "out_of_memory"


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("import ctypes; ctypes.string_at(0)", "crashed", "SIGSEGV"),
        ("import os; os.abort()", "crashed", "SIGABRT"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGBUS)", "crashed", "shared memory"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "crashed", "processor"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "killed", "SIGTERM"),
        ("import no_such_library_at_all", "import", "no_such_library_at_all"),
        ("from json import no_such_name", "import", "no_such_name"),
        ("import ctypes; ctypes.CDLL('libno-such.so.1')", "library_mismatch", "library"),
        ("raise RuntimeError('CUDA error: an illegal memory access was encountered')", "cuda", "GPU"),
        ("raise SystemExit(3)", "ended", "code 3"),
    ],
)
def test_a_death_is_explained_by_exit_and_log(code: str, kind: str, words: str) -> None:
    exit_code, log = _run(code)
    known = explain_death(exit_code, log)
    assert known.kind == kind
    assert words in known.message
    assert known.cure


def test_what_a_library_threw_in_native_code_is_read() -> None:
    log = (
        "step 12\nterminate called after throwing an instance of 'c10::Error'\n"
        "  what():  CUDA error: unspecified launch failure\n"
    )
    assert explain_death(-signal.SIGABRT, log).kind == "cuda"
    assert explain_death(None, log).kind == "cuda"


def test_a_death_of_which_only_the_log_is_left() -> None:
    _, log = _run("import faulthandler, ctypes; faulthandler.enable(); ctypes.string_at(0)")
    assert explain_death(None, log).kind == "crashed"
    _, log = _run("raise OSError(28, 'No space left on device', 'adapter')")
    assert explain_death(None, log).message == "The disk is full: adapter could not be written."
    silent = explain_death(None, "step 12\nstep 13\n")
    assert silent.message == "The engine log does not say why it ended."
    assert silent.cure


def test_the_kernels_count_is_read_where_it_is_kept(tmp_path: Path) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    assert oom_kills(proc, groups) is None
    (proc / "vmstat").write_text("nr_free_pages 12\noom_kill 7\n")
    assert oom_kills(proc, groups) == 7
    (proc / "self" / "cgroup").write_text("4:memory:/box/1\n0::/\n")
    (groups / "memory" / "box" / "1").mkdir(parents=True)
    (groups / "memory" / "box" / "1" / "memory.oom_control").write_text("under_oom 0\noom_kill 3\n")
    assert oom_kills(proc, groups) == 3
    (proc / "self" / "cgroup").write_text("0::/seen/from/outside\n")
    groups.joinpath("memory.events").write_text("low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 0\n")
    assert oom_kills(proc, groups) == 1


def test_the_count_of_this_machine_is_a_number_or_unknown() -> None:
    count = oom_kills()
    assert count is None or count >= 0
