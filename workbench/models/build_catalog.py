"""Make the shipped catalog from the published facts: ``python -m workbench.models.build_catalog``."""

import json
from pathlib import Path
from typing import Any

from workbench.models.build import build_skeleton
from workbench.models.catalog import FOLDER
from workbench.models.skeleton_json import skeleton_to_json


def build_files() -> dict[str, str]:
    """The content of every generated file under ``presets/models``, by its path there.

    Raises:
        ValueError: a configuration does not have the number of parameters that its publisher states.
    """
    published = json.loads((FOLDER / "published.json").read_text(encoding="utf-8"))
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
            entry: dict[str, Any] = {
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
    for name, content in build_files().items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
