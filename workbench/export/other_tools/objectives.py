"""How another tool names the objective of a recipe, for exports."""

from dataclasses import dataclass

from workbench.errors import WorkbenchError
from workbench.export.other_tools.imported_settings import short
from workbench.objectives.objective import Objective, OtherTool
from workbench.objectives.table import OBJECTIVES
from workbench.recipe.sections.objective import ObjectiveSection

# Keys that are written only if they are not 0.
_ONLY_IF_SET = ("label_smoothing", "rpo_alpha")
NAMES = {"axolotl": "Axolotl", "llamafactory": "LLaMA-Factory"}


@dataclass(frozen=True)
class NamedObjective:
    """An objective by another tool's names.

    Attributes:
        choice: the tool's value for it.
        values: the tool's settings of it.
        unsupported: what of it the tool does not have, as text for the user.
    """

    choice: str
    values: dict[str, object]
    unsupported: list[str]


def named_there(objective: ObjectiveSection, tool: str) -> NamedObjective:
    """The objective as a tool names it.

    Args:
        tool: ``axolotl`` or ``llamafactory``.

    Raises:
        WorkbenchError: the tool does not have the objective, or not this loss of it.
    """
    spec: Objective = objective.spec
    other: OtherTool = getattr(spec, tool)
    if not other.choices:
        known = [one.kind for one in OBJECTIVES.values() if getattr(one, tool).choices]
        raise WorkbenchError(
            f"{NAMES[tool]} has no {spec.kind} training.",
            f"It has {', '.join(dict.fromkeys(('sft', *known)))}. Export the script, which repeats the run.",
            kind="objective",
        )
    usual = spec.loss_types[0] if spec.loss_types else ""
    loss = objective.loss_type if spec.loss_types else ""
    choice = next((one for one, sets in other.choices.items() if sets.get("loss_type", usual) == loss), None)
    extra: dict[str, object] = {}
    if choice is None and other.loss_key:
        choice, extra = next(iter(other.choices)), {other.loss_key: [loss]}
    if choice is None:
        raise WorkbenchError(
            f"{NAMES[tool]} has no loss {loss} of {spec.kind} (objective.loss_type).",
            "Export the script, which repeats the run.",
            kind="objective",
        )
    names: dict[str, str] = {}
    for theirs, key in other.keys.items():
        names.setdefault(key, theirs)
    fields = ObjectiveSection.model_fields
    unsupported = [
        f"objective.{key}: {short(getattr(objective, key))}"
        for key in spec.keys
        if key not in names
        and key != "loss_type"
        and getattr(objective, key) != spec.defaults.get(key, fields[key].default)
    ]
    values = {theirs: getattr(objective, key) for key, theirs in names.items()}
    for key in _ONLY_IF_SET:
        if not getattr(objective, key):
            values.pop(names.get(key, ""), None)
    return NamedObjective(choice, {**values, **extra}, unsupported + ([other.note] if other.note else []))
