"""Predicted against measured peaks of 25 runs on models of real shapes with random weights: bench/vram.py's runs."""

import statistics
import threading
from typing import Any

from bench.gpu.part import Work
from bench.vram import SIZES, Case, random_base, run_case, trace_all, write_shell
from workbench.engine.model.hardware import free_cached_memory

_BASES = (
    ("meta-llama/Llama-3.2-1B", "none"),
    ("meta-llama/Llama-3.2-3B", "nf4"),
    ("Qwen/Qwen2.5-7B-Instruct", "nf4"),
    ("mistralai/Mistral-7B-v0.1", "int8"),
    ("meta-llama/Llama-2-7b-hf", "none"),
)
_TOY = ("HuggingFaceTB/SmolLM2-135M-Instruct", "nf4")
# What one more run may take.
_SECONDS_A_RUN = 15.0


def measure(work: Work) -> None:
    runs = {base: [Case(*base, *size) for size in SIZES] for base in _BASES}
    if work.toy:
        runs = {_TOY: [Case(*_TOY, 1, 64, 4, True)]}
    shells = {model: write_shell(model, work.folder / model.replace("/", "-")) for model, _ in runs}
    recipes = {case: case.recipe(shells[case.model]) for listed in runs.values() for case in listed}
    problems: list[str] = []
    tracing = threading.Thread(target=lambda: problems.extend(trace_all(work.home, list(recipes.values()))))
    tracing.start()
    lines: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    base: Any = None
    for listed in runs.values():
        if work.seconds_left < _SECONDS_A_RUN:
            break
        try:
            base = random_base(recipes[listed[0]], "cuda:0" if work.device == "cuda" else "cpu")
        except Exception as error:  # the next base may fit
            failed[f"{listed[0].model} in {listed[0].method}"] = f"{type(error).__name__}: {error}"
            continue
        tracing.join()
        for case in listed:
            if work.seconds_left < _SECONDS_A_RUN:
                break
            try:
                line, base = run_case(work.home, case, recipes[case], base)
                lines.append(line)
            except Exception as error:  # the next run may fit
                failed[str(tuple(case))] = f"{type(error).__name__}: {error}"
            free_cached_memory()
            work.note(runs=lines, failed=failed, could_not_be_followed=problems, **_summary(lines))
        base = None
        free_cached_memory()
    work.note(runs=lines, failed=failed, left_out=len(recipes) - len(lines) - len(failed))
    work.check("runs were measured", lines, failed)
    work.verdict()


def _summary(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and worst relative error of the predictions; empty without a GPU, where nothing is measured."""
    found = {}
    for name in ("allocated_error", "reserved_error"):
        if errors := [line[name] for line in lines if name in line]:
            found[name] = {"mean": statistics.fmean(map(abs, errors)), "worst": max(errors, key=abs)}
    return found
