"""Estimates the peak of a training step by formula. It is used until the step has been traced, and marked ≈.

The peak can occur at three kinds of moments: the loss, when all checkpoints (or all activations) are in memory; the
backward pass of the last layer, or of the first one, when all gradients exist; and the optimizer's update. Each is a
sum of named terms. Per token, with e bytes per activation:

- a checkpointed layer keeps its input: e·hidden; in host memory, only two of these are on the device;
- a recomputed layer keeps two float32 copies for its norms, what attention and activation functions need, and the
  input of every A.
"""

from dataclasses import dataclass

from workbench.estimate.adapter.plan import AdapterPlan
from workbench.estimate.adapter.safetensors_size import BYTES_OF
from workbench.estimate.footprint import Footprint
from workbench.estimate.host_memory import stream_bytes
from workbench.estimate.layer_shape import Block, LayerShape, ModelShape
from workbench.estimate.optimizer import optimizer_bytes
from workbench.estimate.peak import TERMS, Moment, Peak, PhasePeak
from workbench.estimate.step import Step, activation_bytes
from workbench.machine.device import CUDA_CONTEXT_BYTES

PIECES = 8
"""Pieces of a sequence in ``layers/tiled_mlp.py``, which imports torch."""

# TRL 1.16 computes the loss in tiles of this many tokens and vocabulary entries (``trl.kernels.chunked_logprob``).
LOSS_TILE_TOKENS = 4096
LOSS_TILE_WIDTH = 32768
# Attention without a fused kernel: bytes per score, from traced steps of Bloom (16 in all), Gemma 2 (14), Falcon (12).
_KEPT_PER_SCORE, _PASSING_PER_SCORE = 4, 10
# Memory that the caching allocator reserves beyond what is allocated, as a share; 2–20 % in published runs.
_FRAGMENTS = 0.06


@dataclass(frozen=True)
class _Layer:
    """Bytes of one recomputed layer: ``kept`` until its backward pass, and ``passing`` during it.

    ``forward`` is what it needs at once where nothing is kept for a backward pass.
    """

    kept: int
    passing: int
    forward: int = 0


def closed_form_peak(shape: ModelShape, base: Footprint, plan: AdapterPlan, step: Step) -> Peak:
    """The predicted peak of ``step`` on one device.

    Args:
        base: footprint of the base in the step's storage.
        plan: adapter in the step's types.
    """
    width = activation_bytes(step)
    layers = [(_layer(shape, layer, plan, step, base), layer.count) for layer in shape.layers]
    largest = max((layer for layer, _ in layers), key=lambda layer: layer.kept + layer.passing, default=_Layer(0, 0))
    stream = stream_bytes(shape, step)
    if step.checkpointing == "none":
        saved = sum(layer.kept * count for layer, count in layers)
        reopened = 0
    else:
        saved = stream * shape.depth
        # The layer that is recomputed for its backward pass.
        reopened = largest.kept
    if step.offloads:
        # The last checkpoint is still here when the loss is computed; in the backward pass the next one is fetched.
        saved, fetched = stream, stream
    else:
        fetched = 0
    loss, kept_logits = _loss(shape, step, width)
    # PEFT copies an embedding to put its trained rows in, and gets a gradient of all of its rows.
    embedding = shape.vocabulary * shape.hidden if shape.trains_rows else 0
    ids = 3 * 8 * step.tokens
    static = {
        "weights": base.footprint_bytes,
        "quantisation_constants": base.constant_bytes,
        "adapters": plan.added_bytes,
        "optimizer": optimizer_bytes(step.optimizer, plan),
        "workspace": 2 * step.workspace + ids,
    }
    final_norm = 4 * step.tokens * shape.hidden
    moments: dict[Moment, dict[str, int]] = {
        "loss": {
            "saved_activations": saved,
            # The copy, its gradient in float32, and that in the copy's type once the loss tile is gone.
            "loss": loss + embedding * (width + 4) + max(embedding * width - loss, 0),
            "recomputation": final_norm,
        },
        "first backward layer": {
            "saved_activations": saved + fetched,
            "recomputation": reopened + largest.passing,
            "loss": kept_logits,
        },
        "last backward layer": {
            "saved_activations": stream if step.checkpointing != "none" else largest.kept,
            "recomputation": reopened + largest.passing,
            "gradients": plan.trained_bytes + embedding * width,
            "loss": kept_logits,
        },
        "optimizer": {"gradients": plan.trained_bytes},
    }
    if step.accumulates:
        for terms_then in moments.values():
            terms_then["gradients"] = max(terms_then.get("gradients", 0), plan.trained_bytes)
    moment = max(moments, key=lambda name: sum(moments[name].values()))
    terms = {name: static.get(name, 0) + moments[moment].get(name, 0) for name in TERMS}
    allocated = sum(terms.values())
    terms["cuda_context"] = CUDA_CONTEXT_BYTES
    # Without gradients there are two states of the residual stream, and one layer or the loss.
    layer = max((layer.forward for layer, _ in layers), default=0)
    evaluated = sum(static.values()) + max(2 * stream + layer, loss + final_norm)
    evaluation = PhasePeak(evaluated, int(evaluated * (1 + _FRAGMENTS)))
    reserved = int(allocated * (1 + _FRAGMENTS))
    return Peak(allocated, reserved, terms, moment, "closed-form", others={"evaluation": evaluation})


def _layer(shape: ModelShape, layer: LayerShape, plan: AdapterPlan, step: Step, base: Footprint) -> _Layer:
    """Bytes of one layer."""
    blocks = layer.blocks
    width = activation_bytes(step)
    ranks = {module.path: module.r for module in plan.modules}
    # An A in a wider type than its input gets a copy of its own.
    copies = BYTES_OF[step.dtypes.adapter] if BYTES_OF[step.dtypes.adapter] > width else 0
    kept = 2 * 4 * shape.hidden + 8
    widest = 0
    for block in blocks:
        if step.tiles and is_tiled(block):
            # A piece at a time, from the normalized states; its output and gradient are there as a whole.
            kept += width * shape.hidden
            per_piece = _kept_per_token(block, ranks, width, copies, step)
            widest = max(widest, (per_piece + 3 * width * (block.back[1] if block.back else 0)) // PIECES)
            continue
        kept += block.per_token * _kept_per_token(block, ranks, width, copies, step)
        inner = block.back[1] if block.back else 0
        widest = max(widest, block.per_token * (3 if block.is_gated else 2) * width * inner)
    if shape.heads:
        kept += 4 * shape.heads
    gradients = (10 if copies else width) * shape.hidden
    passing = max(
        step.tokens * (widest + gradients),
        step.tokens * (widest // 3 + 2 * width * shape.hidden) + _unpacked(base, step),
    )
    forward = step.tokens * (widest + width * shape.hidden) + _unpacked(base, step)
    scores = shape.heads * step.batch * step.length**2 if shape.holds_scores or step.attention == "eager" else 0
    # PEFT adds B·A as a whole to the weights of experts, and keeps the sum for the backward pass.
    merged = sum(width * block.experts * _adapted_weights(block, ranks) for block in blocks)
    if plan.builds_weight:
        # Each weight has a ΔW of its own, in float32 as the method's parameters, kept for the backward pass.
        merged += sum(4 * _adapted_weights(block, ranks) for block in blocks)
    held, passing_scores = kept * step.tokens + merged + _KEPT_PER_SCORE * scores, _PASSING_PER_SCORE * scores
    return _Layer(held, passing + passing_scores, forward + passing_scores)


def is_tiled(block: Block) -> bool:
    """Whether a block is an MLP that can be computed in pieces."""
    return bool(block.back) and not block.experts and block.per_token == 1 and "attn" not in block.path


def _kept_per_token(block: Block, ranks: dict[str, int], width: int, copies: int, step: Step) -> int:
    """Bytes that a block keeps of each token until its backward pass.

    Args:
        ranks: by the name of each adapted layer.
        copies: bytes of a number in the copy that an A gets of its input; 0 if it gets none.
    """
    kept = sum(width * out for _, _, out in block.inward)
    back = f"{block.path}.{block.back[0]}" if block.back else ""
    if block.back:
        kept += width * block.back[1]
        if block.is_gated and back in ranks:
            kept += width * block.back[1]
    targets = [(name, into) for name, into, _ in block.inward if f"{block.path}.{name}" in ranks]
    if step.dropout > 0:
        kept += sum((BYTES_OF[step.dtypes.adapter] + 1) * into for _, into in targets)
        kept += (BYTES_OF[step.dtypes.adapter] + 1) * block.back[1] if block.back and back in ranks else 0
    elif copies:
        kept += sum(copies * into for _, into in targets)
        kept += copies * block.back[1] if block.back and back in ranks else 0
    elif targets:
        kept += width * targets[0][1]
    names = [f"{block.path}.{name}" for name, _, _ in block.inward] + [back]
    return kept + sum(BYTES_OF[step.dtypes.adapter] * ranks.get(name, 0) for name in names)


def _adapted_weights(block: Block, ranks: dict[str, int]) -> int:
    """Elements of a block's adapted weights; of one expert, where it has experts."""
    stacks = [*block.inward, block.back] if block.back else block.inward
    return sum(into * out for name, into, out in stacks if f"{block.path}.{name}" in ranks)


def _unpacked(base: Footprint, step: Step) -> int:
    """Bytes of the largest unpacked weight: a whole weight is unpacked into the compute dtype to use it."""
    if not step.storage.is_unpacked_whole:
        return 0
    constants = 8 * base.largest_weight // 64 if step.storage.double_quant else 0
    return BYTES_OF[step.compute] * base.largest_weight + constants


def _loss(shape: ModelShape, step: Step, width: int) -> tuple[int, int]:
    """Bytes while the loss is computed, and bytes of the logits that stay in memory during the backward pass."""
    if step.reads_texts:
        # The gradient of all states, which is zero but for the last one of each text.
        return width * step.tokens * shape.hidden, 0
    if step.variant == "plain":
        logits = width * step.tokens * shape.vocabulary
        return 12 * step.tokens * shape.vocabulary + logits, logits
    tile = min(step.tokens, LOSS_TILE_TOKENS) * LOSS_TILE_WIDTH * BYTES_OF[step.compute]
    # The rows of the targets and the states in float32.
    smoothing = 2 * 4 * step.tokens * shape.hidden if step.smooths else 0
    return tile + (2 * width + 4) * step.tokens * shape.hidden + 12 * 4 * step.tokens + smoothing, 0
