"""What ``auto`` comes to: it fits, and nothing that is worth while faster does."""

import itertools
from typing import Any

import pytest

from workbench.errors import WorkbenchError
from workbench.estimate import Price, Setup, TraceStore, price
from workbench.estimate.fastest import NEAR_FASTEST, ROUGH_PEAK_SHARE, Chooser
from workbench.estimate.fit import fit_of
from workbench.estimate.pricing import Pricing
from workbench.machine.device import Device
from workbench.machine.memory_budget import MemoryBudget
from workbench.models.catalog import catalog_skeleton
from workbench.models.skeleton import Skeleton
from workbench.recipe.resolved import ACCUMULATION, CHECKPOINTING, MICRO_BATCH, resolved
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.section import OFFLOAD, Offload
from workbench.recipe.text import RecipeError, edit, parse, to_yaml

GIB = 2**30
SMALL = "HuggingFaceTB/SmolLM2-135M-Instruct"
SEVEN = "Qwen/Qwen2.5-7B-Instruct"
LARGE = "meta-llama/Meta-Llama-3-70B"
GPU, HOST = Device(), Device("cpu", bfloat16=False)
OPEN = edit(Recipe(), {MICRO_BATCH: "auto"})
TRACES = TraceStore()


def tree(model: str) -> Skeleton:
    skeleton = catalog_skeleton(model)
    assert skeleton is not None
    return skeleton


def pricing_of(model: str, device: Device = GPU) -> Pricing:
    return Pricing(tree(model), device, TRACES)


def chooser(model: str, gib: float, device: Device = GPU) -> Chooser:
    return Chooser(pricing_of(model, device).peak, MemoryBudget(device, int(gib * GIB)))


def setup_of(recipe: Recipe, chosen: dict[str, Any]) -> Setup:
    return Setup.of(resolved(recipe, chosen))


def every_setup(recipe: Recipe, checkpointing: tuple[bool | Offload, ...] = (True, False)) -> list[Setup]:
    """All that an open recipe may come to."""
    batch = recipe.training.effective_batch
    sizes = [n for n in range(1, batch + 1) if batch % n == 0]
    return [
        setup_of(recipe, {CHECKPOINTING: on, MICRO_BATCH: n, ACCUMULATION: batch // n})
        for on, n in itertools.product(checkpointing, sizes)
    ]


@pytest.mark.parametrize("model", [SMALL, SEVEN, LARGE])
@pytest.mark.parametrize("gib", [1, 6, 12, 24, 48, 80, 141, 400])
@pytest.mark.parametrize("device", [GPU, HOST])
@pytest.mark.parametrize("changes", [{}, {"training.effective_batch_size": 24, "data.max_length": 300}])
def test_it_fits_and_nothing_that_is_faster_does(model: str, gib: float, device: Device, changes: dict) -> None:
    recipe = edit(OPEN, {"model.source": model, **changes})
    pricing = pricing_of(model, device)
    weighing = chooser(model, gib, device)
    choice = weighing.choose(Setup.of(recipe))

    def fits(setup: Setup) -> bool:
        peak = pricing.peak(setup)
        is_rough = peak.method == "closed-form" or device.kind == "cpu"
        return fit_of(peak, int(gib * GIB * (ROUGH_PEAK_SHARE if is_rough else 1))) == "fits"

    chosen = choice.setup
    assert chosen.micro_batch * chosen.accumulation == recipe.training.effective_batch_size
    fitting = [setup for setup in every_setup(recipe) if fits(setup)]
    if not fitting and device.kind == "cuda":
        # Only then are checkpoints sent to the host.
        fitting = [s for s in every_setup(recipe, (OFFLOAD,)) if fits(s)]
    if not fitting:
        assert (chosen.checkpointing, chosen.micro_batch) == (OFFLOAD if device.kind == "cuda" else True, 1)
        assert "(least memory)" in choice.reasons[0]
        return
    assert chosen in every_setup(recipe, (True, False, OFFLOAD))
    assert fits(chosen)
    best = min(map(weighing.time_of, fitting))
    assert weighing.time_of(chosen) <= NEAR_FASTEST * best
    # No smaller micro-batch would have done.
    like = [s for s in fitting if s.checkpointing == chosen.checkpointing]
    enough = [s for s in like if weighing.time_of(s) <= NEAR_FASTEST * best]
    assert chosen.micro_batch == min(s.micro_batch for s in enough)


def test_no_checkpointing_where_the_step_fits_without_it_and_the_reason_is_told() -> None:
    setup = Setup.of(edit(Recipe(), {"model.source": SEVEN}))
    roomy, narrow = chooser(SEVEN, 40).choose(setup), chooser(SEVEN, 24).choose(setup)
    assert roomy.chosen == {CHECKPOINTING: False}
    assert narrow.chosen == {CHECKPOINTING: True}
    peak = pricing_of(SEVEN).peak(roomy.setup).device_bytes / GIB
    assert roomy.reasons == (f"Checkpointing off: {peak:.2f} of 40.00 GiB, about 25 % faster.",)
    assert narrow.reasons == (f"Checkpointing on: without it the step needs {peak:.2f} of 24.00 GiB.",)


def test_a_large_micro_batch_with_checkpointing_beats_a_small_one_without() -> None:
    """15 GiB hold one record of a 7B model without checkpointing, or eight with it."""
    weighing = chooser(SEVEN, 15)
    recipe = edit(OPEN, {"model.source": SEVEN})
    choice = weighing.choose(Setup.of(recipe))
    one = setup_of(recipe, {CHECKPOINTING: False, MICRO_BATCH: 1, ACCUMULATION: 16})
    assert fit_of(pricing_of(SEVEN).peak(one), 15 * GIB) == "fits"
    assert (choice.setup.checkpointing, choice.setup.micro_batch) == (True, 8)
    assert "micro-batch 8 with it is faster than what fits without it" in choice.reasons[0]


def test_checkpoints_go_to_the_host_where_nothing_else_fits() -> None:
    """And only if it has memory for them; before shorter records, a smaller rank or another base."""
    recipe = edit(Recipe(), {"model.source": LARGE, "data.max_length": 16384, MICRO_BATCH: 1})
    peaks = {on: pricing_of(LARGE).peak(setup_of(recipe, {CHECKPOINTING: on})) for on in (True, OFFLOAD)}
    gib = peaks[True].device_bytes / GIB
    # 80 layers, 16,384 × 8,192 numbers of two bytes: a power of two.
    host = 80 * 2**28
    assert (peaks[True].host_bytes, peaks[OFFLOAD].host_bytes) == (0, host)
    # All of them but two.
    assert peaks[True].terms["saved_activations"] - peaks[OFFLOAD].terms["saved_activations"] > 77 * 2**28

    def priced(available: int | None) -> Price:
        budget = MemoryBudget(free_bytes=int(0.99 * gib * GIB), host_bytes=available)
        return price(tree(LARGE), recipe, budget, traced=TRACES)

    for known in (None, 2 * host):
        told = priced(known)
        assert (told.choice.chosen, told.fit) == ({CHECKPOINTING: OFFLOAD}, "fits")
        assert told.choice.reasons[0].startswith("Checkpoints in host memory (20.0 GiB): with them on the GPU the step")
        assert told.host_note.startswith(
            "Checkpoints take 20.0 GiB of host memory, pinned. Copying them takes about 3.6 s"
        )
        # As long as the model's context.
        assert told.largest.length == 8192
    narrow = priced(host)
    assert (narrow.choice.chosen, narrow.host_note) == ({CHECKPOINTING: True}, "")
    assert OFFLOAD not in [change.changes.get(CHECKPOINTING) for change in narrow.suggestions]
    stated = edit(recipe, {CHECKPOINTING: True})
    changes = price(tree(LARGE), stated, narrow.budget, traced=TRACES).suggestions
    assert CHECKPOINTING not in [path for change in changes for path in change.changes]
    roomy = price(tree(LARGE), stated, MemoryBudget(free_bytes=narrow.budget.free_bytes), traced=TRACES).suggestions
    assert [change.label for change in roomy[:2]] == ["MLPs in pieces", "checkpoints in host memory"]
    forced = edit(recipe, {CHECKPOINTING: OFFLOAD})
    assert price(tree(LARGE), forced, narrow.budget).notices == (
        "Checkpoints need 20.0 GiB of host memory, of which 20.0 GiB are available.",
    )
    # A CPU computes in that very memory.
    here = price(tree(LARGE), forced, MemoryBudget(HOST)).peak
    assert here == price(tree(LARGE), stated, MemoryBudget(HOST)).peak
    assert here.host_bytes == 0


def test_short_records_want_more_of_them_at_once() -> None:
    recipe = edit(OPEN, {"model.source": SMALL, "training.effective_batch_size": 64})
    long, short = (chooser(SMALL, 400).choose(Setup.of(recipe, median=median)).setup for median in (None, 60))
    assert long.micro_batch < short.micro_batch


def test_what_is_stated_stays_and_only_the_rest_is_chosen() -> None:
    stated = edit(Recipe(), {"model.source": SMALL, CHECKPOINTING: True, MICRO_BATCH: 3})
    choice = chooser(SMALL, 141).choose(Setup.of(stated))
    assert (choice.chosen, choice.reasons) == ({}, ())
    assert choice.setup == Setup.of(stated)
    assert choice.setup.applied_to(stated).as_dict() == stated.as_dict()
    half = chooser(SMALL, 141).choose(Setup.of(edit(OPEN, {"model.source": SMALL, CHECKPOINTING: True})))
    assert set(half.chosen) == {MICRO_BATCH, ACCUMULATION}
    assert half.setup.checkpointing


def test_where_nothing_is_known_the_least_memory_is_taken() -> None:
    told = price(tree(SMALL), OPEN).choice
    assert told.chosen == {CHECKPOINTING: True, MICRO_BATCH: 1, ACCUMULATION: 16}
    assert told.reasons == ("Checkpointing on, micro-batch 1 × 16 (least memory): the free memory is unknown.",)
    blind = Chooser(None, MemoryBudget(free_bytes=GIB), unknown_reason="nobody knows")
    assert blind.choose(Setup.of(Recipe())).chosen == {CHECKPOINTING: True}


def test_the_estimate_prices_what_was_chosen() -> None:
    recipe = edit(OPEN, {"model.source": SEVEN})
    budget = MemoryBudget(free_bytes=24 * GIB)
    told = price(tree(SEVEN), recipe, budget, traced=TRACES)
    assert told.peak == price(tree(SEVEN), told.setup.applied_to(recipe), traced=TRACES).peak
    assert told.fit == "fits"
    data = told.as_json()
    assert data["chosen"] == dict(told.choice.chosen)
    assert data["reasons"] == list(told.choice.reasons)
    # The most that fits is asked of the knobs; what is open gives way to them.
    largest = price(tree(SEVEN), edit(Recipe(), {"model.source": SEVEN}), budget, traced=TRACES).largest
    assert largest.batch is not None
    assert largest.batch > 4


def test_a_formula_is_trusted_less_and_following_its_step_is_proposed() -> None:
    recipe = edit(Recipe(), {"model.source": SMALL, "quantization.method": "none"})
    without = pricing_of(SMALL).peak(setup_of(recipe, {CHECKPOINTING: False}))
    assert without.method == "closed-form"

    def priced(free: float) -> Price:
        return price(tree(SMALL), recipe, MemoryBudget(free_bytes=int(free)), traced=TRACES)

    near = priced(without.device_bytes / 0.9)
    assert near.setup.checkpointing
    assert near.worth_tracing[-1] == resolved(recipe, {CHECKPOINTING: False})
    assert [one.checkpointing for one in near.choice.untraced] == [False]
    assert "(20 % headroom)" in near.choice.reasons[0]
    roomy = priced(without.device_bytes / 0.7)
    assert not roomy.setup.checkpointing
    assert roomy.choice.reasons[0].startswith("Checkpointing off: ≈ ")
    assert priced(without.device_bytes // 8).choice.untraced == ()


def test_an_adapter_that_is_refused_is_refused_here_too() -> None:
    recipe = edit(Recipe(), {"model.source": SMALL, "adapter.target_modules": ["nowhere"]})
    with pytest.raises(WorkbenchError):
        chooser(SMALL, 24).choose(Setup.of(recipe))


def test_faster_changes_what_is_stated_and_says_what_it_gains() -> None:
    recipe = edit(Recipe(), {"model.source": SEVEN, CHECKPOINTING: True, MICRO_BATCH: 1, ACCUMULATION: 16})
    faster = chooser(SEVEN, 80).faster(Setup.of(recipe))
    assert faster is not None
    assert faster.before == "checkpointing on, micro-batch 1 × 16"
    changed = edit(recipe, faster.changes)
    assert changed.training.effective_batch == 16
    assert not changed.training.gradient_checkpointing
    assert faster.sentence.startswith("Checkpointing off, micro-batch 8 × 2: ")
    assert faster.sentence.endswith("of 80.00 GiB, about 122 % faster.")
    again = chooser(SEVEN, 80).faster(Setup.of(changed))
    assert again is not None
    assert again.changes == {}
    said = "These are already the fastest settings that fit: checkpointing off, micro-batch 8 × 2"
    assert again.sentence.startswith(said)


def test_faster_leaves_to_the_machine_what_was_left_to_it() -> None:
    recipe = edit(Recipe(), {"model.source": SEVEN, MICRO_BATCH: 2, ACCUMULATION: 8})
    faster = chooser(SEVEN, 80).faster(Setup.of(recipe))
    assert faster is not None
    assert faster.changes == {MICRO_BATCH: 8, ACCUMULATION: 2}
    left_open = chooser(SEVEN, 80).faster(Setup.of(edit(OPEN, {"model.source": SEVEN})))
    assert left_open is not None
    assert left_open.changes == {}


def test_faster_makes_a_misfit_fit_or_says_that_nothing_does() -> None:
    recipe = edit(Recipe(), {"model.source": SEVEN, CHECKPOINTING: False, MICRO_BATCH: 16, ACCUMULATION: 1})
    faster = chooser(SEVEN, 24).faster(Setup.of(recipe))
    assert faster is not None
    assert faster.sentence.endswith("fastest that fits.")
    nothing = chooser(LARGE, 24).faster(Setup.of(edit(recipe, {"model.source": LARGE})))
    assert nothing is not None
    assert (nothing.changes, nothing.sentence[:15]) == ({}, "No settings fit")
    assert price(tree(SEVEN), recipe).faster is None


def test_what_the_machine_may_not_divide_is_not_made_faster() -> None:
    recipe = edit(Recipe(), {"model.source": SMALL, MICRO_BATCH: 65536, ACCUMULATION: 65536})
    assert price(tree(SMALL), recipe, MemoryBudget(free_bytes=80 * GIB)).faster is None


def test_a_base_that_is_sharded_is_priced_and_not_judged() -> None:
    recipe = edit(OPEN, {"model.source": SEVEN})
    whole = price(tree(SEVEN), recipe, MemoryBudget(free_bytes=24 * GIB, largest_base=20 * GIB), traced=TRACES)
    assert whole.fit == "fits"
    sharded = price(tree(SEVEN), recipe, MemoryBudget(free_bytes=24 * GIB, largest_base=GIB), traced=TRACES)
    assert (sharded.fit, sharded.suggestions, sharded.faster) == (None, (), None)
    assert "the base is sharded across GPUs" in sharded.choice.reasons[0]


def test_a_setup_is_that_of_the_recipe_with_the_same_changes() -> None:
    changes = {
        "adapter.r": 64,
        "adapter.lora_dropout": 0.0,
        "adapter.use_dora": True,
        "adapter.target_modules": ["q_proj", "v_proj"],
        "adapter.layers_to_transform": [0, 1],
        "quantization.method": "int8",
        "quantization.double_quant": False,
        "training.optim": "adamw_8bit",
        "data.max_length": 512,
        CHECKPOINTING: False,
        MICRO_BATCH: 2,
        ACCUMULATION: 8,
    }
    recipe = resolved(Recipe())
    setup = Setup.of(recipe).varied(changes)
    assert setup == Setup.of(edit(recipe, changes))
    assert {path: setup.get(path) for path in changes} == {
        path: tuple(value) if isinstance(value, list) else value for path, value in changes.items()
    }


def test_records_are_as_long_as_the_longest_there_is_unless_they_are_packed() -> None:
    assert Setup.of(Recipe(), longest=300).length == 300
    assert Setup.of(Recipe(), longest=5000).length == 1024
    assert Setup.of(Recipe(), longest=3).length == 8
    assert Setup.of(edit(Recipe(), {"data.packing": True}), longest=300).length == 1024


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_an_initialisation_from_the_base_is_never_offered_a_quantised_one(init: str) -> None:
    recipe = edit(Recipe(), {"model.source": SEVEN, "quantization.method": "none", "adapter.init_lora_weights": init})
    priced = price(tree(SEVEN), recipe, MemoryBudget(free_bytes=10 * GIB), traced=TRACES)
    assert set(priced.by_method) == {"16-bit LoRA"}
    for suggestion in priced.suggestions:
        edit(recipe, suggestion.changes)
    assert not any("quantization.method" in suggestion.changes for suggestion in priced.suggestions)
    with pytest.raises(WorkbenchError, match="unquantized"):
        priced.setup.varied({"quantization.method": "nf4"})


def test_an_open_recipe_is_written_and_read_and_a_resolved_one_takes_no_auto() -> None:
    assert parse(OPEN.as_dict()) == OPEN
    assert "per_device_train_batch_size: auto" in to_yaml(OPEN)
    assert OPEN.training.effective_batch == 16
    assert edit(OPEN, {"training.effective_batch_size": 6}).training.effective_batch == 6
    done = resolved(OPEN, {MICRO_BATCH: 8, ACCUMULATION: 2, CHECKPOINTING: False})
    assert (done.training.effective_batch, done.training.gradient_checkpointing) == (16, False)
    assert resolved(done) is done
    with pytest.raises(RecipeError, match="auto"):
        edit(done, {MICRO_BATCH: "auto"})
    with pytest.raises(RecipeError):
        resolved(OPEN, {MICRO_BATCH: 0, ACCUMULATION: 2})


@pytest.mark.parametrize(("model", "gib"), [(SEVEN, 8), (SEVEN, 12), (SEVEN, 24), (SMALL, 2), (LARGE, 48)])
def test_a_change_that_makes_it_fit_is_promised_with_the_peak_that_it_gives(model: str, gib: int) -> None:
    """Also where checkpointing is left open: it is decided anew after the change."""
    recipe = edit(Recipe(), {"model.source": model, "data.max_length": 4096, MICRO_BATCH: 16})
    budget = MemoryBudget(free_bytes=gib * GIB)
    before = price(tree(model), recipe, budget)
    assert before.suggestions
    for change in before.suggestions:
        after = price(tree(model), edit(recipe, change.changes), budget)
        assert (change.label, change.peak_bytes) == (change.label, after.peak.device_bytes)


def test_what_fits_is_not_said_to_perhaps_not_fit() -> None:
    """Neither in the verdict nor in the reason below it, whatever room there is."""
    for model, gib in itertools.product((SEVEN, SMALL, LARGE), range(1, 100, 3)):
        priced = price(tree(model), edit(Recipe(), {"model.source": model}), MemoryBudget(free_bytes=gib * GIB))
        words = " ".join(priced.choice.reasons)
        assert priced.fit != "fits" or "not fit" not in words, (model, gib, words)
