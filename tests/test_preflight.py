"""Whether a run fits is told before it starts: what is free, what is needed, and what would fit."""

from workbench.data.facts import DataFacts, Lengths
from workbench.errors import WorkbenchError
from workbench.estimate import price
from workbench.machine.device import Device
from workbench.machine.memory_budget import MemoryBudget
from workbench.models.catalog import catalog_skeleton
from workbench.planning.start_checks import foresee, foresee_all, judge
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit

GIB = 2**30
LLAMA = "meta-llama/Llama-2-7b-hf"
LARGE = edit(Recipe(), {"model.source": LLAMA, "data.max_length": 4096, "training.per_device_train_batch_size": 16})


def room(free: int) -> MemoryBudget:
    return MemoryBudget(free_bytes=free, place="GPU 0")


def test_a_misfit_names_both_figures_and_what_would_fit() -> None:
    skeleton = catalog_skeleton(LLAMA)
    assert skeleton is not None
    verdict = judge(skeleton, LARGE, room(20 * GIB))
    assert verdict is not None
    assert not verdict.may_start
    assert f"{verdict.needed_bytes / GIB:.2f} GiB (records of 4096 tokens); 20.00 GiB free on GPU 0." in (
        verdict.sentence
    )
    cheapest = verdict.suggestions[0]
    assert cheapest.peak_bytes < 20 * GIB
    changed = judge(skeleton, edit(LARGE, cheapest.changes), room(20 * GIB))
    assert changed is not None
    assert changed.may_start
    assert changed.needed_bytes == cheapest.peak_bytes


def test_what_fits_is_asked_no_further() -> None:
    skeleton = catalog_skeleton(LLAMA)
    assert skeleton is not None
    verdict = judge(skeleton, LARGE, room(2000 * GIB))
    assert verdict is not None
    assert verdict.may_start
    assert verdict.suggestions == ()


def test_the_processor_needs_neither_context_nor_reserve() -> None:
    skeleton = catalog_skeleton(LLAMA)
    assert skeleton is not None
    # Left open, a GPU would send its checkpoints to the host.
    recipe = edit(LARGE, {"training.gradient_checkpointing": True})
    there = judge(skeleton, recipe, room(GIB))
    here = judge(skeleton, recipe, MemoryBudget(Device("cpu"), GIB))
    assert there is not None
    assert here is not None
    assert here.needed_bytes < there.needed_bytes


class Told:
    """An engine that knows a model's tree and the lengths of its records, or neither."""

    def __init__(self, longest: int | None, *, has_tree: bool = True) -> None:
        self.longest = longest
        self.has_tree = has_tree

    async def tree(self, model):
        if not self.has_tree:
            raise WorkbenchError("There is no such model.")
        return catalog_skeleton(model.source)

    async def facts(self, recipe, *, fetch=False, show=3):
        if self.longest is None:
            raise WorkbenchError("The tokenizer is elsewhere.")
        yield DataFacts("chat", "", "model", 4096, lengths=Lengths(max=7), exact=False)
        yield DataFacts("chat", "", "model", 4096, lengths=Lengths(max=self.longest))


async def test_short_records_are_priced_as_they_are() -> None:
    for told, length, starts in ((Told(60), 60, True), (Told(9000), 4096, False), (Told(None), 4096, False)):
        verdict = await foresee(told, LARGE, room(20 * GIB))
        assert verdict is not None
        assert (verdict.length, verdict.may_start) == (length, starts)


async def test_packed_records_fill_the_whole_length() -> None:
    verdict = await foresee(Told(60), edit(LARGE, {"data.packing": True}), room(20 * GIB))
    assert verdict is not None
    assert (verdict.length, verdict.may_start) == (4096, False)


async def test_without_a_tree_there_is_no_verdict() -> None:
    assert await foresee(Told(60, has_tree=False), LARGE, room(GIB)) is None


async def test_an_unknown_memory_is_not_judged_and_no_tree_is_asked_for() -> None:
    told = Told(60, has_tree=False)
    assert await foresee(told, LARGE, MemoryBudget()) is None
    assert await foresee_all(told, [LARGE, LARGE], MemoryBudget()) == [None, None]


async def test_what_is_left_open_is_chosen_for_the_records_there_are_as_the_run_will() -> None:
    recipe = edit(LARGE, {"training.per_device_train_batch_size": "auto", "training.gradient_checkpointing": False})
    skeleton = catalog_skeleton(LLAMA)
    assert skeleton is not None
    by_limit, by_records = (
        judge(skeleton, recipe, room(24 * GIB)),
        judge(skeleton, recipe, room(24 * GIB), None, 60, 40),
    )
    assert by_limit is not None
    assert by_records is not None
    assert (by_records.length, by_records.fit) == (60, "fits")
    # Records of 60 tokens let more of them into a micro-batch than records of 4096 do.
    assert price(skeleton, recipe, room(24 * GIB), longest=60, median=40).setup.micro_batch == 16
    assert by_records.needed_bytes == price(skeleton, recipe, room(24 * GIB), longest=60, median=40).peak.device_bytes


def test_a_limit_that_was_typed_is_named_as_one() -> None:
    skeleton = catalog_skeleton(LLAMA)
    assert skeleton is not None
    verdict = judge(skeleton, LARGE, room(80 * GIB).at_most(8 * GIB))
    assert verdict is not None
    assert verdict.sentence.endswith("; your memory limit is 8.00 GiB.")
