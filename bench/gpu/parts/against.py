"""The benches that run on any machine, at the size of this one, as commands; their figures are taken over."""

import json
import subprocess
import sys

from bench.gpu.part import Work


def measure(work: Work, bench: str) -> None:
    out, model = work.folder / f"{bench}.json", str(work.model())
    command = [sys.executable, "-m", f"bench.{bench}", "--model", model, "--json", str(out), *_options(bench, work.toy)]
    if bench != "train":
        command += ["--home", str(work.home.root)]
    work.note(command=command[2:])
    subprocess.run(command, check=True)
    work.note(**json.loads(out.read_text(encoding="utf-8")))


def _options(bench: str, toy: bool) -> list[str]:
    if bench == "train":
        names = ("plain", "trl", "trl_padding_free", "engine")
        few = ["--records", "12", "--set", "data.max_length=64"]
        return [*(few if toy else ["--records", "240"]), "--repeats", "1", *(f"--only={name}" for name in names)]
    if bench == "chat":
        return ["--tokens", "12" if toy else "32", "--rounds", "2"]
    if bench == "serve":
        return ["--tokens", "8" if toy else "16", "--turns", "2"]
    return ["--steps", "3" if toy else "8", "--dtype", "float32" if toy else "bfloat16"]
