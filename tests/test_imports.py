"""No module imports itself through others, so that each can be read, and imported, before what builds on it."""

import grimp


def test_there_is_no_import_cycle() -> None:
    graph = grimp.build_graph("workbench", "screens", exclude_type_checking_imports=True, cache_dir=None)
    cycles = []
    for module in sorted(graph.modules):
        # A package and the modules in it are different modules: a cycle goes through modules alone.
        for imported in graph.find_modules_directly_imported_by(module):
            if (chain := graph.find_shortest_chain(importer=imported, imported=module)) is not None:
                cycles.append((module, *chain))
    assert not cycles, cycles[:3]
