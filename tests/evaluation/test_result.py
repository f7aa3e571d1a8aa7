"""What is kept in a run's folder can be read back, and is never half there."""

import json
import math

import pytest

from workbench.errors import WorkbenchError
from workbench.evaluation.result import (
    EvaluatedModel,
    Evaluation,
    Interval,
    ModelMetrics,
    evaluations,
    newest_evaluation,
    read_evaluation,
    save_evaluation,
)
from workbench.runs.folder import RunFolder


def evaluation(**more) -> Evaluation:
    figure = Interval(value=1.0, low=0.5, high=1.5)
    figures = ModelMetrics(loss=figure, perplexity=Interval(value=math.inf), token_accuracy=figure)
    facts = {
        "time": 1.0, "run": "run-01", "model": "m", "source": "s", "own": True, "records": 2, "more": False,
        "left_out": 0, "tokens": 9, "max_length": 64, "referenced": 0, "too_long": 0, "max_new_tokens": 8, "seed": 0,
        "draws": 10, "level": 0.95, "answered": [],
        "judged": [EvaluatedModel(name="base", folder=None, figures=figures)],
    }  # fmt: skip
    return Evaluation(**(facts | more))


def test_numbers_count_up_and_the_newest_is_found(tmp_path):
    run = RunFolder(tmp_path)
    assert newest_evaluation(run) is None
    assert [save_evaluation(run, evaluation(source=name)).name for name in ("a", "b")] == ["1.json", "2.json"]
    assert [path.name for path in evaluations(run)] == ["1.json", "2.json"]
    newest = newest_evaluation(run)
    assert (newest.number, newest.source) == (2, "b")
    assert [path.name for path in (tmp_path / "evaluations").iterdir() if path.suffix != ".json"] == []


def test_an_infinite_perplexity_is_legal_json_and_comes_back(tmp_path):
    path = save_evaluation(RunFolder(tmp_path), evaluation())

    def refuse(constant):
        raise AssertionError(constant)

    json.loads(path.read_text(), parse_constant=refuse)
    assert math.isinf(read_evaluation(path).judged[0].figures.perplexity.value)


def test_a_damaged_file_is_passed_over(tmp_path):
    run = RunFolder(tmp_path)
    save_evaluation(run, evaluation(source="whole"))
    (tmp_path / "evaluations" / "2.json").write_text("{")
    assert newest_evaluation(run).source == "whole"
    with pytest.raises(WorkbenchError, match="not a readable evaluation"):
        read_evaluation(tmp_path / "evaluations" / "2.json")
    assert save_evaluation(run, evaluation()).name == "3.json"


def test_a_disk_that_refuses_is_told(tmp_path):
    (tmp_path / "evaluations").write_text("in the way")
    with pytest.raises(WorkbenchError, match="cannot be saved"):
        save_evaluation(RunFolder(tmp_path), evaluation())
