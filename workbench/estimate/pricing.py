"""Predicted peaks on one model and one device; what has been worked out for a model is kept between calls."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from workbench.estimate.adapter.plan import AdapterDtypes, AdapterPlan, plan_adapter
from workbench.estimate.adapter.settings import LoraSettings
from workbench.estimate.closed_form import closed_form_peak
from workbench.estimate.footprint import Footprint, Storage, measure_base
from workbench.estimate.layer_shape import model_shape
from workbench.estimate.peak import Peak, on_device
from workbench.estimate.setup import Setup
from workbench.estimate.step import Step, Variant, plan_step
from workbench.estimate.trace.store import TraceStore
from workbench.machine.device import Device
from workbench.models.skeleton import Skeleton

Tracer = Callable[[Skeleton, LoraSettings, Step, AdapterPlan], Peak | None]
"""Looks up the peak of a traced step; None where there is no trace yet."""


@dataclass(frozen=True)
class Pricing:
    """Predicts what setups take on one model.

    Attributes:
        traced: where traced steps are kept; None for those that come with the package.
        variant: ``plain`` prices the step of common notebooks instead of ours.
    """

    skeleton: Skeleton
    device: Device
    traced: Tracer | None = None
    variant: Variant = "workbench"

    def step(self, setup: Setup) -> Step:
        """The training step that is priced."""
        return plan_step(setup, self.device, self.variant)

    def adapter(self, setup: Setup) -> AdapterPlan:
        """The adapter of a setup.

        Raises:
            WorkbenchError: PEFT would refuse the adapter for this model.
        """
        return _plan(self.skeleton, setup.adapter, self.step(setup).dtypes)

    def base(self, setup: Setup) -> Footprint:
        """The frozen base as it is loaded, before any preparation."""
        return _base(self.skeleton, self.step(setup).loaded)

    def peak(self, setup: Setup) -> Peak:
        """The predicted peak: of a traced step where there is one, else by formula.

        Raises:
            WorkbenchError: PEFT would refuse the adapter for this model.
        """
        step = self.step(setup)
        plan = _plan(self.skeleton, setup.adapter, step.dtypes)
        peak = (self.traced or _SHIPPED)(self.skeleton, setup.adapter, step, plan)
        if peak is None:
            peak = closed_form_peak(model_shape(self.skeleton), _base(self.skeleton, step.storage), plan, step)
        return on_device(self.device, peak)


_SHIPPED = TraceStore()


# Between two keystrokes most of a recipe stays as it is.
@lru_cache(maxsize=256)
def _plan(skeleton: Skeleton, settings: LoraSettings, dtypes: AdapterDtypes) -> AdapterPlan:
    return plan_adapter(skeleton, settings, dtypes)


@lru_cache(maxsize=256)
def _base(skeleton: Skeleton, storage: Storage) -> Footprint:
    return measure_base(skeleton, storage)
