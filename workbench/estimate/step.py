"""The training step whose memory and time are estimated: a recipe with all choices made that depend on the device.

Two variants: ``workbench`` is the step of this program; ``plain`` is the one that transformers' ``Trainer`` runs in
common notebooks (k-bit preparation, float32 adapters, autocast, full logits), for comparison and for published figures.
"""

from dataclasses import dataclass, replace
from typing import Literal

from workbench.estimate.adapter.plan import AdapterDtypes
from workbench.estimate.adapter.safetensors_size import BYTES_OF
from workbench.estimate.footprint import PackedStorage, Storage
from workbench.estimate.setup import Setup
from workbench.machine.device import Device
from workbench.recipe.sections.model import AttentionName
from workbench.recipe.sections.section import OFFLOAD

Variant = Literal["workbench", "plain"]
Checkpointing = Literal["none", "reentrant", "non-reentrant"]


@dataclass(frozen=True)
class Step:
    """One micro-batch through the model, and the optimizer's update.

    Attributes:
        loaded: the base as transformers loads it.
        storage: the base while it trains; k-bit preparation widens what is not quantized.
        dtypes: of the adapter.
        compute: type of the matrix products.
        batch: texts a micro-batch, two for each pair of responses.
        length: tokens a text.
        dropout: of the adapter's inputs.
        accumulates: gradients of earlier micro-batches are in memory when the next one starts.
        reads_texts: a head reads the last state of each text, and no logits of the vocabulary are computed.
        autocast: the 16-bit type that autocast casts to; empty without autocast.
        keeps_outputs: the model's outputs, with the logits, live until those of the next step replace them, as in a
            loop written by hand; ``Trainer`` drops them before the backward pass.
        offloads: checkpoints lie in host memory between the forward and the backward pass.
        tiles: MLPs are computed in pieces of the sequence.
        is_masked: the batch is padded and has a mask, for which there is no flash attention.
        attention: ``eager`` holds all scores; ``flash_attention_2`` computes in 16 bits and needs no mask.
        workspace: bytes that torch allocates for cuBLAS, in the forward pass and again in the backward pass: a handle
            belongs to a thread (``CublasHandlePool.cpp``), and the backward pass runs in a thread of its own.
    """

    variant: Variant
    loaded: Storage
    storage: Storage
    dtypes: AdapterDtypes
    compute: str
    checkpointing: Checkpointing
    optimizer: str
    batch: int
    length: int
    dropout: float
    accumulates: bool
    reads_texts: bool = False
    autocast: str = ""
    keeps_outputs: bool = False
    is_masked: bool = False
    offloads: bool = False
    tiles: bool = False
    smooths: bool = False
    attention: AttentionName = "auto"
    workspace: int = Device().cublas_workspace

    @property
    def tokens(self) -> int:
        return self.batch * self.length


def activation_bytes(step: Step) -> int:
    """Bytes of a number in the residual stream, which k-bit preparation turns into float32 with the embeddings."""
    return BYTES_OF["float32" if step.storage.dtype == "float32" else step.compute]


def plan_step(setup: Setup, device: Device | None = None, variant: Variant = "workbench") -> Step:
    """The training step of ``setup`` on ``device`` (default: a GPU with bfloat16)."""
    device = device or Device()
    asked = setup.compute_dtype
    compute = device.compute_dtype if asked == "auto" else asked
    loaded = _loaded(setup, compute)
    is_quantised = loaded.method != "none"
    checkpointing: Checkpointing = "none"
    if setup.checkpointing:
        # Non-reentrant checkpointing keeps activations of int8 layers that it should free.
        checkpointing = "reentrant" if loaded.method == "int8" and variant == "workbench" else "non-reentrant"
    if variant == "plain":
        # prepare_model_for_kbit_training converts all remaining 16-bit parameters to float32.
        storage = replace(loaded, dtype="float32") if is_quantised else loaded
        dtypes = AdapterDtypes(adapter="float32", saved_whole=storage.dtype, base=storage.dtype)
    else:
        # float16 gradients need a loss scaler, and the scaler needs full-precision weights.
        trained = "bfloat16" if compute == "bfloat16" else "float32"
        storage = loaded
        dtypes = AdapterDtypes(adapter=trained, saved_whole=trained, base=compute)
    # Trainer and the workbench use autocast for float16; Trainer, as notebooks set it, for bfloat16 as well.
    is_cast = compute == "float16" or (variant == "plain" and compute == "bfloat16")
    return Step(
        variant=variant,
        loaded=loaded,
        storage=storage,
        dtypes=dtypes,
        compute=compute,
        checkpointing=checkpointing,
        optimizer=setup.optimizer,
        batch=setup.micro_batch * setup.texts,
        length=setup.length,
        dropout=setup.adapter.lora_dropout,
        accumulates=setup.accumulation > 1,
        reads_texts=setup.adapter.head > 0,
        autocast=compute if is_cast else "",
        tiles=setup.tiles_mlp,
        # A CPU computes in the memory that they would be moved to.
        offloads=setup.checkpointing == OFFLOAD and device.kind == "cuda",
        smooths=setup.smooths,
        attention=setup.attention,
        workspace=device.cublas_workspace,
    )


def _loaded(setup: Setup, compute: str) -> Storage:
    """The base as it is loaded: as the recipe says, unless its files hold it in a format of their own."""
    stored = setup.stored
    if stored is not None and stored.is_packed:
        return PackedStorage("packed", False, compute, stored.bits or 16, stored.group_size)
    return Storage(setup.method, setup.double_quant and setup.method in ("nf4", "fp4"), compute)
