"""The shipped catalog: what a rebuild would make, complete, light to load."""

import json
import subprocess
import sys

from workbench.models.build_catalog import build_files
from workbench.models.catalog import FOLDER, catalog, catalog_entry, catalog_skeleton
from workbench.recipe.schema import DEFAULT_MODEL


def test_a_rebuild_equals_what_is_shipped() -> None:
    built = build_files()
    shipped = {
        path.relative_to(FOLDER).as_posix(): path.read_text(encoding="utf-8")
        for path in (FOLDER / "index.json", *(FOLDER / "trees").glob("*.json"))
    }
    assert built.keys() == shipped.keys()
    assert {name for name in built if json.loads(built[name]) != json.loads(shipped[name])} == set()


def test_every_entry_has_a_tree_of_its_size() -> None:
    for entry in catalog():
        skeleton = catalog_skeleton(entry.id)
        assert skeleton
        assert (skeleton.parameters, skeleton.architecture) == (entry.parameters, entry.architecture)
        assert skeleton.root.facts.get("context_length") in (entry.context_length, None)


def test_names() -> None:
    assert catalog()[0].id == DEFAULT_MODEL
    assert len({entry.id for entry in catalog()}) == len(catalog()) >= 39
    alias = catalog_entry("gpt2")
    assert alias
    assert alias.id == "openai-community/gpt2"
    assert catalog_entry("META-LLAMA/llama-2-7B-hf")
    assert catalog_entry("nobody/nothing") is None
    assert catalog_skeleton("nobody/nothing") is None


def test_the_list_is_read_without_torch() -> None:
    program = "import sys; from workbench.models.catalog import catalog; catalog(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
