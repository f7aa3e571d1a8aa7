"""Merges a run's adapter into the 16-bit base, and checks the merged model by comparing logits.

Its functions import torch, so they are called only in the helper process.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.data.templates.template import Template
from workbench.engine.model.adapter_folder import check_adapter
from workbench.engine.model.new_rows import add_missing_rows
from workbench.engine.model.vocabulary import adapters_tokenizer, enlarge_vocabulary, rows_to_add
from workbench.errors import WorkbenchError
from workbench.export.request import Figures
from workbench.models.child import bars_as_progress, report
from workbench.models.local import read_config
from workbench.models.model_class import auto_class
from workbench.models.sources import LocalModel
from workbench.models.tokenizers import load_tokenizer
from workbench.recipe.schema import Recipe

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# The prompts by which models are compared.
_QUESTIONS = (
    "What is the capital of France?",
    "Write a haiku about the sea.",
    "How do I sort a list of 120 numbers in Python?",
    "Erkläre mir in zwei Sätzen, was ein Kompass ist. 🧭",
)


@dataclass(frozen=True)
class Difference:
    """How much the logits of two models differ, over all positions of some prompts.

    Attributes:
        largest, mean: largest and mean absolute difference of a logit.
        divergence: mean Kullback-Leibler divergence of the next-token distributions, in nats.
        agreement: share of positions at which both models rank the same token first.
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

    def as_json(self) -> dict[str, float]:
        """The numbers as JSON data."""
        return asdict(self)


@dataclass
class Merged:
    """A merged model, with the logits by which it is checked: float32, one tensor per prompt.

    Attributes:
        model: None once it has been released to free its memory.
        context: context length, in tokens.
        base_logits, tuned_logits, merged_logits: of the base, of the base with the adapter, and of the merged model.
        notices: what was done to the base so that the adapter fits.
    """

    model: "PreTrainedModel | None"
    tokenizer: "PreTrainedTokenizerBase"
    template: Template
    prompts: list[list[int]]
    context: int
    base_logits: "list[torch.Tensor]"
    tuned_logits: "list[torch.Tensor]"
    merged_logits: "list[torch.Tensor]"
    notices: tuple[str, ...] = ()


def merge(recipe: Recipe, local: LocalModel, adapter: Path, *, precise: bool = False) -> Merged:
    """Load the base, merge the adapter into it, and compute the logits of base, base with adapter, and merged model.

    Args:
        precise: merge in 32 instead of 16 bits, for weights that are rounded only when they are written. bfloat16 has 8
            significant bits, and merged weights need more than the base's.

    Raises:
        WorkbenchError: the base cannot be loaded, the adapter does not fit it, or merging gives non-finite weights.
    """
    import torch
    from peft import PeftModel

    check_adapter(adapter)
    model, tokenizer = load(local.folder, recipe.model.trust_remote_code, precise=precise)
    if recipe.model.resize_embeddings:
        add_missing_rows(model, tokenizer)
    notices: tuple[str, ...] = ()
    if rows := rows_to_add(model, adapter):
        notices = (enlarge_vocabulary(model, rows, adapter),)
        tokenizer = adapters_tokenizer(adapter, tokenizer, rows)
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
    context = getattr(merged.config.get_text_config(), "max_position_embeddings", None) or recipe.data.max_length
    merged_logits = logits(merged, prompts)
    return Merged(merged, tokenizer, template, prompts, context, base_logits, tuned_logits, merged_logits, notices)


def load(
    folder: Path, trust_remote_code: bool = False, *, precise: bool = False
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Load model and tokenizer on the CPU, in the 16-bit dtype of the files, or else in bfloat16.

    ``precise``: in float32.
    """
    import torch
    from transformers import AutoConfig

    with bars_as_progress("loading the base"):
        report("loading the base", None, folder.name)
        try:
            tokenizer = load_tokenizer(folder, trust_remote_code)
            config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
            stored = torch.float32 if precise else getattr(config, "dtype", None)
            model = auto_class(read_config(folder)).from_pretrained(
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
    """The tokenized prompts by which models are compared, formatted as in chat."""
    return [template.encode_prompt([{"role": "user", "content": question}]) for question in _QUESTIONS]


def logits(model: "PreTrainedModel", prompts: Sequence[Sequence[int]]) -> "list[torch.Tensor]":
    """Compute the float32 logits of each prompt, ``[positions, vocabulary]``."""
    import torch

    with torch.inference_mode():
        return [model(input_ids=torch.tensor([list(ids)])).logits[0].float() for ids in prompts]


def difference(reference: "Sequence[torch.Tensor]", other: "Sequence[torch.Tensor]") -> Difference:
    """Compare two models' logits for the same prompts; the divergence is that of ``other`` from ``reference``."""
    import torch

    p, q = torch.cat(list(reference)), torch.cat(list(other))
    width = min(p.shape[1], q.shape[1])  # a GGUF file may lack the padding rows of a vocabulary
    p, q = p[:, :width], q[:, :width]
    gap = (p - q).abs()
    log_p, log_q = p.log_softmax(-1), q.log_softmax(-1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
    agreement = (p.argmax(-1) == q.argmax(-1)).float().mean()
    return Difference(
        gap.max().item(), gap.mean().item(), max(divergence.item(), 0.0), agreement.item(), int(p.shape[0])
    )


def check_merge(merged: Merged) -> tuple[str, Figures, list[str]]:
    """Check how much merging changed the model.

    Returns:
        The result as a sentence and as numbers, and notices for the user.

    Raises:
        WorkbenchError: the merged model produces non-finite values.
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
    sentence = f"Merged vs. base with adapter: {rounding}. The adapter's own effect: KL divergence "
    sentence += f"{effect.divergence:.2g} nats."
    notices = []
    if rounding.divergence > 0.1 * effect.divergence and rounding.divergence > 1e-6:
        notices.append(
            "Rounding the merged weights to 16 bits loses a large part of the adapter's change. The "
            "adapter itself keeps all of it, and GGUF (f16) nearly all."
        )
    figures: Figures = {"merged_against_unmerged": rounding.as_json(), "adapter_against_base": effect.as_json()}
    return sentence, figures, notices


def _untie(model: "PreTrainedModel") -> None:
    """Mark the output head as untied if it was trained fully; saved as tied to the embeddings, it would be lost."""

    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or not getattr(model.config, "tie_word_embeddings", False):
        return
    if head.weight.data_ptr() != embeddings.weight.data_ptr():
        for config in (model.config, model.config.get_text_config()):
            config.tie_word_embeddings = False
