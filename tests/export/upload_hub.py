"""A hub on this machine that takes uploads: the part of its HTTP interface that making a repository and a commit use.

Every file goes in as a regular one. What the real hub does for large files (LFS, Xet) is not acted here.
"""

import base64
import json
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.fake_hub import QuietHandler, serving


@dataclass
class UploadHub:
    """``repos``: id → whether it is private. ``files``: what was committed. ``tokens``: what authorised it."""

    repos: dict[str, bool] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    tokens: set[str | None] = field(default_factory=set)
    refuses: int = 0


def serve_uploads(hub: UploadHub) -> AbstractContextManager[str]:
    """Serve ``hub``; gives its address."""
    return serving(_Handler, hub)


class _Handler(QuietHandler):
    hub: UploadHub

    def do_GET(self) -> None:  # noqa: N802  (the name http.server calls)
        path = urlsplit(self.path).path
        repo = "/".join(path.removeprefix("/api/models/").split("/")[:2])
        self.hub.tokens.add(self.headers.get("Authorization"))
        if repo not in self.hub.repos:
            self.send(404, {}, {"X-Error-Code": "RepoNotFound"})
        else:
            self.send(200, {"id": repo, "private": self.hub.repos[repo], "sha": "0" * 40, "siblings": []})

    def do_POST(self) -> None:  # noqa: N802  (the name http.server calls)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        token = self.headers.get("Authorization")
        self.hub.tokens.add(token)
        if self.hub.refuses:
            self.send(self.hub.refuses, {"error": f"no: {token}"})
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        elif path == "/api/validate-yaml":
            self.send(200, {"errors": [], "warnings": []})
        elif path.endswith("/preupload/main"):
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self.send(200, {"files": files})
        elif path.endswith("/commit/main"):
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.hub.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            repo = "/".join(path.removeprefix("/api/models/").split("/")[:2])
            commit = f"http://{self.headers['Host']}/{repo}/commit/{'1' * 40}"
            address = {"commitUrl": commit, "commitOid": "1" * 40, "success": True}
            self.send(200, address)
        else:
            self.send(404, {"error": f"not acted: {path}"})

    def create(self, wanted: dict) -> None:
        name = f"{wanted['organization']}/{wanted['name']}" if wanted.get("organization") else f"me/{wanted['name']}"
        if name in self.hub.repos:
            self.send(
                409, {"error": "You already created this model repo", "url": f"http://{self.headers['Host']}/{name}"}
            )
            return
        is_private = wanted.get("private", False) or wanted.get("visibility") == "private"
        self.hub.repos[name] = is_private
        self.send(200, {"url": f"http://{self.headers['Host']}/{name}", "name": name, "id": name})

    def send(self, status: int, body: dict, headers: dict[str, str] | None = None) -> None:
        told = {"Content-Type": "application/json", **(headers or {})}
        self.send_bytes(status, json.dumps(body).encode(), True, told)
