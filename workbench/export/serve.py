"""Exports weights with the command that serves them with vLLM or Text Generation Inference (TGI).

vLLM: https://docs.vllm.ai/en/latest/features/lora.html. TGI:
https://huggingface.co/docs/text-generation-inference/conceptual/lora.
"""

import json
import shlex

from workbench.adapters.registry import method_of
from workbench.adapters.starts import start_of
from workbench.errors import WorkbenchError
from workbench.export.work import Job, make_adapter, make_merged
from workbench.models.local import read_config
from workbench.recipe.sections.adapter import AdapterSection

# The values that vLLM's --max-lora-rank accepts.
_VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
FILE = "serve.sh"


def make(job: Job) -> None:
    """Write ``adapter/`` or ``merged/``, and ``serve.sh``."""
    target, weights = job.request.target, job.request.weights
    if weights == "adapter":
        check_servable(job.recipe.adapter, "vLLM" if target == "vllm" else "TGI")
        make_adapter(job, "adapter")
    else:
        make_merged(job, "merged")
    job.command = shlex.join(vllm_command(job) if target == "vllm" else tgi_command(job))
    port, served = (8000, job.run.id) if target == "vllm" else (3000, job.run.id if weights == "adapter" else "tgi")
    lines = [
        "#!/bin/sh",
        "# Arguments of this script are passed on, such as --port 8000. When it listens:",
        f"# {curl(port, served)}",
        "set -e",
        'cd "$(dirname "$0")"',
        f'exec {job.command} "$@"',
        "",
    ]
    job.notices += [_precision(job), f"When it listens: {curl(port, served)}"]
    job.write(FILE, "\n".join(lines))
    (job.folder / FILE).chmod(0o755)


def curl(port: int, model: str) -> str:
    """A command that asks the server a question."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 64})
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    return shlex.join(["curl", url, "-H", "Content-Type: application/json", "-d", body])


def _precision(job: Job) -> str:
    """In which precision the server computes, as it takes it from the files, and in which the run did."""
    config = read_config(job.local.folder) if job.local is not None else {}
    text = config.get("text_config")
    dtype = config.get("dtype") or config.get("torch_dtype") or (text.get("dtype") if isinstance(text, dict) else None)
    served = f"Served in {dtype or '16 bits'}, the precision of the base's files."
    method = job.recipe.quantization.method
    if method == "none":
        return served
    return f"{served} The run trained on the {method} base, so replies differ slightly."


def check_servable(adapter: AdapterSection, server: str) -> None:
    """Raise WorkbenchError for an adapter that the server cannot load onto a running base."""
    method = method_of(adapter.method)
    unsupported = [
        name
        for name, is_set in (
            (f"adapter.method {adapter.method}", server not in method.serves),
            ("adapter.use_dora", adapter.use_dora),
            ("adapter.modules_to_save", bool(adapter.modules_to_save)),
            ("adapter.bias", adapter.bias != "none"),
            ("adapter.init_lora_weights", method.moves_base({**method.arguments(adapter), "bias": "none"})),
            # Each layer then has a scaling of its own, which neither server reads.
            ("adapter.init_lora_weights eva", adapter.init_lora_weights == "eva"),
            ("adapter.rank_pattern", bool(adapter.rank_pattern) and server == "TGI"),
        )
        if is_set
    ]
    if server == "vLLM" and largest_rank(adapter) > _VLLM_RANKS[-1]:
        unsupported.append("adapter.r")
    if unsupported:
        raise WorkbenchError(
            f"{server} does not support adapters with {', '.join(unsupported)}.",
            "Export with --weights merged.",
            kind="cannot_serve",
        )


def largest_rank(adapter: AdapterSection) -> int:
    """The largest rank of any module in the adapter's file."""
    largest = max(adapter.r, *adapter.rank_pattern.values(), 0)
    start = start_of(adapter.init_lora_weights)
    # With the first A and B, which the base was trained without.
    return 2 * largest if start is not None and start.moves_base else largest


def vllm_command(job: Job) -> list[str]:
    """The ``vllm serve`` command for the base with the adapter, or for the merged weights."""
    if job.request.weights == "merged":
        return ["vllm", "serve", "./merged", "--served-model-name", job.run.id]
    rank = next(rank for rank in _VLLM_RANKS if rank >= largest_rank(job.recipe.adapter))
    model, revision = job.name_base()
    return [
        *("vllm", "serve", model),
        *(("--revision", revision) if revision else ()),
        *("--enable-lora", "--max-lora-rank", str(rank)),
        *("--lora-modules", f"{job.run.id}=./adapter"),
        *("--chat-template", "./adapter/chat_template.jinja"),
    ]


def tgi_command(job: Job) -> list[str]:
    """The ``text-generation-launcher`` command for the base with the adapter, or for the merged weights."""
    if job.request.weights == "merged":
        return ["text-generation-launcher", "--model-id", "./merged"]
    model, revision = job.name_base()
    return [
        *("text-generation-launcher", "--model-id", model),
        *(("--revision", revision) if revision else ()),
        *("--lora-adapters", f"{job.run.id}=./adapter"),
        *("--tokenizer-config-path", "./adapter/tokenizer_config.json"),
    ]
