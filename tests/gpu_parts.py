"""Parts of the GPU bench that misbehave, for :mod:`tests.test_bench_gpu`."""

import subprocess
import sys
import threading

from bench.gpu.part import Work


def measure(work: Work, do: str) -> None:
    work.note(toy=work.toy, began=True)
    work.check("what must hold", do != "fail a check", "it does not")
    match do:
        case "hang":
            sleeper = subprocess.Popen(
                [sys.executable, "-c", "import time; print('sleeps', flush=True); time.sleep(3600)"],
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            assert sleeper.stdout
            sleeper.stdout.readline()
            work.note(sleeper=sleeper.pid)
            threading.Event().wait()
        case "fail":
            print("words of its log")
            raise ValueError("this part fails")
    work.verdict()
