"""Runs one micro-batch of a step on recorded tensors: this program's step, or that of notebooks. Imports torch."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch

from workbench.estimate.step import Step
from workbench.estimate.trace.autocast import CudaAutocast
from workbench.estimate.trace.head import TiledLoss
from workbench.estimate.trace.kernels import cuda_like, workspace_of
from workbench.estimate.trace.monomial import Probe
from workbench.estimate.trace.on_meta import resting_tensors
from workbench.estimate.trace.points import BACKWARD, EARLIER, FORWARD, HANDLE, INPUTS, LOGITS, LOSS, TILE
from workbench.estimate.trace.recorder import StorageRecorder


class StepRecorder(StorageRecorder):
    """A recorder that also records the loss tile, the only block whose size is not a product.

    ``held`` is what the training loop holds of a step until the next one has replaced it.
    """

    held: Sequence[object] = ()

    def handle(self) -> None:
        """Mark the first matrix product of the backward pass."""
        self.passing(1, HANDLE)

    def tile(self) -> None:
        self.passing(1, TILE)


@contextmanager
def recording(model: torch.nn.Module) -> Iterator[StepRecorder]:
    """Within, what is allocated on the meta device beside the model is recorded, as CUDA would allocate it."""
    recorder = StepRecorder("meta", workspace_of)
    recorder.ignore(resting_tensors(model))
    gc.collect()
    gc.disable()
    try:
        with cuda_like(), recorder:
            yield recorder
    finally:
        gc.enable()


def run_micro_batch(
    model: torch.nn.Module,
    step: Step,
    probe: Probe,
    recorder: StepRecorder,
    autocast: AbstractContextManager[object],
    device: str = "meta",
) -> list[object]:
    """One micro-batch; returns what the loop still holds of it when the optimizer runs."""
    recorder.label = INPUTS
    ids, labels, mask = (torch.zeros((probe.batch, probe.length), dtype=torch.long, device=device) for _ in range(3))
    inputs = {"input_ids": ids, "use_cache": False}
    if step.is_masked:
        inputs["attention_mask"] = mask
    run = _plain if step.variant == "plain" and not step.reads_texts else _tiled
    return run(model, step, inputs, labels, recorder, autocast)


def held_out_loss(
    model: torch.nn.Module,
    step: Step,
    probe: Probe,
    recorder: StepRecorder,
    autocast: AbstractContextManager[object],
    device: str = "meta",
) -> None:
    """The loss of a batch of held-out records, as the workbench computes it: in evaluation mode, without gradients."""
    recorder.label = INPUTS
    inputs = {
        "input_ids": torch.zeros((probe.batch, probe.length), dtype=torch.long, device=device),
        "use_cache": False,
    }
    with torch.no_grad(), autocast:
        _loss_of(model, step, inputs, recorder)
    recorder.passing(1, LOSS)


def _tiled(
    model: torch.nn.Module,
    step: Step,
    inputs: dict[str, Any],
    _: torch.Tensor,
    recorder: StepRecorder,
    autocast: AbstractContextManager[object],
) -> list[object]:
    """The workbench's step: never all logits; for classification none, only a head on the last state of each text."""
    with autocast:
        loss = _loss_of(model, step, inputs, recorder)
    loss.backward()
    return []


def _loss_of(model: Any, step: Step, inputs: dict[str, Any], recorder: StepRecorder) -> torch.Tensor:
    base = model.get_base_model()
    recorder.label = FORWARD
    hidden = without_head(base)(**inputs).last_hidden_state
    loss: torch.Tensor
    if step.reads_texts:
        recorder.label = LOSS
        loss = base.score(hidden[:, -1].to(base.score.weight.dtype)).float().sum()
        recorder.label = BACKWARD
        recorder.handle()
    else:
        head = base.get_output_embeddings()
        # PEFT's wrapper for trained rows has no bias.
        loss = TiledLoss.apply(hidden, head.weight, getattr(head, "bias", None), recorder)
        if step.smooths:
            # As `lead_of_targets` of the loss head.
            recorder.label = LOSS
            loss = loss + (hidden.float() * torch.empty_like(hidden, dtype=torch.float32)).sum(-1).sum()
            recorder.label = BACKWARD
    return loss


def _plain(
    model: torch.nn.Module,
    step: Step,
    inputs: dict[str, Any],
    labels: torch.Tensor,
    recorder: StepRecorder,
    autocast: AbstractContextManager[object],
) -> list[object]:
    """``model(…, labels=…).loss.backward()``, of ``Trainer`` or of a loop that keeps the outputs."""
    base = model.get_base_model()
    earlier = _logits_before(base, step, labels, recorder) if step.keeps_outputs else None
    recorder.label = FORWARD
    with _labeled_loss(base, recorder), autocast:
        outputs = model(**inputs, labels=labels)
    del earlier
    loss = outputs.loss
    if not step.keeps_outputs:
        if step.autocast:
            # accelerate returns outputs in float32 (``convert_outputs_to_fp32``).
            outputs.logits = outputs.logits.float()
        del outputs
    recorder.label = LOSS
    loss.backward()
    return [labels, loss, outputs] if step.keeps_outputs else []


def _logits_before(base: torch.nn.Module, step: Step, labels: torch.Tensor, recorder: StepRecorder) -> torch.Tensor:
    """The logits of the step before."""
    recorder.label = EARLIER
    head = base.get_output_embeddings()
    dtype = getattr(torch, step.autocast) if step.autocast else head.weight.dtype
    return torch.empty((*labels.shape, head.weight.shape[0]), dtype=dtype, device=labels.device)


@contextmanager
def _labeled_loss(base: torch.nn.Module, recorder: StepRecorder) -> Iterator[None]:
    """Within this context, what the output layer and the loss allocate is labeled so, forward and backward."""
    head = base.get_output_embeddings()

    def enter(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        recorder.label = LOGITS
        if inputs[0].requires_grad:
            inputs[0].register_hook(leave)

    def leave(_: torch.Tensor) -> None:
        recorder.handle()
        recorder.label = BACKWARD

    def loss(*args: Any, **kwargs: Any) -> Any:
        recorder.label = LOSS
        return plain_loss(*args, **kwargs)

    plain_loss = base.loss_function
    handle = head.register_forward_pre_hook(enter)
    base.loss_function = loss
    try:
        yield
    finally:
        handle.remove()
        base.loss_function = plain_loss


def autocast_of(model: torch.nn.Module, step: Step) -> AbstractContextManager[object]:
    """The step's autocast; checkpointed layers enter it when they are computed again, as torch's checkpointing does."""
    if not step.autocast:
        return nullcontext()
    autocast = CudaAutocast(getattr(torch, step.autocast))

    def checkpointed(checkpoint: Callable[..., Any], layer: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        def run(*values: Any, **named: Any) -> Any:
            with autocast:
                return layer(*values, **named)

        return checkpoint(run, *args, **kwargs)

    for module in model.modules():
        if hasattr(module, "_gradient_checkpointing_func"):
            module._gradient_checkpointing_func = partial(checkpointed, module._gradient_checkpointing_func)
    return autocast


def without_head(model: torch.nn.Module) -> torch.nn.Module:
    """The part of a model that computes its last states; some architectures name themselves as ``base_model``."""
    inner: torch.nn.Module = model.base_model
    if inner is model:
        inner = next((getattr(model, name) for name in ("model", "language_model") if hasattr(model, name)), model)
    return inner if inner is model or not hasattr(inner, "lm_head") else without_head(inner)
