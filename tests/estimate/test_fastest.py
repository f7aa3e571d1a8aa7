"""What ``auto`` comes to: it fits, and nothing that is worth while faster does."""

import itertools

import pytest

from workbench.errors import WorkbenchError
from workbench.estimate import Device, Pricing, TraceStore, estimate, largest_fit
from workbench.estimate.fastest import CLOSE, DOUBT, Chooser
from workbench.estimate.fit import fit_of
from workbench.estimate.peak import on_device
from workbench.models.catalog import catalog_skeleton
from workbench.models.skeleton import Skeleton
from workbench.recipe.resolved import ACCUMULATION, CHECKPOINTING, MICRO_BATCH, ResolvedRecipe, resolved
from workbench.recipe.schema import Recipe
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


def chooser(model: str, gib: float, device: Device = GPU, usual: int | None = None) -> Chooser:
    return Pricing(tree(model), device, TRACES).chooser(int(gib * GIB), usual)


def every_setup(recipe: Recipe) -> list[ResolvedRecipe]:
    """All that an open recipe may come to."""
    batch = recipe.training.effective_batch
    sizes = [n for n in range(1, batch + 1) if batch % n == 0]
    return [
        resolved(recipe, {CHECKPOINTING: on, MICRO_BATCH: n, ACCUMULATION: batch // n})
        for on, n in itertools.product((True, False), sizes)
    ]


@pytest.mark.parametrize("model", [SMALL, SEVEN, LARGE])
@pytest.mark.parametrize("gib", [1, 6, 12, 24, 48, 80, 141, 400])
@pytest.mark.parametrize("device", [GPU, HOST])
@pytest.mark.parametrize("changes", [{}, {"training.effective_batch_size": 24, "data.max_length": 300}])
def test_it_fits_and_nothing_that_is_faster_does(model: str, gib: float, device: Device, changes: dict) -> None:
    recipe = edit(OPEN, {"model.source": model, **changes})
    pricing = Pricing(tree(model), device, TRACES)
    weighing = chooser(model, gib, device)
    choice = weighing.choose(recipe)

    def fits(setup: ResolvedRecipe) -> bool:
        peak = on_device(device, pricing.peak(setup))
        is_rough = peak.method == "closed-form" or device.kind == "cpu"
        return fit_of(peak, int(gib * GIB * (DOUBT if is_rough else 1))) == "fits"

    fitting = [setup for setup in every_setup(recipe) if fits(setup)]
    training = choice.recipe.training
    assert training.per_device_train_batch_size * training.gradient_accumulation_steps == training.effective_batch_size
    if not fitting:
        assert (training.gradient_checkpointing, training.per_device_train_batch_size) == (True, 1)
        assert "(least memory)" in choice.reasons[0]
        return
    assert fits(choice.recipe)
    best = min(map(weighing.time_of, fitting))
    assert weighing.time_of(choice.recipe) <= CLOSE * best
    # No smaller micro-batch would have done.
    like = [s for s in fitting if s.training.gradient_checkpointing == training.gradient_checkpointing]
    enough = [s for s in like if weighing.time_of(s) <= CLOSE * best]
    assert training.per_device_train_batch_size == min(s.training.per_device_train_batch_size for s in enough)


def test_no_checkpointing_where_the_step_fits_without_it_and_the_reason_is_told() -> None:
    recipe = edit(Recipe(), {"model.source": SEVEN})
    roomy, narrow = chooser(SEVEN, 40).choose(recipe), chooser(SEVEN, 24).choose(recipe)
    assert roomy.chosen == {CHECKPOINTING: False}
    assert narrow.chosen == {CHECKPOINTING: True}
    peak = Pricing(tree(SEVEN), GPU, TRACES).peak(roomy.recipe).device_bytes / GIB
    assert roomy.reasons == (f"Checkpointing off: {peak:.2f} of 40.00 GiB, about 25 % faster.",)
    assert narrow.reasons == (f"Checkpointing on: without it the step needs {peak:.2f} of 24.00 GiB.",)


def test_a_large_micro_batch_with_checkpointing_beats_a_small_one_without() -> None:
    """15 GiB hold one record of a 7B model without checkpointing, or eight with it."""
    weighing = chooser(SEVEN, 15)
    recipe = edit(OPEN, {"model.source": SEVEN})
    choice = weighing.choose(recipe)
    one = resolved(recipe, {CHECKPOINTING: False, MICRO_BATCH: 1, ACCUMULATION: 16})
    assert fit_of(Pricing(tree(SEVEN), GPU, TRACES).peak(one), 15 * GIB) == "fits"
    assert choice.recipe.training.gradient_checkpointing
    assert choice.recipe.training.per_device_train_batch_size == 8
    assert "micro-batch 8 with it is faster than what fits without it" in choice.reasons[0]


def test_short_records_want_more_of_them_at_once() -> None:
    recipe = edit(OPEN, {"model.source": SMALL, "training.effective_batch_size": 64})
    long, short = (chooser(SMALL, 400, usual=usual).choose(recipe).recipe.training for usual in (None, 60))
    assert long.per_device_train_batch_size < short.per_device_train_batch_size


def test_what_is_stated_stays_and_only_the_rest_is_chosen() -> None:
    stated = edit(Recipe(), {"model.source": SMALL, CHECKPOINTING: True, MICRO_BATCH: 3})
    choice = chooser(SMALL, 141).choose(stated)
    assert (choice.chosen, choice.reasons) == ({}, ())
    assert choice.recipe.as_dict() == stated.as_dict()
    half = chooser(SMALL, 141).choose(edit(OPEN, {"model.source": SMALL, CHECKPOINTING: True}))
    assert set(half.chosen) == {MICRO_BATCH, ACCUMULATION}
    assert half.recipe.training.gradient_checkpointing


def test_where_nothing_is_known_the_least_memory_is_taken() -> None:
    told = estimate(tree(SMALL), OPEN).choice
    assert told.chosen == {CHECKPOINTING: True, MICRO_BATCH: 1, ACCUMULATION: 16}
    assert told.reasons == ("Checkpointing on, micro-batch 1 × 16 (least memory): the free memory is unknown.",)
    assert Chooser(None, GIB, lacking="nobody knows").choose(Recipe()).chosen == {CHECKPOINTING: True}


def test_the_estimate_prices_what_was_chosen() -> None:
    recipe = edit(OPEN, {"model.source": SEVEN})
    told = estimate(tree(SEVEN), recipe, free_bytes=24 * GIB, traced=TRACES)
    assert told.peak == estimate(tree(SEVEN), told.choice.recipe, traced=TRACES).peak
    assert told.fit == "fits"
    data = told.as_json()
    assert data["chosen"] == dict(told.choice.chosen)
    assert data["reasons"] == list(told.choice.reasons)
    # The most that fits is asked of the knobs; what is open gives way to them.
    largest = largest_fit(tree(SEVEN), edit(Recipe(), {"model.source": SEVEN}), 24 * GIB, traced=TRACES)
    assert largest.batch is not None
    assert largest.batch > 4


def test_a_formula_is_trusted_less_and_following_its_step_is_proposed() -> None:
    recipe = edit(Recipe(), {"model.source": SMALL, "quantization.method": "none"})
    pricing = Pricing(tree(SMALL), GPU, TRACES)
    without = pricing.peak(resolved(recipe, {CHECKPOINTING: False}))
    assert without.method == "closed-form"
    near = pricing.chooser(int(without.device_bytes / 0.9)).choose(recipe)
    assert near.recipe.training.gradient_checkpointing
    assert [one.training.gradient_checkpointing for one in near.guessed] == [False]
    assert "(20 % headroom)" in near.reasons[0]
    roomy = pricing.chooser(int(without.device_bytes / 0.7)).choose(recipe)
    assert not roomy.recipe.training.gradient_checkpointing
    assert roomy.reasons[0].startswith("Checkpointing off: ≈ ")
    far = pricing.chooser(without.device_bytes // 4).choose(recipe)
    assert far.guessed == ()


def test_an_adapter_that_is_refused_is_refused_here_too() -> None:
    recipe = edit(Recipe(), {"model.source": SMALL, "adapter.target_modules": ["nowhere"]})
    with pytest.raises(WorkbenchError):
        chooser(SMALL, 24).choose(recipe)


def test_faster_changes_what_is_stated_and_says_what_it_gains() -> None:
    recipe = edit(Recipe(), {"model.source": SEVEN, CHECKPOINTING: True, MICRO_BATCH: 1, ACCUMULATION: 16})
    faster = chooser(SEVEN, 80).faster(recipe)
    assert faster is not None
    assert faster.before == "checkpointing on, micro-batch 1 × 16"
    changed = edit(recipe, faster.changes)
    assert changed.training.effective_batch == 16
    assert not changed.training.gradient_checkpointing
    assert faster.sentence.startswith("Checkpointing off, micro-batch 8 × 2: ")
    assert faster.sentence.endswith("of 80.00 GiB, about 122 % faster.")
    again = chooser(SEVEN, 80).faster(changed)
    assert again is not None
    assert again.changes == {}
    said = "These are already the fastest settings that fit: checkpointing off, micro-batch 8 × 2"
    assert again.sentence.startswith(said)


def test_faster_leaves_to_the_machine_what_was_left_to_it() -> None:
    recipe = edit(Recipe(), {"model.source": SEVEN, MICRO_BATCH: 2, ACCUMULATION: 8})
    faster = chooser(SEVEN, 80).faster(recipe)
    assert faster is not None
    assert faster.changes == {MICRO_BATCH: 8, ACCUMULATION: 2}
    left_open = chooser(SEVEN, 80).faster(edit(OPEN, {"model.source": SEVEN}))
    assert left_open is not None
    assert left_open.changes == {}


def test_faster_makes_a_misfit_fit_or_says_that_nothing_does() -> None:
    recipe = edit(Recipe(), {"model.source": SEVEN, CHECKPOINTING: False, MICRO_BATCH: 16, ACCUMULATION: 1})
    faster = chooser(SEVEN, 24).faster(recipe)
    assert faster is not None
    assert faster.sentence.endswith("fastest that fits.")
    nothing = chooser(LARGE, 24).faster(edit(recipe, {"model.source": LARGE}))
    assert nothing is not None
    assert (nothing.changes, nothing.sentence[:15]) == ({}, "No settings fit")
    assert Pricing(tree(SEVEN)).chooser(None).faster(recipe) is None


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
