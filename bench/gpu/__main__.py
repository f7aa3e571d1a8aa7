"""All that only a GPU can show, in one command: ``python -m bench.gpu [--list | --wheels DIR|print | --toy] …``.

Each part runs in a process of its own with a time limit. One file holds what was found, written as it is found:
figures, or the traceback and the end of the log. A file that is there already is continued: parts that are done stay.
"""

import argparse
import signal
import sys
import tempfile
from datetime import date
from functools import partial
from pathlib import Path

from bench.gpu.catalog import PARTS
from bench.gpu.part import Here
from bench.gpu.schedule import Results, run_parts
from workbench.machine.gpu import gpus_now

_SECONDS, _TOY_SECONDS = 535.0, 3600.0


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", action="store_true", help="the parts, their limits, and which cannot be run here")
    parser.add_argument("--only", nargs="+", metavar="PART", choices=[part.name for part in PARTS])
    parser.add_argument("--seconds", type=float, help=f"for all parts; {_SECONDS:.0f}, with --toy {_TOY_SECONDS:.0f}")
    parser.add_argument("--out", type=Path, help="the file of results; docs/measurements/gpu-<date>.json")
    parser.add_argument("--toy", action="store_true", help="a tiny model everywhere, on the CPU where there is no GPU")
    parser.add_argument("--wheels", metavar="DIR|print", help="what to carry to a machine that has only PyTorch")
    parser.add_argument("--python", default="3.12", help="with --wheels: that machine's Python")
    parser.add_argument("--cuda", default="13.0", help="with --wheels: the CUDA version of its PyTorch")
    parser.add_argument("--have", type=Path, help="with --wheels: what it has, as `pip freeze` prints it")
    options = parser.parse_args()
    if options.wheels:
        from bench.gpu.wheels import wheels

        wheels(options.wheels, options.python, options.cuda, options.have)
        return
    here = Here(bool(gpus_now()), options.toy)
    if options.list:
        for part in PARTS:
            why = part.why_not(here)
            print(f"{part.name:14s}{part.seconds:5.0f} s  {part.does}" + (f" (not here: {why})" if why else ""))
        return
    if not here.has_gpu and not here.toy:
        parser.exit(2, "There is no NVIDIA GPU here. --toy runs what a CPU can, with a tiny model.\n")
    # Ended from outside, it ends its part too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    measurements = Path(__file__).parents[2] / "docs" / "measurements"
    out = options.out or measurements / f"gpu-{'toy-' * here.toy}{date.today()}.json"
    seconds = options.seconds or (_TOY_SECONDS if here.toy else _SECONDS)
    parts = [part for part in PARTS if not options.only or part.name in options.only]
    with tempfile.TemporaryDirectory(prefix="bench-gpu-") as folder:
        are_done = run_parts(
            parts, Results(out, here, seconds), here, Path(folder), seconds, partial(print, flush=True)
        )
    print(out)
    raise SystemExit(0 if are_done else 1)


if __name__ == "__main__":
    main()
