"""Runs side by side: differences only, figures, and curves over steps, tokens and time."""

import math

import pytest

from tests.runs.told import GIB, begin, evaluate, finished, resume, take_steps, writer_of
from workbench.runs.curves.compared import RunCurves
from workbench.runs.folder import summarise
from workbench.runs.library.comparison import difference_rows, metric_rows, recipe_of
from workbench.runs.library.listing import ListedRun, matches, sort_runs
from workbench.runs.library.naming import rename_run, tag_run
from workbench.storage.paths import Home


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


def test_only_what_differs_is_told(home):
    one = finished(home, adapter={"r": 8}, training={"max_grad_norm": 1.0})
    other = finished(home, adapter={"r": 64, "rank_pattern": {"q_proj": 4}})
    third = finished(home, adapter={"r": 8})
    rows = dict(difference_rows([recipe_of(run) for run in (one, other, third)]))
    # lora_alpha follows 2·r, and so it differs too; max_grad_norm is 1 by default.
    assert rows["adapter.r"] == ["8", "64", "8"]
    assert rows["adapter.lora_alpha"] == ["16", "128", "16"]
    assert rows["adapter.rank_pattern.q_proj"] == ["–", "4", "–"]
    assert not [path for path in rows if path.startswith("training.")]
    assert difference_rows([recipe_of(one), recipe_of(third)]) == []


def test_a_recipe_that_cannot_be_read_differs_in_nothing(home):
    one, other, broken = finished(home), finished(home, adapter={"r": 64}), finished(home)
    broken.recipe_file.write_text("adapter: {r: -1}")
    assert ("adapter.r", ["16", "64", "?"]) in difference_rows([recipe_of(run) for run in (one, other, broken)])
    assert difference_rows([recipe_of(one), recipe_of(broken)]) == []


def test_final_figures_stand_beside_each_other(home):
    run, begun = finished(home, steps=10), begin(home)
    run.adapter.mkdir()
    (run.adapter / "adapter_model.safetensors").write_bytes(b"0" * 2_500_000)
    rows = dict(metric_rows([RunCurves(run).metrics(), RunCurves(begun).metrics()]))
    assert rows["steps"] == ["10/100", "–"]
    assert rows["last loss"] == ["2.9", "–"]
    assert rows["best held-out loss"] == ["2 at 10", "–"]
    assert rows["perplexity"] == ["20.09 → 7.389", "–"]
    assert rows["tokens"] == ["15,000", "–"]
    assert rows["tokens/s"] == ["3,000", "–"]
    assert rows["training time"] == ["00:05.0", "–"]
    assert rows["peak VRAM predicted"] == ["3.00 GiB", "–"]
    assert rows["peak VRAM measured"] == ["1.00 GiB", "–"]
    assert rows["trainable parameters"] == ["4,096", "–"]
    assert rows["adapter file"] == ["2.5 MB", "–"]
    assert rows["state"] == ["finished", "new"]


def test_a_curve_lies_over_steps_tokens_and_seconds_without_what_was_trained_twice(home):
    run = begin(home)
    with writer_of(run) as journal:
        evaluate(journal, 0, 3.0)
        take_steps(journal, [1, 2, 3, 4], seconds=0.5)
        evaluate(journal, 4, 1.0, best=True)
        resume(journal, 2)
        take_steps(journal, [3, 4], loss=2.0, seconds=0.25, vram=None)
        evaluate(journal, 4, 1.5, best=True)
        take_steps(journal, [5], loss=math.nan)
    course = RunCurves(run)
    losses = [2.99, 2.98, 1.97, 1.96]
    assert course.curve("step") == list(zip([1, 2, 3, 4], losses, strict=True))
    assert course.curve("tokens") == list(zip([1500, 3000, 4500, 6000], losses, strict=True))
    assert course.curve("time") == list(zip([0.5, 1.0, 1.25, 1.5], losses, strict=True))
    assert course.held_out("time") == [(0.0, 3.0), (1.5, 1.5)]
    assert course.held_out("step") == [(0.0, 3.0), (4.0, 1.5)]
    assert course.metrics().best == (1.5, 4)
    assert course.metrics().summary.peak_vram == GIB + 5
    assert course.curve("step", max_points=2) == [(1.5, pytest.approx(2.985)), (3.5, pytest.approx(1.965))]


def listed(run):
    return ListedRun(run, summarise(run), run.label)


def test_the_history_is_sorted_and_searched(home):
    long, short = finished(home, "long", steps=30), finished(home, "short", steps=5, loss=9.0)
    new = begin(home, "new")
    tag_run(long, ["pirate"])
    rename_run(home, short, "Alpha")
    every = [listed(run) for run in (new, short, long)]

    def ids(*arguments, **options):
        return [one.run.id for one in sort_runs(every, *arguments, **options)]

    assert ids("steps") == ["long-01", "short-01", "new-01"]
    assert ids("steps", reverse=True) == ["new-01", "short-01", "long-01"]
    assert ids("loss") == ["long-01", "short-01", "new-01"]
    assert ids("loss", reverse=True) == ["short-01", "long-01", "new-01"], "what has none stands last"
    assert ids("run") == ["short-01", "long-01", "new-01"]
    assert ids("started") == ["new-01", "short-01", "long-01"]

    def found(words):
        return [one.run.id for one in every if matches(one, words)]

    assert found("#pir") == ["long-01"]
    assert found("alpha") == found("SHORT") == ["short-01"]
    assert found("finished tiny") == ["short-01", "long-01"]
    assert found("finished new") == []
    assert len(found("")) == 3
