"""A hub of datasets on this machine: the part of its HTTP interface that ``datasets`` uses, served from folders."""

import hashlib
import json
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from tests.fake_hub import QuietHandler, serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class DatasetHub:
    """What is served: ``sets`` maps ids to folders; ``gated`` ones refuse files; ``taken`` is what was sent."""

    def __init__(self) -> None:
        self.sets: dict[str, Path] = {}
        self.gated: set[str] = set()
        self.taken: list[str] = []


def serve(hub: DatasetHub) -> AbstractContextManager[str]:
    """Serve ``hub``; gives its address."""
    return serving(_Handler, hub)


class _Handler(QuietHandler):
    hub: DatasetHub

    def do_HEAD(self) -> None:  # noqa: N802  (the name http.server calls)
        self.answer(with_body=False)

    def do_GET(self) -> None:  # noqa: N802  (the name http.server calls)
        self.answer(with_body=True)

    def do_POST(self) -> None:  # noqa: N802  (the name http.server calls)
        self.answer(with_body=True, body=self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode())

    def answer(self, with_body: bool, body: str = "") -> None:
        url = urlsplit(self.path)
        parts = unquote(url.path).strip("/").split("/")
        if parts[:2] == ["api", "datasets"]:
            return self.api("/".join(parts[2:4]), parts[4:], "recursive=true" in url.query.lower(), body, with_body)
        if parts[0] != "datasets" or len(parts) < 6:
            return self.refuse(404, "RepoNotFound", with_body)
        return self.file("/".join(parts[1:3]), "/".join(parts[5:]), with_body)

    def file(self, repo: str, name: str, with_body: bool) -> None:
        folder = self.hub.sets.get(repo)
        if folder is None:
            return self.refuse(404, "RepoNotFound", with_body)
        if repo in self.hub.gated:
            return self.refuse(403, "GatedRepo", with_body)
        if not (folder / name).is_file():
            return self.refuse(404, "EntryNotFound", with_body)
        data = (folder / name).read_bytes()
        if with_body:
            self.hub.taken.append(name)
        headers = {"ETag": f'"{_digest(data)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        wanted = self.headers.get("Range")
        if not (wanted and with_body):
            return self.send_bytes(200, data, with_body, headers)
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last or len(data)), len(data) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
        return self.send_bytes(206, data[start : end + 1], with_body, headers)

    def api(self, repo: str, rest: list[str], recursive: bool, body: str, with_body: bool) -> None:
        folder = self.hub.sets.get(repo)
        if folder is None:
            return self.refuse(404, "RepoNotFound", with_body)
        if rest[:1] == ["tree"]:
            under = folder.joinpath(*rest[2:])
            if not under.exists():
                return self.refuse(404, "EntryNotFound", with_body)
            paths = sorted(under.rglob("*") if recursive else under.iterdir())
            return self.send_json([_entry(path, folder) for path in paths], with_body)
        if rest[:1] == ["paths-info"]:
            names = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
            return self.send_json([_entry(folder / n, folder) for n in names if (folder / n).exists()], with_body)
        siblings = [{"rfilename": entry["path"]} for entry in (_entry(p, folder) for p in sorted(folder.rglob("*.*")))]
        about = {"id": repo, "sha": COMMIT, "siblings": siblings, "private": False, "tags": [], "downloads": 0}
        return self.send_json(about, with_body)

    def send_json(self, value: object, with_body: bool) -> None:
        self.send_bytes(200, json.dumps(value).encode(), with_body, {"Content-Type": "application/json"})


def _entry(path: Path, folder: Path) -> dict[str, object]:
    name = str(path.relative_to(folder))
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
    data = path.read_bytes()
    return {"type": "file", "path": name, "size": len(data), "oid": _digest(data)}


def _digest(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
