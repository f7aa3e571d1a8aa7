"""Computes the loss of the trained tokens through a model's own ``forward``, without holding all logits.

The model's ``forward`` runs as it is, except that its output layer does not project: it hands over the states that it
was called with. So whatever a model does before its output layer (a prediction head, a width multiplier) is in them.
What it does to the logits afterwards (a factor, a soft cap, a smaller vocabulary) is not read from its configuration,
where every family uses other names, but measured: once, the output layer returns known numbers, and the function that
the model has applied to them is fitted. A router's balancing loss is the model's own too.

Where that does not work (an adapter on the output layer, logits of single tokens that are masked), the model's own
logits are used, of the trained positions only. An exported script contains this text: nothing of the project is
imported.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps

import torch
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput
from trl.kernels import ChunkedLogProbFunction
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling
from trl.trainer.utils import FusedCausalLMOutput, maybe_gather_lm_head_ctx

# Vocabulary entries that the head computes at once, without and with a GPU: a CPU holds about six copies of them.
_TILE = (4096, 32768)
# Powers of two, so that a factor is measured exactly; the last one saturates every cap.
_PROBES = (0.0, 2.0**-10, -(2.0**-10), 0.5, -0.5, 4.0, -4.0, 32.0, -32.0, -(2.0**30), 2.0**30)
_SMALL, _HUGE = 1, 10


class TrainedTokensCollator(DataCollatorForLanguageModeling):
    """TRL's collator, whose batches also say where tokens are trained (:func:`add_trained_positions`).

    Records that were packed into one example are padded each by itself, unless the batch has no padding.
    """

    def torch_call(self, examples: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        if not self.padding_free:
            examples = [record for example in examples for record in _unpacked(example)]
        return add_trained_positions(super().torch_call(examples))


def _unpacked(example: dict[str, list[int]]) -> Iterator[dict[str, list[int]]]:
    """The records of a packed example, or the example itself."""
    columns = {name: values for name, values in example.items() if name in ("input_ids", "labels")}
    start = 0
    for length in example.get("seq_lengths") or [len(example["input_ids"])]:
        yield {name: values[start : start + length] for name, values in columns.items()}
        start += length


def add_trained_positions(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Add the positions that predict a trained token. Done on the CPU, so that the GPU never waits for them.

    ``trained_positions``: indices into the batch's states with its rows concatenated; (trained,). ``shift_labels``: the
    tokens to predict there; (1, trained).
    """
    next_labels = batch["labels"][:, 1:]
    rows, columns = (next_labels != -100).nonzero(as_tuple=True)
    batch["trained_positions"] = rows * batch["labels"].shape[1] + columns
    batch["shift_labels"] = next_labels[rows, columns][None]
    return batch


@dataclass(frozen=True)
class LogitMap:
    """What a model does to the output layer's logits z: ``cap · tanh(factor · z / cap)``, or ``factor · z``.

    Attributes:
        cap: None for none.
        vocabulary: entries that are kept, the first ones.
    """

    factor: float
    cap: float | None
    vocabulary: int

    @classmethod
    def measured(cls, results: torch.Tensor) -> "LogitMap":
        """Fit what a model returned for :data:`_PROBES`; (1, probes, vocabulary).

        Raises:
            NotImplementedError: it is another function, or not the same one for each token.
        """
        if results.dim() != 3 or results.shape[:2] != (1, len(_PROBES)):
            raise NotImplementedError("the model rearranges its logits")
        if bool((results != results[..., :1]).any()):
            raise NotImplementedError("the model changes the logits of single tokens")
        values = [float(value) for value in results[0, :, 0]]
        factor = values[_SMALL] / _PROBES[_SMALL]
        factor = 1.0 if math.isclose(factor, 1, rel_tol=1e-5) else factor
        cap = abs(values[_HUGE]) if abs(values[_HUGE]) < 0.5 * abs(factor) * _PROBES[_HUGE] else None
        fitted = cls(factor, cap, results.shape[-1])
        if not all(
            math.isclose(value, fitted(probe), rel_tol=3e-5, abs_tol=1e-9)
            for value, probe in zip(values, _PROBES, strict=True)
        ):
            raise NotImplementedError("the model transforms its logits in a way of its own")
        return fitted

    def __call__(self, logit: float) -> float:
        scaled = self.factor * logit
        return scaled if self.cap is None else self.cap * math.tanh(scaled / self.cap)


class LossHead:
    """Makes a causal language model accept ``fused_lm_head=True`` with batches of :class:`TrainedTokensCollator`.

    It then returns the log-probabilities of the trained tokens instead of logits. Every other call is unchanged. The
    head is the ``forward`` attribute of this one model object.

    Args:
        in_tiles: project the trained states in tiles, without holding their logits. Otherwise they are the model's own.
        router_loss_is_zero: return the router's balancing loss with the value 0 and its gradient, for a trainer that
            adds it to the loss that it reports.
        label_smoothing: the share of the probability that training spreads over the whole vocabulary; evaluations are
            without it. The log-probabilities of a training step are then those of the smoothed target.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        in_tiles: bool = True,
        router_loss_is_zero: bool = False,
        label_smoothing: float = 0.0,
    ) -> None:
        self._model = model
        self._in_tiles = in_tiles
        self._router_loss_is_zero = router_loss_is_zero
        self._label_smoothing = label_smoothing
        self._logit_map: LogitMap | None = None
        self._had_forward = "forward" in model.__dict__
        self._own_forward: Callable[..., ModelOutput] = model.forward

        # `generate` checks its arguments against the signature.
        @wraps(type(model).forward)
        def forward(*args: torch.Tensor, fused_lm_head: bool = False, **kwargs: torch.Tensor) -> ModelOutput:
            return self._loss(*args, **kwargs) if fused_lm_head else self._own_forward(*args, **kwargs)

        model.forward = forward

    def remove(self) -> None:
        """Restore the model's ``forward``."""
        del self._model.forward
        if self._had_forward:
            self._model.forward = self._own_forward

    def _loss(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> ModelOutput:
        labels = kwargs.pop("labels", None)
        if "trained_positions" not in kwargs:
            kwargs |= add_trained_positions({"labels": labels})
            del kwargs["labels"]
        positions, targets = kwargs.pop("trained_positions"), kwargs.pop("shift_labels")[0]
        kwargs.pop("num_items_in_batch", None)
        kwargs["use_cache"] = False
        head = self._model.get_output_embeddings()
        compute = self._in_tiled_head if self._in_tiles and _is_linear(head) else self._in_own_logits
        log_probs, is_top1, outputs = compute(head, positions, targets, args, kwargs)
        balancing = getattr(outputs, "aux_loss", None)
        if self._router_loss_is_zero and balancing is not None:
            balancing = balancing - balancing.detach()
        return FusedCausalLMOutput(
            log_probs=log_probs[None],
            # Not computed here; TRL's own trainer sums it up for its log.
            entropy=torch.zeros_like(log_probs[None]),
            is_top1=is_top1[None],
            label_mask=torch.ones_like(targets[None], dtype=torch.bool),
            aux_loss=balancing,
        )

    @property
    def _smooths(self) -> bool:
        return bool(self._label_smoothing) and self._model.training

    def _in_tiled_head(
        self,
        head: torch.nn.Linear,
        positions: torch.Tensor,
        targets: torch.Tensor,
        args: tuple[torch.Tensor, ...],
        kwargs: dict[str, torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor, ModelOutput]:
        seen: list[torch.Tensor] = []

        def record(states: torch.Tensor) -> torch.Tensor:
            seen.append(states)
            if self._logit_map is not None:
                return torch.zeros_like(states[..., :1])
            probes = torch.tensor(_PROBES, device=states.device)[None, :, None]
            return probes.expand(1, -1, head.out_features)

        with _forward_of(head, record):
            outputs = self._own_forward(*args, **kwargs)
        if len(seen) != 1:
            raise NotImplementedError(f"the model calls its output layer {len(seen)} times")
        if self._logit_map is None:
            self._logit_map = LogitMap.measured(outputs.logits)
        logit_map, weight, bias = self._logit_map, head.weight, head.bias
        # With FSDP2 they are sharded, while the states are not.
        if isinstance(weight, DTensor):
            weight, bias = weight.full_tensor(), None if bias is None else bias.full_tensor()
        states = seen[0].reshape(-1, seen[0].shape[-1]).to(weight.device).index_select(0, positions.to(weight.device))
        with maybe_gather_lm_head_ctx(weight, bias):
            log_probs, _, _, _, is_top1 = ChunkedLogProbFunction.apply(
                states,
                weight[: logit_map.vocabulary],
                None if bias is None else bias[: logit_map.vocabulary],
                targets.to(weight.device),
                1.0,
                _TILE[states.is_cuda],
                logit_map.cap,
                logit_map.factor,
                ("is_top1",),
            )
            if self._smooths:
                lead = lead_of_targets(states, weight[: logit_map.vocabulary], bias, targets, logit_map)
                log_probs = log_probs - self._label_smoothing * lead
        return log_probs, is_top1, outputs

    def _in_own_logits(
        self,
        head: torch.nn.Module | None,
        positions: torch.Tensor,
        targets: torch.Tensor,
        args: tuple[torch.Tensor, ...],
        kwargs: dict[str, torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor, ModelOutput]:
        calls = 0

        def keep_trained(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            nonlocal calls
            calls += 1
            states = inputs[0]
            return (states.reshape(-1, states.shape[-1]).index_select(0, positions)[None], *inputs[1:])

        hook = head.register_forward_pre_hook(keep_trained) if head is not None else None
        try:
            outputs = self._own_forward(*args, **kwargs)
        finally:
            if hook is not None:
                hook.remove()
        logits = outputs.logits.reshape(-1, outputs.logits.shape[-1])
        if calls == 0:
            logits = logits.index_select(0, positions)
        logits = logits.float()
        log_probs = -torch.nn.functional.cross_entropy(logits, targets.to(logits.device), reduction="none")
        if self._smooths:
            lead = logits.gather(1, targets.to(logits.device)[:, None])[:, 0] - logits.mean(-1)
            log_probs = log_probs - self._label_smoothing * lead
        return log_probs, logits.argmax(-1) == targets.to(logits.device), outputs


def lead_of_targets(
    states: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    logit_map: LogitMap,
) -> torch.Tensor:
    """By how much each target's logit exceeds the mean of all; (targets,), float32.

    With it, the loss of a smoothed target is ``-log p + label_smoothing · lead``. Without a cap the mean logit is that
    of the mean row of the output layer, so that no logits are held; with one it is summed up in tiles.

    Args:
        weight: rows of the vocabulary; ``bias`` may have more.
    """
    targets = targets.to(weight.device)
    bias = None if bias is None else bias[: len(weight)]
    factor, cap = logit_map.factor, logit_map.cap
    if cap is None:
        direction = weight[targets].float() - weight.mean(0, dtype=torch.float32)
        lead = (states.float() * direction).sum(-1)
        if bias is not None:
            lead = lead + (bias[targets].float() - bias.mean(dtype=torch.float32))
        return factor * lead

    def capped(logits: torch.Tensor) -> torch.Tensor:
        return cap * torch.tanh(factor * logits / cap)

    def sum_of_tile(some: torch.Tensor, rows: torch.Tensor, offsets: torch.Tensor | None) -> torch.Tensor:
        return capped(torch.nn.functional.linear(some, rows, offsets).float()).sum(-1)

    own = (states.float() * weight[targets].float()).sum(-1) + (0.0 if bias is None else bias[targets].float())
    total = torch.zeros_like(own)
    size = _TILE[states.is_cuda]
    for start in range(0, len(weight), size):
        offsets = None if bias is None else bias[start : start + size]
        # Computed again in the backward pass, so that no tile is kept.
        total = total + checkpoint(sum_of_tile, states, weight[start : start + size], offsets, use_reentrant=False)
    return capped(own) - total / len(weight)


def _is_linear(head: torch.nn.Module | None) -> bool:
    """Whether a head is a plain projection: not quantized, and without an adapter of its own."""
    return isinstance(head, torch.nn.Linear) and type(head).forward is torch.nn.Linear.forward


@contextmanager
def _forward_of(module: torch.nn.Module, forward: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Within, a module computes something else. Its hooks still run."""
    before = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        del module.__dict__["forward"]
        if before is not None:
            module.__dict__["forward"] = before
