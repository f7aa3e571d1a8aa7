"""The tests that do something else, or anything at all, only where there is a GPU."""

import os
import subprocess
import sys

from bench.gpu.part import Work

TESTS = (
    "tests/engine/test_step_clock.py::test_parts_of_a_gpu_are_those_of_its_queue",
    "tests/engine/test_trouble.py::test_a_gpu_that_is_really_full_is_met_with_smaller_parts",
    "tests/engine/test_kernels.py::test_ligers_own_kernels_train_alike_on_a_gpu",
    "tests/engine/test_training.py",
    "tests/test_gpu.py",
)


def measure(work: Work) -> None:
    report = work.folder / "junit.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n0",
        "-rs",
        "-p",
        "no:cacheprovider",
        f"--junitxml={report}",
        *TESTS,
    ]
    # Tests that fork must not have started CUDA in the process that is forked.
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTORCH_NVML_BASED_CUDA_CHECK": "1"},
        check=False,
    )
    print(done.stdout)
    work.note(exit=done.returncode, tail=done.stdout[-6000:])
    work.check("they pass", done.returncode == 0, done.stdout[-300:])
    work.verdict()
