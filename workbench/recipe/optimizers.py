"""The optimizers by transformers' names: the package and the state of each, and why a run cannot use some of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Literal

from workbench.errors import WorkbenchError

LORA_FA = "lora_fa"
"""LoRA-FA (Zhang et al. 2023, arXiv:2308.03303), PEFT's optimizer that trains B and leaves A frozen."""

Keeps = Literal["nothing", "parameter", "float32", "8-bit", "torchao 8-bit", "torchao 4-bit", "factored"]
"""How an optimizer stores a moment of a tensor: in the tensor's own dtype, in float32, in a byte with a float32 scale
for 256 elements, in torchao's formats, or as one row and one column."""


@dataclass(frozen=True)
class Package:
    """A package that an optimizer needs: its name for ``pip`` and its name for ``import``."""

    distribution: str
    module: str

    @property
    def is_installed(self) -> bool:
        """Whether it is installed. Imports nothing."""
        return _is_installed(self.module)


@dataclass(frozen=True)
class Optimizer:
    """What the program knows about an optimizer.

    Attributes:
        keeps: how it stores its moments; ``moments``: how many it has of each tensor.
        package: what it needs beside PyTorch, transformers and PEFT; None for nothing.
        is_paged: large states are in host memory.
        compensates: 16-bit tensors get one more state of their size, for what rounding loses (Kahan summation).
        averages: what is evaluated and saved is an average of the weights, not the weights that are trained.
        refusal: why no run can use it, as the rest of a sentence; empty if runs can.
        instead: the nearest optimizer that runs can use, where it is refused.
    """

    name: str
    keeps: Keeps
    moments: int = 0
    package: Package | None = None
    is_paged: bool = False
    compensates: bool = False
    averages: bool = False
    refusal: str = ""
    instead: str = ""

    @property
    def is_installed(self) -> bool:
        """Whether everything that it needs is installed."""
        return self.package is None or self.package.is_installed

    @property
    def largest_share(self) -> int:
        """Bytes of state per byte of bfloat16 weights, at most."""
        match self.keeps:
            case "nothing":
                return 0
            case "factored":
                return 1
            case "float32" | "8-bit":
                return 2 * self.moments
            case _:
                return self.moments + self.compensates


_BITSANDBYTES = Package("bitsandbytes", "bitsandbytes")
_TORCHAO = Package("torchao", "torchao")
_SCHEDULE_FREE = Package("schedulefree", "schedulefree")
_OF_WHOLE_WEIGHTS = (
    "projects gradients of whole weight matrices to a low rank, which those of an adapter have already, and keeps its "
    "projections where no checkpoint can restore them"
)
_IN_BACKWARD = (
    "changes the weights during the backward pass, so that micro-batches cannot be added up, nor a bad gradient be "
    "stopped before it is applied"
)

OPTIMIZERS: Mapping[str, Optimizer] = {
    optimizer.name: optimizer
    for optimizer in (
        Optimizer("adamw_torch_fused", "parameter", 2),
        Optimizer("adamw_torch", "parameter", 2),
        Optimizer("adamw_8bit", "8-bit", 2, _BITSANDBYTES),
        Optimizer("paged_adamw_8bit", "8-bit", 2, _BITSANDBYTES, is_paged=True),
        Optimizer("paged_adamw_32bit", "float32", 2, _BITSANDBYTES, is_paged=True),
        Optimizer("adafactor", "factored"),
        Optimizer("sgd", "nothing"),
        Optimizer("lion_32bit", "float32", 1, _BITSANDBYTES),
        Optimizer("lion_8bit", "8-bit", 1, _BITSANDBYTES),
        Optimizer("paged_lion_32bit", "float32", 1, _BITSANDBYTES, is_paged=True),
        Optimizer("paged_lion_8bit", "8-bit", 1, _BITSANDBYTES, is_paged=True),
        Optimizer("ademamix", "float32", 3, _BITSANDBYTES),
        Optimizer("ademamix_8bit", "8-bit", 3, _BITSANDBYTES),
        Optimizer("paged_ademamix_32bit", "float32", 3, _BITSANDBYTES, is_paged=True),
        Optimizer("paged_ademamix_8bit", "8-bit", 3, _BITSANDBYTES, is_paged=True),
        Optimizer("adagrad", "parameter", 1),
        Optimizer("rmsprop", "parameter", 1),
        Optimizer(LORA_FA, "parameter", 2),
        Optimizer("adamw_bnb_8bit", "8-bit", 2, _BITSANDBYTES),
        Optimizer("rmsprop_bnb", "float32", 1, _BITSANDBYTES),
        Optimizer("rmsprop_bnb_32bit", "float32", 1, _BITSANDBYTES),
        Optimizer("rmsprop_bnb_8bit", "8-bit", 1, _BITSANDBYTES),
        Optimizer("schedule_free_adamw", "parameter", 2, _SCHEDULE_FREE, averages=True),
        Optimizer("schedule_free_radam", "parameter", 2, _SCHEDULE_FREE, averages=True),
        Optimizer("schedule_free_sgd", "parameter", 1, _SCHEDULE_FREE, averages=True),
        Optimizer("stable_adamw", "parameter", 2, Package("torch-optimi", "optimi"), compensates=True),
        Optimizer("adamw_torch_8bit", "torchao 8-bit", 2, _TORCHAO),
        Optimizer("adamw_torch_4bit", "torchao 4-bit", 2, _TORCHAO),
        Optimizer("adamw_anyprecision", "float32", 2, Package("torchdistx", "torchdistx")),
        Optimizer("adamw_torch_npu_fused", "parameter", 2, Package("torch_npu", "torch_npu")),
        Optimizer("adamw_torch_xla", "parameter", 2, Package("torch_xla", "torch_xla")),
        *(
            Optimizer(name, "nothing", refusal=_OF_WHOLE_WEIGHTS, instead=instead)
            for name, instead in (
                ("galore_adamw", "adamw_torch_fused"),
                ("galore_adamw_8bit", "adamw_8bit"),
                ("galore_adafactor", "adafactor"),
                ("galore_adamw_layerwise", "adamw_torch_fused"),
                ("galore_adamw_8bit_layerwise", "adamw_8bit"),
                ("galore_adafactor_layerwise", "adafactor"),
                ("apollo_adamw", "adamw_torch_fused"),
                ("apollo_adamw_layerwise", "adamw_torch_fused"),
            )
        ),
        Optimizer("lomo", "nothing", refusal=_IN_BACKWARD, instead="sgd"),
        Optimizer("adalomo", "nothing", refusal=_IN_BACKWARD, instead="adafactor"),
        Optimizer(
            "grokadamw",
            "nothing",
            refusal="keeps its moments outside of the state that a checkpoint restores",
            instead="adamw_torch_fused",
        ),
    )
}
"""By their names in ``training.optim``; the first one is the default."""


DEFAULT = next(iter(OPTIMIZERS))
"""The default of ``training.optim``."""


def usable() -> tuple[str, ...]:
    """The names that a recipe can have, whatever is installed."""
    return tuple(name for name, optimizer in OPTIMIZERS.items() if not optimizer.refusal)


def of_bitsandbytes(name: str) -> bool:
    """Whether an optimizer is one of bitsandbytes."""
    return OPTIMIZERS[name].package == _BITSANDBYTES


def name_there(name: str) -> str:
    """What transformers' arguments call it; they have no name for LoRA-FA, which is made beside them."""
    return "adamw_torch" if name == LORA_FA else name


def check_optimizer(name: str) -> None:
    """Refuse an optimizer whose package is not installed.

    That of bitsandbytes is not checked here: where it cannot be used, the run says so and takes another optimizer.

    Raises:
        WorkbenchError: naming the package.
    """
    if lacking := lacking_package(name):
        raise WorkbenchError(
            f"training.optim is {name}, and {lacking.distribution} is not installed.",
            f"Run `pip install {lacking.distribution}` in the workbench's environment, then `loraworkbench engine "
            "restart`, or set training.optim to adamw_torch_fused.",
            kind="optimizer",
        )


def lacking_package(name: str) -> Package | None:
    """The package that an optimizer needs and that is not installed; None if nothing is missing."""
    package = OPTIMIZERS[name].package
    return None if package is None or of_bitsandbytes(name) or package.is_installed else package


@cache
def _is_installed(module: str) -> bool:
    # Cached: forms ask at each key.
    return find_spec(module) is not None
