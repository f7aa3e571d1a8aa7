"""``loraworkbench data``: the facts of a dataset as JSON and as a person reads them, and mistakes as sentences."""

import json
import re

import pytest
from typer.testing import CliRunner

from tests.json_outputs import assert_documented
from workbench.commands import data as command
from workbench.commands.app import app
from workbench.errors import WorkbenchError

PROMISED = {
    "records",
    "skipped",
    "format",
    "template",
    "tokens",
    "length",
    "truncated_records",
    "packed_sequences",
    "padding_waste",
    "examples",
}


@pytest.fixture
def call(tmp_path, tiny_llama):
    """Calls the command with the tiny model on an empty home; gives what it printed."""

    def run(source, *arguments):
        line = ["--home", str(tmp_path / "home"), "data", str(source), "--model", str(tiny_llama), *map(str, arguments)]
        done = CliRunner().invoke(app, line)
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0
        if "--json" in line:
            assert_documented(line[2:], done.stdout)
        return done.stdout

    return run


def lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_json_holds_the_promised_keys_and_figures_that_add_up(call, records):
    facts = json.loads(call(records, "--json", "--show", 2, "--set", "data.max_length=64"))
    assert facts.keys() >= PROMISED
    assert facts["tokens"].keys() == {"total", "trained", "masked", "cut"}
    assert facts["length"].keys() == {"p50", "p90", "p99", "max"}
    assert facts["records"] == 20
    assert facts["exact"]
    assert facts["tokens"]["total"] == facts["tokens"]["trained"] + facts["tokens"]["masked"]
    assert len(facts["examples"]) == 2
    example = facts["examples"][0]
    trained = "".join(example["text"][start:end] for start, end, is_trained in example["spans"] if is_trained)
    assert trained.strip() == "Aye, answer 0.<|im_end|>"


def test_more_records_than_a_sample_are_counted_to_the_end(call, tmp_path):
    source = lines(tmp_path / "many.jsonl", [{"question": f"Q{n}?", "answer": f"A{n}."} for n in range(700)])
    facts = json.loads(call(source, "--json", "--show", 0))
    assert (facts["records"], facts["exact"], facts["examples"]) == (700, True, [])


def test_a_person_sees_counts_lengths_warnings_and_the_records(call, tmp_path):
    long = "the mate stood on the deck " * 40
    source = lines(
        tmp_path / "two.jsonl",
        [
            {"question": "Short?", "answer": "Yes."},
            {"question": long, "answer": "Lost."},
            {"question": "Q", "answer": ""},
        ],
    )
    shown = call(source, "--set", "data.max_length=48", "--set", "data.eval_fraction=0")
    assert "1 train, 0 held out, 1 invalid" in shown
    assert "1 record of 2 (50%) lose the whole response to truncation at 48 tokens" in shown
    # Where lines end hangs on the length of the path.
    assert re.search(r"longest\d+tokens,\d+truncated:record2,.*two\.jsonl,line2", re.sub(r"\s", "", shown))
    assert "<|im_start|>assistant\nYes.<|im_end|>" in shown
    assert "question: " in shown


def test_what_a_record_holds_cannot_steer_the_terminal(call, tmp_path):
    source = lines(tmp_path / "bad.jsonl", [{"question": "a\x1b[2Jb\x07", "answer": "[bold]c[/bold]\x9b"}] * 3)
    shown = call(source)
    assert not {"\x1b", "\x07", "\x9b"} & set(shown)
    assert "[bold]c[/bold]" in shown


def test_trained_tokens_are_told_apart_from_masked_ones_with_and_without_color(call, records, monkeypatch):
    from workbench.data.facts import Example

    text = command._example(Example(0, "x.jsonl, line 1", "askedreply", ((0, 5, False), (5, 10, True)), 2, 0, False))
    styles = {text.plain[span.start : span.end]: str(span.style) for span in text.spans}
    assert "underline" in styles["reply"]
    assert "green" in styles["reply"]
    assert "underline" not in styles["asked"]


@pytest.mark.parametrize(
    ("source", "kind"), [("no-such-set", "data_missing"), ("./nothing.jsonl", "data_missing")], ids=["name", "path"]
)
def test_a_source_that_is_nowhere_ends_in_a_sentence(call, source, kind):
    with pytest.raises(WorkbenchError) as refused:
        call(source)
    assert refused.value.kind == kind
    assert refused.value.cure
