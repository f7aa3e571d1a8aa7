"""The one base model in memory: loaded once, adapters attached to it and taken off again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.engine.kernels.cpu_packing import CpuPacking
from workbench.engine.kernels.fused import Kernels, put_on
from workbench.engine.model.libraries import import_libraries
from workbench.engine.model.precision import Precision, choose_precision
from workbench.errors import WorkbenchError
from workbench.models.sources import LocalModel, fetch_model
from workbench.progress import Progress
from workbench.recipe.fused_kernels import Fused
from workbench.recipe.schema import AdapterSection, ModelSection, QuantizationSection
from workbench.storage.paths import Home

Report = Callable[[Progress], None]
Cancelled = Callable[[], bool]

# PEFT saves the adapter of this name at the top of a folder, where every other tool looks for it.
TRAINED = "default"


@dataclass
class LoadedBase:
    """A frozen base model, quantised as the recipe asks, with its tokenizer.

    ``model`` is the plain transformers model; ``peft`` wraps it while any adapter is attached. ``adapters`` maps the
    folder of an attached adapter to its name inside PEFT, ``stamps`` a name to the file it was read from;
    see :mod:`workbench.engine.model.adapters`. ``footprint`` is the base's size in bytes, as transformers counts it.
    ``altered_by`` and ``merged`` say which adapter is in the base's own weights, where one is. ``was_kept``: it was
    quantised once before and read back.
    """

    section: ModelSection
    quantization: QuantizationSection
    precision: Precision
    local: LocalModel
    model: Any
    tokenizer: Any
    footprint: int
    peft: Any = None
    adapters: dict[Path, str] = field(default_factory=dict)
    stamps: dict[str, tuple[int, int]] = field(default_factory=dict)
    attached: int = 0
    combined: tuple[tuple[str, float], ...] | None = None
    is_altered: bool = False
    altered_by: tuple[object, ...] | None = None
    merged: tuple[object, ...] | None = None
    was_kept: bool = False
    packing: CpuPacking = field(init=False)
    _pad_again: Callable[[], None] | None = field(init=False, default=None)
    _take_kernels_off: Callable[[], None] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.packing = CpuPacking(self.model)

    @property
    def active(self) -> Any:
        """What to call: the PEFT model while an adapter is attached, else the plain one."""
        return self.peft if self.peft is not None else self.model

    @property
    def told(self) -> str:
        """``owner/name as nf4 + double quant``, and whether that was done before."""
        return f"{self.section.source} as {describe(self.quantization)}" + ", quantised before" * self.was_kept

    @property
    def device(self) -> Any:
        return next(self.model.parameters()).device

    def serves(self, section: ModelSection, quantization: QuantizationSection) -> bool:
        """Whether this is the base that a recipe asks for; whether it is still as it was loaded is another question."""
        return (self.section, self.quantization) == (section, quantization)

    def goes_by(self, name: str) -> bool:
        """Whether an adapter that names its base so means this one."""
        return name in (self.section.source, self.reference, str(self.local.folder))

    @property
    def may_be_trained(self) -> bool:
        """Whether the weights are still bit for bit those that were loaded."""
        return not self.is_altered and not self.packing.happened and not self._is_partly_replaced

    @property
    def _is_partly_replaced(self) -> bool:
        """Whether an attached adapter brought whole modules: PEFT leaves its copies behind when it is taken off."""
        return self.peft is not None and any(config.modules_to_save for config in self.peft.peft_config.values())

    def attach_new(self, adapter: AdapterSection) -> Any:
        """Put a fresh adapter on, after taking all others off. Returns the PEFT model, in training shape.

        Raises:
            WorkbenchError: PEFT refuses the adapter for this model.
        """
        from peft import get_peft_model

        from workbench.engine.model.translate import lora_config

        self.detach_all()
        try:
            self.peft = get_peft_model(self.model, lora_config(adapter), adapter_name=TRAINED)
        except (ValueError, TypeError) as error:
            self.peft = None
            # It may have come as far as some of the layers.
            self.is_altered = True
            raise WorkbenchError(
                f"PEFT rejects this adapter: {error}", "Change adapter.target_modules or the variant.", kind="adapter"
            ) from error
        # Such adapters change the base itself, so it cannot be used again afterwards.
        self.is_altered |= adapter.bias != "none" or adapter.init_lora_weights in ("pissa", "olora")
        self.peft.peft_config[TRAINED].base_model_name_or_path = self.reference
        self.cast_adapter()
        return self.peft

    def cast_adapter(self) -> None:
        """Bring the trained weights into the type that :class:`Precision` names."""
        import torch

        dtype = getattr(torch, self.precision.adapter)
        for name, parameter in self.peft.named_parameters():
            # DoRA's magnitudes move by less than bfloat16 can show.
            if parameter.requires_grad and "lora_magnitude_vector" not in name:
                parameter.data = parameter.data.to(dtype)

    @contextmanager
    def fused_head(self) -> Iterator[None]:
        """Within, the model takes ``fused_lm_head=True`` and returns log-probabilities without ever holding all logits.

        A trainer puts the same head on for as long as it trains; this one is taken off again.
        """
        from workbench.engine.kernels.loss_head import head_without_entropy

        before = self.model.__dict__.get("forward")
        head_without_entropy(self.model)
        try:
            yield
        finally:
            if before is None:
                del self.model.__dict__["forward"]
            else:
                self.model.forward = before

    @contextmanager
    def padding_free_head(self) -> Iterator[None]:
        """Within, the model takes padding-free batches (:mod:`workbench.engine.kernels.padding_free`)."""
        from workbench.engine.kernels.padding_free import serve_padding_free

        if self._pad_again is not None:
            # It is being trained so, and TRL's head is on.
            yield
            return
        with self.fused_head():
            undo = serve_padding_free(self.model)
            try:
                yield
            finally:
                undo()

    def serve_padding_free(self) -> None:
        """Take batches without padding until :meth:`prepare_for_chat`."""
        from workbench.engine.kernels.padding_free import serve_padding_free

        self._serve_padded()
        self._pad_again = serve_padding_free(self.model)

    def _serve_padded(self) -> None:
        if self._pad_again is not None:
            self._pad_again()
            self._pad_again = None

    def compute_fused(self, kernels: Fused) -> Kernels:
        """Compute with fused kernels until :meth:`prepare_for_chat`.

        Raises:
            WorkbenchError: they cannot be had, or do not run here.
        """
        self._compute_plainly()
        fused = put_on(self.model, kernels, trusts_code=self.section.trust_remote_code)
        self._take_kernels_off = fused.take_off
        return fused

    def _compute_plainly(self) -> None:
        if self._take_kernels_off is not None:
            self._take_kernels_off()
            self._take_kernels_off = None

    def prepare_for_chat(self) -> None:
        """Undo what a trainer leaves on a model: head and kernels, checkpointing, input gradients, training mode."""
        self._serve_padded()
        self._compute_plainly()
        for model in {id(m): m for m in (self.model, self.active)}.values():
            model.__dict__.pop("forward", None)
        if self.model.is_activation_checkpointing:
            self.model.gradient_checkpointing_disable()
        if getattr(self.model, "_require_grads_hooks", None):
            self.model.disable_input_require_grads()
        self.active.eval()

    def keep_trained(self, folder: Path) -> None:
        """The adapter that was just trained is now the one saved in ``folder``: chat with it without a reload."""
        from peft.tuners.tuners_utils import cast_adapter_dtype

        # As PEFT does when it loads an adapter: a reply now is the reply after a restart, and anybody else's.
        cast_adapter_dtype(self.model, adapter_name=TRAINED, autocast_adapter_dtype=True)
        self.adapters[folder], self.stamps[TRAINED] = TRAINED, adapter_stamp(folder)

    @property
    def active_adapter(self) -> str | None:
        """Folder of the adapter that is active, or None."""
        peft, adapters = self.peft, dict(self.adapters)  # another thread may ask while one is attached
        if peft is None:
            return None
        return next((str(folder) for folder, name in adapters.items() if name == peft.active_adapter), None)

    def detach_all(self) -> None:
        """Take every adapter off; the base is as it was loaded."""
        self._compute_plainly()
        if self.peft is not None:
            self.is_altered |= self._is_partly_replaced
            self.model = self.peft.unload()
            self.peft = self.combined = None
            self.adapters.clear()
            self.stamps.clear()

    @property
    def reference(self) -> str:
        """What an adapter writes down as its base: the hub id where the weights are the hub's own, else the folder."""
        return self.local.source if self.local.origin == "hub" else str(self.local.folder)


def load_base(
    home: Home,
    section: ModelSection,
    quantization: QuantizationSection,
    report: Report,
    cancelled: Cancelled,
    meanwhile: Callable[[Any], None] = lambda tokenizer: None,
) -> LoadedBase:
    """Fetch, load and quantise a base model.

    Args:
        meanwhile: given the tokenizer before the weights are loaded, to begin what needs no more than that.

    Raises:
        WorkbenchError: the model cannot be had, or transformers cannot load it.
    """
    local = fetch_model(home, section, report, cancelled)
    report(Progress(phase="loading", detail="importing libraries"))
    import_libraries()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from workbench.engine.model.quantized_store import QuantisedStore
    from workbench.engine.model.sharded import is_sharded
    from workbench.engine.model.translate import quantization_config

    precision = choose_precision(quantization)
    what = f"{section.source} as {describe(quantization)}"
    store = QuantisedStore(home, local, quantization, precision, f"{what}, {precision.compute}")
    arguments = {
        "dtype": getattr(torch, precision.compute),
        # Of several processes each has a GPU of its own, or a part of the base that FSDP gives it later.
        "device_map": {"": torch.cuda.current_device()} if torch.cuda.is_available() and not is_sharded() else None,
        "trust_remote_code": section.trust_remote_code,
        "use_safetensors": True,
    }
    with _loading_explained():
        tokenizer = AutoTokenizer.from_pretrained(local.folder, trust_remote_code=section.trust_remote_code)
    meanwhile(tokenizer)
    with _loading_explained():
        model = None
        if is_kept := store.holds():
            report(Progress(phase="loading", detail=f"{what}, quantised before"))
            model = store.load(arguments)
        was_kept = model is not None
        if model is None:
            anew = " again: the cached copy is damaged" if is_kept else ""
            report(Progress(phase="loading", detail=what + anew))
            model = AutoModelForCausalLM.from_pretrained(
                local.folder, quantization_config=quantization_config(quantization, precision), **arguments
            )
            store.keep(model)
    model.requires_grad_(False)
    model.eval()
    footprint = model.get_memory_footprint()
    return LoadedBase(section, quantization, precision, local, model, tokenizer, footprint, was_kept=was_kept)


@contextmanager
def _loading_explained() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError) as error:
        from workbench.failures.diagnose import diagnose

        raise diagnose(error, "loading the model") from error


def describe(quantization: QuantizationSection) -> str:
    """``nf4 + double quant``, ``int8``, ``16-bit``."""
    if quantization.method == "none":
        return "16-bit"
    double = quantization.double_quant and quantization.method in ("nf4", "fp4")
    return quantization.method + (" + double quant" if double else "")


def adapter_stamp(folder: Path) -> tuple[int, int]:
    """Tells one writing of an adapter folder from the next; the same for as long as nobody writes it anew."""
    try:
        found = (folder / "adapter_model.safetensors").stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def check_adapter(folder: Path) -> dict[str, Any]:
    """The configuration of a PEFT folder with safetensors in it.

    Raises:
        WorkbenchError: it is none.
    """
    import json

    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WorkbenchError(
            f"There is no adapter in {folder}.",
            "Give a run that saved an adapter, or a folder with adapter_config.json.",
            kind="no_adapter",
        ) from None
    except ValueError as error:
        raise WorkbenchError(
            f"{folder / 'adapter_config.json'} is damaged: {error}.", "Save the adapter again."
        ) from None
    if not (folder / "adapter_model.safetensors").is_file():
        raise WorkbenchError(
            f"{folder} has no adapter_model.safetensors.",
            "Save the adapter as safetensors; pickle files are not loaded.",
        )
    return config if isinstance(config, dict) else {}
