"""Data: the form, and what is shown of the records."""

import json
import subprocess
import sys
from pathlib import Path

from textual.content import Content
from textual.widgets import Static

from screens.data import DataPane
from screens.records import RECORDS_KEPT, look
from screens.widgets.data_figures import histogram
from screens.widgets.glyphs import ASCII, UNICODE
from screens.widgets.record_view import MASKED, TRAINED, RecordView
from tests.screens.piloting import NARROW, Opened, opened
from tests.screens.scripted import fed, some_facts
from workbench.engine.protocol import Progress
from workbench.paths import Home
from workbench.recipe import Recipe
from workbench.recipe_text import edit


async def data_pane(screen: Opened) -> DataPane:
    pane = await screen.tab("data")
    assert isinstance(pane, DataPane)
    return pane


def jsonl(path: Path, records: list[dict]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


async def test_the_bundled_set_is_shown_record_by_record(tmp_path: Path) -> None:
    async with opened(tmp_path, size=NARROW) as screen:
        await data_pane(screen)
        await screen.until(lambda: "record 1 of" in screen.words, "the first record")
        await screen.sees("format instruction")
        await screen.sees("first-mate.jsonl, line 1")
        await screen.sees("assistant")
        await screen.press("n")
        await screen.sees("record 2 of")
        await screen.press("p", "p")
        await screen.sees(f"record {RECORDS_KEPT} of")


async def test_a_file_of_ones_own_is_typed_and_read(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "own.jsonl", [{"question": f"Q{n}?", "answer": f"A{n}."} for n in range(5)])
    async with opened(tmp_path / "home") as screen:
        await data_pane(screen)
        await screen.press("enter", *path, "enter")
        await screen.until(lambda: "record 1 of 5" in screen.words, "its records")
        assert screen.app.session.recipe.data.source == path
        await screen.sees("format question")
        await screen.sees("Q0?")
        await screen.sees("A0.")


async def test_a_source_that_is_not_here_says_what_to_do(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await data_pane(screen)
        screen.app.set_recipe({"data.source": "tatsu-lab/alpaca"})
        await screen.until(lambda: "tatsu-lab/alpaca is no bundled set (first-mate)" in screen.words, "a sentence")
        await screen.sees("t fetches it")


async def test_an_unreadable_file_says_what_to_do_and_the_next_one_is_read(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"question": "a"\n')
    async with opened(tmp_path / "home") as screen:
        await data_pane(screen)
        screen.app.set_recipe({"data.source": str(broken)})
        await screen.until(lambda: "line 1" in screen.words and "record 1 of" not in screen.words, "where it is broken")
        screen.app.set_recipe({"data.source": "first-mate"})
        await screen.until(lambda: "record 1 of" in screen.words, "the bundled set again")


async def test_a_record_that_cannot_be_trained_on_says_why(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "own.jsonl", [{"question": "Q?", "answer": "A."}, {"question": "Q?", "answer": ""}])
    async with opened(tmp_path / "home") as screen:
        await data_pane(screen)
        screen.app.set_recipe({"data.source": path})
        await screen.until(lambda: "record 1 of 2" in screen.words, "its records")
        await screen.sees("1 unusable")
        await screen.press("n")
        await screen.sees("This record cannot be trained on.")
        await screen.sees("column answer is empty")


async def test_a_mistake_is_shown_at_its_line(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await data_pane(screen)
        await screen.press(*["down"] * 3, "enter", *"9", "enter")
        await screen.until(lambda: "from 0.0 to 0.5" in screen.words, "what is allowed")
        assert screen.app.session.recipe.data.eval_fraction == 0.1


CONVERSATIONS = [("Who sails her?", "Aye, the mate."), ("Why do ships float?", "[b]They[/b] weigh\x1b[2J less.")]


async def test_records_are_shown_as_they_are_fed_with_the_trained_tokens_apart(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        screen.engine.answers = [some_facts(CONVERSATIONS)]
        pane = await data_pane(screen)
        await screen.until(lambda: "records, as they are fed" in screen.words, "tokens")
        await screen.sees("<|im_start|>assistant")
        text = pane.query_one(RecordView).query_one(Static).content
        assert isinstance(text, Content)
        looks = {text.plain[span.start : span.end]: str(span.style) for span in text.spans}
        assert looks["Aye, the mate.<|im_end|>"] == TRAINED
        assert looks["<|im_start|>user\nWho sails her?<|im_end|>\n<|im_start|>assistant\n"] == MASKED
        await screen.press("n")
        await screen.sees("[b]They[/b] weigh␛[2J less.<|im_end|>")


async def test_the_figures_of_a_sample_come_first_and_the_exact_ones_later(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        sample, exact = some_facts(CONVERSATIONS, exact=False, records=256), some_facts(CONVERSATIONS, records=9_999)
        screen.engine.answers = [
            sample,
            Progress(phase="tokenising", fraction=0.4, detail="4,096 records"),
            None,
            exact,
        ]
        await data_pane(screen)
        await screen.until(lambda: "tokenising 40%  4,096 records" in screen.words, "how far it is")
        await screen.sees("figures of a sample")
        await screen.sees("256 · 26 held out")
        screen.engine.counted_on.set()
        await screen.until(lambda: "9,999 · 26 held out" in screen.words, "the exact figures")
        await screen.until(lambda: "tokenising" not in screen.words, "as it should stand")
        await screen.until(lambda: "figures of a sample" not in screen.words, "as it should stand")


async def test_what_is_elsewhere_is_fetched_by_a_key_only(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await data_pane(screen)
        await screen.until(lambda: "Press t to fetch it" in screen.words, "which key brings the tokens")
        assert [fetch for _, fetch in screen.engine.counted] == [False]
        screen.engine.answers = [some_facts(CONVERSATIONS)]
        await screen.press("t")
        await screen.until(lambda: "as they are fed" in screen.words, "tokens")
        assert [fetch for _, fetch in screen.engine.counted] == [False, True]
        await screen.until(lambda: "Press t" not in screen.words, "as it should stand")


async def test_the_longest_records_are_a_key_away_wherever_they_are(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        longest = ((250, "first-mate.jsonl, line 251", 92), (1, "first-mate.jsonl, line 2", 91))
        screen.engine.answers = [some_facts(CONVERSATIONS, longest=longest)]
        screen.engine.examples_there = [fed(n, f"Question {n}?", "Aye.") for n in range(300)]
        await data_pane(screen)
        await screen.until(lambda: "as they are fed" in screen.words, "tokens")
        await screen.press("L")
        await screen.until(lambda: "Question 250?" in screen.words, "the longest record")
        await screen.sees("record 251 of")
        await screen.press("L")
        await screen.until(lambda: "record 2 of" in screen.words, "the next longest")
        await screen.press("p")
        await screen.sees("record 1 of")


async def test_other_settings_are_counted_anew_and_only_those(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        screen.engine.answers = [some_facts(CONVERSATIONS)]
        await data_pane(screen)
        await screen.until(lambda: "19 an epoch" in screen.words, "the steps")
        screen.app.set_recipe({"training.gradient_accumulation_steps": 1})
        await screen.until(lambda: "75 an epoch" in screen.words, "more steps")
        assert len(screen.engine.counted) == 1
        screen.app.set_recipe({"data.max_length": 512})
        await screen.until(lambda: len(screen.engine.counted) == 2, "another count")
        assert screen.engine.counted[1][0].data.max_length == 512


def test_a_histogram_marks_where_records_are_cut() -> None:
    facts = some_facts([], max_length=64)
    for glyphs, limit, beyond in ((UNICODE, "┃", "▒"), (ASCII, "|", "%")):
        *rows, axis = histogram(facts, glyphs).plain.split("\n")
        assert all(row[17] == limit for row in rows)
        assert set(rows[-1][18:]) == {beyond}
        assert beyond not in rows[-1][:17]
        assert f"{limit} cut at 64" in axis
    assert "all within 1,024" in histogram(some_facts([], max_length=1024)).plain


def test_a_large_file_is_counted_for_a_short_while_only(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "many.jsonl", [{"text": f"text {n}"} for n in range(3000)])
    found = look(edit(Recipe(), {"data.source": path}).data, Home(tmp_path))
    assert (found.count, found.complete, len(found.items)) == (3000, True, RECORDS_KEPT)
    assert found.held_out == 300


def test_looking_at_local_records_imports_nothing_heavy() -> None:
    code = (
        "import sys; from pathlib import Path; from screens.records import look; from workbench.recipe import Recipe; "
        "from workbench.paths import Home; look(Recipe().data, Home(Path('/nonexistent'))); "
        "print([name for name in ('torch', 'datasets', 'transformers', 'huggingface_hub') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
