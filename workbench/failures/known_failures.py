"""The table of known failures: how to recognize each, what it means, and what to do.

The first matching row is used. Rows match the names of an exception's classes, so that no library must be imported to
recognize its errors, and the exception's text.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Failure:
    """A known failure.

    Attributes:
        kind: stable name for programs.
        types: names of exception classes, one of which must match; empty for any class.
        pattern: a regular expression to find in the text; its named groups are inserted into ``message``.
        message: what is wrong. cure: what to do.
    """

    kind: str
    types: tuple[str, ...]
    pattern: str
    message: str
    cure: str

    def match(self, names: set[str], text: str) -> re.Match[str] | None:
        """Match an exception by the names of its classes and its text."""
        if self.types and names.isdisjoint(self.types):
            return None
        return re.search(self.pattern, text, re.IGNORECASE | re.DOTALL)


_OUT_OF_VRAM = (
    "Halve the micro-batch and double the accumulation, turn gradient checkpointing on, "
    "lower max_length, or use nf4. If another process uses VRAM, stop it or restart the "
    "engine."
)

KNOWN = (
    Failure(
        "out_of_vram",
        (),
        r"(?:Tried to allocate (?P<what>[\d.]+ [KMGT]iB))",
        "The GPU is out of memory: {what} more needed.",
        _OUT_OF_VRAM,
    ),
    Failure(
        "out_of_vram",
        (),
        r"CUDA out of memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED|cudaErrorMemoryAllocation",
        "The GPU is out of memory.",
        _OUT_OF_VRAM,
    ),
    Failure(
        "out_of_vram",
        (),
        r"Some modules are dispatched on the CPU or the disk",
        "The model does not fit in the GPU's memory.",
        "Use nf4 or a smaller model. If another process uses VRAM, stop it or restart the engine.",
    ),
    Failure(
        "out_of_memory",
        (),
        r"DefaultCPUAllocator: can't allocate memory: you tried to allocate (?P<what>\d+) bytes",
        "This machine is out of memory: {what} more bytes needed.",
        "Use a smaller model or batch, lower max_length, or close other programs.",
    ),
    Failure(
        "out_of_memory",
        ("MemoryError",),
        "",
        "This machine is out of memory.",
        "Use a smaller model or batch, lower max_length, or close other programs.",
    ),
    Failure(
        "driver_too_old",
        (),
        r"NVIDIA driver on your system is too old|CUDA driver version is insufficient for CUDA runtime version",
        "The NVIDIA driver is too old for this PyTorch.",
        "Update the driver, or install a PyTorch built for an older CUDA (https://pytorch.org/get-started).",
    ),
    Failure(
        "driver_mismatch",
        (),
        r"Driver/library version mismatch|forward compatibility was attempted on non supported HW",
        "The NVIDIA kernel driver and its libraries have different versions.",
        "Restart the machine: the driver was updated while the old one was loaded.",
    ),
    Failure(
        "no_driver",
        (),
        r"Found no NVIDIA driver|Torch not compiled with CUDA enabled|No CUDA GPUs are available|"
        r"CUDA driver initialization failed|CUDA unknown error",
        "PyTorch finds no usable NVIDIA GPU.",
        "`loraworkbench doctor` shows what is missing. Without a GPU everything runs on the CPU, slowly.",
    ),
    Failure(
        "gpu_architecture",
        (),
        r"no kernel image is available for execution on the device",
        "This PyTorch build does not support this GPU generation.",
        "Install a PyTorch build that does (https://pytorch.org/get-started).",
    ),
    Failure(
        "gpu_busy",
        (),
        r"devices?(?:\(s\))? (?:is/)?are busy or unavailable",
        "Another process has exclusive use of this GPU.",
        "Stop it (`nvidia-smi` lists it), choose another GPU, or set the compute mode to default (`nvidia-smi -c 0`).",
    ),
    Failure(
        "gpu_fault",
        (),
        r"uncorrectable ECC error|GPU is lost|fallen off the bus|hardware stack error",
        "The GPU reports a hardware fault.",
        "Restart the machine. If it recurs, `dmesg | grep -i xid` shows the fault code.",
    ),
    Failure(
        "bitsandbytes",
        (),
        r"CUDA is required but not available for bitsandbytes|supported by the bitsandbytes version you have installed",
        "bitsandbytes finds no usable GPU: this machine has none, or lost it.",
        "Run `loraworkbench doctor`; use a machine with a GPU, or set quantization.method to none.",
    ),
    Failure(
        "bitsandbytes",
        (),
        r"bitsandbytes.{0,200}(?:compiled without GPU support|CUDA Setup failed|not compiled with CUDA|"
        r"Could not load|Failed to load|library was not loaded|backend.{0,40}not available)|libbitsandbytes",
        "bitsandbytes cannot quantize: its native library does not load.",
        "Run `loraworkbench doctor`; reinstall bitsandbytes for this CUDA, or set quantization.method to none.",
    ),
    Failure(
        "bitsandbytes",
        ("ImportError", "PackageNotFoundError"),
        r"bitsandbytes",
        "4-bit and 8-bit bases need bitsandbytes, which is missing or too old.",
        "`pip install -U bitsandbytes`, or set quantization.method to none.",
    ),
    Failure(
        "gpus_apart",
        (),
        r"NCCL error|ncclSystemError|ncclUnhandledCudaError|ncclRemoteError|gloo/transport/tcp|"
        r"Watchdog caught collective operation timeout",
        "The processes of this run lost their connection.",
        "Resume the run from its last checkpoint. NCCL_DEBUG=INFO logs details, NCCL_P2P_DISABLE=1 avoids a bad link.",
    ),
    Failure(
        "port_busy",
        (),
        r"failed to listen on any local network address|EADDRINUSE|Address already in use",
        "The rendezvous port of the run's processes is in use.",
        "Wait until the previous run has ended, or set another port in the launcher's configuration.",
    ),
    Failure(
        "cuda",
        (),
        r"device-side assert|CUDA error:|CUBLAS_STATUS_|CUDNN_STATUS_|cuDNN error",
        "The GPU aborted the computation.",
        "Restart the engine (`loraworkbench engine restart`). Often a token id is outside the model's vocabulary.",
    ),
    Failure(
        "no_chat_template",
        (),
        r"chat_template is not set|does not have a chat template|no chat template",
        "This model's tokenizer has no chat template, so a conversation cannot be formatted for it.",
        "Set data.template to a named one (chatml, alpaca, …), or use the model's instruct variant.",
    ),
    Failure(
        "template",
        ("TemplateError",),
        "",
        "The chat template rejects these messages.",
        "Set data.template to a named one (chatml, alpaca, …), or remove what it rejects (often a system prompt).",
    ),
    Failure(
        "untrusted_code",
        (),
        r"trust_remote_code",
        "Loading this model needs Python code from its repository, which is not allowed.",
        "Read that code, then set model.trust_remote_code to true; or use a model that transformers supports.",
    ),
    Failure(
        "unknown_architecture",
        (),
        r"model type `(?P<what>[^`]{1,60})`.{0,40}Transformers does not recognize",
        "This version of transformers does not support the architecture {what}.",
        "`pip install -U transformers`, or use another model.",
    ),
    Failure(
        "unknown_architecture",
        (),
        r"Unrecognized configuration class",
        "transformers has no causal language model of this architecture: its models are of another kind.",
        "Choose a causal language model, such as those on the Models screen (`loraworkbench models`).",
    ),
    Failure(
        "unknown_architecture",
        (),
        r"Unrecognized model in|does not recognize this architecture",
        "This version of transformers does not support this architecture as a language model.",
        "`pip install -U transformers`, or use another model.",
    ),
    Failure(
        "no_tokenizer",
        (),
        r"Can't load tokenizer for|Couldn't instantiate the backend tokenizer",
        "This model has no readable tokenizer.",
        "Copy tokenizer.json and tokenizer_config.json of its base model next to the weights. If "
        "it has a tokenizer.model, `pip install sentencepiece protobuf tiktoken`.",
    ),
    Failure(
        "tokenizer_library",
        (),
        r"(?:sentencepiece|protobuf|tiktoken)\b.{0,120}"
        r"(?:not found|not installed|install|required|No module|was not found)|"
        r"(?:requires|need|install|No module named)\b.{0,60}(?:sentencepiece|protobuf|tiktoken)",
        "This model's tokenizer needs a library that is not installed.",
        "`pip install sentencepiece protobuf tiktoken`, then restart the engine.",
    ),
    Failure(
        "no_safetensors",
        (),
        r"Error no file named \S+\.safetensors",
        "This folder has no safetensors weights.",
        "Use a repository with safetensors, or download the model again; pickle weights (.bin, .pt) are not loaded.",
    ),
    Failure(
        "model_damaged",
        (),
        r"config file at .{0,400} is not a valid JSON file",
        "The model's config.json is damaged.",
        "Delete the model from the cache (`hf cache rm`) and download it again.",
    ),
    Failure(
        "model_damaged",
        ("SafetensorError", "SafetensorsParsingError"),
        "",
        "A weight file is damaged or incomplete.",
        "Delete the model from the cache (`hf cache rm`) and download it again.",
    ),
    Failure(
        "model_damaged",
        (),
        r"Error while deserializing header|HeaderTooLarge|HeaderTooSmall|MetadataIncompleteBuffer|InvalidHeader",
        "A weight file is damaged or incomplete.",
        "Delete the model from the cache (`hf cache rm`) and download it again.",
    ),
    Failure(
        "other_base",
        ("RuntimeError",),
        r"Error\(s\) in loading state_dict.{0,2000}size mismatch.{0,400}lora_",
        "This adapter belongs to another base model: its shapes do not match.",
        "Use the model named as base_model_name_or_path in its adapter_config.json.",
    ),
    Failure(
        "target_modules",
        (),
        r"Target modules? .{0,300}not found in the base model|No modules were targeted|"
        r"Please specify `target_modules`",
        "The model has no layers named in adapter.target_modules.",
        "Choose names that the Architecture screen (`loraworkbench inspect`) shows, or all-linear.",
    ),
    Failure(
        "target_modules",
        (),
        r"Target module .{0,2000}is not supported\. Currently, only the following modules",
        "One of adapter.target_modules is not a layer that LoRA supports.",
        "Choose linear layers or embeddings on the Architecture screen (`loraworkbench inspect`), or all-linear.",
    ),
    Failure(
        "no_adapter",
        (),
        r"no adapter_config|Can't find 'adapter_config\.json'",
        "This folder has no adapter.",
        "Give a run, or the folder with adapter_config.json.",
    ),
    Failure(
        "nan_loss",
        (),
        r"loss is (?:nan|inf)|(?:nan|inf) (?:loss|detected)|probability tensor contains either `inf`, `nan`|"
        r"non-finite (?:loss|grad)",
        "The computation overflowed: the loss is no longer finite.",
        "Lower learning_rate, set max_grad_norm to 0.3–1, or compute in bfloat16 or float32 instead of float16.",
    ),
    Failure(
        "token_range",
        ("IndexError",),
        r"index out of range in self",
        "A token id is outside the model's vocabulary.",
        "Use this model's own tokenizer and its pad token.",
    ),
    Failure(
        "dtype",
        (),
        r"must have the same dtype, but got|expected m1 and m2 to have the same dtype|"
        r"Attempting to unscale FP16 gradients|expected scalar type \w+ but found",
        "Two parts of the model use different dtypes.",
        "Set one compute dtype (bfloat16, or float32 on a CPU), and do not use an adapter saved in another.",
    ),
    Failure(
        "nothing_to_train",
        (),
        r"of tensors does not require grad and does not have a grad_fn",
        "No parameter of this model is trainable.",
        "Choose existing adapter.target_modules, or turn gradient checkpointing off.",
    ),
    Failure(
        "gated",
        ("GatedRepoError",),
        "",
        "This model or dataset is gated: you must accept its license.",
        "Accept it on its page on the hub, then run `hf auth login` (or set HF_TOKEN and restart the engine).",
    ),
    Failure(
        "gated",
        (),
        r"Cannot access gated repo|You are trying to access a gated repo",
        "This model or dataset is gated: you must accept its license.",
        "Accept it on its page on the hub, then run `hf auth login` (or set HF_TOKEN and restart the engine).",
    ),
    Failure(
        "model_not_found",
        (),
        r"is not a local folder and is not a valid model identifier|Repository Not Found for url",
        "The hub has no such model or dataset, or it is private.",
        "Check the spelling (owner/name); for a private one run `hf auth login` or set HF_TOKEN.",
    ),
    Failure(
        "certificate",
        (),
        r"CERTIFICATE_VERIFY_FAILED",
        "A server's certificate is not trusted.",
        "Behind an intercepting proxy set SSL_CERT_FILE to its certificate; otherwise check the clock.",
    ),
    Failure(
        "unreachable",
        (),
        r"outgoing traffic has been disabled|offline mode is enabled|couldn't connect to 'https?://",
        "A server cannot be reached, and the requested file is not on this machine.",
        "Unset HF_HUB_OFFLINE or check the network; HF_ENDPOINT sets a mirror of the hub.",
    ),
    Failure(
        "unreachable",
        ("ConnectError", "ConnectTimeout", "ConnectionError", "ReadTimeout", "PoolTimeout", "gaierror", "ProxyError"),
        "",
        "A server cannot be reached.",
        "Check this machine's network and proxy; HF_ENDPOINT sets a mirror of the hub; cached models work offline.",
    ),
    Failure(
        "library_mismatch",
        (),
        r"cannot open shared object file|undefined symbol|version `GLIBC|operator torchvision::\w+ does not exist|"
        r"Cannot find a working triton installation",
        "A native library is missing or does not match the other installed ones.",
        "Install loraworkbench in a new environment; `loraworkbench doctor` checks each library.",
    ),
    Failure(
        "missing_package",
        ("ImportError",),
        r"requires the (?P<what>PIL|[Pp]illow) library but it was not found",
        "This model needs the Python package pillow, which is not installed.",
        "`pip install pillow`, then `loraworkbench engine restart`.",
    ),
    Failure(
        "missing_package",
        ("ImportError",),
        r"requires the (?P<what>[\w-]{1,40}) library but it was not found",
        "This model needs the Python package {what}, which is not installed.",
        "Install it with pip, then `loraworkbench engine restart`.",
    ),
    Failure(
        "missing_package",
        ("ImportError",),
        r"not found in your environment: (?P<what>[\w, -]{1,120})\. Run",
        "The model's own code needs Python packages that are not installed: {what}.",
        "Install them with pip, then `loraworkbench engine restart`.",
    ),
    Failure(
        "import",
        ("ImportError", "ModuleNotFoundError"),
        r"No module named '(?P<what>[^']{1,80})'",
        "A Python package is missing: {what}.",
        "Reinstall loraworkbench with its dependencies (`pip install -U loraworkbench`), then restart the engine.",
    ),
    Failure(
        "import",
        ("ImportError",),
        r"cannot import name '(?P<what>[^']{1,80})' from",
        "Two installed Python packages are incompatible: {what} is missing from one of them.",
        "Install loraworkbench in a new environment; `loraworkbench doctor` checks each library.",
    ),
)
