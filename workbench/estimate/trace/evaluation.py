"""Traces what a run computes without gradients: losses of held-out records, and sampled replies. Imports torch."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from workbench.estimate.step import Step
from workbench.estimate.trace.micro_batch import StepRecorder, held_out_loss, recording
from workbench.estimate.trace.monomial import Probe
from workbench.estimate.trace.points import FORWARD, LOGITS, Event, highest_points, left_over, points_of
from workbench.estimate.trace.timeline import Evaluation

Run = Callable[[StepRecorder], object]


def trace_evaluation(
    model: torch.nn.Module, step: Step, probe: Probe, autocast: AbstractContextManager[object]
) -> Evaluation:
    """The highest moments of an evaluation with the batch of a training step, and of a reply to a prompt.

    Raises:
        Exception: anything, from an architecture that cannot run without data.
    """
    was_training = model.training
    model.eval()
    try:
        batch = _events(model, probe, lambda recorder: held_out_loss(model, step, probe, recorder, autocast))
        losses = highest_points(points_of(batch, step), probe.extents)
        if step.reads_texts:
            return Evaluation(losses)
        prompt = _events(model, probe, lambda recorder: prefill(model, probe.length, recorder, autocast))
    finally:
        model.train(was_training)
    return Evaluation(losses, highest_points(points_of(prompt, step), probe.extents), left_over(prompt, step))


def prefill(model: Any, length: int, recorder: StepRecorder, autocast: AbstractContextManager[object]) -> object:
    """The first pass of ``generate`` for one prompt of ``length`` tokens; returns the cache that it fills."""
    recorder.label = FORWARD
    ids, mask = (torch.zeros((1, length), dtype=torch.long, device="meta") for _ in range(2))
    with torch.no_grad(), autocast:
        outputs = model(input_ids=ids, use_cache=True, logits_to_keep=1)
        recorder.label = LOGITS
        scores = outputs.logits[:, -1].to(copy=True, dtype=torch.float32)
        recorder.passing(1, LOGITS)
    del ids, mask, scores
    return outputs.past_key_values


def _events(model: torch.nn.Module, probe: Probe, run: Run) -> list[Event]:
    with recording(model) as recorder:
        held = run(recorder)
    events = [
        Event(number, probe.factor(size) if size else None, label, label) for number, size, label in recorder.events
    ]
    del held
    return events
