"""What a run computes on, as far as that decides its types and its memory."""

from dataclasses import dataclass
from typing import Literal

CUDA_CONTEXT_BYTES = 500 * 2**20
"""What the CUDA driver, its kernels and cuBLAS take outside PyTorch's allocator; 300–600 MiB on cards since 2018."""


@dataclass(frozen=True)
class Device:
    """A kind of device, and whether it computes bfloat16 in hardware."""

    kind: Literal["cuda", "cpu"] = "cuda"
    bfloat16: bool = True

    @property
    def compute_dtype(self) -> str:
        """What ``compute_dtype: auto`` means here."""
        if self.bfloat16:
            return "bfloat16"
        return "float16" if self.kind == "cuda" else "float32"
