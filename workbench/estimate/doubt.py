"""How far the closed form may be off for an architecture: ``presets/models/formula_errors.json``.

The file is made by ``python -m bench.formula --write``, from traced steps of the catalog's models.
"""

import json
from collections.abc import Mapping
from functools import cache

from workbench.estimate.layer_shape import text_type
from workbench.models.catalog import FOLDER
from workbench.models.skeleton import Skeleton

FILE = FOLDER / "formula_errors.json"
UNKNOWN = 0.3
"""Share for an architecture that the catalog has no traced step of."""
_LEAST = 0.05


def doubt_of(skeleton: Skeleton, *, checkpointing: bool) -> float:
    """The largest difference between formula and trace for models of this architecture, as a share of the peak."""
    errors = _errors().get(text_type(skeleton), {})
    return max(_LEAST, errors.get("checkpoints" if checkpointing else "none", UNKNOWN))


@cache
def _errors() -> Mapping[str, Mapping[str, float]]:
    errors: dict[str, dict[str, float]] = json.loads(FILE.read_text(encoding="utf-8"))
    return errors
