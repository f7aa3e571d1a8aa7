"""Computes the peak memory from a timeline: the exact resting memory plus the highest moment of the step."""

from collections.abc import Sequence
from dataclasses import replace

from workbench.estimate.adapter.plan import AdapterPlan
from workbench.estimate.adapter.safetensors_size import BYTES_OF
from workbench.estimate.footprint import Footprint, rounded
from workbench.estimate.optimizer import optimizer_bytes
from workbench.estimate.peak import REPLY_TOKENS, TERMS, Peak, Phase, PhasePeak
from workbench.estimate.step import Step
from workbench.estimate.trace.replay import Resting, Sizes, replayed
from workbench.estimate.trace.timeline import Timeline
from workbench.machine.device import CUDA_CONTEXT_BYTES


def peak_from(timeline: Timeline, base: Footprint, plan: AdapterPlan, step: Step, rank: int) -> Peak:
    """The predicted peak of a traced step.

    Args:
        base: footprint of the base in the step's storage.
        plan: adapter in the step's types.
        rank: the recipe's r.
    """
    point, terms = timeline.highest(step.batch, step.length, rank)
    resting = _resting(base, plan, step)
    named = {name: resting.get(name, 0) + terms.get(name, 0) for name in TERMS}
    allocated = sum(named.values())
    named["cuda_context"] = CUDA_CONTEXT_BYTES
    overhead = timeline.overhead_at(step.tokens)
    others: dict[Phase, PhasePeak] = {}
    if timeline.evaluation is not None:
        evaluated = timeline.evaluation.bytes_at(step.batch, step.length, rank, timeline.extents, REPLY_TOKENS)
        evaluated += sum(resting.values())
        others["evaluation"] = PhasePeak(evaluated, int(evaluated * overhead))
    return Peak(allocated, max(int(allocated * overhead), allocated), named, point.moment, "trace", others=others)


def _resting(base: Footprint, plan: AdapterPlan, step: Step) -> dict[str, int]:
    """What lies on the device all the time, in bytes by term."""
    adapters, pieces = _adapter_blocks(plan)
    return {
        "weights": base.allocated_bytes - base.constant_bytes,
        "quantisation_constants": base.constant_bytes,
        "adapters": adapters,
        # A fused optimizer keeps its count of steps on the device, one number a tensor.
        "optimizer": optimizer_bytes(step.optimizer, plan) + (rounded(4) * pieces if "fused" in step.optimizer else 0),
        "workspace": 2 * step.workspace,
    }


def replayed_peak(
    timeline: Timeline, peak: Peak, resting: Resting, steps: Sequence[Sizes], varied: Sequence[Sizes] = ()
) -> Peak:
    """The same peak with the allocator's figures for exactly these steps.

    What it gives out in whole blocks counts as allocated too, and is shown with the workspace.

    Args:
        steps: sizes of the steps that are replayed.
        varied: other sizes that may come instead, for the range of reserved memory.
    """
    assert timeline.tape is not None
    allocator = replayed(timeline.tape, resting, steps)
    reserved = [allocator.peak_reserved]
    if varied:
        reserved.append(replayed(timeline.tape, resting, varied).peak_reserved)
    more = allocator.peak_allocated - peak.allocated_bytes
    terms = {**peak.terms, "workspace": peak.terms["workspace"] + more}
    return replace(
        peak,
        allocated_bytes=allocator.peak_allocated,
        reserved_bytes=reserved[0],
        reserved_range=(min(reserved), max(reserved)),
        terms=terms,
    )


def _adapter_blocks(plan: AdapterPlan) -> tuple[int, int]:
    """Bytes of what the adapter adds, with each tensor rounded as the allocator rounds; and how many there are."""
    exact = total = pieces = 0
    for module in plan.modules:
        for tensor in module.tensors:
            size = tensor.size * BYTES_OF[tensor.dtype(plan.dtype)]
            exact += size * module.count
            total += rounded(size) * module.count
            pieces += module.count
    return total + plan.added_bytes - exact, pieces
