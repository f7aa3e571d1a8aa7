"""A hub on this machine, for the tests: the part of its HTTP interface that a download uses, served from a folder."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from tests.fake_hub import QuietHandler, serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"
COMMIT_OF_BRANCH = "89abcdef0123456789abcdef0123456789abcdef"


class Hub:
    """What is served: ``repos`` maps ids to folders; ``taken`` is what was sent.

    ``renamed`` maps former ids to those of today; ``branches`` maps ids to the folder of their branch ``next``;
    ``gated`` repositories refuse files, ``disabled`` ones everything; ``broken`` owners cannot be listed. Without
    ``has_ranges``, whole files are sent whatever range was asked for, as some mirrors do. ``cards`` maps ids to the
    front matter of their cards. What is in ``taken`` has the range that was asked for behind its name.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Path] = {}
        self.renamed: dict[str, str] = {}
        self.branches: dict[str, Path] = {}
        self.gated: set[str] = set()
        self.disabled: set[str] = set()
        self.broken: set[str] = set()
        self.has_ranges = True
        self.cards: dict[str, dict[str, str]] = {}
        self.taken: list[str] = []
        self.tokens: set[str | None] = set()
        self.hold = threading.Event()
        self.hold.set()


@contextmanager
def serve(hub: Hub) -> Iterator[str]:
    """Serve ``hub``; gives its address."""
    with serving(_Handler, hub) as address:
        try:
            yield address
        finally:
            hub.hold.set()


class _Handler(QuietHandler):
    hub: Hub

    def do_HEAD(self) -> None:  # noqa: N802  (the name http.server calls)
        self.answer(with_body=False)

    def do_GET(self) -> None:  # noqa: N802  (the name http.server calls)
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        self.hub.tokens.add(self.headers.get("Authorization"))
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if not parts[0]:
            return self.send_bytes(200, b"hub", with_body)
        if parts == ["api", "models"]:
            return self.listing(parse_qs(urlsplit(self.path).query)["author"][0], with_body)
        if parts[:2] == ["api", "models"]:
            return self.api("/".join(parts[2:4]), parts[4:], with_body)
        repo, name = "/".join(parts[:2]), "/".join(parts[4:])
        if repo in self.hub.renamed:
            return self.redirect(repo, with_body)
        folder, commit = self.at_revision(repo, parts[3] if len(parts) > 3 else "main")
        if folder is None:
            return self.refuse(404, "RepoNotFound", with_body)
        if repo in self.hub.gated:
            return self.refuse(403, "GatedRepo", with_body)
        if not (folder / name).is_file():
            return self.refuse(404, "EntryNotFound", with_body)
        data = (folder / name).read_bytes()
        if with_body:
            self.hub.taken.append(f"{name} {self.headers['Range']}" if "Range" in self.headers else name)
            if name.endswith(".safetensors") and "Range" not in self.headers:
                self.hub.hold.wait(30)
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": commit}
        if (asked := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))) and self.hub.has_ranges:
            first, last = int(asked[1]), min(int(asked[2]), len(data) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            return self.send_bytes(206, data[first : last + 1], with_body, headers)
        return self.send_bytes(200, data, with_body, headers)

    def redirect(self, repo: str, with_body: bool) -> None:
        """To the same address under the name of today, without the server, as the hub does."""
        place = self.path.replace(repo, self.hub.renamed[repo], 1)
        self.send_bytes(307, b"{}", with_body, {"Location": place})

    def at_revision(self, repo: str, revision: str) -> tuple[Path | None, str]:
        """The folder of a revision, and its commit."""
        if repo in self.hub.branches and revision in ("next", COMMIT_OF_BRANCH):
            return self.hub.branches[repo], COMMIT_OF_BRANCH
        return self.hub.repos.get(repo), COMMIT

    def listing(self, owner: str, with_body: bool) -> None:
        """The models of an owner, as the hub lists them with ``expand``."""
        if owner in self.hub.broken:
            return self.refuse(400, "BadRequest", with_body)
        models = [
            {
                "id": repo,
                "gated": "manual" if repo in self.hub.gated else False,
                "private": False,
                "createdAt": "2026-11-01T00:00:00.000Z",
                "tags": ["transformers", "license:apache-2.0"],
                "config": {"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
                "safetensors": {"parameters": {"BF16": 1_000_000_000}, "total": 1_000_000_000},
            }
            for repo in self.hub.repos
            if repo.startswith(f"{owner}/")
        ]
        return self.send_bytes(200, json.dumps(models).encode(), with_body, {"Content-Type": "application/json"})

    def api(self, repo: str, rest: list[str], with_body: bool) -> None:
        if repo in self.hub.renamed:
            return self.redirect(repo, with_body)
        if repo in self.hub.disabled:
            headers = {"X-Error-Message": "Access to this resource is disabled."}
            return self.send_bytes(403, b"{}", with_body, headers)
        revision = rest[1] if len(rest) > 1 else "main"
        folder, commit = self.at_revision(repo, revision)
        if folder is None:
            return self.refuse(404, "RepoNotFound", with_body)
        if revision not in ("main", "next", commit) or (revision == "next" and commit == COMMIT):
            return self.refuse(404, "RevisionNotFound", with_body)
        files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
        if rest[:1] == ["tree"]:
            listing: object = [
                {
                    "type": "file",
                    "path": str(file.relative_to(folder)),
                    "size": file.stat().st_size,
                    "oid": hashlib.sha1(file.read_bytes()).hexdigest(),
                }
                for file in files
            ]
        else:
            siblings = [{"rfilename": str(file.relative_to(folder)), "size": file.stat().st_size} for file in files]
            listing = {"id": repo, "sha": commit, "siblings": siblings, "private": False, "tags": [], "downloads": 0,
                       "cardData": self.hub.cards.get(repo)}  # fmt: skip
        return self.send_bytes(200, json.dumps(listing).encode(), with_body, {"Content-Type": "application/json"})
