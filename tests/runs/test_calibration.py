"""Predicted against measured peaks, from journals alone."""

import json

import pytest
from typer.testing import CliRunner

from tests.journals import JournalWriter
from workbench.commands.app import app
from workbench.recipe.text import parse
from workbench.runs.folder import all_runs, create_run, summarise
from workbench.runs.library.calibration import calibrate
from workbench.storage.paths import Home

MIB = 2**20
TERMS = {
    "weights": 600 * MIB,
    "quantisation_constants": 20 * MIB,
    "adapters": 80 * MIB,
    "gradients": 80 * MIB,
    "optimizer": 20 * MIB,
    "saved_activations": 150 * MIB,
    "loss": 50 * MIB,
    "cuda_context": 500 * MIB,
}
PREDICTED = {
    "allocated_bytes": 1000 * MIB,
    "reserved_bytes": 1100 * MIB,
    "terms": TERMS,
    "method": "trace",
    "length": 512,
}


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


def run(home, name, predicted, measured, resting=700, **told):
    """A finished run; ``measured`` in MiB, None on a machine with no GPU."""
    folder = create_run(home, parse({"output": {"name": name}}))
    figures = measured and {
        "allocated": measured * MIB,
        "reserved": (measured + 90) * MIB,
        "resting": resting * MIB,
        "nvml": None,
    }
    with JournalWriter(folder.journal) as journal:
        journal.write("run_started", model="tiny", pid=0, process_started=0.0)
        journal.write("phase", phase="preparing", predicted=predicted)
        journal.write("phase", phase="training", max_steps=1, **told)
        journal.write("run_ended", reason="finished", measured=figures)
    return folder


def call(home, *arguments):
    done = CliRunner().invoke(app, ["--home", str(home.root), "calibration", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_summary_has_both_peaks_and_their_difference(home):
    summary = summarise(run(home, "a", PREDICTED, 800))
    assert summary.predicted_peak == PREDICTED
    assert summary.predicted_allocated == 1000 * MIB
    assert summary.measured_peak["allocated"] == 800 * MIB
    assert summary.peak_error == pytest.approx(0.25)


def test_a_run_that_lacks_a_figure_has_no_error(home):
    for name, predicted, measured in (("cpu", PREDICTED, None), ("unknown", None, 800), ("old", None, None)):
        assert summarise(run(home, name, predicted, measured)).peak_error is None
    assert calibrate(map(summarise, all_runs(home))).runs == ()


def test_without_measured_runs_it_says_why(home):
    assert "no runs" in call(home)
    run(home, "cpu", PREDICTED, None)
    said = " ".join(call(home).split())
    assert "None of the 1 runs has both" in said
    assert "CUDA GPU" in said
    empty = {"count": 0, "mean": None, "bias": None, "worst": None, "runs": []}
    assert json.loads(call(home, "--json")) == empty


def test_the_distribution(home):
    run(home, "over", PREDICTED, 980)
    run(home, "under", PREDICTED, 1250)
    told = json.loads(call(home, "--json"))
    errors = {one["run"]: one["error"] for one in told["runs"]}
    assert errors == {"over-01": pytest.approx(1000 / 980 - 1), "under-01": pytest.approx(-0.2)}
    assert told["count"] == 2
    assert told["mean"] == pytest.approx((0.2 + 1000 / 980 - 1) / 2)
    assert told["bias"] == pytest.approx((-0.2 + 1000 / 980 - 1) / 2)
    assert told["worst"] == pytest.approx(0.2)
    assert "worst 20.00%" in call(home)


@pytest.mark.parametrize(
    ("measured", "resting", "suspect"),
    [
        (980, 700, ""),
        # The step takes 200 MiB less than was said; what lay there before it is right.
        (800, 700, "saved_activations"),
        # The whole difference lay there before the first step.
        (800, 500, "weights"),
        (1250, 950, "weights"),
        (1250, 690, "saved_activations"),
    ],
)
def test_a_term_is_suspected_above_five_percent(home, measured, resting, suspect):
    summary = summarise(run(home, "one", PREDICTED, measured, resting))
    (compared,) = calibrate([summary]).runs
    assert compared.suspect == suspect


def test_steps_that_were_not_priced_are_not_compared(home):
    run(home, "plain", PREDICTED, 1000)
    run(home, "compiled", PREDICTED, 700, compiled=True)
    run(home, "fused", PREDICTED, 700, kernels="Liger kernels: 5 norms (LlamaRMSNorm)")
    run(home, "asked", PREDICTED, 1000, compiled=False, kernels=None)
    assert sorted(one.run for one in calibrate(map(summarise, all_runs(home))).runs) == ["asked-01", "plain-01"]
