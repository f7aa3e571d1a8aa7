"""Data: the form, and what is shown of the records."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from textual.content import Content
from textual.widgets import Static

from screens.data.dataset_figures import histogram
from screens.data.longest_list import LongestList
from screens.data.pane import DataPane
from screens.data.record_search import matches_fed
from screens.data.record_view import MASKED, TRAINED, RecordView
from screens.data.records import RECORDS_KEPT, raw_data, read_first_records
from screens.forms.row import SettingRow
from screens.widgets.glyphs import ASCII, UNICODE
from tests.screens.piloting import NARROW, Opened, opened
from tests.screens.scripted import ScriptedEngine, fed, some_facts
from workbench.data.dataset_stats import open_data
from workbench.data.facts import Example
from workbench.engine.client.protocol import ExamplesRequest
from workbench.errors import WorkbenchError
from workbench.progress import Progress
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit
from workbench.storage.paths import Home


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


async def test_a_list_of_sources_is_shown_edited_and_kept(tmp_path: Path) -> None:
    paths = [jsonl(tmp_path / f"{name}.jsonl", [{"question": "Q?", "answer": f"{name}{n}."} for n in range(3)])
             for name in "ab"]  # fmt: skip
    entries = [{"source": paths[0], "weight": 2.0}, {"source": paths[1], "weight": 1.0}]
    async with opened(tmp_path / "home") as screen:
        pane = await data_pane(screen)
        row = pane.query(SettingRow).first()
        screen.app.set_recipe({"data.source": entries})
        await screen.until(lambda: "b.jsonl, line 1" in screen.words, "its records")
        await screen.sees("2 sources: a.jsonl ×2, b.jsonl")
        # Opened and left, it is the same; without its end, it is a mistake and not a file of that name.
        await screen.press("enter", "enter")
        assert screen.app.session.recipe.as_dict()["data"]["source"] == entries
        await screen.press("enter", "end", "backspace")
        await screen.until(lambda: bool(row.problem), "the mistake")
        assert "entry 1" in row.problem
        assert screen.app.session.recipe.as_dict()["data"]["source"] == entries
        await screen.press("]", "enter")
        assert screen.app.session.recipe.as_dict()["data"]["source"] == entries


async def test_both_sides_of_a_pair_are_next_to_each_other(tmp_path: Path) -> None:
    pair = {"prompt": "Why is it blue?", "chosen": "It absorbs red.", "rejected": "It mirrors the sky."}
    path = jsonl(tmp_path / "pairs.jsonl", [pair, pair, {"question": "Q?", "chosen": "Same.", "rejected": "Same."}])
    async with opened(tmp_path / "home") as screen:
        pane = await data_pane(screen)
        screen.app.set_recipe({"data.source": path, "objective.kind": "dpo"})
        await screen.until(lambda: "It mirrors the sky." in screen.words, "the rejected response")
        await screen.sees("format preference")
        await screen.sees("It absorbs red.")
        await screen.at_rest()
        chosen, rejected = (pane.query_one(f"RecordView #{side}").region for side in ("chosen", "rejected"))
        assert chosen.y == rejected.y
        assert chosen.right <= rejected.x
        assert screen.words.count("Why is it blue?") == 1
        assert "1 invalid" in screen.words


async def test_a_source_that_is_not_here_says_what_to_do(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await data_pane(screen)
        screen.app.set_recipe({"data.source": "tatsu-lab/alpaca"})
        await screen.until(lambda: "tatsu-lab/alpaca: no such file or bundled dataset" in screen.words, "a sentence")
        await screen.sees("press t to download it")


@pytest.mark.parametrize("source", ["/data/nowhere.jsonl", "./notes", "data/train.jsonl", "~/chats/", "first-mat"])
async def test_a_path_with_nothing_there_is_no_download(tmp_path: Path, source: str) -> None:
    async with opened(tmp_path) as screen:
        await data_pane(screen)
        screen.app.set_recipe({"data.source": source})
        await screen.until(lambda: "No such " in screen.words, "a sentence")
        assert "press t to download it" not in screen.words


def test_a_path_with_nothing_there_is_refused_before_the_tokenizer_is_asked_for(tmp_path: Path) -> None:
    recipe = edit(Recipe(), {"data.source": "/data/nowhere.jsonl"})
    with pytest.raises(WorkbenchError, match="No such file or folder") as caught:
        open_data(Home(tmp_path), recipe, fetch=False)
    assert caught.value.kind == "data_missing"


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
        await screen.sees("1 invalid")
        await screen.press("n")
        await screen.sees("This record cannot be used for training.")
        await screen.sees("column answer is empty")


async def test_a_mistake_is_shown_at_its_line(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await data_pane(screen)
        await screen.press(*["down"] * 5, "enter", *"9", "enter")
        await screen.until(lambda: "from 0.0 to 0.5" in screen.words, "what is allowed")
        assert screen.app.session.recipe.data.eval_fraction == 0.1


CONVERSATIONS = [("Who sails her?", "Aye, the mate."), ("Why do ships float?", "[b]They[/b] weigh\x1b[2J less.")]


async def test_records_are_shown_as_they_are_fed_with_the_trained_tokens_apart(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        screen.engine.sources.answers = [some_facts(CONVERSATIONS)]
        pane = await data_pane(screen)
        await screen.until(lambda: "formatted training text" in screen.words, "tokens")
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
        screen.engine.sources.answers = [
            sample,
            Progress(phase="tokenizing", fraction=0.4, detail="4,096 records"),
            None,
            exact,
        ]
        await data_pane(screen)
        await screen.until(lambda: "tokenizing 40%  4,096 records" in screen.words, "how far it is")
        await screen.sees("statistics of a sample")
        await screen.sees("256 · 26 held out")
        screen.engine.sources.counted_on.set()
        await screen.until(lambda: "9,999 · 26 held out" in screen.words, "the exact figures")
        await screen.until(lambda: "tokenizing" not in screen.words, "as it should stand")
        await screen.until(lambda: "statistics of a sample" not in screen.words, "as it should stand")


async def test_what_is_elsewhere_is_fetched_by_a_key_only(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await data_pane(screen)
        await screen.until(lambda: "Press t to download" in screen.words, "which key brings the tokens")
        assert [fetch for _, fetch in screen.engine.sources.counted] == [False]
        screen.engine.sources.answers = [some_facts(CONVERSATIONS)]
        await screen.press("t")
        await screen.until(lambda: "formatted training text" in screen.words, "tokens")
        assert [fetch for _, fetch in screen.engine.sources.counted] == [False, True]
        await screen.until(lambda: "Press t" not in screen.words, "as it should stand")


async def test_the_longest_records_are_a_key_away_wherever_they_are(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        longest = ((250, "first-mate.jsonl, line 251", 92), (1, "first-mate.jsonl, line 2", 91))
        screen.engine.sources.answers = [some_facts(CONVERSATIONS, longest=longest)]
        screen.engine.sources.examples_there = [fed(n, f"Question {n}?", "Aye.") for n in range(300)]
        await data_pane(screen)
        await screen.until(lambda: "formatted training text" in screen.words, "tokens")
        await screen.press("L")
        await screen.until(lambda: "Question 250?" in screen.words, "the longest record")
        await screen.sees("record 251 of")
        await screen.press("L")
        await screen.until(lambda: "record 2 of" in screen.words, "the next longest")
        await screen.press("p")
        await screen.sees("record 1 of")


async def test_other_settings_are_counted_anew_and_only_those(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        screen.engine.sources.answers = [some_facts(CONVERSATIONS)]
        await data_pane(screen)
        await screen.until(lambda: "19 per epoch" in screen.words, "the steps")
        screen.app.set_recipe({"training.gradient_accumulation_steps": 1})
        await screen.until(lambda: "75 per epoch" in screen.words, "more steps")
        assert len(screen.engine.sources.counted) == 1
        screen.app.set_recipe({"data.max_length": 512})
        await screen.until(lambda: len(screen.engine.sources.counted) == 2, "another count")
        assert screen.engine.sources.counted[1][0].data.max_length == 512


def test_a_histogram_marks_where_records_are_cut() -> None:
    facts = some_facts([], max_length=64)
    for glyphs, limit, beyond in ((UNICODE, "┃", "▒"), (ASCII, "|", "%")):
        *rows, axis = histogram(facts, glyphs).plain.split("\n")
        assert all(row[17] == limit for row in rows)
        assert set(rows[-1][18:]) == {beyond}
        assert beyond not in rows[-1][:17]
        assert f"{limit} truncated at 64" in axis
    assert "not truncated (limit 1,024)" in histogram(some_facts([], max_length=1024)).plain


def test_the_first_records_are_there_before_the_rest_is_counted(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "many.jsonl", [{"text": f"text {n}"} for n in range(3000)])
    first, found = read_first_records(raw_data(edit(Recipe(), {"data.source": path})), Home(tmp_path))
    assert (first.count, first.complete, first.items) == (RECORDS_KEPT, False, found.items)
    assert (found.count, found.complete, len(found.items)) == (3000, True, RECORDS_KEPT)
    assert found.held_out == 300


def test_looking_at_local_records_imports_nothing_heavy() -> None:
    code = (
        "import sys; from pathlib import Path; from screens.data.records import raw_data, read_first_records; "
        "from workbench.recipe.schema import Recipe; "
        "from workbench.storage.paths import Home; "
        "list(read_first_records(raw_data(Recipe()), Home(Path('/nonexistent')))); "
        "print([name for name in ('torch', 'datasets', 'transformers', 'huggingface_hub') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_the_longest_records_are_listed_and_gone_to(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        longest = ((250, "/far/away/[b]own.jsonl, line 251", 1092), (1, "own.jsonl, line 2", 60))
        screen.engine.sources.answers = [some_facts(CONVERSATIONS, longest=longest)]
        screen.engine.sources.examples_there = [fed(n, f"Question {n}?", "Aye.") for n in range(300)]
        await data_pane(screen)
        await screen.sees("251  1,092 tokens  1,028 lost  [b]own.jsonl, line 251")
        await screen.sees("2     60 tokens    complete  own.jsonl, line 2")
        listed = screen.app.query_one(LongestList)
        listed.focus()
        await screen.press("down", "enter")
        await screen.sees("Question 250?")
        await screen.press("down", "enter")
        await screen.sees("record 2 of")
        await screen.pilot.click(LongestList, offset=(4, 1))
        await screen.sees("Question 250?")


async def test_where_there_is_little_place_the_longest_stand_under_the_figures(tmp_path: Path) -> None:
    async with opened(tmp_path, size=NARROW) as screen:
        screen.engine.sources.answers = [some_facts(CONVERSATIONS)]
        await data_pane(screen)
        await screen.sees("formatted training text")
        assert "longest records" not in screen.words
        await screen.press("z")
        await screen.sees("251  92 tokens  28 lost  first-mate.jsonl, line 251")
        screen.app.query_one(LongestList).focus()
        await screen.press("down", "down", "enter")
        await screen.sees("record 2 of")


def talk(number: int) -> tuple[str, str]:
    """Every third record holds the sea, in one of two spellings."""
    return f"Question {number}?", ("Aye, the SEA.", "Aye, the mate.", "Nay, the deck.")[number % 3]


async def test_a_text_is_looked_for_in_all_records_by_the_engine(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        screen.engine.sources.answers = [some_facts([talk(n) for n in range(4)])]
        screen.engine.sources.examples_there = [fed(n, *talk(n)) for n in range(8)]
        pane = await data_pane(screen)
        await screen.sees("formatted training text")
        await screen.press("slash", *"sea", "enter")
        await screen.sees("match 1, n/p next/previous")
        text = pane.query_one(RecordView).query_one(Static).content
        assert isinstance(text, Content)
        assert [text.plain[span.start : span.end] for span in text.spans if "reverse" in str(span.style)] == ["SEA"]
        await screen.press("n")
        await screen.sees("record 4 of")
        await screen.press("n")
        await screen.sees("Question 6?")
        await screen.press("n")
        await screen.sees("match 1 of 3")
        await screen.press("p")
        await screen.sees("match 3 of 3")
        await screen.press("escape")
        await screen.until(lambda: "match" not in screen.words, "the end of the search")
        await screen.sees("Question 6?")
        await screen.press("n")
        await screen.sees("record 1 of")


async def test_records_are_searched_before_there_is_a_tokenizer(tmp_path: Path) -> None:
    records = [{"question": f"Q{n}?", "answer": "The SEA." if n in (3, 1200) else "The deck."} for n in range(2000)]
    path = jsonl(tmp_path / "own.jsonl", records)
    async with opened(tmp_path / "home") as screen:
        await data_pane(screen)
        screen.app.set_recipe({"data.source": path})
        await screen.sees("record 1 of 2,000")
        await screen.press("ctrl+f", *"the sea", "enter")
        await screen.sees("record 4 of 2,000")
        await screen.press("n")
        await screen.sees("record 1,201 of 2,000")
        await screen.sees("own.jsonl, line 1201")
        await screen.press("n")
        await screen.sees("match 1 of 2")
        await screen.press("slash", *"nowhere", "enter")
        await screen.sees("no record matches")


async def test_a_search_that_goes_on_is_seen_and_can_be_given_up(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        screen.engine.sources.answers = [some_facts(CONVERSATIONS)]
        never = asyncio.Event()
        given_up = asyncio.Event()

        async def examples(*_: object) -> list[Example]:
            try:
                await never.wait()
            finally:
                given_up.set()
            return []

        screen.engine.examples = examples  # type: ignore[method-assign]
        await data_pane(screen)
        await screen.sees("formatted training text")
        await screen.press("slash", *"sea", "enter")
        await screen.sees("searching, Esc cancels")
        await screen.press("n", "escape")
        await screen.until(given_up.is_set, "the end of the search")
        await screen.until(lambda: "searching," not in screen.words, "the line gone")
        await screen.press("n")
        await screen.sees("record 2 of")


async def test_a_search_that_fails_says_why_and_another_recipe_ends_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        screen.engine.sources.answers = [some_facts(CONVERSATIONS)]
        await data_pane(screen)
        await screen.sees("formatted training text")
        screen.engine.running = False
        await screen.press("slash", *"sea", "enter")
        await screen.sees("The engine does not answer.")
        screen.engine.running = True
        screen.app.set_recipe({"data.max_length": 128})
        await screen.until(lambda: "does not answer" not in screen.words, "the search gone")


async def test_every_chunk_of_a_document_is_found() -> None:
    chunks = [fed(0, "deck", "sea"), fed(0, "sea", "two"), fed(2, "sea", "three"), fed(2, "sea", "four")]
    engine = ScriptedEngine(Home(Path("/nonexistent")))

    async def examples(request: ExamplesRequest) -> list[Example]:
        return [chunk for chunk in chunks if chunk.index >= request.start][: request.count]

    engine.examples = examples  # type: ignore[method-assign]
    assert [match.record async for match in matches_fed(engine, Recipe(), "sea")] == chunks


async def test_what_is_found_is_brought_into_view(tmp_path: Path) -> None:
    async with opened(tmp_path, size=NARROW) as screen:
        screen.engine.sources.answers = [some_facts(CONVERSATIONS)]
        screen.engine.sources.examples_there = [fed(5, "Where? " * 300, "Aye, in the deep blue sea.")]
        await data_pane(screen)
        await screen.sees("formatted training text")
        await screen.press("slash", *"deep blue", "enter")
        await screen.sees("Aye, in the deep blue sea.")


async def test_a_count_can_be_stopped_and_taken_up_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        sample = some_facts(CONVERSATIONS, exact=False, records=256)
        screen.engine.sources.answers = [
            sample,
            Progress(phase="tokenizing", fraction=0.4, detail="4,096 records"),
            None,
        ]
        await data_pane(screen)
        await screen.sees("tokenizing 40%  4,096 records")
        await screen.press("t")
        await screen.sees("Counting was stopped.")
        await screen.sees("statistics of a sample")
        await screen.until(lambda: "tokenizing" not in screen.words, "the progress gone")
        screen.engine.sources.answers = [some_facts(CONVERSATIONS, records=9_999)]
        await screen.press("t")
        await screen.sees("9,999 · 26 held out")
        await screen.until(lambda: "stopped" not in screen.words, "as it should stand")


async def test_columns_are_named_by_hand(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "own.jsonl", [{"title": "What floats?", "body": "A ship."}] * 3)
    async with opened(tmp_path / "home", size=(120, 50)) as screen:
        await data_pane(screen)
        screen.app.set_recipe({"data.source": path})
        # Where its lines end hangs on the length of the path.
        await screen.until(
            lambda: any(
                "no known record format" in str(part.content)
                for part in screen.app.screen.query(Static).results(Static)
            ),
            "what is wrong",
        )
        await screen.press("down", "down", "enter", *"prompt=title", "enter")
        await screen.sees("neither prompt and reply")
        await screen.press("enter", *"prompt=title, reply=body", "enter")
        await screen.sees("A ship.")
        assert screen.app.session.recipe.data.columns == {"prompt": "title", "reply": "body"}
        await screen.press("enter", *"{text: body}", "enter")
        await screen.sees("format text")
        assert screen.app.session.recipe.data.columns == {"text": "body"}
        await screen.press("enter", *"title", "enter")
        await screen.sees("got 'title'; expected a mapping")
