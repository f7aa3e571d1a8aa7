"""Generates the shipped model catalog from published facts: ``python -m workbench.models.build_catalog``."""

import json
from pathlib import Path
from typing import NotRequired, TypedDict

from workbench.models.build import build_skeleton
from workbench.models.catalog import FOLDER
from workbench.models.skeleton_json import skeleton_to_json


class PublishedModel(TypedDict):
    """One entry of ``published.json``: what a publisher states about models that share a configuration."""

    ids: list[str]
    aliases: NotRequired[list[str]]
    licence: str
    gated: bool
    published_parameters: int
    context_length: int | None
    config: dict[str, object]


def build_files() -> dict[str, str]:
    """The contents of all generated files, by their path under ``presets/models``.

    Raises:
        ValueError: a model built from its configuration has another parameter count than its publisher states.
    """
    published: list[PublishedModel] = json.loads((FOLDER / "published.json").read_text(encoding="utf-8"))
    files: dict[str, str] = {}
    index: list[str] = []
    for facts in published:
        skeleton = build_skeleton(facts["config"])
        if skeleton.parameters != facts["published_parameters"]:
            raise ValueError(
                f"{facts['ids'][0]}: {skeleton.parameters:,} parameters from the configuration, "
                f"{facts['published_parameters']:,} published"
            )
        tree = facts["ids"][0].partition("/")[2].lower()
        files[f"trees/{tree}.json"] = json.dumps(skeleton_to_json(skeleton), separators=(",", ":")) + "\n"
        for model_id in facts["ids"]:
            entry: dict[str, object] = {
                "id": model_id,
                "architecture": skeleton.architecture,
                "model_type": skeleton.model_type,
                "licence": facts["licence"],
                "gated": facts["gated"],
                "parameters": skeleton.parameters,
                "context_length": facts["context_length"],
                "dtype": facts["config"]["dtype"],
                "tree": tree,
            }
            if "aliases" in facts:
                entry["aliases"] = facts["aliases"]
            index.append(json.dumps(entry))
    files["index.json"] = "[\n" + ",\n".join(index) + "\n]\n"
    return files


def main(folder: Path = FOLDER) -> None:
    """Write all generated files into ``folder``."""
    for name, content in build_files().items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
