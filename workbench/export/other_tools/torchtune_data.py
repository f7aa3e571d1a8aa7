"""Takes torchtune's datasets: builders with a place, columns and a split of their own."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.export.other_tools.imported_settings import ImportedSettings, listed, short
from workbench.export.other_tools.keys import resolve_path
from workbench.export.other_tools.torchtune_prompts import TOKENIZERS, with_prompt

# Without tokenizer.max_seq_len, torchtune cuts nothing.
_LENGTH = 8192
_BUILDERS = ("json", "csv", "parquet", "arrow", "text")
_KEYS = ("_component_", "source", "name", "subset", "data_files", "data_dir", "split", "column_map", "train_on_input",
         "masking_strategy", "packed", "new_system_prompt", "conversation_column", "conversation_style", "column",
         "add_eos", "split_across_pack", "tokenizer", "model_transform")  # fmt: skip
_HALVES = re.compile(r"(?P<name>[^\[\]]+)\[:(?P<share>\d{1,2})%\]")


@dataclass(frozen=True)
class _Builder:
    """A builder of datasets: its usual source and columns, and how its records are read."""

    source: str = ""
    columns: Mapping[str, str] | None = None
    format: str = ""
    is_alpaca: bool = False
    trains_prompt: bool = False
    config: str = ""
    folder: str = ""


_ALPACA = _Builder("tatsu-lab/alpaca", format="instruction", is_alpaca=True, trains_prompt=True)
_DATASETS = {
    "alpaca_dataset": _ALPACA,
    "alpaca_cleaned_dataset": _Builder("yahma/alpaca-cleaned", None, "instruction", True, True),
    "instruct_dataset": _Builder(columns={"prompt": "input", "reply": "output"}),
    "chat_dataset": _Builder(),
    "slimorca_dataset": _Builder("Open-Orca/SlimOrca-Dedup", format="sharegpt"),
    "samsum_dataset": _Builder("Samsung/samsum", {"prompt": "dialogue", "reply": "summary"}),
    "grammar_dataset": _Builder("liweili/c4_200m", {"prompt": "input", "reply": "output"}),
    "text_completion_dataset": _Builder(format="text", trains_prompt=True),
    "cnn_dailymail_articles_dataset": _Builder(
        "ccdv/cnn_dailymail", {"text": "article"}, "text", trains_prompt=True, config="3.0.0"
    ),
    "wikitext_dataset": _Builder(
        "EleutherAI/wikitext_document_level", {"text": "page"}, "text", trains_prompt=True, config="wikitext-103-v1"
    ),
    "preference_dataset": _Builder(columns={"chosen": "chosen", "rejected": "rejected"}),
    "hh_rlhf_helpful_dataset": _Builder(
        "RLHFlow/HH-RLHF-Helpful-standard", {"chosen": "chosen", "rejected": "rejected"}
    ),
    "stack_exchange_paired_dataset": _Builder(
        "lvwerra/stack-exchange-paired",
        {"prompt": "question", "chosen": "response_j", "rejected": "response_k"},
        folder="data/rl",
    ),
}
# torchtune's names in column_map, and the parts of a record.
_PARTS = {"instruction": "prompt", "input": "input", "output": "reply", "conversations": "messages",
          "messages": "messages", "prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}  # fmt: skip


def take_datasets(imported: ImportedSettings, folder: Path, origin: str) -> None:
    """Take the datasets, which torchtune joins, with the text that its tokenizer makes of them.

    Raises:
        WorkbenchError: a dataset is of a builder that a recipe has no counterpart for, such as one of images.
    """
    given = imported.take("dataset", [])
    entries = [entry for entry in (given if isinstance(given, list) else [given]) if isinstance(entry, dict)]
    builders = [_builder(entry, origin) for entry in entries]
    sources = [_source(imported, entry, builder, folder) for entry, builder in zip(entries, builders, strict=True)]
    imported.set_sources(sources)
    recipe = imported.recipe
    trained = [_trains_prompt(imported, entry, builder) for entry, builder in zip(entries, builders, strict=True)]
    recipe["data.completion_only"] = not (trained and all(trained))
    if len({*trained}) > 1:
        imported.lack("dataset: train_on_input", trained, "only responses are trained, of all")
    packed = [bool(entry.get("packed", False)) for entry in entries]
    recipe["data.packing"] = any(packed)
    if len({*packed}) > 1:
        imported.lack("dataset: packed", packed, "all records are packed")
    _take_split(imported, entries)
    _take_prompt(imported, builders)
    _take_length(imported)


def _builder(entry: Mapping[str, object], origin: str) -> _Builder:
    component = str(entry.get("_component_", ""))
    builder = _DATASETS.get(component.removeprefix("torchtune.datasets."))
    if builder is None:
        raise WorkbenchError(
            f"{origin} trains on records that a recipe does not have (dataset._component_: {component}).",
            f"Use one of torchtune.datasets: {', '.join(_DATASETS)}.",
            kind="recipe",
        )
    return builder


def _source(
    imported: ImportedSettings, entry: Mapping[str, object], builder: _Builder, folder: Path
) -> dict[str, object]:
    """A dataset as a source: where it is, and its columns and split where they are its own."""
    for key, value in entry.items():
        if key not in _KEYS and value is not None:
            imported.lack(f"dataset.{key}", value)
    files, place = entry.get("data_files"), str(entry.get("source") or builder.source)
    names = listed(files)
    if place in _BUILDERS and names:
        place = resolve_path(names[0], folder)
        if len(names) > 1:
            imported.lack("dataset.data_files", names, f"{names[0]} is read")
    else:
        place = resolve_path(place, folder)
        if names:
            imported.lack("dataset.data_files", names, "all files are read")
    if config := str(entry.get("name") or entry.get("subset") or builder.config):
        place = f"{place}:{config}"
    if inside := entry.get("data_dir") or builder.folder:
        imported.lack(
            "dataset.data_dir", inside, "a folder of the repository cannot be chosen; download it, and name it"
        )
    if system := entry.get("new_system_prompt"):
        imported.recipe["data.system"] = system
    given = entry.get("column_map")
    columns = dict(builder.columns or {})
    named = given if isinstance(given, dict) else {}
    for theirs, name in named.items():
        part = _PARTS.get(str(theirs), str(theirs))
        is_whole = part == "input" and "instruction" not in named
        columns["prompt" if is_whole else part] = str(name)
    if column := entry.get("conversation_column"):
        columns["messages"] = str(column)
    if (column := entry.get("column")) not in (None, "text"):
        columns["text"] = str(column)
    usual = [{"chosen": "chosen", "rejected": "rejected"}, {"messages": "messages"}, {"messages": "conversations"}]
    style = {"sharegpt": "sharegpt", "openai": "messages"}.get(str(entry.get("conversation_style")), builder.format)
    split = entry.get("split")
    return {
        "source": place,
        **({"columns": columns} if columns and columns not in usual else {}),
        **({"format": style} if style else {}),
        **({"split": str(split)} if split not in (None, "train") else {}),
    }


def _trains_prompt(imported: ImportedSettings, entry: Mapping[str, object], builder: _Builder) -> bool:
    strategy = entry.get("masking_strategy")
    if strategy == "train_on_last":
        imported.recipe["data.responses"] = "last"
    if strategy is not None:
        return strategy == "train_on_all"
    return bool(entry.get("train_on_input", builder.trains_prompt))


def _take_split(imported: ImportedSettings, entries: list[dict[str, object]]) -> None:
    """Take what is held out: a second dataset, with which torchtune evaluates if a number of steps is set."""
    validation = imported.take("dataset_val")
    every = imported.take("run_val_every_n_steps")
    imported.ignore(["batch_size_val"])
    imported.recipe["data.eval_fraction"] = 0.0
    if not every or not isinstance(validation, dict):
        return
    imported.recipe["training.eval_steps"] = every
    split = imported.recipe.get("data.split")
    halves = _HALVES.fullmatch(str(split))
    same = [{**entry, "split": None} for entry in entries] == [{**validation, "split": None}]
    if same and halves and validation.get("split") == f"{halves['name']}[{halves['share']}%:]":
        share = (100 - int(halves["share"])) / 100
        imported.recipe |= {"data.split": halves["name"], "data.eval_fraction": share}
        imported.lack("dataset_val.split", validation["split"], f"{short(share)} of the records, from all over the set")
    else:
        imported.lack("dataset_val", validation.get("source") or validation.get("_component_"),
                      "name a file like the training file, with .eval before the extension")  # fmt: skip


def _take_prompt(imported: ImportedSettings, builders: list[_Builder]) -> None:
    """Take the text of the tokenizer, a prompt template, and the wording of Alpaca."""
    if builders and all(builder.format == "text" for builder in builders):
        imported.ignore(["tokenizer._component_", "tokenizer.prompt_template"])
        return
    component = str(imported.take("tokenizer._component_", ""))
    name = component.rpartition(".")[2]
    turns = TOKENIZERS.get(name)
    if turns is None:
        imported.lack("tokenizer._component_", component, "the model's own template is used")
        return
    if template := imported.take("tokenizer.prompt_template"):
        found = with_prompt(turns, name, template)
        if found is None:
            imported.lack("tokenizer.prompt_template", template, "turns are written without it")
        turns = found or turns
    if name == "phi4_tokenizer":
        imported.lack("tokenizer._component_", component, "responses end with <|im_end|>, and without one there")
    is_alpaca = [builder.is_alpaca for builder in builders]
    if len({*is_alpaca}) > 1:
        imported.lack("dataset", "Alpaca's prompt in some", "no record has Alpaca's prompt")
    imported.recipe["data.template"] = turns.as_template(is_alpaca=bool(is_alpaca) and all(is_alpaca))


def _take_length(imported: ImportedSettings) -> None:
    length = imported.take("tokenizer.max_seq_len")
    if length is None:
        imported.lack("tokenizer.max_seq_len", None, f"nothing is cut there; the recipe cuts at {_LENGTH} tokens")
    if imported.take("tokenizer.truncation_type", "right") != "right":
        imported.lack("tokenizer.truncation_type", "left", "records are cut at their end")
    imported.recipe["data.max_length"] = _LENGTH if length is None else length
