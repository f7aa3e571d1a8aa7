"""A base in 16 bits with a run's adapter on it, merged, and compared by what the two make of the same tokens.

Imports torch inside its functions: only for the helper process.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workbench.data.templates.template import Template
from workbench.engine.model.base import check_adapter
from workbench.errors import WorkbenchError
from workbench.models.child import bars_as_progress, report
from workbench.models.sources import LocalModel
from workbench.recipe.schema import Recipe

_QUESTIONS = (
    "What is the capital of France?",
    "Write a haiku about the sea.",
    "How do I sort a list of 120 numbers in Python?",
    "Erkläre mir in zwei Sätzen, was ein Kompass ist. 🧭",
)


@dataclass(frozen=True)
class Difference:
    """How far the logits of two models are apart, over every position of some prompts.

    Attributes:
        largest, mean: of the absolute differences of single logits.
        divergence: mean Kullback-Leibler divergence of the next-token distributions, in nats.
        agreement: share of positions where both have the same first choice.
        positions: number of positions compared.
    """

    largest: float
    mean: float
    divergence: float
    agreement: float
    positions: int

    def __str__(self) -> str:
        return (
            f"logits differ by {self.mean:.2g} on average and {self.largest:.2g} at most, KL divergence "
            f"{self.divergence:.2g} nats, same first choice at {self.agreement:.1%} of {self.positions} positions"
        )

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Merged:
    """The merged model, and what it answered before it was merged: lists of float32 logits, a tensor a prompt.

    ``context``: tokens that it can read.
    """

    model: Any
    tokenizer: Any
    template: Template
    prompts: list[list[int]]
    context: int
    base_logits: list[Any]
    tuned_logits: list[Any]
    merged_logits: list[Any]


def merge(recipe: Recipe, local: LocalModel, adapter: Path, *, precise: bool = False) -> Merged:
    """Load the base in 16 bits, put the adapter on, ask both, merge, ask again.

    Args:
        precise: in 32 bits instead, for what is rounded only when it is written. bfloat16 has 8 bits for a weight, and
            a merged one needs more of them than the base's own did.

    Raises:
        WorkbenchError: the base cannot be loaded, the adapter does not fit it, or merging gives no finite weights.
    """
    import torch
    from peft import PeftModel

    check_adapter(adapter)
    model, tokenizer = load(local.folder, recipe.model.trust_remote_code, precise=precise)
    template = Template.load(adapter, tokenizer)
    prompts = probe_prompts(template)
    report("running the base model", None, "")
    base_logits = logits(model, prompts)
    report("loading the adapter", None, "")
    try:
        with torch.no_grad():
            peft_model = PeftModel.from_pretrained(model, adapter)
    except (RuntimeError, ValueError, KeyError) as error:
        raise WorkbenchError(
            f"The adapter does not fit {recipe.model.source}: {str(error).splitlines()[0]}",
            "Export it with the base it was trained on.",
            kind="adapter_of_another_base",
        ) from error
    peft_model.eval()
    report("running the tuned model", None, "")
    tuned_logits = logits(peft_model, prompts)
    try:
        with torch.no_grad(), bars_as_progress("merging"):
            merged = peft_model.merge_and_unload(progressbar=True, safe_merge=True)
    except ValueError as error:
        raise WorkbenchError(
            f"The adapter cannot be merged: {error}", "Export the adapter itself instead.", kind="cannot_merge"
        ) from error
    _untie(merged)
    context = getattr(merged.config, "max_position_embeddings", None) or recipe.data.max_length
    return Merged(merged, tokenizer, template, prompts, context, base_logits, tuned_logits, logits(merged, prompts))


def load(folder: Path, trust_remote_code: bool = False, *, precise: bool = False) -> tuple[Any, Any]:
    """``(model, tokenizer)`` on the CPU in the 16-bit type that its files have, bfloat16 where they have none.

    ``precise``: in float32.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    with bars_as_progress("loading the base"):
        report("loading the base", None, folder.name)
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
            config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
            stored = torch.float32 if precise else getattr(config, "dtype", None)
            model = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=stored if precise or stored in (torch.bfloat16, torch.float16) else torch.bfloat16,
                trust_remote_code=trust_remote_code,
                use_safetensors=True,
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            from workbench.failures.diagnose import diagnose

            raise diagnose(error, "loading the weights to export") from error
    model.eval()
    return model, tokenizer


def probe_prompts(template: Template) -> list[list[int]]:
    """Token ids of a few short conversations, as chat would give them to the model."""
    return [template.encode_prompt([{"role": "user", "content": question}]) for question in _QUESTIONS]


def logits(model: Any, prompts: Sequence[Sequence[int]]) -> list[Any]:
    """Float32 logits of each prompt, ``[positions, vocabulary]``."""
    import torch

    with torch.inference_mode():
        return [model(input_ids=torch.tensor([list(ids)])).logits[0].float() for ids in prompts]


def difference(first: Sequence[Any], second: Sequence[Any]) -> Difference:
    """Of two lists of logits over the same prompts; the divergence is that of ``second`` from ``first``."""
    import torch

    one, other = torch.cat(list(first)), torch.cat(list(second))
    width = min(one.shape[1], other.shape[1])  # a GGUF file may lack rows that pad a vocabulary
    one, other = one[:, :width], other[:, :width]
    apart = (one - other).abs()
    log_p, log_q = one.log_softmax(-1), other.log_softmax(-1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
    same = (one.argmax(-1) == other.argmax(-1)).float().mean()
    return Difference(
        apart.max().item(), apart.mean().item(), max(divergence.item(), 0.0), same.item(), int(one.shape[0])
    )


def check_merge(merged: Merged) -> tuple[str, dict[str, Any], list[str]]:
    """What merging changed, in words, in numbers, and what to be warned of.

    Raises:
        WorkbenchError: the merged weights give no finite numbers.
    """
    import torch

    if not all(bool(torch.isfinite(part).all()) for part in merged.merged_logits):
        raise WorkbenchError(
            "The merged model produces non-finite values.",
            "Check the run's loss: the adapter itself may be broken.",
            kind="export_check",
        )
    rounding = difference(merged.tuned_logits, merged.merged_logits)
    effect = difference(merged.tuned_logits, merged.base_logits)
    words = f"Merged vs. base with adapter: {rounding}. The adapter's own effect: KL divergence "
    words += f"{effect.divergence:.2g} nats."
    notices = []
    if rounding.divergence > 0.1 * effect.divergence and rounding.divergence > 1e-6:
        notices.append(
            "Rounding the merged weights to 16 bits loses a large part of the adapter's change. The "
            "adapter itself keeps all of it, and GGUF (f16) nearly all."
        )
    return words, {"merged_against_unmerged": rounding.as_json(), "adapter_against_base": effect.as_json()}, notices


def _untie(model: Any) -> None:
    """A head that was trained whole is no longer the embeddings; saved as tied it would be lost."""
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or not getattr(model.config, "tie_word_embeddings", False):
        return
    if head.weight.data_ptr() != embeddings.weight.data_ptr():
        model.config.tie_word_embeddings = False
