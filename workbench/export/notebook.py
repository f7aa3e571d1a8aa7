"""Converts a Python script to a Jupyter notebook, with a cell for each ``# %%``. Format: nbformat 4.5."""

import json
import re

_CELL = re.compile(r"^# %% *(.*)\n", re.MULTILINE)


def notebook_of(script: str) -> str:
    """Convert a script to a notebook's JSON text. The script's docstring becomes the first cell, in Markdown."""
    match = re.fullmatch(r'"""(.*?)"""\n+(.*)', script, re.DOTALL)
    if match is None:
        raise ValueError("the script does not start with a docstring")
    about, code = match.groups()
    parts = _CELL.split(code)
    cells = [_cell("markdown", about), _cell("code", parts[0])]
    for title, content in zip(parts[1::2], parts[2::2], strict=True):
        cells += [_cell("markdown", f"## {title}"), _cell("code", content)]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n"


def _cell(kind: str, content: str) -> dict[str, object]:
    cell: dict[str, object] = {
        "cell_type": kind,
        "metadata": {},
        "source": content.strip("\n").splitlines(keepends=True),
    }
    return cell | {"execution_count": None, "outputs": []} if kind == "code" else cell
