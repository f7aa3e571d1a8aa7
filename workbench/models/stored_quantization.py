"""Reads how a model's weights are quantized on disk, and decides how such a base is loaded.

``quantization_config`` in a ``config.json`` says it. Estimate, start check and loader all ask this module, so they
agree, and a base is never called something that it is not.

- bitsandbytes: loaded and trained as stored, whatever the recipe asks.
- FP8, MXFP4, compressed-tensors: PEFT cannot train them as stored; with ``quantization.method: none`` transformers
  dequantizes them to 16 bits while it loads them.
- GPTQ, AWQ, HQQ, torchao, AQLM, EETQ: trained as stored if the packages that transformers needs are installed.
- All others are refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from workbench.adapters.method import PACKED
from workbench.adapters.registry import method_of
from workbench.errors import WorkbenchError
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.adapter import AdapterSection
from workbench.recipe.sections.quantization import QuantizationSection, QuantMethod

_UNQUANTISED = (
    "Take the unquantized model that it was made from; quantization.method nf4 or int8 quantizes it as it is loaded"
)


@dataclass(frozen=True)
class _Kind:
    """A quantization method of transformers.

    Attributes:
        packages: modules that transformers needs to load it, with their distribution's name.
        is_trained: PEFT has LoRA layers for its weights.
        dequantizer: class of transformers whose ``dequantize=True`` turns it into 16-bit weights as it is loaded;
            empty if there is none.
    """

    name: str
    packages: tuple[str, ...] = ()
    is_trained: bool = False
    dequantizer: str = ""


_BITSANDBYTES = _Kind("bitsandbytes", is_trained=True)
# From transformers 5.23 (`quantizers/auto.py`, each quantizer's `validate_environment`) and PEFT 0.21 (`tuners/lora`).
_KINDS = {
    "bitsandbytes": _BITSANDBYTES,
    "gptq": _Kind("GPTQ", ("gptqmodel", "optimum"), is_trained=True),
    "awq": _Kind("AWQ", ("gptqmodel",), is_trained=True),
    "hqq": _Kind("HQQ", ("hqq",), is_trained=True),
    "torchao": _Kind("torchao", ("torchao",), is_trained=True),
    "aqlm": _Kind("AQLM", ("aqlm",), is_trained=True),
    "eetq": _Kind("EETQ", ("kernels",), is_trained=True),
    "fp8": _Kind("FP8", dequantizer="FineGrainedFP8Config"),
    "mxfp8": _Kind("MXFP8", dequantizer="FineGrainedFP8Config"),
    "mxfp4": _Kind("MXFP4", dequantizer="Mxfp4Config"),
    "compressed-tensors": _Kind("compressed-tensors", ("compressed_tensors",), dequantizer="CompressedTensorsConfig"),
    "fbgemm_fp8": _Kind("FP8 (FBGEMM)"),
    "nvfp4": _Kind("NVFP4"),
    "fp_quant": _Kind("FP-Quant"),
    "auto-round": _Kind("AutoRound"),
    "bitnet": _Kind("BitNet"),
    "quanto": _Kind("Quanto"),
    "higgs": _Kind("HIGGS"),
    "vptq": _Kind("VPTQ"),
    "spqr": _Kind("SpQR"),
    "quark": _Kind("Quark"),
    "modelopt": _Kind("ModelOpt"),
}


@dataclass(frozen=True)
class StoredQuantization:
    """How a model's weights are quantized on disk.

    Attributes:
        kind: name of the method, such as ``GPTQ``.
        method: the recipe's name for it; None unless it is bitsandbytes.
        bits: of a quantized weight; None if the configuration does not say.
        group_size: weights that share a scale; None if unknown, or if a whole row does.
        skipped: names of modules that are not quantized; None if it is transformers' default list.
        packages, is_trained, dequantizer: as transformers and PEFT have it, see ``_Kind``.
    """

    kind: str
    method: QuantMethod | None = None
    double_quant: bool = False
    bits: int | None = None
    group_size: int | None = None
    skipped: tuple[str, ...] | None = None
    packages: tuple[str, ...] = ()
    is_trained: bool = False
    dequantizer: str = ""

    @property
    def is_dequantized(self) -> bool:
        """Whether it is turned into 16-bit weights as it is loaded."""
        return bool(self.dequantizer)

    @property
    def label(self) -> str:
        """``nf4 + double quant (bitsandbytes)``, ``GPTQ, 4-bit, groups of 128``."""
        if self.method is not None:
            return f"{self.method}{' + double quant' if self.double_quant else ''} ({self.kind})"
        bits = f", {self.bits}-bit" if self.bits and str(self.bits) not in self.kind else ""
        return self.kind + bits + (f", groups of {self.group_size}" if self.group_size else "")

    @property
    def is_packed(self) -> bool:
        """Whether it is trained in a format of its own, which has no name in a recipe."""
        return self.is_trained and self.method is None

    def as_loaded(self, asked: QuantizationSection) -> QuantizationSection:
        """The quantization that the base has once it is loaded. A packed format keeps the section as it is."""
        if self.method is not None:
            # int8 has no second quantization; the recipe's switch then means nothing.
            double = self.double_quant if self.method in ("nf4", "fp4") else asked.double_quant
            return asked.model_copy(update={"method": self.method, "double_quant": double})
        return asked if self.is_packed else asked.model_copy(update={"method": "none"})

    def refusal(self, asked: QuantizationSection, adapter: AdapterSection | None = None) -> WorkbenchError | None:
        """Why this base cannot be trained with these settings on this machine, and the way out; None if it can."""
        if missing := self._missing_packages():
            names = " ".join(name.replace("_", "-") for name in missing)
            also = " Then set quantization.method to none, and it is dequantized to 16 bits." * self.is_dequantized
            return _refusal(
                f"The base is stored as {self.label}, and transformers needs {' and '.join(missing)} to load it.",
                f"{_UNQUANTISED}; or `pip install {names}` and restart the engine.{also}",
            )
        if self.is_dequantized and asked.method != "none":
            return _refusal(
                f"The base is stored as {self.label}, which can be neither trained as it is nor quantized to "
                f"{asked.method}.",
                f"Set quantization.method to none: it is then dequantized to 16 bits as it is loaded. Or: {_lower()}.",
            )
        if not self.is_trained and not self.is_dequantized:
            return _refusal(f"The base is stored as {self.label}, which PEFT cannot train.", f"{_UNQUANTISED}.")
        if adapter is not None and adapter.init_lora_weights == "loftq":
            return _refusal(
                f"The base is stored as {self.label}, without the unquantized weights that loftq reads.",
                "Set adapter.init_lora_weights to true, or take the unquantized model that it was made from.",
            )
        if adapter is not None and self.is_trained:
            refusal = method_of(adapter.method).refusal_on(adapter, self.method or PACKED)
            if refusal is not None:
                name = refusal.path.partition(".")[2]
                default = "lora" if name == "method" else "true"
                return _refusal(
                    f"The base is stored as {self.label}, and {name} {getattr(adapter, name)} needs an unquantized "
                    "base.",
                    f"Set {refusal.path} to {default}, or take the unquantized model that it was made from.",
                )
        return None

    def note(self, asked: QuantizationSection) -> str:
        """How the base is loaded, as a sentence, and what of the recipe therefore does not apply."""
        if self.is_dequantized:
            return f"The base is stored as {self.label} and dequantized to 16 bits as it is loaded."
        loaded = self.as_loaded(asked)
        ignored = f"; quantization.method {asked.method} does not apply" if loaded.method != asked.method else ""
        if not ignored and (self.is_packed or loaded.double_quant != asked.double_quant):
            ignored = "; the quantization settings do not apply"
        return f"The base is stored as {self.label} and trained as stored{ignored}."

    def _missing_packages(self) -> tuple[str, ...]:
        return tuple(name for name in self.packages if find_spec(name) is None)


def stored_quantization(config: Mapping[str, object]) -> StoredQuantization | None:
    """How the weights that belong to a ``config.json`` are quantized; None if they are not."""
    settings = _settings(config)
    if settings is None:
        return None
    name = str(settings.get("quant_method") or "").lower()
    in_4, in_8 = (bool(settings.get(key) or settings.get(f"_{key}")) for key in ("load_in_4bit", "load_in_8bit"))
    if name.startswith("bitsandbytes") or (not name and (in_4 or in_8)):
        if not in_4 and not in_8:
            return None
        return _bitsandbytes(settings, in_4)
    if not name:
        return None
    kind = _KINDS.get(name) or _Kind(name)
    bits, group_size = _packing(name, settings)
    return StoredQuantization(
        kind=kind.name,
        bits=bits,
        group_size=group_size,
        skipped=_names(settings.get("modules_to_not_convert")),
        packages=kind.packages,
        is_trained=kind.is_trained,
        dequantizer=kind.dequantizer,
    )


def recipe_as_loaded(recipe: Recipe, config: Mapping[str, object]) -> Recipe:
    """The recipe with the quantization that its base has once it is loaded; the same recipe for other bases."""
    stored = stored_quantization(config)
    if stored is None:
        return recipe
    loaded = stored.as_loaded(recipe.quantization)
    return recipe if loaded == recipe.quantization else recipe.model_copy(update={"quantization": loaded})


def _bitsandbytes(settings: Mapping[str, Any], in_4: bool) -> StoredQuantization:
    method: QuantMethod = "int8"
    if in_4:
        method = "fp4" if settings.get("bnb_4bit_quant_type", "fp4") == "fp4" else "nf4"
    return StoredQuantization(
        kind=_BITSANDBYTES.name,
        method=method,
        double_quant=in_4 and bool(settings.get("bnb_4bit_use_double_quant")),
        bits=4 if in_4 else 8,
        skipped=_names(settings.get("llm_int8_skip_modules")),
        is_trained=True,
    )


def _settings(config: Mapping[str, object]) -> Mapping[str, Any] | None:
    """The quantization config: at the top, in an older place, or in the language part of an image-text model."""
    text = config.get("text_config")
    for place in (config, text if isinstance(text, dict) else {}):
        for key in ("quantization_config", "compression_config"):
            if isinstance(settings := place.get(key), dict):
                return settings
    return None


def _packing(name: str, settings: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Bits of a weight and weights in a group, where the configuration says so."""
    if name == "mxfp4":
        return 4, 32
    if name in ("fp8", "mxfp8", "fbgemm_fp8"):
        return 8, None
    if name == "torchao":
        text = str(settings.get("quant_type", "")).lower()
        bits = 4 if "int4" in text else 8 if "int8" in text or "float8" in text else None
        return bits, _integer(settings.get("group_size"))
    if name == "hqq":
        weights = (settings.get("quant_config") or settings).get("weight_quant_params") or settings
        return _integer(weights.get("nbits")), _integer(weights.get("group_size"))
    if name == "compressed-tensors":
        groups = settings.get("config_groups")
        first: object = next(iter(groups.values()), {}) if isinstance(groups, dict) else {}
        weights = (first.get("weights") if isinstance(first, dict) else None) or {}
        return _integer(weights.get("num_bits")), _integer(weights.get("group_size"))
    bits = settings.get("bits", settings.get("w_bit", settings.get("nbits")))
    return _integer(bits), _integer(settings.get("group_size", settings.get("q_group_size")))


def _integer(value: object) -> int | None:
    """A positive number; None for others: a group size of −1 means that a row is one group."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _names(value: object) -> tuple[str, ...] | None:
    return tuple(map(str, value)) if isinstance(value, list | tuple) else None


def _lower() -> str:
    return _UNQUANTISED[0].lower() + _UNQUANTISED[1:]


def _refusal(message: str, cure: str) -> WorkbenchError:
    return WorkbenchError(message, cure, kind="stored_quantization")
