"""The report: what is in it, that it adds up with the journal, and that nothing foreign in it is more than text."""

import json
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

from tests.engine.runs_of_tiny import events_of
from tests.evaluation.test_judge import Engine, data_of
from tests.evaluation.test_result import evaluation
from tests.journals import JournalWriter
from workbench.errors import WorkbenchError
from workbench.evaluation.chart import Line, curve_picture, ticks
from workbench.evaluation.report import read_curves, write_report
from workbench.evaluation.report_text import report_markdown
from workbench.evaluation.result import AnsweredPrompt, newest_evaluation, save_evaluation
from workbench.runs.folder import RunFolder

SVG = "{http://www.w3.org/2000/svg}"
NASTY = (
    "<script>alert(1)</script> **bold** [a](javascript:b) `c`\n\n# Head\n\n| cell |\n</td></table>\x1b[2J\u202eolleh"
)


@pytest.fixture(scope="module")
def reported(home, run, unseen):
    """A run that was evaluated, which writes its report."""
    Engine(home).judge(run, data=data_of(run, unseen), replies=20, max_new_tokens=16)
    return run


def facts_of(run):
    return json.loads((run.path / "report.json").read_text())


def texts_of(picture):
    return [element.text for element in ET.fromstring(picture).iter(f"{SVG}text")]


def test_the_json_tells_what_the_journal_and_the_evaluation_tell(reported):
    told = facts_of(reported)
    steps = events_of(reported, "step")
    found = newest_evaluation(reported)
    assert told["curve"]["training"] == [[event["step"], event["loss"]] for event in steps]
    assert told["curve"]["held_out"] == [[event["step"], event["loss"]] for event in events_of(reported, "eval")]
    assert told["figures"]["steps"] == 30
    assert told["times"]["seconds_in_steps"] == pytest.approx(sum(event["seconds"] for event in steps))
    tokens = told["times"]["tokens_per_second"] * told["times"]["seconds_in_steps"]
    assert tokens == pytest.approx(steps[-1]["tokens"])
    used = told["utilisation"]
    assert sum(used["shares"].values()) == pytest.approx(1)
    forward = sum(event["parts"]["forward"] for event in steps)
    assert used["shares"]["forward"] == pytest.approx(forward / told["times"]["seconds_in_steps"], rel=0.02)
    done = sum(event["flops"] * event["seconds"] for event in steps)
    assert used["flops"] == pytest.approx(done / told["times"]["seconds_in_steps"])
    assert (used["mfu"], used["peak_flops"]) == (None, None)
    assert told["memory"]["host_peak"] == max(event["host"]["peak"] for event in steps)
    assert told["memory"]["measured_allocated"] is None  # there is no GPU
    assert told["recipe"]["adapter"]["r"] == 8
    (judged,) = [one for one in told["evaluation"]["judged"] if one["name"] == reported.id]
    assert judged["figures"] == found.judged[1].figures.model_dump(mode="json")
    assert [one["replies"] for one in told["evaluation"]["answered"]] == [one.replies for one in found.answered]


def test_the_markdown_is_fit_to_be_handed_on(reported, home):
    text = (reported.path / "report.md").read_text()
    found = newest_evaluation(reported)
    for head in ("Metrics", "The run", "Memory", "Settings", "Made with", "Replies", "Evaluations during the run"):
        assert f"\n## {head}\n" in text
    assert "![Loss over steps](report.svg)" in text
    assert "is better than the base\\: held-out perplexity" in text
    assert "| time per step | data " in text
    assert "the peak FLOP/s of a CPU is unknown" in text
    assert f"{found.judged[0].figures.perplexity.value:.4g}" in text
    assert "\n  r: 8\n" in text
    assert text.count("<tr><td colspan") == 7 + 4  # seven records, four fixed prompts
    # Nothing of where it was made.
    assert str(home.root) not in text + (reported.path / "report.json").read_text()
    assert str(reported.path.parent) not in text


def test_at_most_twenty_replies_stand_side_by_side():
    many = [AnsweredPrompt(prompt=f"q{n}", replies={"base": f"a{n}"}, fixed=n < 4) for n in range(30)]
    text = report_markdown(_told(), evaluation(answered=many), "report.svg")
    assert text.count("<tr><td colspan") == 20
    assert "q4<" in text  # records come first
    assert "q0<" not in text


def test_the_picture_is_a_curve_of_the_journal(reported):
    picture = ET.fromstring((reported.path / "report.svg").read_text())
    lines = [path for path in picture.iter(f"{SVG}path") if path.get("stroke-width")]
    assert len(lines) == 2
    places = [tuple(map(float, place.split())) for place in lines[0].get("d")[1:].split("L")]
    losses = [event["loss"] for event in events_of(reported, "step")]
    assert len(places) == len(losses)
    # Higher losses stand higher, at places in proportion.
    (_, first), (_, last) = places[0], places[-1]
    per_unit = (last - first) / (losses[0] - losses[-1])
    for (_, y), loss in zip(places, losses, strict=True):
        assert y == pytest.approx(first + (losses[0] - loss) * per_unit, abs=0.11)
    assert [x for x, _ in places] == sorted({x for x, _ in places})
    assert {"training", "held out", "step", "loss", reported.id} <= set(texts_of(ET.tostring(picture)))


def test_a_spike_among_very_many_points_is_not_lost():
    points = [(float(n), 9.0 if n == 33_333 else 1.0) for n in range(100_000)]
    picture = curve_picture("run", [Line("training", points)])
    assert len(picture) < 60_000
    (line,) = [path for path in ET.fromstring(picture).iter(f"{SVG}path") if path.get("stroke-width")]
    heights = [float(place.split()[1]) for place in line.get("d")[1:].split("L")]
    assert min(heights) < min(heights[:50]) - 100


@pytest.mark.parametrize("points", [[], [(0.0, float("nan"))]])
def test_a_run_without_a_step_has_a_picture_that_says_so(points):
    assert "No steps logged yet." in texts_of(curve_picture("run", [Line("training", points)]))


def test_one_point_is_a_dot():
    picture = ET.fromstring(curve_picture("run", [Line("training", [(1.0, 2.0)])]))
    assert len(list(picture.iter(f"{SVG}circle"))) == 1


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0.0, 10.0, [0, 2, 4, 6, 8, 10]),
        (0.3, 2.7, [0, 0.5, 1, 1.5, 2, 2.5, 3]),
        (1.0, 30.0, [0, 5, 10, 15, 20, 25, 30]),
        (3.0, 3.0, [1.5, 2, 2.5, 3, 3.5, 4, 4.5]),
    ],
)
def test_ticks_are_round_numbers_around_the_data(low, high, wanted):
    assert ticks(low, high) == wanted


def test_steps_have_no_fractions():
    assert ticks(1, 3, whole=True) == [1, 2, 3]


def test_foreign_text_is_only_text(reported):
    found = evaluation(
        run=NASTY,
        model=NASTY,
        source=NASTY,
        answered=[AnsweredPrompt(prompt=NASTY, reference=NASTY, where=NASTY, replies={"base": NASTY})],
    )
    found = found.model_copy(update={"judged": [found.judged[0].model_copy(update={"name": "base"})]})
    text = report_markdown(_told(run=NASTY), found, "report.svg")

    class Tags(HTMLParser):
        def __init__(self):
            super().__init__()
            self.tags = set()

        def handle_starttag(self, tag, attributes):
            self.tags.add(tag)
            assert {name for name, _ in attributes} <= {"colspan", "valign"}

    parser = Tags()
    parser.feed(text)
    assert parser.tags <= {"table", "tr", "th", "td", "b", "br", "i"}
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "[a](" not in text
    # The table of replies ends where it ends: no blank line before, so that none of it is read as Markdown.
    table = text[text.index("<table>") : text.index("</table>")]
    assert "\n\n" not in table
    assert "# Head" not in table
    assert sum(line.startswith("# ") for line in text.splitlines()) == 1


def test_foreign_text_in_the_picture_is_only_text():
    picture = curve_picture(NASTY, [Line("training", [(1, 2), (2, 1)])])
    tags = {element.tag.removeprefix(SVG) for element in ET.fromstring(picture).iter()}
    assert tags == {"svg", "rect", "path", "text"}


def test_a_run_that_was_not_evaluated_says_how_to(home, tmp_path, recipe):
    from workbench.runs.folder import create_run

    run = create_run(home, recipe)
    with pytest.raises(WorkbenchError, match="nothing to report"):
        write_report(home, run)
    with JournalWriter(run.journal) as journal:
        journal.write("run_started", run=run.id, model=recipe.model.source, recipe=recipe.as_dict(), pid=1)
        journal.write("step", step=1, max_steps=8, loss=float("nan"), seconds=0.5)
        journal.write("step", step=2, max_steps=8, loss=2.5, seconds=0.25)
        journal.write("step", step=2, max_steps=8, loss=2.25, seconds=0.25)
        journal.write("error", message="CUDA ran out of memory.", cure="Halve it.")
        journal.write("run_ended", reason="error", measured=None)
    files = write_report(home, run)
    text = files.markdown.read_text()
    assert "Not evaluated yet" in text
    assert "failed after 2 steps" in text
    assert read_curves(run).train == {2: 2.25}
    assert facts_of(run)["times"]["seconds_in_steps"] == 0.75


def test_predicted_and_measured_memory_stand_beside_each_other(home, recipe):
    from workbench.runs.folder import create_run

    run = create_run(home, recipe)
    peak = {"allocated_bytes": 3 * 2**30, "reserved_bytes": 4 * 2**30, "terms": {"weights": 2**30}, "method": "trace"}
    measured = {"allocated": int(2.5 * 2**30), "reserved": 3 * 2**30, "resting": 2**30, "nvml": None}
    with JournalWriter(run.journal) as journal:
        journal.write("run_started", run=run.id, model=recipe.model.source, recipe=recipe.as_dict(), pid=1)
        journal.write("phase", phase="preparing", predicted=peak)
        journal.write("run_ended", reason="finished", measured=measured)
    text = write_report(home, run).markdown.read_text()
    assert "| predicted peak | 3.00 GiB |" in text
    assert "| measured peak | 2.50 GiB |" in text
    assert "+20.0%" in text
    assert facts_of(run)["memory"]["error"] == pytest.approx(0.2)


def test_a_folder_that_refuses_is_told(reported, home, monkeypatch, tmp_path):
    import shutil

    copy = RunFolder(tmp_path / "run")
    shutil.copytree(reported.path, copy.path)
    (copy.path / "report.md").unlink()
    (copy.path / "report.md").mkdir()
    with pytest.raises(WorkbenchError, match="cannot be written"):
        write_report(home, copy)
    assert not list(copy.path.glob(".report*"))


def test_the_newest_evaluation_counts(reported, home):
    save_evaluation(reported, evaluation(source="newest-source"))
    text = write_report(home, reported).markdown.read_text()
    assert "newest" in text


def _told(**more):
    """What a report needs besides an evaluation, with nothing in it."""
    return {
        "run": "run-01", "base": {"source": "m", "revision": None, "licence": ""}, "data": [], "seed": 1,
        "recipe": {"adapter": {"r": 8}}, "versions": {}, "hardware": {}, "precision": {}, "records": {},
        "changed_in_mid_run": [], "reported_with": {}, "evaluation": None,
        "figures": {"state": "finished", "steps": 1, "tokens": 2, "loss": 1.0, "evaluations": []},
        "times": {"started": None, "seconds": None, "seconds_in_steps": None, "tokens_per_second": None},
        "utilisation": None,
        "memory": dict.fromkeys(
            ("predicted_allocated", "predicted_terms", "measured_allocated", "measured_reserved", "error", "suspect",
             "host_peak")
        ),
    } | more  # fmt: skip
