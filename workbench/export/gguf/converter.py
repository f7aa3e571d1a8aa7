"""Writes a merged model as GGUF with llama.cpp's converter: any family that it knows, in 16 or 8 bits or K-quants."""

import json
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.export.gguf.guard import run_guarded
from workbench.export.gguf.mixture import MIXTURES
from workbench.export.gguf.quantize import quantize
from workbench.export.gguf.tokenizer_model import can_be_written, write_tokenizer_model
from workbench.export.gguf.tools import LlamaCppTools, Program
from workbench.export.gguf.vocabulary import kind_of_tokenizer, vocabulary_of
from workbench.export.merged import write_merged
from workbench.export.request import GgufType
from workbench.export.weights import Merged
from workbench.models.child import report
from workbench.models.local import read_config

# The percentage of the converter's progress bar.
_SHARE = re.compile(r"Writing:\s+(\d+)%")
_WAY_OUT = (
    "Export it as `merged`: transformers, vLLM and other programs load that. Or name a newer checkout of llama.cpp "
    "(`llama_cpp` in settings.json)."
)
# The last line of a traceback.
_EXCEPTION = re.compile(r"(\w+(?:Error|Exception|Interrupt): .*)$", re.DOTALL)


def convert_merged(
    tools: LlamaCppTools, merged: Merged, base: Path, file: Path, name: str, kind: GgufType, licence: str = ""
) -> tuple[str, list[str]]:
    """Write a merged model to ``file``, and the part that reads images next to it if the model has one.

    Args:
        base: folder of the base, whose processor is copied.

    Returns:
        The programs that wrote the file, as text, and notices for the user.

    Raises:
        WorkbenchError: the converter does not know the model, or failed.
    """
    assert tools.converter is not None
    notices: list[str] = []
    writer = "llama.cpp's converter"
    with _model_folder(merged, base, file.parent, licence) as folder:
        if (mixture := MIXTURES.get(kind)) is None:
            _convert(tools.converter, folder, file, name, kind)
        else:
            wide = file.with_name(f".{file.name}.f16")
            try:
                _convert(tools.converter, folder, wide, name, "f16")
                writer += f" and {quantize(tools, wide, file, mixture)}"
            finally:
                wide.unlink(missing_ok=True)
        if "vision_config" in read_config(folder):
            notices.append(_write_projector(tools.converter, (base, folder), file, name))
    return writer, notices


def convert_model(tools: LlamaCppTools, model: Merged, base: Path, file: Path, kind: str) -> None:
    """Write any model to ``file`` without more files beside it; the model is released.

    Args:
        base: as in :func:`convert_merged`.
        kind: a number type of the converter, such as ``f32``.

    Raises:
        WorkbenchError: as :func:`convert_merged`.
    """
    assert tools.converter is not None
    with _model_folder(model, base, file.parent, "") as folder:
        model.model = None
        _convert(tools.converter, folder, file, file.stem, kind)


def _convert(program: Program, folder: Path, file: Path, name: str, kind: str, *more: str) -> None:
    phase = f"writing {file.name.lstrip('.')}"
    report(phase, None, "llama.cpp's converter")

    def heard(line: str) -> None:
        if share := _SHARE.search(line):
            report(phase, int(share[1]) / 100, "llama.cpp's converter")

    command = [*program.command, str(folder), "--outfile", str(file), "--outtype", kind, "--model-name", name, *more]
    try:
        run_guarded(command, "llama.cpp's converter", heard, program.environment)
    except WorkbenchError as error:
        raise _explained(error, read_config(folder), _WAY_OUT) from None
    if not file.is_file():
        raise WorkbenchError(f"llama.cpp's converter wrote no {file.name}.", _WAY_OUT, kind="gguf_unsupported")


def _write_projector(program: Program, folders: Iterable[Path], file: Path, name: str) -> str:
    """Write the part that reads images to a file of its own; returns a notice.

    Args:
        folders: of the base, whose files name its tensors as they were published, and of the merged model. This part is
            the same in both, as training on text does not change it. The first that the converter reads is taken.
    """
    projector, reason = file.with_name(f"mmproj-{file.name}"), ""
    for folder in folders:
        try:
            _convert(program, folder, projector, name, "f16", "--mmproj")
        except WorkbenchError as error:
            projector.unlink(missing_ok=True)
            reason = reason or error.message
        else:
            return f"For images: llama-mtmd-cli -m {file.name} --mmproj {projector.name}"
    return f"The part that reads images was not written: {reason}"


@contextmanager
def _model_folder(merged: Merged, base: Path, near: Path, licence: str) -> Iterator[Path]:
    """Within, the merged model in a folder as the converter reads it."""
    folder = near / ".merged"
    folder.mkdir()
    try:
        write_merged(merged, folder, base)
        if licence:
            (folder / "README.md").write_text(f"---\nlicense: {json.dumps(licence)}\n---\n", encoding="utf-8")
        _write_tokenizer(merged, folder, base)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_tokenizer(merged: Merged, folder: Path, base: Path) -> None:
    """Complete the tokenizer's files with what only the converter reads."""
    _end_replies(merged, folder)
    match kind_of_tokenizer(merged.tokenizer):
        case "sentencepiece":
            assert merged.model is not None
            rows = merged.model.get_input_embeddings().weight.shape[0]
            vocabulary = vocabulary_of(merged.tokenizer, merged.template.end_token_ids, "", rows)
            if can_be_written(vocabulary):
                write_tokenizer_model(vocabulary, folder)
        case "other" if (base / "tokenizer.model").is_file():
            shutil.copyfile(base / "tokenizer.model", folder / "tokenizer.model")


def _end_replies(merged: Merged, folder: Path) -> None:
    """Name the token that ends a reply in training as the tokenizer's end of sequence, at which llama.cpp stops."""
    ends = list(merged.template.end_token_ids)
    file = folder / "tokenizer_config.json"
    if not ends or merged.tokenizer.eos_token_id in ends or not file.is_file():
        return
    config = json.loads(file.read_text(encoding="utf-8"))
    config["eos_token"] = merged.tokenizer.convert_ids_to_tokens(ends[0])
    file.write_text(json.dumps(config, ensure_ascii=False, indent=2), encoding="utf-8")


def _explained(error: WorkbenchError, config: dict[str, object], way_out: str) -> WorkbenchError:
    """The error of the converter in terms of the model."""
    listed = config.get("architectures")
    name = str(listed[0]) if isinstance(listed, list) and listed else str(config.get("model_type") or "this model")
    if "is not supported" in error.message or (
        "NotImplementedError" in error.message and "pre-tokenizer" not in error.message
    ):
        return WorkbenchError(f"llama.cpp's converter does not know {name}.", way_out, kind="gguf_unsupported")
    if "pre-tokenizer" in error.message:
        return WorkbenchError(
            f"llama.cpp's converter does not know how the tokenizer of this {name} splits text.",
            way_out,
            kind="gguf_unsupported",
        )
    reason = _EXCEPTION.search(error.message)
    message = f"llama.cpp's converter failed with this {name}: {reason[1]}" if reason is not None else error.message
    return WorkbenchError(message, way_out, kind="gguf_unsupported")
