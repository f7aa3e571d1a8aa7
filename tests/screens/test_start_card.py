"""The start card: what Enter would start, what that takes, and each thing that is wrong with the key that cures it."""

from pathlib import Path

import pytest

from screens.train.pane import TrainPane
from screens.train.start_card import start_card
from screens.train.start_check import Findings, Trouble
from tests.runs.told import begin, finished, take_steps, writer_of
from tests.screens.piloting import NARROW, opened
from tests.screens.scripted import ScriptedEngine, some_facts
from workbench.machine.host import HostSample
from workbench.models.catalog import catalog_skeleton
from workbench.planning.expected_time import ASSUMED_MFU, Speed, Workload, computed_speed, past_speed, workload
from workbench.planning.model_files import ModelFiles, model_files
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.model import DEFAULT_MODEL, ModelSection
from workbench.recipe.text import edit
from workbench.runs.folder import create_run, next_run_id
from workbench.storage.paths import Home

GIB = 2**30


@pytest.fixture(autouse=True)
def _no_models_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


async def test_it_counts_prices_and_names_what_enter_starts(tmp_path: Path) -> None:
    home = Home(tmp_path)
    run = begin(home, model={"source": DEFAULT_MODEL})
    with writer_of(run, DEFAULT_MODEL) as journal:
        take_steps(journal, range(1, 11), tokens_per_second=1000.0)
        journal.write("run_ended", reason="finished", run=run.id)
    engine = ScriptedEngine(home)
    engine.sources.answers = [some_facts([])]
    async with opened(tmp_path, size=NARROW, engine=engine) as screen:
        screen.app.session.host = HostSample(37.0, 64 * GIB, 12 * GIB, 52 * GIB)
        await screen.tab("train")
        await screen.sees("length    1 epoch = 19 steps")
        await screen.sees("Ready to train. Enter starts.")
        # 300 of 326 records are trained on; each has 64 tokens.
        for words in (
            "run name  run  → run-02",
            "not on disk: downloads 269.0 MB",
            "326 records · 20.9k tokens",
            "4 × 4 = 16 records per step",
            "19.2k tokens",
            "fits: needs",
            "52.00 GiB free on this machine, CPU",
            "time      ≈ 19 s · 1k tok/s as in run-01",
            "eval      before and at the end · 26 records held out",
            "save      every 100 steps, the last 2 · keeps the last adapter",
        ):
            await screen.sees(words)
        screen.app.set_recipe({"training.eval_steps": 10, "training.early_stopping_patience": 3})
        await screen.sees("every 10 steps, before and at the end · 26 records held out ·")
        await screen.sees("stops after 3 without improvement")
        await screen.sees("N changes it")
        await screen.press("N", *["backspace"] * 3, *"pirate", "enter")
        await screen.sees("run name  pirate  → pirate-01")


async def test_each_thing_that_is_wrong_is_named_with_its_key(tmp_path: Path) -> None:
    engine = ScriptedEngine(Home(tmp_path), skeleton=catalog_skeleton(DEFAULT_MODEL))
    async with opened(tmp_path, engine=engine) as screen:
        app = screen.app
        app.session.host = HostSample(37.0, 64 * GIB, 62 * GIB, 2 * GIB)
        app.set_recipe({"training.per_device_train_batch_size": 64, "data.source": "nowhere.jsonl"})
        await screen.tab("train")
        await screen.sees("Not ready to train.")
        await screen.sees("Does not fit: needs")
        await screen.sees("nowhere.jsonl")
        await screen.sees("4 Data")
        assert "F apply" in " ".join(screen.words.split())
        await screen.press("F")
        await screen.until(lambda: "Does not fit" not in screen.words, "it fits now")
        assert app.session.recipe.training.effective_batch == 256
        app.set_recipe({"data.source": "first-mate", "model.source": str(tmp_path / "no-model")})
        await screen.sees("No model at")
        await screen.sees("1 Models")


async def test_a_run_that_is_over_makes_way_for_the_card(tmp_path: Path) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    async with opened(tmp_path, engine=engine) as screen:
        pane = await screen.tab("train")
        assert isinstance(pane, TrainPane)
        for leave in ("escape", "a change"):
            await screen.press("enter")
            await screen.until(lambda: engine.state == "training", "a run")
            engine.step(1, 2.0)
            engine.finish(step=1)
            await screen.until(lambda: pane.shown_run and pane.shown_run.replay.is_over, "its end")
            await screen.until(lambda: pane.check_action("card", ()), "the engine is idle")
            if leave == "escape":
                await screen.press("escape")
            else:
                await screen.tab("adapter")
                screen.app.set_recipe({"adapter.r": 8})
                await screen.tab("train")
            await screen.sees("Ready to train. Enter starts.")
            await screen.sees("finished")


def test_a_warning_does_not_keep_a_run_from_being_ready() -> None:
    found = Findings(troubles=(Trouble("Late [red]records[/red].", "4 Data", "warning"),))
    words = start_card(Recipe(), found, in_queue="2 queued").plain
    assert "Ready to train." in words
    assert "! Late [red]records[/red].  4 Data" in words
    assert words.endswith("2 queued")
    found = Findings(troubles=(Trouble("No room.", "1 Models"),), work=Workload(5, 4000), speed=Speed(100.0))
    words = start_card(Recipe(), found).plain
    assert words.startswith("Not ready to train.")
    assert f"≈ 40 s · 100 tok/s estimate at {ASSUMED_MFU:.0%} of the GPU's peak" in words


def test_steps_and_tokens_follow_the_recipe() -> None:
    facts = some_facts([])
    assert workload(facts, Recipe()) == Workload(19, 19_200)
    two = edit(Recipe(), {"training.num_train_epochs": 2.0})
    assert workload(facts, two, processes=2) == Workload(19, 38_400)
    steps = edit(Recipe(), {"training.max_steps": 38})
    assert workload(facts, steps) == Workload(38, 38_400)
    assert workload(some_facts([], exact=False), Recipe()) == Workload(19, 19_200, is_sampled=True)
    assert workload(some_facts([], records=0), Recipe()) is None


def test_speed_is_that_of_the_newest_run_of_the_base_or_follows_from_flops(tmp_path: Path) -> None:
    home = Home(tmp_path)
    recipe = edit(Recipe(), {"model.source": "tiny/model"})
    assert past_speed(home, recipe) is None
    run = begin(home, model={"source": "tiny/model"})
    with writer_of(run) as journal:
        take_steps(journal, [1], tokens_per_second=250.0)
    finished(home, model={"source": "tiny/model"})  # without a speed
    begin(home)
    assert past_speed(home, recipe) == Speed(250.0, run.id)
    assert past_speed(home, edit(recipe, {"quantization.method": "none"})) is None
    skeleton = catalog_skeleton("meta-llama/Llama-3.1-8B")
    assert skeleton is not None
    facts = some_facts([], records=10, total=20_480, trained=20_480)
    speed = computed_speed(skeleton, Recipe(), "NVIDIA H100 80GB HBM3", facts)
    # Measured elsewhere on an H100, rank 16 on all linear layers: 12,473 tokens a second.
    assert speed is not None
    assert speed.tokens_per_second == pytest.approx(12_473, rel=0.2)
    assert computed_speed(skeleton, Recipe(), "Unheard of", facts) is None


def test_files_are_here_or_have_a_size_and_what_prevents_the_download(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert model_files(home, ModelSection()) == ModelFiles(False, 269_030_016)
    gated = model_files(home, ModelSection(source="meta-llama/Llama-3.1-8B"))
    assert "is gated" in gated.problem
    assert model_files(home, ModelSection(source="some/model")) == ModelFiles(False)


def test_the_next_id_is_the_one_that_the_run_gets(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert next_run_id(home, Recipe()) == "run-01"
    for _ in range(2):
        expected = next_run_id(home, Recipe())
        assert create_run(home, Recipe()).id == expected
    assert next_run_id(home, Recipe()) == "run-03"
