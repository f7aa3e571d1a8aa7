"""Writes a LoRA adapter alone as GGUF, which llama.cpp adds to a GGUF file of the base (``llama-cli --lora``).

llama.cpp's converter renames a model's weights, reorders their rows and takes fused ones apart. So it converts a model
whose weights are ΔW, and zero where there is no adapter. Each ΔW in the file it writes is factored again into the two
matrices of an adapter, which is exact, as its rank is that of the adapter.
"""

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.data.templates.template import Template
from workbench.engine.model.adapter_folder import check_adapter
from workbench.errors import WorkbenchError
from workbench.export.card import model_card
from workbench.export.gguf.answers import check_answers
from workbench.export.gguf.converter import convert_model
from workbench.export.gguf.support import check_is_low_rank
from workbench.export.gguf.tools import LlamaCppTools, find_tools
from workbench.export.plan import local_base
from workbench.export.weights import Merged, load, merge
from workbench.export.work import Job
from workbench.models.child import report
from workbench.models.sources import LocalModel

if TYPE_CHECKING:
    import numpy as np

# Matrices that the converter computes from zero weights, and that no adapter can be on.
_COMPUTED = re.compile(r"ssm_a|ssm_d|rope_|_norm\.")
# The largest relative difference of B·A and ΔW that rounding in float32 explains, and the smallest singular value,
# relative to the largest, that is not rounding.
_MAX_DIFFERENCE, _NOISE = 1e-4, 1e-5
# A weight that the converter puts together from several has the sum of their ranks.
_MOST_RANKS = 4


@dataclass(frozen=True)
class Factors:
    """ΔW of one matrix as B·A: ``[out, rank]`` and ``[rank, in]``; of experts, with their number before these."""

    name: str
    a: "np.ndarray"
    b: "np.ndarray"
    difference: float

    @property
    def rank(self) -> int:
        return int(self.a.shape[-2])


def make(job: Job) -> None:
    """Write the adapter, and let llama.cpp reply with it on the base."""
    config = check_adapter(job.run.adapter)
    check_is_low_rank(config)
    local, tools = local_base(job.home, job.recipe), find_tools(job.home)
    file = job.folder / f"{job.run.id}-lora.gguf"
    work = job.folder / ".work"
    work.mkdir()
    try:
        delta = work / "delta.gguf"
        convert_model(tools, _delta(job, local), local.folder, delta, "f32")
        factors = list(_factors(delta, _largest_rank(config)))
        if not factors:
            raise WorkbenchError(
                "The adapter does not change the base: all of its ΔW are zero.", "Train it first.", kind="untrained"
            )
        write_adapter(file, delta, factors, job.run.id)
        delta.unlink()
        difference = max(one.difference for one in factors)
        job.add_check(
            f"{len(factors)} matrices of ΔW as llama.cpp has them; largest relative difference {difference:.1g}.",
            {"lora_against_delta": {"matrices": float(len(factors)), "difference": difference}},
        )
        if tools.library is None:
            job.notices.append("llama.cpp's library is not here (--download), so its replies were not compared.")
        else:
            base = work / "base.gguf"
            convert_model(tools, _base(job, local), local.folder, base, "f16")
            _compare(job, local, tools, base, file)
    finally:
        shutil.rmtree(work)
    job.command = f"llama-cli -m BASE.gguf --lora {file.name} -cnv"
    job.notices.append("It needs a GGUF file of the base, in any type; Ollama takes it as ADAPTER in a Modelfile.")
    job.write("README.md", model_card(job.facts, "gguf-lora", job.check))


def write_adapter(file: Path, delta: Path, factors: list[Factors], name: str) -> None:
    """Write the file; ``delta`` is the converted model that names the architecture."""
    import gguf
    import numpy as np

    field = gguf.GGUFReader(delta).get_field(gguf.Keys.General.ARCHITECTURE)
    assert field is not None
    largest = max(one.rank for one in factors)
    writer = gguf.GGUFWriter(file, str(field.contents()))
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name(name)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    # llama.cpp multiplies by alpha / rank, with one alpha for all and each matrix's own rank.
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(largest))
    for one in factors:
        writer.add_tensor(f"{one.name}.lora_a", np.ascontiguousarray(one.a, np.float32))
        writer.add_tensor(f"{one.name}.lora_b", np.ascontiguousarray(one.b * (one.rank / largest), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def factored(name: str, delta: "np.ndarray", rank: int) -> Factors:
    """Factor ΔW, ``[…, out, in]``, into B·A of its own rank.

    Args:
        rank: the largest rank of the adapter's layers.

    Raises:
        WorkbenchError: its rank is higher than the converter's work on the adapter's layers explains.
    """
    import numpy as np

    rows, columns = delta.shape[-2:]
    width = min(_MOST_RANKS * rank + 8, rows, columns)
    sketch = np.random.default_rng(0).standard_normal((columns, width)).astype(np.float32)
    basis, _ = np.linalg.qr(delta @ sketch)
    left, values, right = np.linalg.svd(np.swapaxes(basis, -1, -2) @ delta, full_matrices=False)
    kept = max(1, int((values > _NOISE * values.max()).any(axis=tuple(range(values.ndim - 1))).sum()))
    root = np.sqrt(values[..., :kept])
    b = (basis @ left[..., :kept]) * root[..., None, :]
    a = root[..., None] * right[..., :kept, :]
    difference = float(np.linalg.norm(delta - b @ a) / np.linalg.norm(delta))
    if difference > _MAX_DIFFERENCE:
        raise WorkbenchError(
            f"{name} cannot be written as two matrices: they differ from its ΔW by {difference:.1%}.",
            "Export it merged, as `gguf`, and report this with the model's name.",
            kind="gguf_unsupported",
        )
    return Factors(name, a, b, difference)


def _factors(delta: Path, rank: int) -> Iterator[Factors]:
    """The factors of every matrix that is not zero."""
    import gguf
    import numpy as np

    tensors = gguf.GGUFReader(delta).tensors
    for number, tensor in enumerate(tensors):
        report("factoring ΔW", number / len(tensors), tensor.name)
        if len(tensor.shape) < 2 or _COMPUTED.search(tensor.name):
            continue
        values = np.asarray(gguf.dequantize(tensor.data, tensor.tensor_type), np.float32)
        if values.any():
            yield factored(tensor.name, values, rank)


def _delta(job: Job, local: LocalModel) -> Merged:
    """A model whose weights are ΔW, and zero elsewhere."""
    import torch
    from peft import PeftModel

    base = _base(job, local)
    assert base.model is not None
    with torch.no_grad():
        for parameter in base.model.parameters():
            parameter.zero_()
        base.model = PeftModel.from_pretrained(base.model, job.run.adapter).merge_and_unload()
    return base


def _base(job: Job, local: LocalModel) -> Merged:
    """The base in float32, in the form in which a merged model is converted."""
    model, tokenizer = load(local.folder, job.recipe.model.trust_remote_code, precise=True)
    return Merged(model, tokenizer, Template.load(job.run.adapter, tokenizer), [], 0, [], [], [])


def _compare(job: Job, local: LocalModel, tools: LlamaCppTools, base: Path, file: Path) -> None:
    """Compare llama.cpp's replies, with base and adapter, with those of the merged model."""
    assert tools.library is not None
    merged = merge(job.recipe, local, job.run.adapter, precise=True)
    sentence, figures, notices = check_answers(merged, base, "f16", tools.library, adapter=file)
    job.add_check(sentence, figures)
    job.notices += notices


def _largest_rank(config: Mapping[str, object]) -> int:
    pattern = config.get("rank_pattern")
    ranks = [config.get("r"), *(pattern.values() if isinstance(pattern, dict) else ())]
    return max(rank for rank in ranks if isinstance(rank, int))
