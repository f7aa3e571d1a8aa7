"""The quick tests are there, and no folder of the program is without one."""

import ast
from pathlib import Path

from tests.quick import QUICK, TESTS

ROOT = TESTS.parent


def _imports(tree: ast.AST) -> set[str]:
    """Modules of the program that are imported somewhere in a piece of code."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return {name for name in found if name.partition(".")[0] in ("workbench", "screens")}


def _imported_by(entry: str) -> set[str]:
    """What one entry of the list imports: its file's header, and its own function or all of them."""
    file, _, function = entry.partition("::")
    body = ast.parse((TESTS / file).read_text(encoding="utf-8")).body
    functions = [node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    header = [node for node in body if node not in functions]
    wanted = [node for node in functions if function in ("", node.name)]
    assert wanted, f"{entry} is no test"
    return set().union(*map(_imports, header + wanted))


def _folders() -> set[str]:
    """Every package of the program that holds modules."""
    modules = [path for top in ("workbench", "screens") for path in (ROOT / top).rglob("*.py")]
    return {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in modules
        if path.name != "__init__.py" and "__pycache__" not in path.parts
    }


def test_every_folder_of_the_program_is_imported_by_a_quick_test() -> None:
    imported = set().union(*map(_imported_by, QUICK))
    # A name that is imported may be a module or something in one.
    there = {name.rpartition(".")[0] for name in imported if _is_module(name)} | {
        name for name in imported if (ROOT / Path(*name.split(".")) / "__init__.py").is_file()
    }
    assert _folders() - there == set()


def _is_module(name: str) -> bool:
    return (ROOT / Path(*name.split("."))).with_suffix(".py").is_file()
