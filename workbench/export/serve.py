"""The command that serves an export with vLLM or Text Generation Inference, printed and saved beside the weights.

vLLM: https://docs.vllm.ai/en/latest/features/lora.html. TGI:
https://huggingface.co/docs/text-generation-inference/conceptual/lora.
"""

import shlex
from typing import Any

from workbench.errors import WorkbenchError
from workbench.export.plan import base_here
from workbench.export.work import Job, make_adapter, make_merged
from workbench.recipe.schema import AdapterSection

# The ranks that vLLM can be told to make room for.
_VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
FILE = "serve.sh"


def make(job: Job) -> None:
    """``adapter/`` or ``merged/``, and ``serve.sh``."""
    target, weights = job.request.target, job.request.weights
    if weights == "adapter":
        check_servable(job.recipe.adapter, "vLLM" if target == "vllm" else "TGI")
        make_adapter(job, "adapter")
    else:
        make_merged(job, "merged")
    words = (vllm_command if target == "vllm" else tgi_command)(job)
    job.command = shlex.join(words)
    lines = ["#!/bin/sh", "# Arguments of this script are passed on, such as --port 8000.", "set -e"]
    lines += ['cd "$(dirname "$0")"', f'exec {job.command} "$@"', ""]
    job.write(FILE, "\n".join(lines))
    (job.folder / FILE).chmod(0o755)


def check_servable(adapter: AdapterSection, server: str) -> None:
    """Raises WorkbenchError for adapters that servers cannot put on a base while they run."""
    beyond = [
        name
        for name, is_set in (
            ("adapter.use_dora", adapter.use_dora),
            ("adapter.modules_to_save", bool(adapter.modules_to_save)),
            ("adapter.bias", adapter.bias != "none"),
            ("adapter.init_lora_weights", adapter.init_lora_weights in ("pissa", "olora")),
            ("adapter.rank_pattern", bool(adapter.rank_pattern) and server == "TGI"),
        )
        if is_set
    ]
    if server == "vLLM" and largest_rank(adapter) > _VLLM_RANKS[-1]:
        beyond.append("adapter.r")
    if beyond:
        raise WorkbenchError(
            f"{server} does not support adapters with {', '.join(beyond)}.",
            "Export with --weights merged.",
            kind="cannot_serve",
        )


def largest_rank(adapter: AdapterSection) -> int:
    return max(adapter.r, *adapter.rank_pattern.values(), 0)


def vllm_command(job: Job) -> list[str]:
    """``vllm serve`` with the base and the adapter, or with the merged weights."""
    if job.request.weights == "merged":
        return ["vllm", "serve", "./merged", "--served-model-name", job.run.id]
    rank = next(rank for rank in _VLLM_RANKS if rank >= largest_rank(job.recipe.adapter))
    base = _base(job)
    return [
        *("vllm", "serve", base["model"]),
        *(("--revision", base["revision"]) if base["revision"] else ()),
        *("--enable-lora", "--max-lora-rank", str(rank)),
        *("--lora-modules", f"{job.run.id}=./adapter"),
        *("--chat-template", "./adapter/chat_template.jinja"),
    ]


def tgi_command(job: Job) -> list[str]:
    """``text-generation-launcher`` with the base and the adapter, or with the merged weights."""
    if job.request.weights == "merged":
        return ["text-generation-launcher", "--model-id", "./merged"]
    base = _base(job)
    return [
        *("text-generation-launcher", "--model-id", base["model"]),
        *(("--revision", base["revision"]) if base["revision"] else ()),
        *("--lora-adapters", f"{job.run.id}=./adapter"),
        *("--tokenizer-config-path", "./adapter/tokenizer_config.json"),
    ]


def _base(job: Job) -> dict[str, Any]:
    local = base_here(job.home, job.recipe)
    if local.origin == "hub":
        return {"model": local.source, "revision": local.revision}
    return {"model": str(local.folder), "revision": None}
