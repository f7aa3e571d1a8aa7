"""From an exception, or from the last words of a dead process, to a sentence with its cure.

The table below is read from the top; the first row that fits is taken. A row looks at the names of the exception's
classes, so that no library has to be imported to recognise its errors, and at the text.
"""

import errno
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from workbench.errors import WorkbenchError

_TEXT_LIMIT = 300


@dataclass(frozen=True)
class _Row:
    """A known failure.

    ``types``: names of classes, any of them; empty for every class. ``pattern``: sought in the text; its named groups
    fill the ``message``.
    """

    kind: str
    types: tuple[str, ...]
    pattern: str
    message: str
    cure: str

    def fits(self, names: set[str], text: str) -> re.Match[str] | None:
        if self.types and names.isdisjoint(self.types):
            return None
        return re.search(self.pattern, text, re.IGNORECASE | re.DOTALL)


_OUT_OF_VRAM = (
    "Halve the micro-batch and double the accumulation, turn gradient checkpointing on, lower max_length, or take nf4; "
    "if another process holds VRAM, end it or restart the engine."
)

_TABLE = (
    _Row(
        "out_of_vram",
        (),
        r"(?:Tried to allocate (?P<what>[\d.]+ [KMGT]iB))",
        "The GPU is out of memory: {what} more were needed.",
        _OUT_OF_VRAM,
    ),
    _Row(
        "out_of_vram",
        (),
        r"CUDA out of memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED|cudaErrorMemoryAllocation",
        "The GPU is out of memory.",
        _OUT_OF_VRAM,
    ),
    _Row(
        "out_of_memory",
        (),
        r"DefaultCPUAllocator: can't allocate memory: you tried to allocate (?P<what>\d+) bytes",
        "This machine is out of memory: {what} bytes more were needed.",
        "Take a smaller model or batch, lower max_length, or end other programs.",
    ),
    _Row(
        "out_of_memory",
        ("MemoryError",),
        "",
        "This machine is out of memory.",
        "Take a smaller model or batch, lower max_length, or end other programs.",
    ),
    _Row(
        "driver_too_old",
        (),
        r"NVIDIA driver on your system is too old",
        "The NVIDIA driver is too old for this PyTorch.",
        "Update the driver, or install a PyTorch built for an older CUDA (https://pytorch.org/get-started).",
    ),
    _Row(
        "no_driver",
        (),
        r"Found no NVIDIA driver|Torch not compiled with CUDA enabled|No CUDA GPUs are available",
        "PyTorch finds no usable NVIDIA GPU.",
        "`loraworkbench doctor` says what is missing; without a GPU everything runs on the CPU, slowly.",
    ),
    _Row(
        "gpu_architecture",
        (),
        r"no kernel image is available for execution on the device",
        "This PyTorch has no code for this GPU's generation.",
        "Install a PyTorch built for it (https://pytorch.org/get-started).",
    ),
    _Row(
        "bitsandbytes",
        (),
        r"bitsandbytes.{0,200}(?:compiled without GPU support|CUDA Setup failed|not compiled with CUDA|"
        r"Could not load|Failed to load|library was not loaded|backend.{0,40}not available)|libbitsandbytes",
        "bitsandbytes cannot quantise here: its native library does not load.",
        "Run `loraworkbench doctor`; reinstall bitsandbytes for this CUDA, or set quantization.method to none.",
    ),
    _Row(
        "bitsandbytes",
        ("ImportError", "PackageNotFoundError"),
        r"bitsandbytes",
        "bitsandbytes is missing or too old, and 4-bit and 8-bit bases need it.",
        "`pip install -U bitsandbytes`, or set quantization.method to none.",
    ),
    _Row(
        "cuda",
        (),
        r"device-side assert|CUDA error:",
        "The GPU broke the computation off.",
        "Restart the engine (`loraworkbench engine restart`); often a token id lies outside the model's vocabulary.",
    ),
    _Row(
        "no_chat_template",
        (),
        r"chat_template is not set|does not have a chat template|no chat template",
        "This model's tokenizer has no chat template, so a conversation cannot be written down for it.",
        "Set data.template to a named one (chatml, alpaca, …), or take the model's instruct variant.",
    ),
    _Row(
        "untrusted_code",
        (),
        r"trust_remote_code",
        "This model needs Python code from its repository to load, and that is switched off.",
        "Read that code, then set model.trust_remote_code to true; or take a model that transformers knows.",
    ),
    _Row(
        "unknown_architecture",
        (),
        r"model type `(?P<what>[^`]{1,60})`.{0,40}Transformers does not recognize",
        "This version of transformers does not know the architecture {what}.",
        "`pip install -U transformers`, or take another model.",
    ),
    _Row(
        "unknown_architecture",
        (),
        r"Unrecognized configuration class|Unrecognized model in|does not recognize this architecture",
        "This version of transformers knows no language model of this architecture.",
        "`pip install -U transformers`, or take another model.",
    ),
    _Row(
        "tokenizer_library",
        (),
        r"(?:sentencepiece|protobuf|tiktoken)\b.{0,120}"
        r"(?:not found|not installed|install|required|No module|was not found)|"
        r"(?:requires|need|install|No module named)\b.{0,60}(?:sentencepiece|protobuf|tiktoken)",
        "This model's tokenizer needs a library that is not installed.",
        "`pip install sentencepiece protobuf tiktoken`, then restart the engine.",
    ),
    _Row(
        "model_damaged",
        ("SafetensorError", "SafetensorsParsingError"),
        "",
        "A weight file is damaged or cut short.",
        "Delete the model from the cache (`hf cache rm`) and fetch it again.",
    ),
    _Row(
        "model_damaged",
        (),
        r"Error while deserializing header|HeaderTooLarge|HeaderTooSmall|MetadataIncompleteBuffer|InvalidHeader",
        "A weight file is damaged or cut short.",
        "Delete the model from the cache (`hf cache rm`) and fetch it again.",
    ),
    _Row(
        "other_base",
        ("RuntimeError",),
        r"Error\(s\) in loading state_dict.{0,2000}size mismatch.{0,400}lora_",
        "This adapter was made for another base model: its shapes do not fit.",
        "Take the model named as base_model_name_or_path in its adapter_config.json.",
    ),
    _Row(
        "target_modules",
        (),
        r"Target modules? .{0,300}not found in the base model|No modules were targeted",
        "The model has no layers of the names in adapter.target_modules.",
        "Choose names that the Architecture screen (`loraworkbench inspect`) shows, or all-linear.",
    ),
    _Row(
        "no_adapter",
        (),
        r"no adapter_config|Can't find 'adapter_config\.json'",
        "This folder holds no adapter.",
        "Give a run, or the folder with adapter_config.json.",
    ),
    _Row(
        "nan_loss",
        (),
        r"loss is (?:nan|inf)|(?:nan|inf) (?:loss|detected)|probability tensor contains either `inf`, `nan`|"
        r"non-finite (?:loss|grad)",
        "The computation overflowed: the loss is no number any more.",
        "Lower learning_rate, set max_grad_norm to 0.3–1, or compute in bfloat16 or float32 instead of float16.",
    ),
    _Row(
        "unreachable",
        ("ConnectError", "ConnectTimeout", "ConnectionError", "ReadTimeout", "PoolTimeout", "gaierror", "ProxyError"),
        "",
        "A server cannot be reached.",
        "Check this machine's network and proxy; HF_ENDPOINT sets a mirror of the hub; cached models work offline.",
    ),
)


def diagnose(error: BaseException) -> WorkbenchError:
    """The sentence and the cure for any exception; one that is not known keeps its own words, with kind ``unknown``.

    The chain of causes is followed: libraries often wrap what went wrong.
    """
    from workbench.models.hub import hub_error

    for link in _chain(error):
        if isinstance(link, WorkbenchError):
            return link
        if isinstance(link, KeyboardInterrupt):
            return WorkbenchError("Interrupted.", kind="cancelled")
        known = hub_error(link, "what was asked for") or _system_error(link)
        if known:
            return known
        names = {base.__name__ for base in type(link).__mro__}
        if known := _look_up(names, str(link)):
            return known
    return WorkbenchError(
        f"{type(error).__name__}: {_first_words(str(error)) or 'no text'}",
        "The engine's log holds the whole story.",
        kind="unknown",
    )


def diagnose_text(kind: str, text: str) -> WorkbenchError:
    """As :func:`diagnose`, for an exception of which only the class's name and the text are left (a log, a journal)."""
    if known := _look_up({kind.rpartition(".")[2]}, text):
        return known
    if re.search(r"No space left on device|Errno 28", text):
        return _disk_full("")
    return WorkbenchError(
        f"{kind}: {_first_words(text) or 'no text'}", "The engine's log holds the whole story.", kind="unknown"
    )


def diagnose_exit(code: int, log: str, *, what: str = "the engine") -> WorkbenchError:
    """Why a process ended: by a signal (``code`` = −number, as in :mod:`subprocess`), or with what it logged last.

    Args:
        log: the end of what it printed.
        what: its name in the sentence.
    """
    name = what[:1].upper() + what[1:]
    last = _last_exception(log)
    if code < 0:
        number = -code
        sign = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        if number == signal.SIGKILL:
            return WorkbenchError(
                f"{name} was killed (SIGKILL), most likely by the system because memory ran out.",
                "Take a smaller model, batch or max_length; `dmesg | grep -i oom` shows whether it was memory.",
                kind="killed",
            )
        if number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            return WorkbenchError(f"{name} was ended from outside ({sign}).", "Start it again.", kind="killed")
        if last and (known := _look_up({last[0]}, last[1])):
            return known
        return WorkbenchError(
            f"{name} crashed in native code ({sign}).",
            "Run `loraworkbench doctor`: a library that does not fit this machine is the usual cause.",
            kind="crashed",
        )
    if last:
        return diagnose_text(*last)
    tail = _first_words(log.strip().splitlines()[-1]) if log.strip() else "it printed nothing"
    return WorkbenchError(f"{name} ended with code {code}: {tail}", "The log holds the whole story.", kind="ended")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, then what it was raised from or while handling; the innermost may name the true reason."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _look_up(names: set[str], text: str) -> WorkbenchError | None:
    for row in _TABLE:
        if match := row.fits(names, text):
            return WorkbenchError(row.message.format(**match.groupdict()), row.cure, kind=row.kind)
    return None


def _system_error(error: BaseException) -> WorkbenchError | None:
    if not isinstance(error, OSError):
        return None
    name = str(error.filename) if error.filename else ""
    explain: dict[int, Callable[[str], WorkbenchError]] = {
        errno.ENOSPC: _disk_full,
        errno.EDQUOT: _disk_full,
        errno.EACCES: _not_allowed,
        errno.EPERM: _not_allowed,
        errno.EROFS: _not_allowed,
        errno.EMFILE: lambda _: WorkbenchError(
            "Too many files are open.", "Raise the limit (`ulimit -n 65536`) and start again.", kind="too_many_files"
        ),
    }
    if error.errno in explain:
        return explain[error.errno](name)
    return None


def _disk_full(name: str) -> WorkbenchError:
    return WorkbenchError(
        f"The disk is full{f': {name} could not be written' if name else ''}.",
        "Free some space, or move all state to another disk with --home (and HF_HOME for downloaded models).",
        kind="disk_full",
    )


def _not_allowed(name: str) -> WorkbenchError:
    return WorkbenchError(
        f"{name or 'A file'} may not be read or written by this user.",
        "Change its permissions, or choose another place with --home or output.dir.",
        kind="not_allowed",
    )


def _last_exception(log: str) -> tuple[str, str] | None:
    """Class and text of the last traceback in a log."""
    found = re.findall(r"^(?:[\w.]+\.)?([A-Z]\w*(?:Error|Exception|Interrupt|Warning|Exit)|[A-Z]\w+): (.*)$", log, re.M)
    errors = [(kind, text) for kind, text in found if not kind.endswith("Warning")]
    return errors[-1] if errors else None


def _first_words(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _TEXT_LIMIT else line[: _TEXT_LIMIT - 1] + "…"
