"""Models: the list, the search, taking one into the recipe, bringing one onto the machine."""

import shutil
from pathlib import Path

import pytest
from textual.widgets import Static

from screens.models.pane import ModelsPane
from screens.models.rows import all_lists, matching, typed_row
from screens.models.table import ModelTable, SearchField
from screens.shell.fit import fits_of, judge
from tests.screens.piloting import NARROW, Opened, opened
from tests.screens.scripted import ScriptedEngine
from workbench.errors import WorkbenchError
from workbench.estimate.peak import Peak
from workbench.machine.memory_budget import MemoryBudget
from workbench.models.catalog import catalog, catalog_skeleton
from workbench.models.hub_weights import HubWeights, keep_weights
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.model import DEFAULT_MODEL, ModelSection
from workbench.storage.paths import Home

GIB = 2**30


@pytest.fixture(autouse=True)
def _empty_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HUGGINGFACE_HUB_CACHE", raising=False)


def names(screen: Opened) -> list[str]:
    return [row.source for row in screen.app.query_one(ModelsPane)._rows]


async def listed(screen: Opened) -> None:
    await screen.until(lambda: screen.app.query_one(ModelTable).row_count, "the list")


def facts(screen: Opened) -> str:
    return str(screen.app.query_one("#models-facts", Static).content)


def test_the_demonstration_model_is_first_and_the_catalog_follows(tmp_path: Path) -> None:
    rows = all_lists(Home(tmp_path)).rows
    assert rows[0].source == DEFAULT_MODEL
    assert {row.source for row in rows} >= {entry.id for entry in catalog()}


def test_search_takes_all_words_of_name_family_or_licence(tmp_path: Path) -> None:
    rows = all_lists(Home(tmp_path)).rows
    found = [row.source for row in matching(rows, "QWEN apache 0.5")]
    assert found == ["Qwen/Qwen2.5-0.5B-Instruct"]
    assert matching(rows, "no such thing") == []


def test_what_is_typed_can_be_a_hub_id_a_folder_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model.gguf").touch()
    found = [typed_row(text) for text in ("somebody/something", f"{tmp_path}/model", f"{tmp_path}/model.gguf", "llama")]
    assert [(row.source, row.place) if row else None for row in found] == [
        ("somebody/something", "hub"),
        (f"{tmp_path}/model", "folder"),
        (f"{tmp_path}/model.gguf", "file"),
        None,
    ]
    missing = typed_row(f"{tmp_path}/nowhere")
    assert missing is not None
    assert "No model at" in missing.lack


def test_a_folder_in_the_hub_cache_is_here(tmp_path: Path, tiny_llama: Path) -> None:
    store = tmp_path / "hub" / "hub" / "models--some--tiny"
    (store / "refs").mkdir(parents=True)
    (store / "refs" / "main").write_text("abc")
    (store / "snapshots").mkdir()
    (store / "snapshots" / "abc").symlink_to(tiny_llama)
    row = next(row for row in all_lists(Home(tmp_path)).rows if row.source == "some/tiny")
    assert (row.place, row.architecture, row.lack) == ("here", "LlamaForCausalLM", "")
    assert row.parameters
    assert row.size_on_disk > 2 * row.parameters


@pytest.mark.parametrize(("gib", "word"), [(10, "fits"), (23.5, "tight"), (25, "no")])
def test_a_fit_is_a_word_a_color_and_a_sentence(gib: float, word: str) -> None:
    size = int(gib * GIB)
    fit = judge(Peak(size, size, {"cuda_context": 0}, "loss", "trace"), 24 * GIB)
    assert fit.word == word
    assert f"{gib:.1f} GiB" in fit.sentence
    assert "24.0" in fit.sentence


def test_models_are_judged_by_the_recipe_in_hand() -> None:
    sources = [DEFAULT_MODEL, "meta-llama/Meta-Llama-3-70B", "mistralai/Mixtral-8x7B-Instruct-v0.1", "not/known"]
    fits = fits_of(sources, Recipe(), MemoryBudget(free_bytes=96 * 10**9))
    assert {source: fit.word for source, fit in fits.items()} == {
        DEFAULT_MODEL: "fits",
        "meta-llama/Meta-Llama-3-70B": "fits",
        "mistralai/Mixtral-8x7B-Instruct-v0.1": "no",
    }
    assert fits["mistralai/Mixtral-8x7B-Instruct-v0.1"].sentence.endswith("with lora_dropout 0.")
    assert fits_of([DEFAULT_MODEL], Recipe(), MemoryBudget(free_bytes=3 * GIB // 4))[DEFAULT_MODEL].word == "no"


async def test_a_model_that_takes_no_dropout_is_chosen_with_the_offer_to_drop_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await listed(screen)
        screen.app.set_recipe({"adapter.lora_dropout": 0.05})  # a default is dropped without a question
        await screen.press(*"mixtral", "enter")
        await screen.sees("lora_dropout does not support. It works with lora_dropout 0.")
        assert screen.app.session.recipe.adapter.lora_dropout == 0.05
        await screen.press("enter")
        await screen.until(lambda: screen.app.session.recipe.adapter.lora_dropout == 0, "the change")
        assert screen.app.session.recipe.model.source == "mistralai/Mixtral-8x7B-Instruct-v0.1"


async def test_a_model_that_takes_the_adapter_as_it_is_asks_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await listed(screen)
        await screen.press(*"gpt2", "enter")
        await screen.until(lambda: screen.app.session.skeleton is catalog_skeleton("openai-community/gpt2"), "its tree")
        await screen.sees("Using gpt2.")
        assert screen.app.screen is screen.app.screen_stack[0]


async def test_enter_takes_the_model_and_the_header_follows(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await listed(screen)
        await screen.press("down", "enter")
        assert screen.app.session.recipe.model.source == "HuggingFaceTB/SmolLM2-360M-Instruct"
        await screen.until(lambda: "SmolLM2-360M-Instruct · nf4" in screen.words.splitlines()[0], "the header")
        await screen.sees("Using SmolLM2-360M-Instruct.")
        await screen.until(lambda: screen.app.session.skeleton is not None, "its module tree")


async def test_a_folder_in_use_stands_in_the_list(tmp_path: Path, tiny_llama: Path) -> None:
    skeleton = catalog_skeleton("openai-community/gpt2")
    engine = ScriptedEngine(Home(tmp_path), skeleton=skeleton)
    async with opened(tmp_path, engine=engine) as screen:
        await listed(screen)
        screen.app.query_one(SearchField).value = str(tiny_llama)
        await screen.press("slash", "enter")
        assert screen.app.session.recipe.model.source == str(tiny_llama)
        await screen.until(lambda: screen.app.session.skeleton == skeleton, "the engine's tree of it")
        screen.app.query_one(SearchField).value = ""
        await screen.until(lambda: len(names(screen)) > 2, "the whole list")
        assert names(screen)[1].endswith(tiny_llama.name)


async def test_a_hub_model_in_use_shows_what_was_read_of_its_files_before_any_download(
    tmp_path: Path, tiny_llama: Path
) -> None:
    home, commit = Home(tmp_path), "0123456789abcdef"
    engine = ScriptedEngine(home, skeleton=catalog_skeleton("openai-community/gpt2"))
    async with opened(tmp_path, engine=engine) as screen:
        await listed(screen)
        # What the engine leaves in the caches when it is asked for the model's layers.
        snapshot = tmp_path / "hub" / "hub" / "models--some--model" / "snapshots" / commit
        snapshot.mkdir(parents=True)
        shutil.copy(tiny_llama / "config.json", snapshot)
        weights = HubWeights(commit, "2026-11-30", 2_470_000_000, 2, {"BF16": 1_235_000_000}, licence="tiny-research")
        keep_weights(home, ModelSection(source="some/model"), weights)
        screen.app.query_one(SearchField).value = "some/model"
        await screen.press("slash", "enter")
        await screen.until(lambda: "weight headers on the hub, 2026-11-30" in facts(screen), "what was read")
        assert "not downloaded, 2.5 GB" in facts(screen)
        assert "tiny-research" in facts(screen)
        row = next(row for row in screen.app.query_one(ModelsPane)._all if row.source == "some/model")
        assert (row.place, row.parameters, row.dtype, row.lack) == ("hub", 1_235_000_000, "BF16", "")


async def test_letters_search_and_enter_takes_the_first_hit(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await listed(screen)
        await screen.press(*"mistral-7b")
        assert screen.app.query_one(SearchField).value == "mistral-7b"
        assert all("mistral-7b" in name.casefold() for name in names(screen))
        assert names(screen)[0] == "mistralai/Mistral-7B-Instruct-v0.3"
        await screen.press("enter")
        assert screen.app.session.recipe.model.source == "mistralai/Mistral-7B-Instruct-v0.3"
        assert screen.app.query_one(ModelTable).has_focus


async def test_arrows_walk_the_list_while_the_search_is_typed_in(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await listed(screen)
        await screen.press(*"qwen3", "down", "down")
        assert screen.app.query_one(SearchField).has_focus
        assert facts(screen).startswith("Qwen3-8B")


async def test_nothing_found_says_what_else_can_be_typed(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await listed(screen)
        await screen.press(*"zzz")
        assert "owner/name selects any hub model" in " ".join(facts(screen).split())
        await screen.press("enter")
        assert screen.app.session.recipe.model.source == DEFAULT_MODEL


async def test_a_path_with_nothing_there_is_refused_in_words(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await listed(screen)
        screen.app.query_one(SearchField).value = str(tmp_path / "nowhere")
        await screen.pilot.pause()
        await screen.press("slash", "enter")
        await screen.sees("No model at")
        await screen.press("escape")
        assert screen.app.session.recipe.model.source == DEFAULT_MODEL


async def test_a_download_shows_how_far_it_is_and_can_be_stopped(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await listed(screen)
        await screen.press("space")
        await screen.until(lambda: f"fetch {DEFAULT_MODEL}" in screen.engine.asked, "the download")
        screen.engine.load("downloading", 0.25, "66 of 269 MB")
        await screen.until(lambda: "25 %" in facts(screen), "the progress")
        assert "downloading 66 of 269 MB" in facts(screen)
        await screen.press("space")
        await screen.until(lambda: "cancel" in screen.engine.asked, "the request to stop")
        await screen.until(lambda: "downloading" not in facts(screen), "the end")
        assert isinstance(screen.app.pane_in_front, ModelsPane)


async def test_a_download_that_fails_says_why_and_leaves_the_app_alive(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await listed(screen)
        await screen.press("space")
        await screen.until(lambda: f"fetch {DEFAULT_MODEL}" in screen.engine.asked, "the download")
        screen.engine.break_off(WorkbenchError("The disk is full.", "Free 300 MB.", kind="disk_full"))
        await screen.until(lambda: "The disk is full." in screen.words, "the reason")
        await screen.sees("Free 300 MB.")
        await screen.press("escape", "2")
        await screen.until(lambda: screen.app.pane_in_front.id == "architecture", "the next tab")  # type: ignore[union-attr]


async def test_the_mouse_takes_a_model_too(tmp_path: Path) -> None:
    async with opened(tmp_path, size=NARROW) as screen:
        await listed(screen)
        await screen.pilot.click(ModelTable, offset=(10, 3))
        await screen.pilot.click(ModelTable, offset=(10, 3))
        await screen.pilot.pause()
        assert screen.app.session.recipe.model.source == "HuggingFaceTB/SmolLM2-1.7B-Instruct"
