"""Takes the datasets of an Axolotl configuration: places, columns, and the prompts that their types write."""

from pathlib import Path
from typing import Any

from workbench.data.records.layouts import ROLE_KEYS, TEXT_KEYS
from workbench.data.records.reasoning import REASONING_KEYS
from workbench.data.records.turns import ROLES
from workbench.export.other_tools.imported_settings import ImportedSettings, listed, short
from workbench.export.other_tools.keys import resolve_path
from workbench.export.other_tools.prompt_formats import PromptFormat, alpaca_style
from workbench.objectives.objective import Objective

# The kinds of dataset that need nothing else, and what they set. Alpaca's brings its own prompt, whatever the model.
_ALPACA = {"data.format": "instruction", "data.template": "alpaca"}
_TYPES = {
    "alpaca": _ALPACA,
    "gpteacher": _ALPACA,
    "chat_template": {},
    "sharegpt": {"data.format": "sharegpt"},
    "completion": {"data.format": "text"},
    "pretrain": {"data.format": "text"},
    "input_output": {"data.format": "segments"},
}
# Axolotl's names of columns, and the part of a record that each holds.
_FIELDS = {
    "field_messages": "messages", "field_tools": "tools", "text_column": "text", "field": "text",
    "field_instruction": "prompt", "field_input": "input", "field_output": "reply", "field_system": "system",
}  # fmt: skip
# The same of pairs.
_PAIR_FIELDS = {
    "field_messages": "prompt", "field_prompt": "prompt", "field_system": "system", "field_chosen": "chosen",
    "field_rejected": "rejected", "field_completion": "reply", "field_label": "label",
}  # fmt: skip
# The columns of pairs for a reward model, which have these names alone.
_FLAT = {"prompt": "input", "chosen": "chosen", "rejected": "rejected"}
_PLACES = ("path", "name", "data_files", "ds_type", "split", "type", "trust_remote_code", "preprocess_shards")
_PROMPTS = ("format", "no_input_format", "system_format", "system_prompt")
_TURNS = ("roles", "roles_to_train", "message_property_mappings", "message_field_role", "message_field_content",
          "field_thinking", "template_thinking_key", "chat_template", "chat_template_jinja")  # fmt: skip
_DATASET_KEYS = (*_FIELDS, *_PLACES, *_PROMPTS, *_TURNS)
_PAIR_KEYS = (*_PAIR_FIELDS, *_PLACES, *_TURNS)
# Builders of the library datasets, whose records are in data_files.
_BUILDERS = ("json", "csv", "parquet", "arrow", "text")


def take_datasets(imported: ImportedSettings, folder: Path) -> None:
    """Take the datasets, which Axolotl joins: as text, or as a list where one has a split or columns of its own."""
    sources: list[dict[str, object]] = []
    implied: list[dict[str, str]] = []
    listed = [*_entries(imported.take("datasets")), *_entries(imported.take("pretraining_dataset"), "pretrain")]
    for entry in listed:
        kind = entry.get("type", "chat_template")
        fields = {**entry, **kind} if isinstance(kind, dict) else entry
        _list_unknown(imported, fields, _DATASET_KEYS)
        implied.append(_implied(imported, kind, fields))
        columns = _columns(fields, is_text=implied[-1] == {"data.format": "text"})
        sources += [source | ({"columns": columns} if columns else {}) for source in _places(imported, entry, folder)]
        if isinstance(system := fields.get("system_prompt"), str) and system:
            imported.recipe["data.system"] = system
    _set_implied(imported, sources, implied)
    imported.set_sources(sources)
    _check_held_out(imported)


def take_pairs(imported: ImportedSettings, folder: Path, objective: Objective) -> None:
    """Take the datasets of preference training: the columns of each, and the template that its type names."""
    usual = {"prompt": "prompt", "reply": "completion", "label": "label"}
    if objective.records == "pairs":
        usual = {"chosen": "chosen", "rejected": "rejected"}
    sources: list[dict[str, object]] = []
    for entry in _entries(imported.take("datasets")):
        kind = entry.get("type", "chat_template")
        fields = {**entry, **kind} if isinstance(kind, dict) else entry
        family = kind.partition(".")[0] if isinstance(kind, str) else ""
        _list_unknown(imported, fields, _PAIR_KEYS)
        _check_turns(imported, fields)
        if family == "chatml":
            imported.recipe["data.template"] = "chatml"
        elif family == "bradley_terry" and kind == "bradley_terry.chat_template":
            sources += [source | {"columns": _FLAT} for source in _places(imported, entry, folder)]
            continue
        elif family not in ("", "chat_template"):
            imported.lack("datasets: type", kind, "the model's own template is used")
        named = {part: str(fields[key]) for key, part in _PAIR_FIELDS.items() if fields.get(key)}
        if named.items() <= {"prompt": "messages", "chosen": "chosen", "rejected": "rejected"}.items():
            named = {}  # found by their names
        columns = {"columns": {**usual, **named}} if named else {}
        sources += [source | columns for source in _places(imported, entry, folder)]
    imported.set_sources(sources)
    _check_held_out(imported)


def _set_implied(imported: ImportedSettings, sources: list[dict[str, object]], implied: list[dict[str, str]]) -> None:
    """Set what the types imply: the prompt for all datasets, the format for all or for each."""
    templates = [one.get("data.template", "") for one in implied]
    formats = [one.get("data.format", "") for one in implied]
    if len({*templates}) == 1 and templates[0]:
        imported.recipe["data.template"] = templates[0]
    elif any(templates):
        imported.unsupported.append("datasets: a prompt of its own each; the model's own template is used for all")
    if len({*formats}) == 1:
        if formats[0]:
            imported.recipe["data.format"] = formats[0]
    elif len(sources) == len(implied) and any(source.keys() != {"source"} for source in sources):
        for source, form in zip(sources, formats, strict=True):
            if form:
                source["format"] = form
    else:
        imported.unsupported.append("datasets: a type of its own each; the formats are recognized from the records")


def _implied(imported: ImportedSettings, kind: object, fields: dict[str, Any]) -> dict[str, str]:
    """What the type of a dataset sets in the recipe: the format of its records and the prompt."""
    _check_turns(imported, fields)
    if isinstance(kind, dict):
        return {"data.template": _own_prompt(fields)} if any(fields.get(key) for key in _PROMPTS) else {}
    name, _, style = str(kind).partition(":")
    family = name.partition(".")[0]
    ours = _TYPES.get(family)
    # `chat_template.default`: the part after the point chooses a variant, of which only Alpaca's write other prompts.
    if ours is _ALPACA and name != family:
        ours = None
    if ours is _ALPACA and style:
        prompt = alpaca_style(style)
        ours = {"data.format": "instruction", "data.template": prompt.as_template()} if prompt is not None else None
    if ours is None:
        imported.lack("datasets: type", kind, "the format is recognized from the records")
    return ours or {}


def _own_prompt(fields: dict[str, Any]) -> str:
    """The chat template of a prompt that a file defines itself, with Axolotl's defaults for what it leaves out."""
    turn, without = str(fields.get("format") or "{instruction} {input} "), fields.get("no_input_format")
    return PromptFormat(
        turn, str(without or "{instruction} "), str(fields.get("system_format") or "{system}")
    ).as_template()


def _check_turns(imported: ImportedSettings, fields: dict[str, Any]) -> None:
    """List what a dataset says of its turns, where the records are read otherwise here."""
    mapping = fields.get("message_property_mappings")
    names = dict(mapping) if isinstance(mapping, dict) else {}
    for key, part in (("message_field_role", "role"), ("message_field_content", "content")):
        if fields.get(key):
            names[part] = fields[key]
    known = {"role": ROLE_KEYS, "content": TEXT_KEYS, "reasoning_content": REASONING_KEYS}
    if others := {part: name for part, name in names.items() if name not in known.get(part, (part,))}:
        imported.lack("datasets: message_property_mappings", others, "turns have role and content, or from and value")
    roles = fields.get("roles")
    if isinstance(roles, dict) and any(
        ROLES.get(str(name).lower()) != ROLES.get(role, role)
        for role, spelled in roles.items()
        for name in (spelled if isinstance(spelled, list) else [spelled])
    ):
        imported.lack("datasets: roles", roles, f"roles are spelled {', '.join(list(ROLES)[:6])} …")
    if (trained := fields.get("roles_to_train")) not in (None, ["assistant"], ["gpt", "assistant"], "assistant"):
        imported.lack("datasets: roles_to_train", trained, "responses are trained")
    for key in ("field_thinking", "template_thinking_key"):
        if fields.get(key) and fields[key] not in REASONING_KEYS:
            imported.lack(f"datasets: {key}", fields[key])
    if (template := fields.get("chat_template")) not in (None, "tokenizer_default", "jinja"):
        imported.lack("datasets: chat_template", template, "the model's own is used")
    if own := fields.get("chat_template_jinja"):
        imported.recipe["data.template"] = own


def _places(imported: ImportedSettings, entry: dict[str, Any], folder: Path) -> list[dict[str, object]]:
    """Where the records of a dataset are: one source, or one for each of its files."""
    names = listed(entry.get("data_files"))
    path = str(entry["path"])
    if names and path in _BUILDERS:
        places = [resolve_path(name, folder) for name in names]
    else:
        places = [resolve_path(path, folder)]
        if (here := Path(places[0])).is_dir() and all((here / name).exists() for name in names):
            places = [str(here / name) for name in names] or places
        elif names:
            imported.lack("datasets: data_files", names, f"all files of {path} are read")
        if entry.get("name"):
            places = [f"{places[0]}:{entry['name']}"]
    split = {"split": str(entry["split"])} if entry.get("split") not in (None, "train") else {}
    return [{"source": place, **split} for place in places]


def _list_unknown(imported: ImportedSettings, fields: dict[str, Any], known: tuple[str, ...]) -> None:
    imported.unsupported += [
        f"datasets: {key}: {short(value)}" for key, value in fields.items() if key not in known and value is not None
    ]


def _columns(fields: dict[str, Any], is_text: bool) -> dict[str, str]:
    """The columns that a dataset names, by part of a record; those that are found by their names need no entry."""
    names = {part: str(fields[key]) for key, part in _FIELDS.items() if fields.get(key)}
    if not is_text or names.get("text") == "text":
        names.pop("text", None)
    if names.get("messages") in ("messages", "conversations"):
        del names["messages"]
    if names and not names.keys() & {"messages", "text", "prompt"}:
        names = ({"prompt": "instruction"} if "reply" in names else {"messages": "messages"}) | names
    if "prompt" in names and "reply" not in names:
        names["reply"] = "output"
    return names


def _check_held_out(imported: ImportedSettings) -> None:
    held_out, trained = (_entries(imported.take(key)) for key in ("test_datasets", "datasets"))
    imported.check_held_out([entry["path"] for entry in held_out], [entry["path"] for entry in trained])


def _entries(listed: object, kind: str = "chat_template") -> list[dict[str, Any]]:
    """The datasets that are named: as a list of settings each, or as one name."""
    entries = listed if isinstance(listed, list) else [listed]
    named = [{"path": entry} if isinstance(entry, str) else entry for entry in entries]
    return [{"type": kind, **entry} for entry in named if isinstance(entry, dict) and entry.get("path")]
