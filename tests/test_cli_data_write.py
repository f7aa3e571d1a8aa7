"""``loraworkbench data --write``: what is written, what is left out and counted, and that it reads back the same."""

import importlib.util
import json
import subprocess
import sys
import zipfile
from itertools import pairwise

import pytest
from typer.testing import CliRunner

from tests.json_outputs import assert_documented
from workbench.commands.app import app
from workbench.data.sources import load_records
from workbench.data.templates.template import Template
from workbench.data.tokens.samples import encode_samples
from workbench.errors import WorkbenchError
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit, parse_assignment

LONG = "the mate stood on the deck and looked out over the grey water "
TOOLS = [{"name": "wind", "description": "The wind", "parameters": {"type": "object", "properties": {}}}]
RECORDS = [
    {"messages": [{"role": "user", "content": "Wind?"}, {"role": "assistant", "content": "West."}]},
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": "Aye.", "weight": 0},
            {"role": "user", "content": "Two?"},
            {"role": "assistant", "content": "<think>Hm.</think>Nay."},
        ]
    },
    {
        "tools": TOOLS,
        "messages": [
            {"role": "user", "content": "What wind?"},
            {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "wind", "arguments": "{}"}}]},
            {"role": "tool", "content": {"from": "west"}},
            {"role": "assistant", "content": "West."},
        ],
    },
    {"messages": [{"role": "assistant", "content": "Welcome."}, {"role": "user", "content": "Bye."}]},
]


@pytest.fixture
def write(tmp_path, tiny_llama):
    """Runs the command on an empty home; gives the counts that it printed as JSON."""

    def run(source, *arguments, file=tmp_path / "out.jsonl"):
        sources = [str(source)] if source is not None else []
        line = ["--home", str(tmp_path / "home"), "data", *sources, "--model", str(tiny_llama), "--write", str(file)]
        done = CliRunner().invoke(app, [*line, "--json", *map(str, arguments)])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0
        assert_documented(line[2:], done.stdout)
        return json.loads(done.stdout)

    return run


def lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def talk(question, reply):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]}


def samples(source, tiny_llama, *settings):
    """Tokens and labels of each training or held-out record."""
    from transformers import AutoTokenizer

    changes = {"data.source": str(source), **dict(map(parse_assignment, settings))}
    data = edit(Recipe(), changes).data
    template = Template.for_model(AutoTokenizer.from_pretrained(tiny_llama), data.template).with_system(data.system)
    found = encode_samples(load_records(data), template, data)
    return [(s.input_ids, s.labels, s.held_out, s.unused) for s in found if not s.problem]


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("data.template=chatml-tools", "data.system=Be kind.", "data.eval_fraction=0"),
        ("data.template=chatml-tools", "data.responses=last", "data.reasoning=drop", "data.eval_fraction=0.5"),
    ],
)
def test_it_reads_back_as_the_same_tokens_and_labels(settings, write, tiny_llama, tmp_path):
    source = lines(tmp_path / "records.jsonl", RECORDS)
    options = [part for setting in settings for part in ("--set", setting)]
    counts = write(source, *options)
    before = samples(source, tiny_llama, *settings)
    assert before
    assert samples(tmp_path / "out.jsonl", tiny_llama, *settings) == sorted(before, key=lambda sample: sample[2])
    assert counts["read"] == counts["invalid"] + counts["train_records"] + counts["eval_records"]


def test_instructions_with_an_input_and_plain_text_read_back_too(write, tiny_llama, tmp_path):
    alpaca = lines(tmp_path / "alpaca.jsonl", [{"instruction": "Add.", "input": "2, 3", "output": "5"}] * 1)
    text = lines(tmp_path / "text.jsonl", [{"text": "<|im_start|>Aye.<|im_end|>"}, {"text": "The sea.\n\nThe sky."}])
    for source, *settings in ((alpaca, "data.template=alpaca"), (alpaca,), (text,)):
        write(source, "--force", *(part for setting in settings for part in ("--set", setting)))
        assert samples(tmp_path / "out.jsonl", tiny_llama, *settings) == samples(source, tiny_llama, *settings)


def test_each_record_left_out_is_counted(write, tmp_path):
    pytest.importorskip("datasketch")
    story = " ".join(f"Line {n} of the log tells of wind and water." for n in range(40))
    records = [
        talk("Wind?", "West."),
        talk("Wind?", "West."),
        talk("Tell.", story),
        talk("Tell!", story.replace("Line 7", "Line 77")),
        talk("Long?", LONG * 20),
        talk("Empty?", ""),
        talk("Held?", "Aye."),
        talk("Only here?", "Aye."),
    ]
    source = lines(tmp_path / "records.jsonl", records)
    # A sentence more than the one in training: nearly the same.
    lines(tmp_path / "records.eval.jsonl", [talk("Held?", "Aye."), talk("Tell", story + " End."), talk("New?", "Nay.")])
    counts = write(source, "--set", "data.max_length=1024", "--set", "data.max_length=200")
    assert {name: counts[name] for name in (
        "read", "invalid", "duplicates", "near_duplicates", "overlap", "over_length", "train_records", "eval_records",
    )} == {
        "read": 11, "invalid": 1, "duplicates": 1, "near_duplicates": 0, "overlap": 3, "over_length": 2,
        "train_records": 2, "eval_records": 2,
    }  # fmt: skip
    assert counts["files"] == [str(tmp_path / "out.jsonl"), str(tmp_path / "out.eval.jsonl")]
    assert [json.loads(line)["messages"][0]["content"] for line in (tmp_path / "out.jsonl").open()] == [
        "Wind?", "Only here?",
    ]  # fmt: skip
    (tmp_path / "records.eval.jsonl").unlink()
    alone = write(source, "--force", "--set", "data.eval_fraction=0", "--set", "data.max_length=4096")
    assert (alone["near_duplicates"], alone["train_records"], alone["near_duplicates_from"]) == (1, 5, 0.9)
    assert not (tmp_path / "out.eval.jsonl").exists(), "a stale one would be read as the eval split"
    exact = write(source, "--force", "--near-duplicates", 0, "--set", "data.eval_fraction=0")
    assert (exact["near_duplicates"], exact["duplicates"]) == (0, 1)


def test_what_is_not_written_is_named_and_what_was_done_is_counted(write, tiny_llama, tmp_path):
    source = tmp_path / "records.jsonl"
    told = {"rationale": "As every sailor knows.", "chat_template_kwargs": {"loud": True}}
    records = [talk("Où est le café de la forêt ?", f"Là-bas, {n} €."[: 12 + n]) | told for n in range(3)]
    turn = {**records[0]["messages"][0], "mood": "calm"}
    records[0]["messages"][:1] = [turn, turn]
    source.write_bytes("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode("cp1252"))
    counts = write(source, "--set", "data.eval_fraction=0")
    assert counts["not_written"] == {"rationale": 3}
    assert counts["changes"] == {"Read as cp1252, which was guessed, because the file is not UTF-8": 3}
    first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert first["messages"][0]["mood"] == "calm"
    assert first["chat_template_kwargs"] == {"loud": True}
    line = ["--home", str(tmp_path / "home"), "data", str(source), "--model", str(tiny_llama), "--force", "--write"]
    shown = CliRunner().invoke(app, [*line, str(tmp_path / "out.jsonl"), "--set", "data.eval_fraction=0"]).stdout
    assert "Not written: rationale (3 records)" in " ".join(shown.split())
    assert "because the file is not UTF-8: 3 records." in " ".join(shown.split())


def test_near_duplicates_without_the_library_name_the_extra(write, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasketch", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    source = lines(tmp_path / "records.jsonl", [talk("Wind?", "West.")] * 3)
    with pytest.raises(WorkbenchError) as refused:
        write(source, "--near-duplicates", 0.8)
    assert "loraworkbench[dedup]" in refused.value.cure
    counts = write(source, "--set", "data.eval_fraction=0")
    assert (counts["duplicates"], counts["near_duplicates_from"]) == (2, None)


def test_long_records_are_split_between_turns_and_at_paragraphs(write, tiny_llama, tmp_path):
    turns = [{"role": "system", "content": "Be brief."}]
    for number in range(6):
        turns += [{"role": "user", "content": f"Q{number}?"}, {"role": "assistant", "content": f"A{number}. {LONG}"}]
    turns += [{"role": "user", "content": "Q6?"}, {"role": "assistant", "content": LONG * 9}]
    source = lines(tmp_path / "talk.jsonl", [{"messages": turns}])
    settings = ("data.max_length=128", "data.eval_fraction=0")
    options = [part for setting in settings for part in ("--set", setting)]
    counts = write(source, "--over-length", "split", *options)
    assert (counts["split"], counts["questions_left_out"], counts["over_length"]) == (1, 1, 0)
    parts = [json.loads(line)["messages"] for line in (tmp_path / "out.jsonl").open()]
    assert counts["split_into"] == counts["train_records"] == len(parts) > 1
    assert all(part[0] == turns[0] and part[1]["role"] == "user" for part in parts)
    assert [turn for part in parts for turn in part[1:]] == turns[1:13]
    assert all(len(ids) <= 128 for ids, *_ in samples(tmp_path / "out.jsonl", tiny_llama, "data.max_length=4096"))
    # Text: nothing is lost, and what two parts share is what was asked for.
    text = "\n\n".join(f"Paragraph {number}. {LONG}" for number in range(30))
    source = lines(tmp_path / "text.jsonl", [{"text": text}])
    counts = write(source, "--force", "--over-length", "split", "--overlap", 32, *options)
    chunks = [json.loads(line)["text"] for line in (tmp_path / "out.jsonl").open()]
    assert len(chunks) == counts["split_into"] > 5
    assert {f"Paragraph {n}." for n in range(30)} <= {" ".join(p.split()[:2]) for c in chunks for p in c.split("\n\n")}
    assert all(len(ids) <= 128 for ids, *_ in samples(tmp_path / "out.jsonl", tiny_llama, "data.max_length=4096"))


def test_a_file_is_replaced_only_on_demand_and_a_source_never(write, tmp_path):
    source = lines(tmp_path / "records.jsonl", [talk("Wind?", "West."), talk("Sea?", "Grey.")])
    write(source)
    with pytest.raises(WorkbenchError, match="exists already"):
        write(source)
    with pytest.raises(WorkbenchError, match="is a source of the records"):
        write(source, "--force", file=source)
    with pytest.raises(WorkbenchError, match=r"not a name for JSON lines"):
        write(source, file=tmp_path / "out.csv")
    with pytest.raises(WorkbenchError, match="Cannot write"):
        write(source, file=tmp_path / "no" / "out.jsonl")
    mixed = lines(tmp_path / "text.jsonl", [{"text": "Aye."}])
    with pytest.raises(WorkbenchError, match="mix conversations and plain text"):
        write(f"{source} + {mixed}", file=tmp_path / "mixed.jsonl")


def test_nothing_left_is_an_error_and_no_file(write, tmp_path):
    source = lines(tmp_path / "records.jsonl", [talk("Q?", ""), talk("Long?", LONG * 20)])
    with pytest.raises(WorkbenchError) as refused:
        write(source, "--set", "data.max_length=64")
    assert "of 2 read: 1 invalid, 1 over 64 tokens" in refused.value.message
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["records.jsonl"]


def test_the_command_ends_with_an_error_when_no_record_is_usable(tmp_path, tiny_llama):
    empty = lines(tmp_path / "empty.jsonl", [{"question": "Q?", "answer": ""}] * 3)
    long = lines(tmp_path / "long.jsonl", [{"question": LONG * 9, "answer": "Aye."}] * 3)
    good = lines(tmp_path / "good.jsonl", [{"question": "Q?", "answer": "Aye."}] * 3)

    def run(source, *arguments):
        line = [
            sys.executable,
            "-m",
            "workbench.cli",
            "--home",
            tmp_path / "home",
            "data",
            source,
            "--model",
            tiny_llama,
        ]
        return subprocess.run([*map(str, line), *arguments], capture_output=True, text=True, timeout=120, check=False)

    done = run(empty)
    assert done.returncode == 1
    assert "3 invalid" in done.stdout, "the counts are shown all the same"
    assert "no usable record (column answer is empty: 3)" in " ".join(done.stderr.split())
    done = run(long, "--json", "--set", "data.max_length=32")
    assert done.returncode == 1
    assert json.loads(done.stdout)["lost_reply_records"] == 3
    assert "All 3 records lost their response to truncation at 32 tokens" in " ".join(done.stderr.split())
    assert run(good).returncode == 0


# -- documents ------------------------------------------------------------------------------------------------------


def docx(path, paragraphs, extra=()):
    """A Word file with these paragraphs, and other parts of the archive."""
    kinds = "http://schemas.openxmlformats.org/package/2006/content-types"
    relations = "http://schemas.openxmlformats.org/package/2006/relationships"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    words = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "[Content_Types].xml",
            f'<Types xmlns="{kinds}"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.'
            'relationships+xml"/><Default Extension="xml" ContentType="application/vnd.openxmlformats-officedocument.'
            'wordprocessingml.document.main+xml"/></Types>',
        )
        archive.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{relations}"><Relationship Id="r1" Type="{office}/officeDocument" '
            'Target="word/document.xml"/></Relationships>',
        )
        body = "".join(f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>" for text in paragraphs)
        archive.writestr("word/document.xml", f'<w:document xmlns:w="{words}"><w:body>{body}</w:body></w:document>')
        for name, content in extra:
            archive.writestr(name, content)


def pdf(path, text):
    """A page with one line of text."""
    stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R /OpenAction << /S /Launch /F (touch ran) >> >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        b"/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
    ]
    out, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    start = len(out)
    out += b"xref\n0 5\n0000000000 65535 f \n%strailer << /Size 5 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (
        table,
        start,
    )
    path.write_bytes(out)


def test_documents_are_converted_chunked_and_counted(write, tiny_llama, tmp_path):
    pytest.importorskip("markitdown")
    folder = tmp_path / "papers"
    (folder / "more").mkdir(parents=True)
    (folder / "a.md").write_text("# Log\n\n" + "\n\n".join(f"Entry {n}. {LONG}" for n in range(20)), encoding="utf-8")
    (folder / "b.html").write_text(
        "<html><head><script>alert('ran')</script></head><body><h1>Wind</h1><p>It blows west.</p>"
        f'<img src="file://{tmp_path}/secret.txt"><iframe src="file://{tmp_path}/secret.txt"></iframe></body></html>',
        encoding="utf-8",
    )
    docx(folder / "c.docx", ["Ahoy from Word."], [("word/vbaProject.bin", b"x"), ("../../outside.txt", "escaped")])
    pdf(folder / "more" / "d.pdf", "Ahoy from a PDF.")
    (folder / "e.pdf").write_bytes(b"%PDF-1.4 nothing of use")
    (folder / "f.docx").write_bytes(b"no archive")
    (folder / "h.html").write_text("<html><body></body></html>")
    (folder / "i.txt").write_text(" \n")
    (folder / "picture.png").write_bytes(b"x")
    (tmp_path / "secret.txt").write_text("SECRET", encoding="utf-8")
    (folder / "g.txt").symlink_to(tmp_path / "secret.txt")
    settings = ("data.max_length=128", "data.eval_fraction=0")
    options = [part for setting in settings for part in ("--set", setting)]
    counts = write(None, "--documents", folder, *options)
    assert counts["read"] == 9
    assert counts["invalid"] == 5
    reasons = " ".join(counts["invalid_reasons"])
    assert "g.txt: a link to a file outside the folder" in reasons
    assert "e.pdf: it " in reasons
    assert "f.docx: it cannot be converted" in reasons
    assert "h.html: it has no text" in reasons
    assert "i.txt: it is empty" in reasons
    assert counts["not_read"] == {".png": 1}
    written = [json.loads(line)["text"] for line in (tmp_path / "out.jsonl").open()]
    whole = "\n".join(written)
    for text in ("# Wind", "It blows west.", "Ahoy from Word.", "Ahoy from a PDF.", "Entry 19."):
        assert text in whole
    assert "SECRET" not in whole
    assert "escaped" not in whole
    assert not (tmp_path / "outside.txt").exists()
    log = [text for text in written if "Entry" in text]
    assert len(log) > 5
    assert all(later.split("\n\n")[0] in earlier for earlier, later in pairwise(log)), "they overlap"
    assert all(len(ids) <= 128 for ids, *_ in samples(tmp_path / "out.jsonl", tiny_llama, "data.max_length=4096"))


def test_documents_name_what_is_missing(write, tmp_path, monkeypatch):
    folder = tmp_path / "papers"
    folder.mkdir()
    with pytest.raises(WorkbenchError, match="has no documents"):
        write(None, "--documents", folder)
    (folder / "a.pdf").write_bytes(b"%PDF")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WorkbenchError) as refused:
        write(None, "--documents", folder)
    assert "loraworkbench[documents]" in refused.value.cure
    with pytest.raises(WorkbenchError, match="Give one of SOURCE and --documents"):
        write("first-mate", "--documents", folder)
    with pytest.raises(WorkbenchError, match="No such folder"):
        write(None, "--documents", tmp_path / "none")
