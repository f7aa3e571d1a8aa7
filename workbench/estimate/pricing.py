"""Predicts the peak memory of setups on one model and one device; caches the parts that setups share."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from workbench.adapters.settings import AdapterSettings
from workbench.estimate.adapter.plan import AdapterDtypes, AdapterPlan, plan_adapter
from workbench.estimate.closed_form import closed_form_peak
from workbench.estimate.footprint import Footprint, Storage, measure_base
from workbench.estimate.host_memory import host_checkpoint_bytes
from workbench.estimate.layer_shape import model_shape
from workbench.estimate.loading import loading_peak
from workbench.estimate.peak import Peak, PhasePeak, on_device
from workbench.estimate.setup import Setup
from workbench.estimate.step import Step, Variant, plan_step
from workbench.estimate.trace.allocator import CachingAllocator
from workbench.estimate.trace.predict import peak_from, replayed_peak
from workbench.estimate.trace.resting import resting_of
from workbench.estimate.trace.store import TraceStore
from workbench.machine.device import Device
from workbench.models.skeleton import Skeleton

Tracer = Callable[[Skeleton, AdapterSettings, Step, AdapterPlan], Peak | None]
"""Looks up the peak of a traced step; None if there is no trace of the step yet."""


@dataclass(frozen=True)
class Pricing:
    """Predicts the memory of training setups on one model and one device.

    Attributes:
        traced: looks up traced steps; None for the traces that come with the package.
        variant: ``plain`` predicts for the training step of common notebooks, ``workbench`` for our own.
    """

    skeleton: Skeleton
    device: Device
    traced: Tracer | None = None
    variant: Variant = "workbench"

    def step(self, setup: Setup) -> Step:
        """The training step of a setup on this device."""
        return plan_step(setup, self.device, self.variant)

    def adapter(self, setup: Setup) -> AdapterPlan:
        """The adapter of a setup.

        Raises:
            WorkbenchError: PEFT would refuse the adapter for this model.
        """
        return _cached_plan(self.skeleton, setup.adapter, self.step(setup).dtypes)

    def base(self, setup: Setup) -> Footprint:
        """The frozen base as it is loaded, before any preparation."""
        return _cached_base(self.skeleton, self.step(setup).loaded)

    def peak(self, setup: Setup, *, all_phases: bool = False) -> Peak:
        """The predicted peak memory: from a trace of the step if there is one, else by formula.

        Args:
            all_phases: also the evaluation of a step that was traced before evaluations were. It needs a formula more,
                and is never the highest phase.

        Raises:
            WorkbenchError: PEFT would refuse the adapter for this model.
        """
        step = self.step(setup)
        plan = _cached_plan(self.skeleton, setup.adapter, step.dtypes)
        peak = (self.traced or _SHIPPED_TRACES)(self.skeleton, setup.adapter, step, plan)
        if peak is None:
            peak = closed_form_peak(model_shape(self.skeleton), _cached_base(self.skeleton, step.storage), plan, step)
        return self._complete(setup, step, plan, peak, all_phases=all_phases)

    def replayed_peak(self, setup: Setup) -> Peak:
        """The peak of a traced step with what PyTorch's allocator does at exactly these sizes. Takes up to a second.

        Where the step was not traced, it is :meth:`peak` with all phases.

        Raises:
            WorkbenchError: PEFT would refuse the adapter for this model.
        """
        step, store = self.step(setup), self.traced or _SHIPPED_TRACES
        timeline = store.find(self.skeleton, setup.adapter, step) if isinstance(store, TraceStore) else None
        if timeline is None or timeline.tape is None or self.device.kind == "cpu":
            return self.peak(setup, all_phases=True)
        plan = _cached_plan(self.skeleton, setup.adapter, step.dtypes)
        r = setup.adapter.r
        varied = () if setup.is_packed else tuple((step.batch, length, r) for length in _lengths(setup))
        resting = resting_of(self.skeleton, plan, step)
        peak = replayed_peak(
            timeline,
            peak_from(timeline, _cached_base(self.skeleton, step.storage), plan, step, r),
            resting,
            ((step.batch, step.length, r),) * _REPLAYED_STEPS,
            varied,
        )
        heap = CachingAllocator()
        heap.replay(resting.loading)
        return self._complete(setup, step, plan, peak, heap.peak_reserved, all_phases=True)

    def _complete(
        self,
        setup: Setup,
        step: Step,
        plan: AdapterPlan,
        peak: Peak,
        loading_reserved: int = 0,
        *,
        all_phases: bool,
    ) -> Peak:
        others = dict(peak.others)
        if all_phases and "evaluation" not in others:
            # The step was traced before evaluations were.
            formula = closed_form_peak(
                model_shape(self.skeleton), _cached_base(self.skeleton, step.storage), plan, step
            )
            # The same forward pass is a part of the step, whose allocator it finds.
            evaluated = min(formula.others["evaluation"].allocated_bytes, peak.allocated_bytes)
            reserved = int(evaluated * peak.reserved_bytes / peak.allocated_bytes)
            others["evaluation"] = PhasePeak(evaluated, reserved)
        loading = loading_peak(self.skeleton, step.loaded, step.storage)
        peak = replace(peak, others={"loading": PhasePeak(loading, max(loading_reserved, loading)), **others})
        if setup.keeps_start:
            peak = peak.with_more("adapters", plan.added_bytes)
        if step.offloads:
            peak = replace(peak, host_bytes=host_checkpoint_bytes(model_shape(self.skeleton), step))
        return on_device(self.device, peak)


_REPLAYED_STEPS = 3


def _lengths(setup: Setup) -> tuple[int, ...]:
    """Lengths of steps as they come in training: now the longest record, now a usual one, now one between them."""
    longest = setup.length
    usual = min(setup.median or longest // 2, longest)
    between = (longest + usual) // 2
    return usual, longest, between, longest, usual, longest


_SHIPPED_TRACES = TraceStore()


# Cached, since each keystroke in a form asks for a new prediction but changes only one setting.
@lru_cache(maxsize=256)
def _cached_plan(skeleton: Skeleton, settings: AdapterSettings, dtypes: AdapterDtypes) -> AdapterPlan:
    return plan_adapter(skeleton, settings, dtypes)


@lru_cache(maxsize=256)
def _cached_base(skeleton: Skeleton, storage: Storage) -> Footprint:
    return measure_base(skeleton, storage)
