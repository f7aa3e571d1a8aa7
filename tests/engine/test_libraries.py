"""How the heavy libraries are imported: without PyTorch's compiler, and out of the collector's sight."""

import gc
import sys

import torch

from workbench.engine.model.libraries import _collector_paused, _compiling_later, import_libraries


def test_what_is_compiled_on_import_is_compiled_at_its_first_call():
    compile_now, traced = torch.compile, []

    def backend(graph, _):
        traced.append(graph)
        return graph.forward

    with _compiling_later():
        double = torch.compile(lambda x: 2 * x, backend=backend)
    assert torch.compile is compile_now
    assert not traced
    for _ in range(2):
        assert double(torch.ones(2)).tolist() == [2, 2]
    assert len(traced) == 1


def test_modules_are_kept_from_the_collector_which_goes_on_afterwards():
    before = gc.get_freeze_count()
    with _collector_paused():
        assert not gc.isenabled()
        kept = [[]]
    try:
        assert gc.isenabled()
        assert gc.get_freeze_count() > before
        assert not any(one is kept for one in gc.get_objects())
    finally:
        gc.unfreeze()


def test_libraries_are_imported_once():
    import_libraries()
    assert {"bitsandbytes", "peft", "transformers"} <= sys.modules.keys()
    gc.unfreeze()
    import_libraries()
    assert gc.get_freeze_count() == 0
