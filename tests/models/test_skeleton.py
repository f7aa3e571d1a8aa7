"""Module trees as JSON."""

import json

import pytest

from workbench.errors import WorkbenchError
from workbench.models.catalog import catalog, catalog_skeleton
from workbench.models.skeleton import Module, Skeleton, Tensor
from workbench.models.skeleton_json import skeleton_from_json, skeleton_to_json


def test_every_tree_of_the_catalog_survives_json() -> None:
    for entry in catalog():
        skeleton = catalog_skeleton(entry.id)
        assert skeleton
        assert skeleton_from_json(json.loads(json.dumps(skeleton_to_json(skeleton)))) == skeleton


def test_indices_with_gaps() -> None:
    layer = Module("", "Layer", tensors=(Tensor("weight", (2, 3), "bfloat16"),), indices=(0, 1, 4, 6, 7))
    skeleton = Skeleton("A", "a", Module("", "A", children=(Module("layers", "ModuleList", children=(layer,)),)), None)
    again = skeleton_from_json(json.loads(json.dumps(skeleton_to_json(skeleton))))
    assert again == skeleton
    assert again.parameters == 30
    assert layer.label == "0, 1, 4, 6, 7"


@pytest.mark.parametrize("data", [{}, {"format": 99}, {"format": 1}, {"format": 1, "architecture": "A", "root": 3}])
def test_damaged_files_are_told(data: dict[str, object]) -> None:
    with pytest.raises(WorkbenchError, match="module tree"):
        skeleton_from_json(data)
