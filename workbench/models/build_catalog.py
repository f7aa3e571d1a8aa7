"""Generates the shipped model catalog from published facts: ``python -m workbench.models.build_catalog``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

from workbench.models.build import build_skeleton
from workbench.models.catalog import FOLDER
from workbench.models.skeleton_json import skeleton_to_json


class Source(TypedDict):
    """A public copy of a ``config.json``, or of its numbers: a GitHub repository, a path in it, and a commit."""

    repository: str
    path: str
    commit: str


class PublishedModel(TypedDict):
    """One entry of ``published.json``: what a publisher states about models that share a configuration.

    ``licence`` is empty and ``gated`` None where no public source states it. ``published_parameters`` is a count that
    the publisher states to the last digit, where there is one. ``licence_source`` and ``gated_source`` are a
    repository and a path, as ``owner/name:path``.
    """

    family: str
    ids: list[str]
    aliases: NotRequired[list[str]]
    licence: str
    licence_source: NotRequired[str]
    gated: bool | None
    gated_source: NotRequired[str]
    published_parameters: NotRequired[int]
    context_length: int | None
    source: NotRequired[Source]
    config: dict[str, object]


def published_models() -> list[PublishedModel]:
    """All entries of ``published.json``, in the order of the catalog."""
    published: list[PublishedModel] = json.loads((FOLDER / "published.json").read_text(encoding="utf-8"))
    return published


def build_files(published: Sequence[PublishedModel]) -> dict[str, str]:
    """The contents of the files generated for some models, by their path under ``presets/models``.

    Raises:
        ValueError: a model built from its configuration has another parameter count than its publisher states.
    """
    files: dict[str, str] = {}
    index: list[str] = []
    for facts in published:
        skeleton = build_skeleton(facts["config"])
        stated = facts.get("published_parameters", skeleton.parameters)
        if skeleton.parameters != stated:
            raise ValueError(
                f"{facts['ids'][0]}: {skeleton.parameters:,} parameters from the configuration, {stated:,} published"
            )
        tree = facts["ids"][0].partition("/")[2].lower()
        files[f"trees/{tree}.json"] = json.dumps(skeleton_to_json(skeleton), separators=(",", ":")) + "\n"
        for model_id in facts["ids"]:
            entry: dict[str, object] = {
                "id": model_id,
                "family": facts["family"],
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
    for name, content in build_files(published_models()).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
