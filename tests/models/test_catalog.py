"""The shipped catalog: what a rebuild would make, complete, light to load."""

import json
import re
import subprocess
import sys

from workbench.models.build_catalog import build_files, published_models
from workbench.models.catalog import FOLDER, catalog, catalog_entry, catalog_skeleton
from workbench.models.catalog_table import PAGE, page_with_table
from workbench.models.skeleton import Module, Skeleton
from workbench.recipe.sections.model import DEFAULT_MODEL


def test_a_rebuild_equals_what_is_shipped() -> None:
    """One model of each architecture; that the others have the right size is in the next test."""
    chosen = {str(facts["config"]["model_type"]): facts for facts in reversed(published_models())}
    assert len(chosen) >= 35
    built = build_files(list(chosen.values()))
    lines = {entry["id"]: entry for entry in json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))}
    for entry in json.loads(built.pop("index.json")):
        assert lines[entry["id"]] == entry
    for name, content in built.items():
        assert json.loads(content) == json.loads((FOLDER / name).read_text(encoding="utf-8")), name
    assert [model for facts in published_models() for model in facts["ids"]] == list(lines)
    assert {path.stem for path in (FOLDER / "trees").glob("*.json")} == {entry["tree"] for entry in lines.values()}


def test_every_entry_says_where_its_numbers_come_from() -> None:
    for facts in published_models():
        name = facts["ids"][0]
        assert name == "state-spaces/mamba-130m-hf" or facts["source"]["path"], name
        if "published_parameters" not in facts:  # entries made from public copies: a license has its source, too
            assert re.fullmatch(r"[0-9a-f]{40}|v5\.23", facts["source"]["commit"]), name
            assert bool(facts["licence"]) == ("licence_source" in facts), name
            assert (facts["gated"] is not None) == ("gated_source" in facts), name


def test_the_size_in_a_name_is_that_of_its_configuration() -> None:
    """The size lies between the parameters without and with embeddings; ``A3B`` is what a token uses."""
    checked = mixtures = 0
    for entry in catalog():
        name, skeleton = entry.id.partition("/")[2], catalog_skeleton(entry.id)
        sizes = re.findall(r"(?<![\dA-Za-z._])([\d._]+)([bBmM])(?![A-Za-z])", name)
        if not sizes or skeleton is None or re.search(r"\d+x\d+", name):
            continue
        number, unit = sizes[0]
        stated = float(number.replace("_", ".")) * (1e9 if unit in "bB" else 1e6)
        embeddings = sum(
            tensor.size * module.count
            for _, module in skeleton.walk()
            if module.kind == "embedding"
            for tensor in module.tensors
        )
        if entry.id in _NAMED_SMALLER:
            continue
        assert 0.9 * (skeleton.parameters - 2 * embeddings) < stated < 1.1 * skeleton.parameters, entry.id
        checked += 1
        if active := re.search(r"-A([\d.]+)B", name):
            used = used_by_a_token(skeleton)
            assert 0.75 * (used - 2 * embeddings) < float(active[1]) * 1e9 < 1.25 * used, entry.id
            mixtures += 1
    assert checked > 100
    assert mixtures >= 8


_NAMED_SMALLER = {"ibm-granite/granite-4.0-h-1b", "tiiuae/Falcon3-1B-Base", "tiiuae/Falcon3-1B-Instruct"}
"""Models of 1.5 to 1.7 billion parameters that their publishers call 1B."""


def used_by_a_token(skeleton: Skeleton) -> float:
    """Parameters of the experts that a token passes, and of all else."""
    config = skeleton.config
    keys = ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts")
    experts = next(int(str(config[key])) for key in keys if config.get(key))
    chosen = int(str(config.get("num_experts_per_tok") or config["moe_k"]))

    def used(module: Module) -> float:
        own = sum(
            tensor.size * (chosen / experts if len(tensor.shape) == 3 and tensor.shape[0] == experts else 1)
            for tensor in module.tensors
            if not tensor.is_buffer and tensor.tied_to is None
        )
        return own + sum(used(child) * child.count for child in module.children)

    return used(skeleton.root)


def test_every_entry_has_a_tree_of_its_size() -> None:
    for entry in catalog():
        skeleton = catalog_skeleton(entry.id)
        assert skeleton
        assert (skeleton.parameters, skeleton.architecture) == (entry.parameters, entry.architecture)
        assert skeleton.root.facts.get("context_length") in (entry.context_length, None)


def test_names() -> None:
    assert catalog()[0].id == DEFAULT_MODEL
    assert len({entry.id for entry in catalog()}) == len(catalog()) >= 150
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


def test_the_table_in_the_documentation_is_that_of_the_catalog() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page_with_table(page) == page, "run python -m workbench.models.catalog_table"
    assert all(entry.id in page for entry in catalog())
