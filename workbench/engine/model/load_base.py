"""Loads a base model: downloaded, quantized, with its tokenizer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from workbench.engine.model.base import LoadedBase, describe
from workbench.engine.model.libraries import import_libraries
from workbench.engine.model.new_rows import add_missing_rows
from workbench.engine.model.precision import choose_precision
from workbench.models.local import read_config
from workbench.models.model_class import auto_class, check_continues_text
from workbench.models.sources import fetch_config, fetch_model
from workbench.models.stored_quantization import stored_quantization
from workbench.models.tokenizers import load_tokenizer
from workbench.progress import Progress
from workbench.recipe.sections.model import ModelSection
from workbench.recipe.sections.quantization import QuantizationSection
from workbench.storage.paths import Home

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Report = Callable[[Progress], None]
Cancelled = Callable[[], bool]


def load_base(
    home: Home,
    section: ModelSection,
    quantization: QuantizationSection,
    report: Report,
    cancelled: Cancelled,
    meanwhile: "Callable[[PreTrainedTokenizerBase], None]" = lambda tokenizer: None,
    *,
    is_asked: bool = True,
) -> LoadedBase:
    """Download if necessary, load and quantize a base model. One that its files quantize is loaded as they say.

    Args:
        is_asked: the user chose ``quantization``; else a base that cannot have it is loaded in the way that it can.
        meanwhile: called with the tokenizer before the weights are loaded, to start work that needs only that.

    Raises:
        WorkbenchError: the model is not available, or transformers cannot load it.
    """
    # Before gigabytes are downloaded: a configuration says whether the weights can be used.
    config = read_config(fetch_config(home, section, report, cancelled))
    stored = stored_quantization(config)
    asked = quantization
    if stored is not None:
        quantization = stored.as_loaded(asked)
        if refusal := stored.refusal(asked if is_asked else quantization):
            raise refusal
    if not section.trust_remote_code:
        import_libraries()
        check_continues_text(config)
    local = fetch_model(home, section, report, cancelled)
    report(Progress(phase="loading", detail="importing libraries"))
    import_libraries()
    import torch

    from workbench.engine.model.quantized_store import QuantizedStore
    from workbench.engine.model.sharded import is_sharded
    from workbench.engine.model.translate import loading_arguments, set_compute_dtype

    precision = choose_precision(quantization)
    name = f"{section.source} as {describe(quantization, stored)}"
    store = QuantizedStore(home, local, quantization, precision, f"{name}, {precision.compute}")
    arguments = {
        "dtype": getattr(torch, precision.compute),
        # With several processes, each has a GPU of its own, or gets its part of the base from FSDP later.
        "device_map": {"": torch.cuda.current_device()} if torch.cuda.is_available() and not is_sharded() else None,
        "trust_remote_code": section.trust_remote_code,
        "use_safetensors": True,
    }
    with _loading_explained():
        tokenizer = load_tokenizer(local.folder, section.trust_remote_code)
    meanwhile(tokenizer)
    with _loading_explained():
        model = None
        if is_cached := store.holds():
            report(Progress(phase="loading", detail=f"{name}, quantized before"))
            model = store.load(arguments)
        was_cached = model is not None
        if model is None:
            again = " again: the cached copy is damaged" if is_cached else ""
            report(Progress(phase="loading", detail=name + again))
            model = auto_class(config).from_pretrained(
                local.folder, **loading_arguments(quantization, precision, stored), **arguments
            )
            if stored is not None:
                set_compute_dtype(model, arguments["dtype"])
            store.write(model)
    model.requires_grad_(False)
    model.eval()
    new_tokens = add_missing_rows(model, tokenizer) if section.resize_embeddings else range(0)
    footprint = model.get_memory_footprint()
    return LoadedBase(
        section,
        quantization,
        precision,
        local,
        model,
        tokenizer,
        footprint,
        asked=asked,
        stored=stored,
        was_cached=was_cached,
        new_tokens=new_tokens,
    )


@contextmanager
def _loading_explained() -> Iterator[None]:
    """Turn errors of transformers into :class:`WorkbenchError`, with their cause."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError) as error:
        from workbench.failures.diagnose import diagnose

        raise diagnose(error, "loading the model") from error
