"""What a run computes on, as far as that decides its types and its memory."""

from dataclasses import dataclass
from typing import Literal

CUDA_CONTEXT_BYTES = 500 * 2**20
"""What the CUDA driver, its kernels and cuBLAS take outside PyTorch's allocator; 300–600 MiB on cards since 2018."""


_WIDE_WORKSPACE = 9


@dataclass(frozen=True)
class Device:
    """A kind of device, whether it computes bfloat16 in hardware, and a GPU's generation.

    ``compute_capability`` is CUDA's major version (9 for Hopper); None where it is unknown.
    """

    kind: Literal["cuda", "cpu"] = "cuda"
    bfloat16: bool = True
    compute_capability: int | None = None

    @property
    def compute_dtype(self) -> str:
        """What ``compute_dtype: auto`` means here."""
        if self.bfloat16:
            return "bfloat16"
        return "float16" if self.kind == "cuda" else "float32"

    @property
    def cublas_workspace(self) -> int:
        """Bytes that torch allocates for each handle of cuBLAS, from ``parseChosenWorkspaceSize``.

        2 × 4096 KiB and 8 × 16 KiB; from Hopper on 8 × 4096 KiB. cuBLASLt uses the same block.
        """
        if (self.compute_capability or 0) >= _WIDE_WORKSPACE:
            return 8 * 4096 * 1024
        return 2 * 4096 * 1024 + 8 * 16 * 1024
