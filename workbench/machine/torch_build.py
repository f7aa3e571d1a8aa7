"""Whether the installed PyTorch can use a GPU at all. Read from its files, because importing it takes seconds."""

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_WITH_GPU = re.compile(r"^(?:cuda|hip)\b[^=\n]*=\s*['\"]", re.MULTILINE)


@cache
def torch_supports_gpus() -> bool:
    """Whether PyTorch was built for GPUs. True where its files do not say; the engine then tells once it runs."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return True
    try:
        return is_gpu_build(Path(spec.origin).with_name("version.py").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return True


def is_gpu_build(version_file: str) -> bool:
    """Whether the text of ``torch/version.py`` names a CUDA or ROCm version; ``cuda = None`` is a CPU build."""
    return _WITH_GPU.search(version_file) is not None
