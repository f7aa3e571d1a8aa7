"""What ``loraworkbench doctor`` finds on this machine."""

from dataclasses import asdict

from bench.gpu.part import Work
from workbench.planning.doctor.checks import checks


def measure(work: Work) -> None:
    found = []
    for check in checks(work.home):
        found.append(asdict(check))
        work.note(findings=found, problems=[one["name"] for one in found if one["ok"] == "problem"])
