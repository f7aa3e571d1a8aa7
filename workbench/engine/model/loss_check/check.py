"""Checks, before a run, that its loss and its gradient are those of the model's own ``forward``.

Architectures differ in what they do before and after their output layer, in their attention, and in what else mixes
tokens. Where a fast path gets one of these wrong, a run trains on another loss than the one it reports, and nobody
notices. So each path is tried on a few real records before it is used, against plain transformers: each record alone,
unpadded, ``forward(labels=…)``. The first path that agrees is taken.
"""

import math
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.engine.kernels.loss_path import PADDED, LossPath
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.hardware import free_cached_memory
from workbench.engine.model.loss_check.records import check_records, halved
from workbench.engine.model.memory_errors import is_out_of_memory
from workbench.models.tokenizers import pad_token_id

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

    from workbench.engine.model.loss_check.records import Record

# Rounding errors add up like a random walk; four times its standard deviation is exceeded once in 16,000 times.
_DEVIATIONS = 4.0
# Half a unit in the last place, relative; int8 rounds activations to 1/127 of the largest of their row.
_ROUNDING = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
_INT8_ROUNDING = 2.0**-7
_EXCHANGED_EXPERTS = 4.0
# A gradient that is off by more is another gradient, however deep the model.
_LARGEST_GRADIENT_BOUND = 0.3


@dataclass(frozen=True)
class Measured:
    """Loss and gradient of the check's records.

    Attributes:
        loss: mean over the trained tokens, in nats.
        gradient: of the trained weights, one after the other, in float32; empty where nothing is trained.
        spread: standard deviation of a token's logits over the vocabulary, mean over the trained tokens; 0 if unknown.
    """

    loss: float
    gradient: "torch.Tensor"
    spread: float = 0.0

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.loss) and bool(self.gradient.isfinite().all())


@dataclass(frozen=True)
class Bound:
    """By how much loss and gradient may differ if nothing but rounding does.

    One layer rounds the residual stream a few times; relative to the stream, each time by at most the dtype's unit u,
    plus what adding up a row of d products in float32 loses, at most √d · 2⁻²⁴. Errors of n layers are independent, so
    they add up to √(2n) · (u + √d · 2⁻²⁴) in the last states, and, with the way back, to √(4n) · (…) in the gradient.
    Logits are a linear function of the states: they are off by that share of their spread over the vocabulary, and the
    mean loss of N tokens by a √N-th of it. A loss is itself rounded to float32. Routers of experts exchange experts of
    nearly equal weight when their scores are rounded otherwise: a few per cent of the tokens get, in a layer, an output
    that is off by a few per cent, about four times what rounding to 16 bits does by itself.

    Attributes:
        loss: in nats.
        gradient: ‖difference‖ / ‖gradient‖.
    """

    loss: float
    gradient: float

    @classmethod
    def of(cls, base: LoadedBase, reference: Measured, trained: int) -> "Bound":
        """The bound for a base's dtype and sizes.

        Args:
            trained: number of trained tokens.
        """
        config = base.model.config.get_text_config()
        layers = int(getattr(config, "num_hidden_layers", None) or 32)
        width = max(int(getattr(config, name, None) or 0) for name in ("hidden_size", "intermediate_size", "d_model"))
        unit = _INT8_ROUNDING if base.quantization.method == "int8" else _ROUNDING[base.precision.compute]
        if unit > _ROUNDING["float32"] and getattr(config, "num_experts_per_tok", None):
            unit *= _EXCHANGED_EXPERTS
        rounding = unit + math.sqrt(max(width, 1024)) * 2.0**-24
        states = _DEVIATIONS * rounding * math.sqrt(2 * layers)
        loss = states * max(reference.spread, 1.0) / math.sqrt(trained) + 2.0**-22 * max(abs(reference.loss), 1.0)
        return cls(loss, min(states * math.sqrt(2), _LARGEST_GRADIENT_BOUND))


@dataclass(frozen=True)
class LossCheck:
    """What the check found.

    Attributes:
        path: the path to take.
        problem: why a faster path was not taken, as a sentence's part; empty if the fastest one was.
        detail: what was compared, and by how much it differed.
    """

    path: LossPath
    problem: str = ""
    detail: str = ""


def check_loss(base: LoadedBase, records: "Dataset | Sequence[Record]") -> LossCheck:
    """Find the fastest path whose loss and gradient are the model's own. Changes nothing that lasts.

    It costs three passes, forward and backward, over at most some hundred tokens, where the first path agrees: less
    than two micro-batches of usual records. A GPU or host without memory for that gets shorter records.

    Args:
        records: have ``input_ids`` and ``labels``; those of the run.
    """
    samples = check_records(base.model, records)
    started = time.perf_counter()
    if not samples:
        return LossCheck(PADDED, "no record has a token to train")
    own_logits = LossPath(padding_free=False, in_tiles=False)
    while True:
        try:
            found = _Comparison(base, samples).run()
        except Exception as error:
            if not is_out_of_memory(error):
                # Processes of a run wait for this result; the run itself will say what is wrong.
                traceback.print_exc()
                return LossCheck(
                    own_logits, "its own forward could not be computed (the log of the run has the details)"
                )
            found = None
        free_cached_memory()
        if found is not None:
            break
        if max(len(sample["input_ids"]) for sample in samples) <= 8:
            return LossCheck(own_logits, "memory ran out while its loss was compared with the model's own")
        samples = halved(samples)
    tokens = sum(len(sample["input_ids"]) for sample in samples)
    seconds = time.perf_counter() - started
    detail = f"{found.detail}, on {len(samples)} records with {tokens} tokens, in {seconds:.1f} s"
    return LossCheck(found.path, found.problem, detail)


class _Comparison:
    """Compares paths with the model's own forward on the same records."""

    def __init__(self, base: LoadedBase, samples: "list[Record]") -> None:
        self._base = base
        self._samples = samples
        self._trained = sum(label != -100 for sample in samples for label in sample["labels"][1:])

    def run(self) -> LossCheck:
        with undisturbed(self._base):
            self._reference = self._measured_plainly()
            if not self._reference.is_finite:
                path = LossPath(padding_free=False, in_tiles=False, one_record=True)
                return LossCheck(path, "its own forward gives no finite loss or gradient on these records")
            self._bound = Bound.of(self._base, self._reference, self._trained)
            return self._first_that_agrees()

    def _first_that_agrees(self) -> LossCheck:
        problem = padded_here = why_padded_here(self._base)
        if not padded_here:
            problem, detail = self._difference(LossPath())
            if not problem:
                return LossCheck(LossPath(), "", detail)
        # Each record alone tells whether the output layer is at fault, or the layout.
        of_tiles, alone = self._difference(LossPath(padding_free=False, one_record=True))
        in_tiles = not of_tiles
        if of_tiles and not padded_here:
            of_row, detail = self._difference(LossPath(in_tiles=False))
            if not of_row:
                return LossCheck(LossPath(in_tiles=False), of_tiles, detail)
            problem = of_row
        of_padding, detail = self._difference(LossPath(padding_free=False, in_tiles=in_tiles))
        if not of_padding:
            return LossCheck(LossPath(padding_free=False, in_tiles=in_tiles), problem or of_tiles, detail)
        path = LossPath(padding_free=False, in_tiles=in_tiles, one_record=True)
        return LossCheck(path, of_padding, alone if in_tiles else "the model's own forward is used as it is")

    def _difference(self, path: LossPath) -> tuple[str, str]:
        """Try a path; returns what is wrong with it, empty if it agrees, and by how much it differs."""
        try:
            found = self._measured(path)
        except NotImplementedError as error:
            return str(error), ""
        except Exception as error:
            if is_out_of_memory(error):
                raise
            traceback.print_exc()
            layout = "records that lie in one row" if path.padding_free else "this form of a batch"
            return f"its code does not accept {layout} (the log of the run has the details)", ""
        reference, bound = self._reference, self._bound
        loss = abs(found.loss - reference.loss)
        norm = float(reference.gradient.norm())
        gradient = float((found.gradient - reference.gradient).norm()) / norm if norm else 0.0
        rounding = f"rounding: {bound.loss:.0e}, {bound.gradient:.0e}"
        detail = f"loss {loss:.1e} and gradient {gradient:.1e} from the model's own ({rounding})"
        if loss <= bound.loss and gradient <= bound.gradient:
            return "", detail
        from workbench.engine.model.loss_check.difference import first_difference

        part = first_difference(self._base, path, self._samples, bound.gradient)
        return f"{part}: {detail}", detail

    def _measured_plainly(self) -> Measured:
        """Each record alone and unpadded, through ``forward(labels=…)``."""
        import torch

        model, device = self._base.active, self._base.device
        losses, spreads = [], []
        for sample in self._samples:
            ids, labels = (torch.tensor([sample[name]], device=device) for name in ("input_ids", "labels"))
            trained = int((labels[:, 1:] != -100).sum())
            output = model(input_ids=ids, labels=labels, use_cache=False)
            loss = output.loss * (trained / self._trained)
            self._backward(loss)
            losses.append(float(loss.detach()))
            logits = output.logits.detach()[0, :-1][labels[0, 1:] != -100].float()
            spreads.append(float(logits.std(dim=-1).mean()) * trained / self._trained)
            del output, logits
        return Measured(math.fsum(losses), self._taken_gradient(), math.fsum(spreads))

    def _measured(self, path: LossPath) -> Measured:
        """All records as a batch of a path."""
        model = self._base.active
        collate = path.collator(pad_token_id(self._base.tokenizer))
        total = 0.0
        with self._base.loss_path(path):
            for records in [[sample] for sample in self._samples] if path.one_record else [self._samples]:
                inputs = {
                    name: value if isinstance(value, int) else value.to(self._base.device)
                    for name, value in collate(records).items()
                }
                log_probs = model(**inputs, use_cache=False, fused_lm_head=True).log_probs
                loss = -log_probs.sum() / self._trained
                self._backward(loss)
                total += float(loss.detach())
        return Measured(total, self._taken_gradient())

    def _backward(self, loss: "torch.Tensor") -> None:
        # The gradient of states would vanish in float16.
        if loss.requires_grad:
            (loss * self._scale).backward()

    def _taken_gradient(self) -> "torch.Tensor":
        import torch

        taken = []
        for parameter in self._base.active.parameters():
            if parameter.requires_grad:
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                taken.append(gradient.detach().float().flatten() / self._scale)
            parameter.grad = None
        return torch.cat(taken) if taken else torch.zeros(0)

    @property
    def _scale(self) -> float:
        return 1024.0 if self._base.precision.compute == "float16" else 1.0


def why_padded_here(base: LoadedBase) -> str:
    """Why no model like this one is trained without padding on this device; empty where it may be."""
    import torch

    device = base.device.type
    if device not in ("cpu", "cuda"):
        return f"padding-free batches are untested on {device}"
    if device == "cuda" and (base.precision.compute == "float32" or torch.cuda.get_device_capability() < (8, 0)):
        return "this GPU has no variable-length attention for this dtype"
    return ""


@contextmanager
def undisturbed(base: LoadedBase) -> Iterator[None]:
    """Within, nothing is random; afterwards generators, modes, gradients and settings are as before."""
    import torch

    from workbench.engine.model.randomness import preserved_random_state

    model, config = base.active, base.model.config.get_text_config()
    modes = [(module, module.training) for module in model.modules()]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters() if parameter.grad is not None]
    router = config.__dict__.get("output_router_logits")
    model.eval()
    for parameter, _ in gradients:
        parameter.grad = None
    if router:
        # A forward with labels would add the router's balancing loss, which depends on what lies in a batch.
        config.output_router_logits = False
    is_half = base.precision.compute == "float16"
    autocast: AbstractContextManager[object] = (
        torch.autocast(base.device.type, torch.float16) if is_half else nullcontext()
    )
    try:
        with preserved_random_state(), torch.enable_grad(), autocast:
            yield
    finally:
        if router:
            config.output_router_logits = router
        for parameter in model.parameters():
            parameter.grad = None
        for parameter, gradient in gradients:
            parameter.grad = gradient
        for module, mode in modes:
            module.training = mode
