"""What to carry to a machine that has PyTorch with CUDA and no network: our packages, in the versions installed here.

``python -m bench.gpu --wheels DIR [--python 3.12] [--cuda 13.0] [--have FREEZE]`` collects the wheels in ``DIR``;
``--wheels print`` names them. Nothing that PyTorch brings along is carried. From bitsandbytes all libraries but that of
the given CUDA version and the CPU's are left out; ``--have`` names what the machine has in versions that will do.
There: ``pip install --no-index --no-deps DIR/*.whl``.
"""

import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

LIMIT = 60 * 2**20
"""Bytes that should be enough for everything."""

# Needed by the bench beside what the package itself needs.
_ALSO = ("pytest", "pytest-asyncio", "pytest-timeout", "pytest-xdist")
# Not installed where there is no GPU: the newest one of these is carried.
_FOR_GPUS = {"liger-kernel": ">=0.8"}
# Parts of a wheel that training never imports, by package: patterns of names within it.
_NEVER_USED = {
    "pyarrow": r"pyarrow/(include|includes|src|tests)/|libarrow_(flight|python_flight|s3)|/_(flight|substrait|s3fs)\."
    r"|gandiva|\.(pyx|pxd|pxi|h|hpp|lib)$|libarrow_python\.so$|\.so(\.\d+){3}$",
    "pandas": r"pandas/tests/",
    "numpy": r"numpy/.*tests/|\.(a|h|pyi)$",
    "transformers": r"transformers/models/.*/convert_",
}


def wheels(where: str, python: str, cuda: str, have: Path | None) -> None:
    """Print the packages to carry, or collect their wheels in a folder and print their sizes.

    Raises:
        SystemExit: they are larger than :data:`LIMIT`, after they were collected.
    """
    needed = to_carry(_frozen(have))
    if where == "print":
        print("\n".join(map("".join, needed.items())))
        return
    folder = Path(where)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        fetched = Path(temporary)
        _build_ours(fetched)
        _download(needed, python, fetched)
        for wheel in sorted(fetched.glob("*.whl")):
            name = canonicalize_name(wheel.name.split("-")[0])
            carried = folder / wheel.name
            stripped(wheel, carried, left_out(name, cuda))
            print(f"{carried.stat().st_size / 2**20:7.2f} MiB of {wheel.stat().st_size / 2**20:7.2f}  {wheel.name}")
    total = sum(wheel.stat().st_size for wheel in folder.glob("*.whl"))
    print(f"{total / 2**20:7.2f} MiB in all")
    if total > LIMIT:
        raise SystemExit(f"More than {LIMIT / 2**20:.0f} MiB: say with --have what the machine has.")


def to_carry(have: dict[str, Version]) -> dict[str, str]:
    """What is needed by ours, as names and version specifiers, without PyTorch's own and what the machine has.

    The versions are those installed here.

    Args:
        have: what the machine has; a package whose version will not do is carried.
    """
    of_torch = _needed_by(["torch"])
    ours = _needed_by(["loraworkbench", *_ALSO])
    found = {}
    for name, requirements in sorted(ours.items()):
        is_there = name in have and all(one.specifier.contains(have[name], prereleases=True) for one in requirements)
        if name not in of_torch and name != "loraworkbench" and not is_there and _is_installed(name):
            found[name] = f"=={metadata.version(name).partition('+')[0]}"
    return found | {name: version for name, version in _FOR_GPUS.items() if name not in have}


def _needed_by(roots: Iterable[str]) -> dict[str, list[Requirement]]:
    """All packages that these need, themselves included, and what is asked of each."""
    asked: dict[str, list[Requirement]] = {canonicalize_name(name): [] for name in roots}
    waiting, seen = [(name, "") for name in asked], set[tuple[str, str]]()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen or not _is_installed(name):
            continue
        seen.add((name, extra))
        for requirement in map(Requirement, metadata.requires(name) or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                other = canonicalize_name(requirement.name)
                asked.setdefault(other, []).append(requirement)
                waiting += [(other, one) for one in ("", *requirement.extras)]
    return asked


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _frozen(file: Path | None) -> dict[str, Version]:
    """Names and versions of the lines ``name==version`` of a file."""
    lines = file.read_text(encoding="utf-8").splitlines() if file else []
    pairs = (line.partition("==") for line in lines if "==" in line)
    return {canonicalize_name(name.strip()): Version(version.strip()) for name, _, version in pairs}


def _build_ours(folder: Path) -> None:
    root = Path(__file__).parents[2]
    _pip("wheel", "--no-deps", "--wheel-dir", str(folder), str(root))


def _download(needed: dict[str, str], python: str, folder: Path) -> None:
    platforms = [
        f"manylinux{kind}_x86_64" for kind in ("_2_28", "_2_27", "_2_24", "_2_17", "2014", "_2_12", "_2_5", "1")
    ]
    _pip(
        "download", "--no-deps", "--only-binary=:all:", "--python-version", python, "--implementation", "cp",
        *(part for platform in platforms for part in ("--platform", platform)),
        "--dest", str(folder), *map("".join, needed.items()),
    )  # fmt: skip


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    subprocess.run(command, check=True)


def left_out(name: str, cuda: str) -> str:
    """A pattern of the files of a package's wheel that are not carried; matches none for most."""
    if name == "bitsandbytes":
        return rf"libbitsandbytes_(?!cpu|cuda{cuda.replace('.', '')}\.).*\.so$"
    return _NEVER_USED.get(name, r"(?!)")


def stripped(wheel: Path, out: Path, left_out: str) -> None:
    """Copy a wheel without some of its files, compressed harder; its RECORD names what it has."""
    pattern = re.compile(left_out)
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target:
        for name in source.namelist():
            if pattern.search(name):
                continue
            content = source.read(name)
            if name.endswith(".dist-info/RECORD"):
                lines = content.decode("utf-8").splitlines(keepends=True)
                content = "".join(line for line in lines if not pattern.search(line.split(",")[0])).encode("utf-8")
            target.writestr(source.getinfo(name), content, zipfile.ZIP_DEFLATED, 9)
