"""A script as a Jupyter notebook: a cell for each ``# %%`` in it. Format: nbformat 4.5."""

import json
import re
from typing import Any

_CELL = re.compile(r"^# %% *(.*)\n", re.MULTILINE)


def notebook_of(script: str) -> str:
    """The notebook as JSON text; the script's docstring is its first, written cell."""
    about, code = re.fullmatch(r'"""(.*?)"""\n+(.*)', script, re.DOTALL).groups()  # type: ignore[union-attr]
    parts = _CELL.split(code)
    cells = [_cell("markdown", about), _cell("code", parts[0])]
    for title, content in zip(parts[1::2], parts[2::2], strict=True):
        cells += [_cell("markdown", f"## {title}"), _cell("code", content)]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    facts = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return json.dumps({"cells": cells, "metadata": facts, "nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n"


def _cell(kind: str, content: str) -> dict[str, Any]:
    cell: dict[str, Any] = {"cell_type": kind, "metadata": {}, "source": content.strip("\n").splitlines(keepends=True)}
    return cell | {"execution_count": None, "outputs": []} if kind == "code" else cell
