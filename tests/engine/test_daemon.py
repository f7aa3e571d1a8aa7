"""The engine's own parts, in this process: its API over an ASGI transport, its state at the end of a run."""

import asyncio
import json
import os
import shutil
import signal
import stat
import threading

import httpx
import pytest

from workbench.engine.client.process import engine_pid
from workbench.engine.client.protocol import REQUEST_ID, Message, ReplyPiece, ReplyRequest, Sampling
from workbench.engine.daemon import engine as engine_module
from workbench.engine.daemon.api import Api
from workbench.engine.daemon.engine import Engine
from workbench.engine.daemon.idle import IdleLimits
from workbench.engine.daemon.output import OutputFile
from workbench.engine.daemon.server import _listen, _until_asked_or_idle
from workbench.engine.daemon.torch_backend import TorchBackend
from workbench.errors import WorkbenchError
from workbench.failures.unforeseen import KIND
from workbench.runs.folder import create_run
from workbench.storage.paths import private_folder

SECONDS = 20


def here(api):
    """A client of an API in this process."""
    transport = httpx.ASGITransport(api.app(), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://engine")


class _Output:
    """Output of which nothing can be sent elsewhere."""

    def switch(self, path):
        pass

    def restore(self):
        raise OSError(9, "Bad file descriptor")


# -- the end of a run ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["log", "queue"])
def test_the_engine_is_free_after_a_run_whatever_fails_at_its_end(home, recipe, monkeypatch, what):
    private_folder(home.engine)
    engine = Engine(home, TorchBackend(home, _Output()) if what == "log" else None)
    if what == "queue":

        def run_ended(run, *, engine_ends):
            raise AttributeError("no such thing")

        monkeypatch.setattr(engine.queue, "run_ended", run_ended)
    engine.train(recipe)
    training = engine.training
    training.join(240)
    assert not engine.is_busy
    assert training.base is engine.backend.base is not None
    log = home.engine_log.read_text()
    assert "ending run tiny-01" in log
    assert ("Bad file descriptor" if what == "log" else "no such thing") in log


async def test_the_api_answers_while_a_run_s_folder_is_made(home, monkeypatch):
    made, entered = threading.Event(), threading.Event()

    def create_run(home, recipe):
        entered.set()
        assert made.wait(SECONDS), "the event loop was blocked"
        raise WorkbenchError("Cannot create a run folder.", "Free some space.", kind="disk")

    monkeypatch.setattr(engine_module, "create_run", create_run)
    async with here(Api(Engine(home))) as client, asyncio.timeout(2 * SECONDS):
        training = asyncio.create_task(client.post("/train", json={"recipe": {}}))
        assert await asyncio.to_thread(entered.wait, SECONDS)
        assert (await client.get("/status")).json()["state"] == "training"
        made.set()
        refused = await training
    assert (refused.status_code, refused.json()["kind"]) == (400, "disk")


def test_a_run_that_is_being_made_when_the_engine_is_told_to_end_is_stopped(home, recipe, monkeypatch):
    engine = Engine(home)
    make, works = engine_module.create_run, []

    def create_run(home, recipe):
        run = make(home, recipe)
        works.append(engine._occupancy.work)
        engine.end()
        assert engine.is_training
        return run

    monkeypatch.setattr(engine_module, "create_run", create_run)
    engine.train(recipe)
    works[0].training.join(240)
    assert not engine.is_training
    assert '"stopped"' in (home.runs / "tiny-01" / "journal.jsonl").read_text()


# -- the socket ---------------------------------------------------------------------------------------------------


def test_the_socket_is_private_and_the_umask_is_left_alone(home, monkeypatch):
    private_folder(home.engine)
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask is of the whole process"))
    with _listen(home.socket):
        assert stat.S_IMODE(home.socket.stat().st_mode) == 0o600
        assert stat.S_IMODE(home.socket.parent.stat().st_mode) == 0o700


async def test_no_run_begins_before_the_socket_is_there(home, monkeypatch):
    from workbench.engine.daemon import server

    private_folder(home.engine)
    seen = []

    class _Watched(Engine):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.queue.start = lambda: seen.append(home.socket.exists())
            self.backend.warm_up = lambda: None

    async def ended(api, home):
        return None

    monkeypatch.setattr(server, "Engine", _Watched)
    monkeypatch.setattr(server, "_until_asked_or_idle", ended)
    own = os.dup(1), os.dup(2)
    try:
        await server.serve(home, OutputFile(home.engine_log))
    finally:
        for number, saved in enumerate(own, 1):
            os.dup2(saved, number)
            os.close(saved)
    assert seen == [True]


async def test_an_engine_whose_home_was_removed_ends(home, monkeypatch):
    monkeypatch.setattr(IdleLimits, "of", classmethod(lambda cls, home: cls(unload=0.03, stop=1000)))
    private_folder(home.engine)
    with _listen(home.socket):
        waiting = asyncio.create_task(_until_asked_or_idle(Api(Engine(home)), home))
        assert not (await asyncio.wait([waiting], timeout=0.2))[0]
        shutil.rmtree(home.root)
        async with asyncio.timeout(20):
            await waiting


# -- streams ------------------------------------------------------------------------------------------------------


class _Replies:
    """An engine whose replies say nothing until they are told to."""

    def __init__(self, engine, monkeypatch):
        self.cancelled: dict[str, int] = {}
        self.emit = {}
        self.finished = {}
        self.begun = asyncio.Queue()
        monkeypatch.setattr(engine, "reply", self.reply)

    def reply(self, request, emit, finished):
        target = request.target
        self.emit[target], self.finished[target], self.cancelled[target] = emit, finished, 0
        self.begun.put_nowait(target)

        def cancel():
            self.cancelled[target] += 1

        return cancel


def _body(target):
    return ReplyRequest(target=target, messages=[]).model_dump()


async def test_cancelling_one_reply_leaves_the_other(home, monkeypatch):
    api = Api(Engine(home))
    replies = _Replies(api.engine, monkeypatch)
    async with here(api) as client, asyncio.timeout(SECONDS):
        streams = {
            name: asyncio.create_task(client.post("/reply", json=_body(name), headers={REQUEST_ID: name}))
            for name in ("mine", "theirs")
        }
        assert {await replies.begun.get(), await replies.begun.get()} == {"mine", "theirs"}
        assert (await client.post("/cancel", json={"id": "nobody's"})).status_code == 200
        assert (await client.post("/cancel", json={"id": "mine"})).status_code == 200
        assert replies.cancelled == {"mine": 1, "theirs": 0}
        twice = await client.post("/reply", json=_body("more"), headers={REQUEST_ID: "theirs"})
        assert (twice.status_code, twice.json()["kind"]) == (400, "bad_request")
        for name, stream in streams.items():
            replies.emit[name](ReplyPiece(text=name))
            replies.finished[name](None)
            assert f'"text":"{name}"' in (await stream).text
    assert not api.is_busy


async def test_a_client_that_goes_before_the_first_byte_leaves_nothing_behind(home, monkeypatch):
    api = Api(Engine(home))
    replies = _Replies(api.engine, monkeypatch)
    body = [{"type": "http.request", "body": ReplyRequest(target="one", messages=[]).model_dump_json().encode()}]

    async def receive():
        return body.pop() if body else {"type": "http.disconnect"}

    async def send(message):
        raise OSError("the client is gone")

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/reply",
        "query_string": b"",
        "headers": [(REQUEST_ID.lower().encode(), b"one")],
    }
    async with asyncio.timeout(SECONDS):
        await api.app()(scope, receive, send)
    assert replies.cancelled == {"one": 1}
    assert not api.is_busy


# -- what nobody foresaw ------------------------------------------------------------------------------------------


async def test_a_fault_in_a_handler_is_told_as_one(home, monkeypatch):
    api = Api(Engine(home))

    def status():
        raise AttributeError("'NoneType' object has no attribute 'state'")

    monkeypatch.setattr(api.engine, "status", status)
    async with here(api) as client:
        answer = await client.get("/status")
    assert answer.status_code == 500
    told = WorkbenchError.from_json(answer.json())
    assert told.kind == KIND
    assert "failed while answering /status" in told.message
    assert "AttributeError: 'NoneType' object has no attribute 'state'" in told.message
    assert str(home.engine_log) in told.cure
    assert "loraworkbench doctor" in told.cure
    assert "Traceback" in home.engine_log.read_text()


@pytest.mark.parametrize("path", ["/train", "/reply"])
async def test_a_client_that_goes_while_it_asks_is_no_fault(home, path):
    api = Api(Engine(home))
    sent = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": []}
    async with asyncio.timeout(SECONDS):
        await api.app()(scope, receive, send)
    assert sent[0]["status"] == 499
    assert not api.is_busy
    assert not home.engine_log.exists()


@pytest.mark.parametrize("body", ["{", "[]", '{"run": 3}', ""])
async def test_what_is_no_request_is_refused(home, body):
    async with here(Api(Engine(home))) as client:
        answer = await client.post("/resume", content=body)
    assert (answer.status_code, answer.json()["kind"]) == (400, "bad_request")
    assert "different versions" in answer.json()["cure"]


async def test_a_run_that_is_deleted_while_it_is_resumed_is_told_and_leaves_the_engine_free(home, recipe, monkeypatch):
    run = create_run(home, recipe)

    def last_seq(journal):
        shutil.rmtree(run.path)
        return journal.stat().st_size

    monkeypatch.setattr(engine_module, "last_seq", last_seq)
    api = Api(Engine(home))
    async with here(api) as client:
        answer = await client.post("/resume", json={"run": run.id})
        assert answer.status_code == 500
        told = WorkbenchError.from_json(answer.json())
        assert told.kind == KIND
        assert "failed while resuming the run" in told.message
        assert "FileNotFoundError" in home.engine_log.read_text()
        assert (await client.get("/status")).json()["state"] == "idle"
    assert not api.is_busy


async def test_an_engine_that_ends_says_so_to_who_still_waits(home, engine, endless_llama):
    pid = engine_pid(home)
    request = ReplyRequest(
        target=str(endless_llama),
        messages=[Message(role="user", content="Question 1?")],
        sampling=Sampling(temperature=1.0, max_new_tokens=30_000),
    )

    async def told_to_end_in_midst():
        async for _ in engine.reply(request):
            os.kill(pid, signal.SIGTERM)

    with pytest.raises(WorkbenchError) as caught:
        await told_to_end_in_midst()
    assert caught.value.message == "The engine is shutting down."
    async with asyncio.timeout(SECONDS):
        while engine_pid(home) is not None:
            await asyncio.sleep(0.02)
    assert "Traceback" not in home.engine_log.read_text()
    assert "Cancel" not in home.engine_log.read_text()


async def test_a_request_that_the_server_s_end_cancels_is_answered(home, monkeypatch):
    api, entered, left = Api(Engine(home)), threading.Event(), threading.Event()

    def tree(model):
        entered.set()
        assert left.wait(SECONDS)

    monkeypatch.setattr(api.sources, "tree", tree)
    async with here(api) as client, asyncio.timeout(2 * SECONDS):
        body = {"type": "http.request", "body": b'{"source": "a/b"}'}
        sent = []

        async def receive():
            return body

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/tree", "query_string": b"", "headers": []}
        asking = asyncio.create_task(api.app()(scope, receive, send))
        assert await asyncio.to_thread(entered.wait, SECONDS)
        asking.cancel()
        await asking
        left.set()
        assert (await client.get("/status")).status_code == 200
    assert json.loads(sent[1]["body"])["kind"] == "engine_gone"
