"""The tour at the first start: a model, records, a recipe that fits; skipped with Esc or a tab's key."""

from pathlib import Path

from screens.dialogs.tour import TourScreen, offered_models, plan_of
from tests.screens.piloting import NARROW, Opened, opened
from tests.screens.test_data_pane import jsonl
from workbench.machine.gpu import GpuSample
from workbench.machine.host import HostSample
from workbench.models.catalog import catalog
from workbench.recipe.sections.model import DEFAULT_MODEL

GIB = 2**30


async def tour(screen: Opened, host: int = 64 * GIB) -> TourScreen:
    screen.app.session.host = HostSample(5.0, host, host // 4, host - host // 4)
    screen.app.action_tour()
    await screen.until(lambda: isinstance(screen.app.screen, TourScreen), "the tour")
    assert isinstance(screen.app.screen, TourScreen)
    return screen.app.screen


def test_a_model_of_each_size_is_offered_without_a_license_to_accept() -> None:
    entries = {entry.id: entry for entry in catalog()}
    offered = offered_models()
    assert offered[0] == DEFAULT_MODEL
    sizes = [entries[one].parameters for one in offered[1:]]
    assert sizes == sorted(sizes)
    assert sizes[-1] > 15e9
    assert not any(entries[one].gated for one in offered)


async def test_enter_three_times_starts_the_demo(tmp_path: Path) -> None:
    async with opened(tmp_path, size=NARROW) as screen:
        screen.app.set_recipe({"adapter.r": 64})
        await tour(screen)
        await screen.sees("1 of 3  Which model")
        await screen.sees("Fits: needs")
        await screen.press("enter")
        await screen.sees("first-mate")
        await screen.press("enter")
        await screen.sees("48.00 GiB free on")
        await screen.sees("r 16")  # the demo's own recipe is shown, and used
        await screen.press("enter")
        await screen.until(lambda: screen.app.pane_in_front and screen.app.pane_in_front.id == "train", "Train")
        recipe = screen.app.session.recipe
        assert (recipe.model.source, recipe.data.source, recipe.output.name) == (DEFAULT_MODEL, "first-mate", "demo")
        assert recipe.adapter.r == 16
        assert screen.app.session.model_chosen
        await screen.until(lambda: "train" in screen.engine.asked, "the run")


async def test_what_does_not_fit_is_changed_until_it_does_and_the_change_is_named(tmp_path: Path) -> None:
    records = jsonl(tmp_path / "own.jsonl", [{"prompt": "a", "response": "b"}] * 4)
    async with opened(tmp_path / "home") as screen:
        app = screen.app
        await screen.has_gpus(GpuSample(0, "NVIDIA L4", 24 * GIB, 14 * GIB, 10 * GIB))
        app.set_recipe({"training.per_device_train_batch_size": 32, "training.gradient_accumulation_steps": 1})
        await tour(screen)
        await screen.press("down", "down", "enter")
        await screen.press("end", "enter")
        await screen.sees("Your records")
        await screen.press(*str(records), "enter")
        await screen.sees("changed")
        await screen.sees("Needs")
        before = app.session.recipe
        await screen.press("enter")
        await screen.until(lambda: app.session.recipe is not before, "the recipe")
        recipe = app.session.recipe
        assert (recipe.model.source, recipe.data.source) == (offered_models()[2], str(records))
        plan = plan_of(recipe, app)
        assert plan.verdict is not None
        assert plan.verdict.may_start


async def test_esc_and_the_keys_of_tabs_leave_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        before = screen.app.session.recipe
        await tour(screen)
        await screen.press("enter", "escape", "escape")
        await screen.until(lambda: not isinstance(screen.app.screen, TourScreen), "closed")
        assert screen.app.session.recipe is before
        await tour(screen)
        await screen.press("3")
        await screen.until(lambda: screen.app.pane_in_front and screen.app.pane_in_front.id == "adapter", "the tab")
        assert screen.app.session.recipe is before
        await tour(screen)
        await screen.press("enter", "5")
        await screen.until(lambda: screen.app.pane_in_front and screen.app.pane_in_front.id == "train", "Train")
        assert screen.app.session.recipe.output.name == "demo"


async def test_what_is_typed_names_a_model_and_records_that_are_not_listed(tmp_path: Path) -> None:
    records = jsonl(tmp_path / "own.jsonl", [{"prompt": "a", "response": "b"}] * 4)
    async with opened(tmp_path / "home") as screen:
        await tour(screen)
        await screen.press("q")
        await screen.sees("Your model")
        await screen.press(*"wen3-0.", "tab", "enter")  # completed to Qwen/Qwen3-0.6B's own name
        await screen.sees("2 of 3  On which records?")
        await screen.press(*str(records), "enter")
        await screen.sees("5 opens Train with this recipe and does not start")
        await screen.press("5")
        await screen.until(lambda: screen.app.session.recipe.model.source == "Qwen/Qwen3-0.6B", "the model")
        assert screen.app.session.recipe.data.source == str(records)
        assert screen.engine.asked == []


async def test_letters_that_arrive_together_are_one_name(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await tour(screen)
        await screen.sees("1 of 3  Which model")
        await screen.burst(*"wen/my-model")
        await screen.sees("wen/my-model")
        await screen.press("enter")
        await screen.sees("2 of 3  On which records?")
