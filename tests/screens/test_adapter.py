"""Adapter: the form and its costs."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from textual.widgets import DataTable, Input, Static

from screens.adapter import trackers_field as report_setting
from screens.adapter.cost_panel import CHANGE_SECONDS, CostPanel
from screens.adapter.fields import form
from screens.adapter.pane import AdapterPane
from screens.charts.stacked_bar import legend, stacked_bar
from screens.forms.form import SettingForm
from screens.forms.row import SettingRow
from screens.session import dataset_key
from screens.shell.cost_view import costs_of, outlook_of, price_of
from screens.widgets.glyphs import ASCII, UNICODE, bar, speaks_unicode
from tests.screens.piloting import NARROW, WIDE, Opened, opened
from tests.screens.scripted import some_facts
from workbench.errors import WorkbenchError
from workbench.estimate import Setup, price
from workbench.estimate.memory_text import parse_memory
from workbench.machine.gpu import GpuSample
from workbench.machine.host import HostSample
from workbench.machine.memory_budget import MemoryBudget
from workbench.models.catalog import catalog, catalog_skeleton
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit

GIB = 2**30

# Sections below the last setting that is shown at first.
FOLDED = sum(group.is_folded for group in form())


def gpu(gib: int) -> GpuSample:
    return GpuSample(0, "NVIDIA GeForce RTX 4090", gib * GIB, 0, gib * GIB)


def costs(screen: Opened) -> str:
    return screen.app.query_one(CostPanel).text


async def shown(screen: Opened, gib: int = 24) -> None:
    await screen.has_gpus(gpu(gib))
    await screen.until(lambda: screen.app.session.skeleton is not None, "the module tree")
    await screen.tab("adapter")


def row(screen: Opened, name: str) -> SettingRow:
    return screen.app.query_one(f"#{name}", SettingRow)


@pytest.mark.parametrize("size", [WIDE, NARROW])
async def test_an_arrow_turns_the_rank_and_the_figures_move_and_say_how(tmp_path: Path, size: tuple[int, int]) -> None:
    async with opened(tmp_path, size=size) as screen:
        await shown(screen)
        assert "4,884,480" in costs(screen)
        assert "3.50 %" in costs(screen)
        await screen.press("right")
        assert screen.app.session.recipe.adapter.r == 32
        assert "9,768,960" in costs(screen)
        assert "▲ ×2" in costs(screen)
        await screen.pilot.pause(CHANGE_SECONDS + 0.2)
        assert "▲" not in costs(screen)
        await screen.press("left", "left")
        assert "2,442,240" in costs(screen)
        assert "▼" in costs(screen)


async def test_it_is_priced_for_the_longest_record_there_is(tmp_path: Path) -> None:
    words = "estimated at 92 tokens (longest record; limit"
    async with opened(tmp_path, size=NARROW) as screen:
        await shown(screen)
        session, pane = screen.app.session, screen.app.pane_in_front
        assert "(longest record" not in costs(screen)
        as_long_as_allowed = costs_of(session).price

        session.dataset_facts = dataset_key(session.recipe), some_facts([], max_length=1024)
        pane.on_shown()  # type: ignore[union-attr]
        assert f"{words} 1,024" in costs(screen)
        short = costs_of(session).price
        assert short is not None
        assert as_long_as_allowed is not None
        assert short.peak.device_bytes < as_long_as_allowed.peak.device_bytes
        # What a run decides by, when it has counted its records: the longest for memory, the usual one for speed.
        assert short.asked == Setup.of(edit(session.recipe, {"data.max_length": 92}), median=62)

        # Neither another rank nor another micro-batch makes the records longer, nor does a lower cut.
        screen.app.set_recipe({"adapter.r": 32, "training.per_device_train_batch_size": 8, "data.max_length": 512})
        await screen.until(lambda: f"{words} 512" in costs(screen), "the same records")
        # What follows is not known: a cut within the longest, one above what was counted, other records, packing.
        for changes in (
            {"data.max_length": 64},
            {"data.max_length": 2048},
            {"data.packing": True},
            {"data.source": "elsewhere.jsonl"},
            {"model.source": "HuggingFaceTB/SmolLM2-360M-Instruct"},
        ):
            before = session.recipe.as_dict()
            screen.app.set_recipe(changes)
            await screen.until(lambda: session.skeleton is not None and costs(screen), "figures")
            asked = price_of(session, session.skeleton).asked
            assert replace(asked, median=None) == Setup.of(session.recipe), changes
            screen.app.set_recipe(before)


async def test_a_sample_of_the_records_is_not_priced_for(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await shown(screen)
        session = screen.app.session
        session.dataset_facts = dataset_key(session.recipe), some_facts([], max_length=1024, exact=False)
        assert price_of(session, session.skeleton).asked == Setup.of(session.recipe)
        assert costs_of(session).priced_length == ""


async def test_another_size_of_the_terminal_leaves_the_costs_whole(tmp_path: Path) -> None:
    """As they are where the app was opened at that size, there and back."""

    def panel(screen: Opened) -> list[str]:
        left, top, width, height = screen.app.query_one(CostPanel).region
        return [line[left : left + width].rstrip() for line in screen.words.splitlines()[top : top + height]]

    async def at_rest(screen: Opened) -> list[str]:
        await screen.until(lambda: "largest that fits" in costs(screen), "the outlook")
        await screen.at_rest(1.0)
        return panel(screen)

    sizes = ((100, 30), (120, 40), (80, 24))
    fresh = {}
    for size in sizes:
        async with opened(tmp_path / "x".join(map(str, size)), size=size) as screen:
            await shown(screen)
            fresh[size] = await at_rest(screen)
    async with opened(tmp_path, size=sizes[0]) as screen:
        await shown(screen)
        for size in (sizes[1], sizes[0], sizes[1], sizes[2], sizes[0]):
            await screen.pilot.resize_terminal(*size)
            words = await at_rest(screen)
            assert [line for line in words if line] == [line for line in fresh[size] if line], size


async def test_shift_and_an_arrow_move_by_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await shown(screen)
        await screen.press("shift+right")
        assert screen.app.session.recipe.adapter.r == 17
        assert screen.app.session.recipe.adapter.lora_alpha == 34


async def test_enter_opens_the_field_and_each_key_counts(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await shown(screen)
        await screen.press("enter", "4")
        assert screen.app.session.recipe.adapter.r == 4
        await screen.press("8")
        assert screen.app.session.recipe.adapter.r == 48
        await screen.press("enter")
        assert not row(screen, "rank-r").is_editing
        assert row(screen, "rank-r").has_focus


async def test_a_mistake_stands_at_the_field_and_what_was_typed_stays(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await shown(screen)
        await screen.press("enter", *"0")
        rank = row(screen, "rank-r")
        assert rank.problem == "got 0; expected a whole number from 1 to 8192."
        assert rank.query_one(Input).value == "0"
        assert screen.app.session.recipe.adapter.r == 16
        await screen.press("enter")
        assert rank.is_editing
        await screen.press("backspace", "8")
        assert (rank.problem, screen.app.session.recipe.adapter.r) == ("", 8)
        await screen.press("escape")
        assert not rank.is_editing


async def test_a_choice_that_excludes_another_is_refused_at_its_row(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await shown(screen)
        variant = row(screen, "variant")
        variant.focus()
        await screen.press("right", "right", "right")
        assert "needs an unquantized base" in variant.problem
        assert screen.app.session.recipe.adapter.use_dora
        await screen.press("left")
        assert variant.problem == ""
        assert screen.app.session.recipe.adapter.use_rslora


async def test_down_and_up_walk_the_form_and_the_help_follows(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await shown(screen)
        await screen.press("down", "down")
        assert "adapter.lora_dropout" in str(screen.app.query_one("#adapter-help", Static).content)
        await screen.press("end", *["up"] * FOLDED)
        assert row(screen, "log-to").has_focus, "over the folded sections"
        await screen.press("home")
        assert row(screen, "rank-r").has_focus


@pytest.mark.parametrize("size", [WIDE, NARROW])
async def test_what_has_to_be_installed_is_said_where_there_is_place(
    tmp_path: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_setting, "_is_here", lambda name: name == "tensorboard")
    async with opened(tmp_path, size=size) as screen:
        await shown(screen)
        await screen.press("end", *["up"] * FOLDED, "right", "right")
        await screen.sees("‹ wandb ›  not installed ")
        await screen.sees("Not installed: pip install wandb.")
        screen.app.set_recipe({"training.report_to": ["tensorboard", "wandb", "trackio"]})
        await screen.sees("‹ tensorboard, wandb, trackio ›  not installed ")
        await screen.sees("Not installed: pip install wandb trackio.")
        await screen.press("question_mark")
        await screen.is_asked("Not installed: pip install wandb trackio.")


@pytest.mark.parametrize("tab", ["adapter", "data"])
async def test_the_knob_last_in_hand_is_there_again(tmp_path: Path, tab: str) -> None:
    """In little place, where the form is longer than what is seen of it."""
    async with opened(tmp_path, size=NARROW) as screen:
        form = (await screen.tab(tab)).query_one(SettingForm)
        await screen.press("down", "down")
        assert form.rows[2].has_focus
        await screen.press("end")
        last = form.lines[-1]
        title = last.spec.label if isinstance(last, SettingRow) else last.title  # type: ignore[attr-defined]
        assert last.has_focus
        for other in ("models", "train"):
            await screen.tab(other)
            assert not last.has_focus
            await screen.tab(tab)
            await screen.until(lambda: last.has_focus, "the last knob")
            await screen.sees(f"❯ {title}")
        await screen.press("home")
        await screen.sees(f"❯ {form.rows[0].spec.label}")


async def test_every_knob_has_an_id_of_its_label(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await shown(screen)
        ids = [one.id for one in screen.app.query(SettingRow)]
        assert {"rank-r", "lora-alpha", "accumulation", "torch-compile", "log-to"} <= set(ids)
        assert len(ids) == len(set(ids))


async def test_the_mouse_sets_a_value(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await shown(screen)
        line = row(screen, "base").render().plain
        await screen.pilot.click("#base", offset=(line.index("int8") + 1, 0))
        await screen.pilot.pause()
        assert screen.app.session.recipe.quantization.method == "int8"
        assert row(screen, "base").has_focus


async def test_a_misfit_names_its_cure_and_one_key_takes_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await shown(screen)
        screen.app.set_recipe(
            {
                "model.source": "Qwen/Qwen2.5-7B-Instruct",
                "data.max_length": 4096,
                "training.per_device_train_batch_size": 16,
            }
        )
        await screen.until(lambda: "F apply" in costs(screen), "the cure")
        assert "does not fit: 24.0 GiB free" in costs(screen)
        before = screen.app.session.recipe.training.effective_batch
        await screen.press("F")
        await screen.until(lambda: "fits: 24.0 GiB free" in costs(screen), "the fit")
        recipe = screen.app.session.recipe
        assert recipe.training.per_device_train_batch_size < 16
        assert recipe.training.effective_batch == before


async def test_all_changes_that_make_it_fit_can_be_chosen_from(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await shown(screen)
        screen.app.set_recipe({"model.source": "Qwen/Qwen2.5-7B-Instruct", "data.max_length": 4096,
                               "training.per_device_train_batch_size": 16})  # fmt: skip
        await screen.until(lambda: "O other options" in costs(screen), "further changes")
        await screen.press("O")
        await screen.sees("1  micro-batch")
        # What is between them depends on the memory of this host.
        await screen.sees("  max length")
        found = re.search(r"(\d)  max length", screen.words)
        assert found
        await screen.press(found[1])
        await screen.until(lambda: "fits: 24.0 GiB free" in costs(screen), "the fit")
        recipe = screen.app.session.recipe
        assert recipe.training.per_device_train_batch_size == 16
        assert recipe.data.max_length < 4096


async def test_settings_that_the_model_refuses_are_mended_with_one_key(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await shown(screen, gib=141)
        screen.app.set_recipe({"model.source": "Qwen/Qwen3-30B-A3B", "adapter.lora_dropout": 0.05})
        await screen.until(lambda: "It works with lora_dropout 0.  F apply" in costs(screen), "the cure")
        await screen.press("F")
        await screen.until(lambda: "fits: 141 GiB free" in costs(screen), "the figures")
        assert screen.app.session.recipe.adapter.lora_dropout == 0


def told(screen: Opened) -> list[str]:
    return [notification.message for notification in screen.app._notifications]


def with_memory(screen: Opened, gib: int) -> None:
    screen.app.session.gpus = (gpu(gib),)


async def test_left_of_the_first_value_lies_auto_and_the_effective_batch_counts(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await shown(screen)
        screen.app.set_recipe({"training.effective_batch_size": 8})
        row(screen, "micro-batch").focus()
        await screen.press("left", "left")
        training = screen.app.session.recipe.training
        assert (training.per_device_train_batch_size, training.effective_batch) == (1, 4)
        await screen.press("left")
        training = screen.app.session.recipe.training
        assert (training.per_device_train_batch_size, training.effective_batch) == ("auto", 8)
        assert "Micro-batch 8 × 1 = 8: " in costs(screen)
        assert "32  derived" in row(screen, "accumulation").render().plain
        await screen.press("left", "shift+left", "shift+right")
        assert screen.app.session.recipe.training.per_device_train_batch_size == "auto"
        await screen.press("right")
        assert screen.app.session.recipe.training.per_device_train_batch_size == 1
        await screen.press("enter", *"auto", "enter")
        assert screen.app.session.recipe.training.per_device_train_batch_size == "auto"


async def test_what_auto_came_to_is_told_with_its_reason(tmp_path: Path) -> None:
    async with opened(tmp_path, size=NARROW) as screen:
        await shown(screen, gib=40)
        screen.app.set_recipe({"model.source": "Qwen/Qwen2.5-7B-Instruct"})
        await screen.until(lambda: "Checkpointing off: 36.93 of 40.00 GiB, about 25 % faster." in costs(screen), "off")
        with_memory(screen, 24)
        screen.app.set_recipe({"adapter.lora_alpha": 64})
        reason = "Checkpointing on: without it the step needs 36.93 of 24.00 GiB."
        await screen.until(lambda: reason in costs(screen), "on")
        row(screen, "checkpointing").focus()
        await screen.press("right")
        assert screen.app.session.recipe.training.gradient_checkpointing is True
        assert reason not in costs(screen)
        await screen.press("right", "left", "left")
        assert screen.app.session.recipe.training.gradient_checkpointing == "auto"


async def test_one_key_makes_it_fast_and_says_so_or_that_it_is(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await shown(screen, gib=80)
        screen.app.set_recipe({"model.source": "Qwen/Qwen2.5-7B-Instruct", "training.gradient_checkpointing": True})
        await screen.until(lambda: "about 39 % faster.  S apply" in costs(screen), "the offer")
        await screen.press("S")
        training = screen.app.session.recipe.training
        assert training.gradient_checkpointing is False
        assert (training.per_device_train_batch_size, training.gradient_accumulation_steps) == (8, 2)
        assert told(screen)[-1].endswith("about 39 % faster. Before: checkpointing on, micro-batch 4 × 4.")
        await screen.until(lambda: "S apply" not in costs(screen), "nothing faster")
        before = screen.app.session.recipe
        await screen.press("S")
        await screen.until(lambda: told(screen)[-1].startswith("These are already the fastest settings that fit"), "so")
        assert screen.app.session.recipe == before


async def test_where_no_memory_is_known_there_is_no_fastest_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await shown(screen)
        screen.app.session.gpus, screen.app.session.host = (), None
        screen.app.set_recipe({"adapter.r": 8})
        await screen.until(lambda: "(least memory): the free memory is unknown" in costs(screen), "why")
        pane = screen.app.query_one(AdapterPane)
        await screen.until(lambda: pane.check_action("fast", ()) is None, "no such key")


async def test_each_gpu_is_judged(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await shown(screen)
        screen.app.session.gpus = (gpu(24), GpuSample(1, "NVIDIA GeForce RTX 3060", GIB, 0, GIB))
        screen.app.set_recipe({"adapter.r": 8})
        await screen.until(lambda: "GPU 1 RTX 3060, 1.00 GiB free: does not fit" in costs(screen), "the second GPU")
        assert "fits: 24.0 GiB free" in costs(screen)


async def test_a_table_says_what_fits_and_takes_a_model(tmp_path: Path) -> None:
    async with opened(tmp_path, size=NARROW) as screen:
        await shown(screen)
        await screen.press("W")
        await screen.sees("Models that fit in 24.0 GiB (VRAM)")
        await screen.sees("QLoRA")
        await screen.sees("SmolLM2-135M-Instruct")
        table = screen.app.screen.query_one(DataTable)
        await screen.until(lambda: table.row_count == len(catalog()), "the whole catalog")
        priced = {
            str(table.get_cell_at((i, 0))): [str(cell) for cell in table.get_row_at(i)] for i in range(table.row_count)
        }  # type: ignore[arg-type]
        assert priced["Mixtral-8x7B-Instruct-v0.1"][4].split()[1] == "no"
        assert priced["Qwen2.5-7B-Instruct"][4].split()[1] == "fits"
        index = list(priced).index("Qwen3-30B-A3B")
        table.move_cursor(row=index)
        await screen.sees("(with lora_dropout 0")
        await screen.press("enter")
        recipe = screen.app.session.recipe
        assert (recipe.model.source, recipe.adapter.lora_dropout) == ("Qwen/Qwen3-30B-A3B", 0)
        await screen.press("W", "escape")
        assert screen.app.session.recipe == recipe


async def test_other_ways_and_the_largest_that_fits_come_a_moment_later(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await shown(screen)
        await screen.until(lambda: "largest that fits" in costs(screen), "the outlook")
        assert "with 16-bit LoRA" in costs(screen)
        assert "QLoRA" in costs(screen)


async def test_memory_can_be_typed(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await shown(screen)
        await screen.press("V", *"1 GB", "enter")
        await screen.until(lambda: "1.00 GiB free (your memory limit)" in costs(screen), "the limit")
        await screen.app.action_quit()
    async with opened(tmp_path) as screen:
        await shown(screen)
        assert "1.00 GiB free (your memory limit)" in costs(screen), "also in the next terminal"
        await screen.press("V", *["backspace"] * 10, "enter")
        await screen.until(lambda: "24.0 GiB free (VRAM)" in costs(screen), "the GPU again")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("24 GB", 24 * GIB),
        ("24", 24 * GIB),
        ("22.5 GiB", int(22.5 * GIB)),
        ("22,5gib", int(22.5 * GIB)),
        ("16G", 16 * GIB),
        ("512 MiB", 512 * 2**20),
    ],
)
def test_amounts_of_memory(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "lots", "-3 GB", "nan", "1e30", "0", "9" * 30, "٣ GB", "24 GB free"])
def test_what_is_no_amount_of_memory(text: str) -> None:
    with pytest.raises(WorkbenchError, match="is not an amount of memory"):
        parse_memory(text)


async def test_a_machine_without_a_gpu_shows_host_memory_and_says_so(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        screen.app.session.host = HostSample(1.0, 16 * GIB, 4 * GIB, 12 * GIB)
        await screen.until(lambda: screen.app.session.skeleton is not None, "the module tree")
        await screen.tab("adapter")
        assert "memory peak" in costs(screen)
        assert "12.0 GiB free (host RAM, no GPU)" in costs(screen)
        assert screen.app.session.budget.device.kind == "cpu"
        assert "CUDA" not in costs(screen)


async def test_the_terms_add_up_to_the_peak(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await shown(screen)
        screen.app.set_recipe({"adapter.r": 8})
        told = costs_of(screen.app.session)
        assert told.price is not None
        assert sum(told.terms.values()) == told.price.peak.device_bytes
        assert told.figures["trainable"] == told.price.adapter.trainable_parameters


def test_a_suggestion_really_fits() -> None:
    skeleton = catalog_skeleton("Qwen/Qwen2.5-7B-Instruct")
    assert skeleton is not None
    recipe = edit(Recipe(), {"data.max_length": 4096, "training.per_device_train_batch_size": 16})
    budget = MemoryBudget(free_bytes=24 * GIB)
    outlook = outlook_of(price(skeleton, recipe, budget))
    assert outlook.suggestions
    for suggestion in outlook.suggestions:
        again = outlook_of(price(skeleton, edit(recipe, suggestion.changes), budget))
        assert again.suggestions == ()
        assert suggestion.sentence.endswith(".")


def test_a_stacked_bar_has_its_width_and_a_mark_where_memory_ends() -> None:
    sizes = {"weights": 6 * GIB, "loss": 2 * GIB}
    roomy = stacked_bar(sizes, 16 * GIB, 18)
    assert roomy.plain == "▕" + "█" * 6 + "▓" * 2 + "─" * 8 + "▏"
    tight = stacked_bar(sizes, 4 * GIB, 18)
    assert tight.cell_length == 18
    assert tight.plain.index(UNICODE.limit) == 9
    words = " ".join(line.plain for line in legend(sizes, 40))
    assert words == "█ weights 6.00   ▓ loss 2.00"


def test_bars_are_ascii_where_the_locale_is() -> None:
    assert bar(0.5, 8, ASCII) == "####----"
    assert bar(0.55, 8, UNICODE) == "████▍   "
    assert bar(7.0, 4, UNICODE) == "████"
    locales = {"C.UTF-8": True, "de_DE.utf8": True, "C": False, "en_US.ISO-8859-1": False}
    assert {name: speaks_unicode({"LANG": name}) for name in locales} == locales
    assert not speaks_unicode({"LC_ALL": "C", "LANG": "en_US.UTF-8"})
