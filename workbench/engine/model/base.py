"""The base model in memory, and what is attached to it: adapters, loss head, fused kernels."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.adapters.registry import adapter_method, method_of, peft_config
from workbench.engine.kernels.cpu_packing import CpuPacking
from workbench.engine.kernels.fused import AppliedKernels, apply_fused_kernels
from workbench.engine.kernels.loss_path import LossPath
from workbench.engine.model.adapter_folder import adapter_stamp
from workbench.engine.model.new_rows import expose_bias, trained_rows
from workbench.engine.model.output_dtype import keep_output_dtype
from workbench.engine.model.precision import Precision
from workbench.engine.model.sequence_adapter import SAVED_HEADS, TASK, SequenceHead
from workbench.errors import WorkbenchError
from workbench.models.language_part import exclusion_pattern, frozen_parts
from workbench.models.model_class import check_can_classify
from workbench.models.sources import LocalModel
from workbench.models.stored_quantization import StoredQuantization
from workbench.recipe.fused_kernels import Fused
from workbench.recipe.sections.adapter import AdapterSection
from workbench.recipe.sections.model import ModelSection
from workbench.recipe.sections.quantization import QuantizationSection

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Name of the trained adapter inside PEFT, which saves the one of this name at the top of a folder, as tools expect.
TRAINED = "default"


@dataclass
class LoadedBase:
    """A frozen base model, quantized, with its tokenizer and the adapters attached to it.

    Attributes:
        asked: the quantization that was asked for; ``quantization`` is the one that the base has.
        stored: how the model's files quantize the base; None if they do not.
        model: the plain transformers model.
        footprint: size of the base in bytes, as transformers counts it.
        peft: wraps ``model`` while any adapter is attached, else None.
        adapters: folder of each attached adapter → its name inside PEFT; see :mod:`workbench.engine.model.adapters`.
        stamps: name inside PEFT → :func:`adapter_stamp` of the file it was read from.
        attached: adapters attached so far, for their names.
        combined: names and weights of the adapters in the current weighted sum.
        is_altered: the base's own weights are no longer those that were loaded; ``altered_by`` and ``merged`` name the
            adapter that changed them, if one did.
        was_cached: the quantized base was read from the disk cache.
        notices: what was done to the base so that an adapter fits, until it has been shown.
        file_notices: what the model's files lack, or have beside the model's weights.
        head: what the attached adapters predict with a head of their own; None if they predict tokens.
        new_tokens: ids of the rows that were added to the embeddings, which every adapter trains.
    """

    section: ModelSection
    quantization: QuantizationSection
    precision: Precision
    local: LocalModel
    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    footprint: int
    asked: QuantizationSection
    stored: StoredQuantization | None = None
    peft: "PeftModel | None" = None
    adapters: dict[Path, str] = field(default_factory=dict)
    stamps: dict[str, tuple[int, int]] = field(default_factory=dict)
    attached: int = 0
    combined: tuple[tuple[str, float], ...] | None = None
    is_altered: bool = False
    altered_by: tuple[object, ...] | None = None
    merged: tuple[object, ...] | None = None
    was_cached: bool = False
    notices: list[str] = field(default_factory=list)
    head: SequenceHead | None = None
    new_tokens: range = range(0)
    file_notices: tuple[str, ...] = ()
    packing: CpuPacking = field(init=False)
    _undo_loss_path: Callable[[], None] | None = field(init=False, default=None)
    _remove_kernels: Callable[[], None] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.packing = CpuPacking(self.model)

    @property
    def active(self) -> "PreTrainedModel | PeftModel":
        """The model to call: the PEFT model while an adapter is attached, else the plain one."""
        return self.peft if self.peft is not None else self.model

    @property
    def description(self) -> str:
        """``owner/name as nf4 + double quant``, and whether it was read from the cache."""
        return f"{self.section.source} as {self.stored_as}" + ", quantized before" * self.was_cached

    @property
    def stored_as(self) -> str:
        """``nf4 + double quant``, ``16-bit``; for a base that its files quantize, their method too."""
        return describe(self.quantization, self.stored)

    @property
    def device(self) -> "torch.device":
        return next(self.model.parameters()).device

    def matches(self, section: ModelSection, quantization: QuantizationSection) -> bool:
        """Whether this is the base that a recipe asks for; its weights may have changed, see :attr:`is_unchanged`."""
        return self.section == section and quantization in (self.asked, self.quantization)

    def is_named(self, name: str) -> bool:
        """Whether an adapter with this base model name belongs to this base."""
        return name in (self.section.source, self.reference, str(self.local.folder))

    @property
    def is_unchanged(self) -> bool:
        """Whether the weights are still bit for bit those that were loaded, so that the base can be trained."""
        return not self.is_altered and not self.packing.has_packed_layers and not self._has_replaced_modules

    @property
    def _has_replaced_modules(self) -> bool:
        """Whether an attached adapter contains whole modules: PEFT leaves its copies in place when it is detached."""
        if self.peft is None:
            return False
        # A head is removed with its adapters.
        own = SAVED_HEADS if self.head is not None else frozenset()
        return any(set(config.modules_to_save or ()) - own for config in self.peft.peft_config.values())

    def take_notices(self) -> list[str]:
        """The notices that have not been shown yet; empty the next time."""
        notices, self.notices = self.notices, []
        return notices

    def new_config(self, adapter: AdapterSection, **changes: Any) -> "PeftConfig":
        """PEFT's configuration of a new adapter of this base.

        Args:
            changes: arguments to replace.
        """
        rows = trained_rows(self.model, adapter, self.new_tokens)
        return peft_config(adapter, rows, exclusion_pattern(frozen_parts(self.model)), **changes)

    def attach_new(
        self,
        adapter: AdapterSection,
        head: SequenceHead | None = None,
        seed: int = 0,
        config: "PeftConfig | None" = None,
    ) -> "PeftModel":
        """Attach a new adapter to train, after detaching all others. Returns the PEFT model, ready for training.

        Args:
            head: what it predicts with a head of its own, whose first weights are drawn with ``seed``.
            config: PEFT's configuration, where it is not :meth:`new_config`.

        Raises:
            WorkbenchError: PEFT refuses the adapter for this model.
        """
        from peft import get_peft_model

        self.detach_all()
        try:
            rows = trained_rows(self.model, adapter, self.new_tokens)
            config = config or self.new_config(adapter, **({} if head is None else {"task_type": TASK}))
            if head is not None:
                self.add_head(head, seed)
            self.peft = get_peft_model(self.model, config, adapter_name=TRAINED)
            targets = self.peft.peft_config[TRAINED].target_modules
            if head is not None and isinstance(targets, set):
                # PEFT lists it among all linear layers, and adapts it no more than anything that is saved whole.
                targets -= SAVED_HEADS
        except (ValueError, TypeError) as error:
            self.peft = None
            self.remove_head()
            # Some of the layers may have been changed already.
            self.is_altered = True
            raise WorkbenchError(
                f"PEFT rejects this adapter: {error}", "Change adapter.target_modules or the variant.", kind="adapter"
            ) from error
        # Such adapters change the base itself, so it cannot be used again afterwards.
        self.is_altered |= method_of(adapter.method).trains_base(adapter)
        self.peft.peft_config[TRAINED].base_model_name_or_path = self.reference
        if rows:
            expose_bias(self.model)
            # PEFT would save the whole resized embedding beside the rows that are trained.
            self.peft.save_pretrained = partial(self.peft.save_pretrained, save_embedding_layers=False)
        self.cast_adapter()
        keep_output_dtype(self.peft)
        return self.peft

    def add_head(self, head: SequenceHead, seed: int = 0) -> None:
        """Add a head for the adapters that are attached from now on, until all of them are detached.

        Raises:
            WorkbenchError: transformers has no sequence classification for this model, or one of another form.
        """
        from workbench.engine.kernels.sequence_head import add_head

        check_can_classify(self.model)
        add_head(self.model, head.outputs, seed)
        self.head = head

    def remove_head(self) -> None:
        """Remove the head, if there is one."""
        if self.head is not None:
            from workbench.engine.kernels.sequence_head import remove_head

            remove_head(self.model)
            self.head = None

    def cast_adapter(self) -> None:
        """Convert the trained weights to the dtype that :class:`Precision` names, but for those that stay float32."""
        import torch

        assert self.peft is not None
        method = adapter_method(self.peft.peft_config[TRAINED].to_dict())
        dtype = getattr(torch, self.precision.adapter)
        for name, parameter in self.peft.named_parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(torch.float32 if method.is_float32(name) else dtype)

    @contextmanager
    def loss_path(self, path: LossPath) -> Iterator[None]:
        """Within, the model accepts ``fused_lm_head=True`` with the batches of a path.

        Where training has enabled a path, that one stays, which the caller must use too.
        """
        if self._undo_loss_path is not None:
            yield
            return
        undo = path.enable(self.model)
        try:
            yield
        finally:
            undo()

    def enable_loss_path(self, path: LossPath, label_smoothing: float = 0.0) -> None:
        """Accept the batches of a path until :meth:`prepare_for_chat`; training smooths its targets so much."""
        self._disable_loss_path()
        # TRL's trainer leaves a head of its own on the model.
        self.model.__dict__.pop("forward", None)
        self._undo_loss_path = path.enable(self.model, label_smoothing)

    def _disable_loss_path(self) -> None:
        if self._undo_loss_path is not None:
            self._undo_loss_path()
            self._undo_loss_path = None

    def apply_fused_kernels(self, kernels: Fused) -> AppliedKernels:
        """Use fused kernels until :meth:`prepare_for_chat`.

        Raises:
            WorkbenchError: they are not available, or do not run here.
        """
        self._remove_fused_kernels()
        fused = apply_fused_kernels(self.model, kernels, trusts_code=self.section.trust_remote_code)
        self._remove_kernels = fused.remove
        return fused

    def _remove_fused_kernels(self) -> None:
        if self._remove_kernels is not None:
            self._remove_kernels()
            self._remove_kernels = None

    def prepare_for_chat(self) -> None:
        """Undo what a trainer leaves on a model: head, kernels, checkpointing, input gradients and training mode."""
        self._disable_loss_path()
        self._remove_fused_kernels()
        for model in {id(m): m for m in (self.model, self.active)}.values():
            model.__dict__.pop("forward", None)
        if self.model.is_activation_checkpointing:
            self.model.gradient_checkpointing_disable()
        if getattr(self.model, "_require_grads_hooks", None):
            self.model.disable_input_require_grads()
        self.active.eval()

    def register_trained(self, folder: Path) -> None:
        """Register the adapter just trained as the one saved in ``folder``, so that chat uses it without a reload."""
        from peft.tuners.tuners_utils import cast_adapter_dtype

        # PEFT does the same when it loads an adapter, so replies do not change after a restart.
        cast_adapter_dtype(self.model, adapter_name=TRAINED, autocast_adapter_dtype=True)
        self.adapters[folder], self.stamps[TRAINED] = TRAINED, adapter_stamp(folder)

    @property
    def active_adapter(self) -> str | None:
        """Folder of the active adapter, or None."""
        peft, adapters = self.peft, dict(self.adapters)  # copied: another thread may be attaching one
        if peft is None:
            return None
        return next((str(folder) for folder, name in adapters.items() if name == peft.active_adapter), None)

    def detach_all(self) -> None:
        """Detach every adapter and restore the base as it was loaded."""
        self._remove_fused_kernels()
        if self.peft is not None:
            self.is_altered |= self._has_replaced_modules
            self.model = unloaded(self.peft)
            self.remove_head()
            self.peft = self.combined = None
            self.adapters.clear()
            self.stamps.clear()

    @property
    def reference(self) -> str:
        """The base model name that adapters store: the hub id if the weights are from the hub, else the folder."""
        return self.local.source if self.local.is_hub_id else str(self.local.folder)


def unloaded(peft: "PeftModel") -> "PreTrainedModel":
    """The base of a PEFT model without its adapters.

    PEFT's ``unload`` of IA³ refuses quantized bases, although nothing is merged.
    """
    model: PreTrainedModel = peft.get_base_model()
    flags = [name for name in ("is_loaded_in_8bit", "is_loaded_in_4bit") if getattr(model, name, False)]
    for name in flags:
        setattr(model, name, False)
    try:
        peft.unload()
    finally:
        for name in flags:
            setattr(model, name, True)
    return model


def describe(quantization: QuantizationSection, stored: StoredQuantization | None = None) -> str:
    """A base's quantization as text: ``nf4 + double quant``, ``int8``, ``16-bit``.

    Args:
        stored: how the model's files quantize it, if they do.
    """
    if stored is not None:
        return f"16-bit, dequantized from {stored.label}" if stored.is_dequantized else f"{stored.label}, as stored"
    if quantization.method == "none":
        return "16-bit"
    double = quantization.double_quant and quantization.method in ("nf4", "fp4")
    return quantization.method + (" + double quant" if double else "")
