"""Loads a base model: downloads and checks its files, quantizes it, and loads its tokenizer."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.engine.model.attention import check_attention
from workbench.engine.model.base import LoadedBase, describe
from workbench.engine.model.libraries import import_libraries
from workbench.engine.model.loaded_weights import load_whole
from workbench.engine.model.new_rows import add_missing_rows
from workbench.engine.model.precision import Precision, choose_precision
from workbench.errors import WorkbenchError
from workbench.models.damaged import damaged_file
from workbench.models.local import read_config
from workbench.models.model_class import auto_class, check_continues_text
from workbench.models.remote_code import check_code_is_allowed
from workbench.models.sources import LocalModel, fetch_config, fetch_model
from workbench.models.stored_quantization import StoredQuantization, stored_quantization
from workbench.models.stored_weights import check_stored_weights
from workbench.models.tokenizers import load_tokenizer
from workbench.progress import Cancelled, Progress, Report
from workbench.recipe.sections.model import ModelSection
from workbench.recipe.sections.quantization import QuantizationSection
from workbench.storage.paths import Home

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_base(
    home: Home,
    section: ModelSection,
    quantization: QuantizationSection,
    report: Report,
    cancelled: Cancelled,
    on_tokenizer: "Callable[[PreTrainedTokenizerBase], None]" = lambda tokenizer: None,
    *,
    is_chosen: bool = True,
) -> LoadedBase:
    """Download a base model if necessary, load it and quantize it.

    If the model's files are quantized already, they decide how it is loaded:
    :mod:`workbench.models.stored_quantization`.

    Args:
        on_tokenizer: called with the tokenizer before the weights are loaded, to start work that needs only that.
        is_chosen: whether the user chose ``quantization``. If so, files that cannot be loaded with it are refused;
            otherwise they are loaded as they can be.

    Raises:
        WorkbenchError: the model is not available, its files cannot be loaded as asked, or transformers cannot load it.
    """
    # Before gigabytes are downloaded: a configuration says whether the weights can be used.
    folder = fetch_config(home, section, report, cancelled)
    config = read_config(folder)
    stored = stored_quantization(config)
    loaded_as = quantization if stored is None else stored.as_loaded(quantization)
    if stored is not None and (refusal := stored.refusal(quantization if is_chosen else loaded_as)):
        raise refusal
    report(Progress(phase="loading", detail="importing libraries"))
    check_attention(section.attn_implementation)
    import_libraries()
    check_code_is_allowed(folder, section)
    if not section.trust_remote_code:
        check_continues_text(config)
    local = fetch_model(home, section, report, cancelled)
    if stored is not None:
        check_stored_weights(local.folder, stored)
    precision = choose_precision(loaded_as)
    with _loading_explained(local.folder):
        tokenizer = load_tokenizer(local.folder, section.trust_remote_code)
    on_tokenizer(tokenizer)
    with _loading_explained(local.folder):
        model, was_cached, notices = _load_model(home, section, local, config, loaded_as, precision, stored, report)
    model.requires_grad_(False)
    model.eval()
    new_tokens = add_missing_rows(model, tokenizer) if section.resize_embeddings else range(0)
    footprint = model.get_memory_footprint()
    return LoadedBase(
        section,
        loaded_as,
        precision,
        local,
        model,
        tokenizer,
        footprint,
        asked=quantization,
        stored=stored,
        was_cached=was_cached,
        new_tokens=new_tokens,
        file_notices=notices,
    )


def _load_model(
    home: Home,
    section: ModelSection,
    local: LocalModel,
    config: Mapping[str, Any],
    quantization: QuantizationSection,
    precision: Precision,
    stored: StoredQuantization | None,
    report: Report,
) -> "tuple[PreTrainedModel, bool, tuple[str, ...]]":
    """Load the model from the cache of quantized bases, or from its files.

    Returns:
        The model, whether it is from the cache, and notices about its files.
    """
    import torch

    from workbench.engine.model.quantized_store import QuantizedStore
    from workbench.engine.model.sharded import is_sharded
    from workbench.engine.model.translate import loading_arguments, set_compute_dtype

    name = f"{section.source} as {describe(quantization, stored)}"
    store = QuantizedStore(home, local, quantization, precision, f"{name}, {precision.compute}")
    arguments = {
        "dtype": getattr(torch, precision.compute),
        # With several processes, each has a GPU of its own, or gets its part of the base from FSDP later.
        "device_map": {"": torch.cuda.current_device()} if torch.cuda.is_available() and not is_sharded() else None,
        "trust_remote_code": section.trust_remote_code,
        "use_safetensors": True,
    }
    if section.attn_implementation != "auto":
        arguments["attn_implementation"] = section.attn_implementation
    detail = name
    if store.holds():
        report(Progress(phase="loading", detail=f"{name}, quantized before"))
        if (cached := store.load(arguments)) is not None:
            return cached, True, ()
        detail = f"{name} again: the cached copy is damaged"
    report(Progress(phase="loading", detail=detail))
    quantizing = loading_arguments(quantization, precision, stored)
    model, notices = load_whole(auto_class(config), local.folder, **quantizing, **arguments)
    if stored is not None:
        set_compute_dtype(model, arguments["dtype"])
    store.write(model)
    return model, False, notices


@contextmanager
def _loading_explained(folder: Path) -> Iterator[None]:
    """Turn errors of transformers into :class:`WorkbenchError`; a damaged file in ``folder`` is named."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        yield
    except WorkbenchError:
        raise
    except Exception as error:
        if damaged := damaged_file(folder):
            raise damaged from error
        if isinstance(error, StrictDataclassError):
            reason = " ".join(str(error).split())
            raise WorkbenchError(
                f"transformers rejects {folder / 'config.json'}: {reason}",
                "Correct it, or copy it from the model's repository again.",
                kind="model_config",
            ) from error
        if isinstance(error, OSError | ValueError | KeyError | ImportError):
            from workbench.failures.diagnose import diagnose

            raise diagnose(error, "loading the model") from error
        raise
