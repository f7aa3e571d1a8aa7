"""The table of objectives, which forms, commands, estimate, data, engine, imports and exports ask."""

from collections.abc import Mapping

from workbench.objectives.classification import CLASSIFICATION
from workbench.objectives.cpo import CPO
from workbench.objectives.dpo import DPO
from workbench.objectives.kto import KTO
from workbench.objectives.objective import Objective, OtherTool
from workbench.objectives.orpo import ORPO
from workbench.objectives.reward import REWARD
from workbench.objectives.sft import SFT
from workbench.objectives.simpo import SIMPO

OBJECTIVES: Mapping[str, Objective] = {
    objective.kind: objective
    for objective in (
        SFT,
        DPO,
        ORPO,
        KTO,
        SIMPO,
        CPO,
        REWARD,
        CLASSIFICATION,
    )
}
"""By their names in ``objective.kind``; the first one is the default."""


LINKED = frozenset({"loss_type", *(key for objective in OBJECTIVES.values() for key in objective.defaults)})
"""The keys of the section whose defaults follow the objective."""


def loss_types() -> list[str]:
    """The values of ``loss_type`` of all objectives, each once."""
    return list(dict.fromkeys(name for objective in OBJECTIVES.values() for name in objective.loss_types))


def using(key: str) -> str:
    """The objectives that use a key of the section, as in ``dpo and orpo``."""
    kinds = [objective.kind for objective in OBJECTIVES.values() if key in objective.keys]
    return " and ".join(filter(None, (", ".join(kinds[:-1]), kinds[-1])))


def choices_of(tool: str) -> dict[str, tuple[Objective, OtherTool]]:
    """The objective that each value of another tool's setting names, with how the tool names it.

    Args:
        tool: the attribute of :class:`Objective` that describes it: ``axolotl``, ``llamafactory`` or ``swift``.
    """
    others: list[tuple[Objective, OtherTool]] = [(one, getattr(one, tool)) for one in OBJECTIVES.values()]
    return {choice: (objective, other) for objective, other in others for choice in other.choices}
