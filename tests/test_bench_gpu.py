"""The GPU bench on a machine without one: its file of results, its time limits, and what is recorded of a failure."""

import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import psutil
import pytest
from packaging.version import Version

from bench.gpu import schedule, wheels
from bench.gpu.catalog import PARTS
from bench.gpu.part import Here, Part
from bench.gpu.schedule import Results, run_parts
from workbench.machine.gpu import gpus_now

HERE = Here(has_gpu=False, toy=True)


def _part(do: str, **fields: object) -> Part:
    return Part(do, f"does: {do}", "tests.gpu_parts", **{"seconds": 120, "least": 0, "settings": {"do": do}, **fields})


def _results(tmp_path: Path) -> Results:
    return Results(tmp_path / "gpu.json", HERE, 500)


def _told(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))


def test_each_part_leaves_what_it_found_or_why_it_failed(tmp_path):
    parts = [
        _part("work"),
        _part("fail"),
        _part("fail a check"),
        _part("gpu", why_not=lambda here: "" if here.has_gpu else "CUDA only"),
        _part("long", least=10_000),
    ]
    said = []
    assert not run_parts(parts, _results(tmp_path), HERE, tmp_path, 500, said.append)
    told = _told(tmp_path)
    assert told["toy"]
    assert {"date", "hardware", "versions", "budget_seconds"} <= told.keys()
    found = told["parts"]
    assert {name: part["state"] for name, part in found.items()} == {
        "work": "done",
        "fail": "failed",
        "fail a check": "failed",
        "gpu": "not run",
        "long": "left out",
    }
    assert found["work"]["figures"] == {"toy": True, "began": True, "checks": {"what must hold": "ok"}}
    assert found["work"]["does"] == "does: work"
    assert "traceback" not in found["work"]
    # What was found before the failure is kept.
    assert found["fail"]["figures"]["began"]
    assert "ValueError: this part fails" in found["fail"]["traceback"]
    assert "words of its log" in found["fail"]["log"]
    assert found["fail a check"]["figures"]["checks"] == {"what must hold": "FAILED: it does not"}
    assert "it does not" in found["fail a check"]["traceback"]
    assert found["gpu"]["why"] == "CUDA only"
    assert "it needs 10000" in found["long"]["why"]
    assert [line.split()[0] for line in said] == ["work", "fail", "fail", "gpu", "long"]
    # A later call does what is left, and nothing twice.
    before = found["work"]
    assert run_parts([_part("work")], _results(tmp_path), HERE, tmp_path, 500, said.append)
    assert said[-1].split() == ["work", "done", "before"]
    assert _told(tmp_path)["parts"]["work"] == before
    with pytest.raises(SystemExit, match="toy"):
        Results(tmp_path / "gpu.json", Here(has_gpu=True, toy=False), 500)


def test_a_part_that_hangs_is_ended_with_all_that_it_started(tmp_path, monkeypatch):
    def when_it_hangs(process, seconds):
        while not any('"sleeper"' in file.read_text() for file in tmp_path.glob("hang-*/figures.json")):
            assert process.poll() is None
            time.sleep(0.02)

    with monkeypatch.context() as patched:
        patched.setattr(schedule, "ended", when_it_hangs)
        assert not run_parts([_part("hang")], _results(tmp_path), HERE, tmp_path, 500, print)
    found = _told(tmp_path)["parts"]["hang"]
    assert found["state"] == "timed out"
    assert "tests/gpu_parts.py" in found["log"]
    assert "most recent call first" in found["log"]
    sleeper = found["figures"]["sleeper"]
    while _is_running(sleeper):  # it is killed, which takes a moment
        time.sleep(0.02)
    # The clock by itself, however far the part has come.
    assert not run_parts([_part("hang", seconds=0.2)], _results(tmp_path), HERE, tmp_path, 500, print)
    assert _told(tmp_path)["parts"]["hang"]["state"] == "timed out"


def _is_running(number: int) -> bool:
    try:
        return psutil.Process(number).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def _bench(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "bench.gpu", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])


@pytest.mark.skipif(bool(gpus_now()), reason="there is a GPU")
def test_the_command_at_toy_size(tmp_path):
    done = _bench("--toy", "--only", "attention", "monitor", "--out", tmp_path / "gpu.json")
    assert done.returncode == 0, done.stdout + done.stderr
    parts = _told(tmp_path)["parts"]
    assert {name: part["state"] for name, part in parts.items()} == {"attention": "done", "monitor": "not run"}
    checks = parts["attention"]["figures"]["checks"]
    assert set(checks.values()) == {"ok"}
    assert any("window" in name for name in checks)
    assert any("llama" in name for name in checks)
    listed = _bench("--list").stdout
    assert all(part.name in listed for part in PARTS)
    assert "CUDA only" in listed
    refused = _bench("--only", "doctor")
    assert refused.returncode == 2
    assert "--toy" in refused.stderr


def test_what_is_carried_is_what_the_machine_lacks(tmp_path):
    needed = wheels.to_carry({})
    assert {"transformers", "peft", "trl", "bitsandbytes", "textual", "pytest"} <= needed.keys()
    assert not {"torch", "triton", "loraworkbench", "sympy"} & needed.keys()
    there = wheels.to_carry({"pyarrow": Version("99.0"), "transformers": Version("4.0")})
    assert "pyarrow" not in there
    assert "transformers" in there, "too old to do"
    names = ("cpu", "cuda130", "cuda128", "rocm64", "xpu2026")
    libraries = [f"bitsandbytes/libbitsandbytes_{name}.so" for name in names]
    with zipfile.ZipFile(tmp_path / "whole.whl", "w") as wheel:
        for name in (*libraries, "bitsandbytes/__init__.py"):
            wheel.writestr(name, name)
        wheel.writestr("bitsandbytes-1.dist-info/RECORD", "".join(f"{name},,\n" for name in libraries))
    wheels.stripped(tmp_path / "whole.whl", tmp_path / "out.whl", wheels.left_out("bitsandbytes", "13.0"))
    with zipfile.ZipFile(tmp_path / "out.whl") as wheel:
        kept = [*libraries[:2], "bitsandbytes/__init__.py", "bitsandbytes-1.dist-info/RECORD"]
        assert wheel.namelist() == kept
        assert wheel.read(kept[-1]).decode().split() == [f"{name},," for name in libraries[:2]]
