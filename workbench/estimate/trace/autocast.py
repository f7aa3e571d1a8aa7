"""Casts as ``torch.autocast("cuda")`` does, on tensors of any device. Imports torch.

Autocast works by the type of the device, and the meta device has none, so the casts are made where PyTorch's functions
are called. Rules and lists are those of ``aten/src/ATen/autocast_mode.h`` and ``autocast_mode.cpp`` in torch 2.13.
"""

from types import TracebackType
from typing import Any, Self

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

NARROW = frozenset((
    "__matmul__", "__rmatmul__", "addbmm", "addmm", "addmv", "addr", "baddbmm", "bmm", "chain_matmul", "conv1d",
    "conv2d", "conv3d", "conv_tbc", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "einsum", "linear",
    "matmul", "mm", "multi_dot", "mv", "prelu", "scaled_dot_product_attention", "vecdot",
))  # fmt: skip
"""Computed in the 16-bit type."""

WIDE = frozenset((
    "__pow__", "__rdiv__", "__rpow__", "__rtruediv__", "acos", "asin", "binary_cross_entropy_with_logits", "cdist",
    "cosh", "cosine_embedding_loss", "cosine_similarity", "cross_entropy", "dist", "erfinv", "exp", "expm1",
    "frobenius_norm", "group_norm", "hinge_embedding_loss", "huber_loss", "kl_div", "l1_loss", "layer_norm", "log",
    "log10", "log1p", "log2", "logsumexp", "margin_ranking_loss", "mse_loss", "multi_margin_loss",
    "multilabel_margin_loss", "native_layer_norm", "nll_loss", "nll_loss2d", "norm", "normalize", "pdist",
    "poisson_nll_loss", "pow", "reciprocal", "renorm", "rms_norm", "rsqrt", "sinh", "smooth_l1_loss",
    "soft_margin_loss", "softplus", "tan", "triplet_margin_loss",
))  # fmt: skip
"""Computed in float32, from inputs that are cast."""

WIDE_RESULT = frozenset(("cumprod", "cumsum", "log_softmax", "matrix_norm", "prod", "softmax", "sum", "vector_norm"))
"""Computed to a float32 result where no type is asked for."""

WIDEST = frozenset((
    "addcdiv", "addcmul", "atan2", "bilinear", "cross", "dot", "grid_sample", "index_put", "scatter_add", "tensordot",
    "vdot",
))  # fmt: skip
"""Computed in the widest type among the inputs."""


class CudaAutocast(TorchFunctionMode):
    """Within this context functions cast as under ``torch.autocast("cuda", dtype)``.

    The 16-bit copy of a trained weight is kept until the outermost context ends.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype
        self._copies: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._depth = 0

    def __enter__(self) -> Self:
        self._depth += 1
        if self._depth == 1:
            self._before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
            # PEFT and bitsandbytes ask.
            torch.set_autocast_enabled("cuda", True)
            torch.set_autocast_dtype("cuda", self._dtype)
            super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            super().__exit__(kind, error, traceback)
            was_enabled, dtype = self._before
            torch.set_autocast_enabled("cuda", was_enabled)
            torch.set_autocast_dtype("cuda", dtype)
            self._copies.clear()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not torch.is_autocast_enabled("cuda"):  # `torch.autocast(…, enabled=False)`
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "").removeprefix("linalg_")
        if name in NARROW:
            args, kwargs = tree_map(self.narrowed, (args, kwargs))
        elif name in WIDE or (name in WIDEST and _is_mixed((args, kwargs))):
            args, kwargs = tree_map(_widened, (args, kwargs))
        elif name in WIDE_RESULT and _is_narrow(args[0]) and kwargs.get("dtype") is None:
            kwargs = {**kwargs, "dtype": torch.float32}
        return func(*args, **kwargs)

    def narrowed(self, value: Any) -> Any:
        """``value`` in the 16-bit type if it is a tensor of another type of floating-point numbers."""
        if not _is_floating(value) or value.dtype == self._dtype:
            return value
        is_kept = value.dtype == torch.float32 and value.requires_grad and value.is_leaf and not value._is_view()
        if not is_kept:
            return value.to(self._dtype)
        kept = self._copies.get(id(value))
        if kept is None:
            kept = self._copies[id(value)] = (value, value.to(self._dtype))
        return kept[1]


def _is_floating(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point() and value.dtype != torch.float64


def _is_narrow(value: Any) -> bool:
    return _is_floating(value) and value.element_size() == 2


def _widened(value: Any) -> Any:
    return value.float() if _is_narrow(value) else value


def _is_mixed(values: Any) -> bool:
    return any(_is_floating(value) and value.dtype == torch.float32 for value in tree_leaves(values))
