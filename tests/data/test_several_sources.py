"""Several sources in one recipe: joined as text, or a list that is interleaved by weight."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest

from workbench.data.interleave import SEED, interleave
from workbench.data.open_source import needs_hub, remote_sources
from workbench.data.sources import Records, load_records
from workbench.data.statistics import data_facts
from workbench.data.templates.template import Template
from workbench.data.tokens.encode import encode_dataset
from workbench.engine.client.requests import anchored
from workbench.errors import WorkbenchError
from workbench.evaluation.provenance import without_local_paths
from workbench.recipe.data_sources import source_as_typed, source_text, typed_source
from workbench.recipe.schema import Recipe
from workbench.recipe.text import RecipeError, edit, from_yaml, parse_assignment, to_yaml
from workbench.storage.paths import Home

LENGTHS = (7, 3, 12)


def write(path: Path, records: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


@pytest.fixture
def three(tmp_path: Path) -> list[str]:
    """Files of 7, 3 and 12 records, whose responses say from where they are."""
    return [
        write(tmp_path / f"{name}.jsonl", [{"prompt": "why", "completion": f"{name} {n}"} for n in range(length)])
        for name, length in zip("abc", LENGTHS, strict=True)
    ]


def recipe_of(source: Any, **changes: Any) -> Recipe:
    return edit(Recipe(), {"data.source": source, "data.eval_fraction": 0.0} | changes)


def replies(records: Records) -> list[str]:
    return [item.content.texts[-1] for item in records.items() if item.content and not isinstance(item.content, str)]


@pytest.mark.parametrize("stopping", ["first_exhausted", "all_exhausted", "all_exhausted_without_replacement"])
@pytest.mark.parametrize("weights", [None, (3.0, 1.0, 2.0), (0.1, 5.0, 5.0)], ids=str)
def test_the_order_is_that_of_interleave_datasets(three: list[str], weights: Any, stopping: Any) -> None:
    sets = [datasets.Dataset.from_list([{"reply": f"{name} {n}"} for n in range(length)])
            for name, length in zip("abc", LENGTHS, strict=True)]  # fmt: skip
    shares = [weight / sum(weights) for weight in weights] if weights else None
    expected = datasets.interleave_datasets(sets, shares, seed=SEED, stopping_strategy=stopping)["reply"]
    entries = [{"source": source, "weight": weight} for source, weight in zip(three, weights or (1, 1, 1), strict=True)]
    assert replies(load_records(recipe_of(entries, **{"data.stopping": stopping}).data)) == list(expected)


def test_the_text_form_reads_one_source_after_the_other_as_before(three: list[str]) -> None:
    found = replies(load_records(recipe_of(f"{three[0]}*0.5 + {three[1]}*2").data))
    assert found == ["a 1", "a 3", "a 5", "b 0", "b 0", "b 1", "b 1", "b 2", "b 2"]


def test_a_number_of_held_out_records_is_held_out_of_all_sources_together(tmp_path: Path) -> None:
    for name in ("one", "two"):
        lines = [f'{{"prompt": "{name}", "completion": "{number}"}}\n' for number in range(30)]
        (tmp_path / f"{name}.jsonl").write_text("".join([*lines, '{"prompt": "why", "completion": ""}\n']))
    (tmp_path / "own.jsonl").write_text('{"prompt": "own", "completion": "1"}\n')
    (tmp_path / "own.eval.jsonl").write_text('{"prompt": "own", "completion": "2"}\n')
    one, two, own = (str(tmp_path / f"{name}.jsonl") for name in ("one", "two", "own"))

    def held_out(source: str, count: int) -> int:
        data = recipe_of(source, **{"data.eval_records": count}).data
        return sum(item.held_out and not item.from_eval_split for item in load_records(data).items())

    assert held_out(one, 7) == 7
    assert held_out(f"{one} + {two}", 6) == 6
    assert held_out(f"{one}*2", 4) == 4
    # What has an eval split of its own needs no other.
    assert held_out(own, 5) == 0
    with pytest.raises(WorkbenchError, match=r"data\.eval_records is 16, more than half of the 30 records"):
        held_out(one, 16)


def test_held_out_and_unusable_records_are_met_once_however_often_a_source_is_read(three: list[str]) -> None:
    with Path(three[1]).open("a", encoding="utf-8") as file:
        file.write('{"prompt": "why", "completion": ""}\n')
    data = recipe_of([three[1], three[2]], **{"data.stopping": "all_exhausted", "data.eval_fraction": 0.25}).data
    items = list(load_records(data).items())
    held_out = [item.where for item in items if item.held_out]
    assert len(held_out) == len(set(held_out)) == 4
    assert sum(item.content is None for item in items) == 1
    trained = Counter(item.where for item in items if item.is_trained)
    assert set(trained.values()) > {1}, "the shorter source was read again"
    assert not {*held_out} & trained.keys()
    fractions = [item.fraction for item in items]
    assert fractions == sorted(fractions)


def test_a_source_without_a_usable_record_ends_the_mix_or_is_passed_over(three: list[str], tmp_path: Path) -> None:
    empty = write(tmp_path / "empty.jsonl", [{"prompt": "why", "completion": ""}] * 3)
    data = recipe_of([empty, three[1]], **{"data.stopping": "all_exhausted"}).data
    assert replies(load_records(data)) == ["b 0", "b 1", "b 2"]
    assert replies(load_records(recipe_of([empty, three[1]]).data)) == []


def test_each_source_has_its_own_split_columns_and_format(tmp_path: Path) -> None:
    titled = write(tmp_path / "titled.jsonl", [{"title": f"t{n}", "body": f"b{n}"} for n in range(5)])
    both = write(tmp_path / "both.jsonl", [{"question": "q", "answer": f"a{n}", "text": f"x{n}"} for n in range(5)])
    recipe = recipe_of([
        {"source": titled, "columns": {"prompt": "title", "reply": "body"}, "split": "train[1:3]"},
        {"source": both, "format": "question"},
    ])  # fmt: skip
    records = load_records(recipe.data)
    assert replies(records) == ["b1", "a0", "b2", "a1"]
    assert records.format == "prompt, question"
    assert "titled.jsonl: columns set in the recipe" in records.reason
    # The settings of the data section hold for what an entry leaves out.
    same = edit(recipe, {"data.columns": {"prompt": "question", "reply": "answer"}, "data.split": "train[4:]"})
    assert replies(load_records(same.data)) == ["b1", "a4"]


def test_what_interleaving_leaves_out_is_said(three: list[str], words: Any) -> None:
    data = recipe_of(three).data
    facts = data_facts(load_records(data), Template.for_model(words), data)
    assert facts.train_records == 9
    assert any("stops when the first source is exhausted" in notice for notice in facts.notices)


def test_a_recipe_comes_back_from_yaml_the_command_line_and_the_form(three: list[str]) -> None:
    entries = [{"source": three[0], "weight": 0.5}, {"source": three[1], "weight": 1.0, "split": "train[:2]"}]
    recipe = recipe_of(entries)
    assert from_yaml(to_yaml(recipe)) == recipe
    assert recipe.as_dict()["data"]["source"] == entries
    assert "split: null" not in to_yaml(recipe)
    typed = source_as_typed(recipe.data.source)
    assert typed == f"[{{source: {three[0]}, weight: 0.5}}, {{source: {three[1]}, weight: 1.0, split: 'train[:2]'}}]"
    assert edit(recipe, {"data.source": typed_source(typed)}) == recipe
    assert edit(Recipe(), dict([parse_assignment(f"data.source={typed}")])).data.source == recipe.data.source
    assert recipe_of([three[0]]).data.source == recipe_of([{"source": three[0]}]).data.source
    # What old runs and recipes hold.
    assert from_yaml("data: {source: a.jsonl*0.5 + b/}").data.source == "a.jsonl*0.5 + b/"
    assert source_text("a.jsonl*0.5 + b/") == "a.jsonl*0.5 + b/"
    assert source_text(entries) == f"interleaved: {three[0]} (weight 0.5), {three[1]}"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("[{source: a, wieght: 2}]", "entry 1: unknown key 'wieght'; allowed: source, weight, split, columns, format"),
        ("[a, {source: b, weight: 0}]", "entry 2, weight: got 0; expected a number above 0"),
        ("[{weight: 2}]", "entry 1 has no source"),
        ("[a, 5]", "entry 2: got 5; expected a list of sources"),
        ("[]", "expected text or a list of sources"),
        ("[{source: a", "entry 1"),
        ("5", "expected text or a list of sources"),
    ],
)
def test_a_mistake_in_the_list_is_named_with_its_entry(source: str, words: str) -> None:
    value = typed_source(source) if source.startswith("[") else int(source)
    with pytest.raises(RecipeError) as refused:
        edit(Recipe(), {"data.source": value})
    (problem,) = refused.value.problems
    assert problem.path == "data.source"
    assert words in f"{problem.given}; {problem.allowed}"


def test_paths_become_absolute_for_the_engine_and_names_for_others(
    three: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = recipe_of([{"source": "a.jsonl", "weight": 2}, {"source": "owner/set", "split": "validation"}])
    sent = anchored(recipe)
    assert sent.as_dict()["data"]["source"] == [
        {"source": three[0], "weight": 2.0}, {"source": "owner/set", "weight": 1.0, "split": "validation"},
    ]  # fmt: skip
    assert anchored(recipe_of("a.jsonl*0.5 + owner/set")).data.source == f"{three[0]}*0.5 + owner/set"
    assert without_local_paths(sent).as_dict()["data"]["source"][0]["source"] == "a.jsonl"
    assert remote_sources(sent.data.source) == ["owner/set"]
    assert needs_hub(sent.data.source)
    assert not needs_hub(recipe_of([three[0], "first-mate"]).data.source)


def test_kept_tokens_are_those_of_the_same_mix(tmp_path: Path, words: Any) -> None:
    reply = "the sea is blue and " * 40
    sources = [
        write(tmp_path / f"{name}.jsonl", [{"prompt": "why", "completion": f"{reply} {name}"}] * 700) for name in "ab"
    ]
    home = Home(tmp_path / "home")

    def encoded(**changes: Any) -> bool:
        entries = [{"source": source, "weight": weight} for source, weight in zip(sources, (2, 1), strict=True)]
        data = recipe_of(changes.pop("source", entries), **changes).data
        return encode_dataset(load_records(data, home), Template.for_model(words), data).from_cache

    assert not encoded()
    assert encoded()
    assert not encoded(**{"data.stopping": "all_exhausted"})
    assert not encoded(source=sources)
    assert encoded()


def test_interleaving_one_source_is_reading_it() -> None:
    assert list(interleave([lambda: iter(range(4))], [3.0], "first_exhausted", lambda _: True)) == [0, 1, 2, 3]


def test_a_wrong_weight_in_text_is_named() -> None:
    with pytest.raises(WorkbenchError, match=r"first-mate\*0: '0' is not a valid weight"):
        load_records(recipe_of("first-mate*0").data)
