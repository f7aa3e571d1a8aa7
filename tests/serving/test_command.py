"""``loraworkbench serve`` as a person starts and ends it."""

import json
import os
import signal
import subprocess
import sys

import httpx
import pytest

from tests.engine.voices_of_tiny import save_random_adapter
from tests.json_outputs import assert_documented
from workbench.commands.serve import _check_engine
from workbench.engine.client.protocol import EngineStatus
from workbench.errors import WorkbenchError


@pytest.fixture
def serve(tmp_path):
    processes = []

    def start(*arguments):
        command = [
            sys.executable,
            "-m",
            "workbench.cli",
            "--home",
            str(tmp_path / "home"),
            "serve",
            *map(str, arguments),
        ]
        processes.append(
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"}
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_it_tells_where_it_listens_answers_and_ends_with_ctrl_c(serve, tiny_llama, tmp_path):
    adapter = save_random_adapter(tiny_llama, tmp_path / "pirate", 1)
    socket, token = tmp_path / "socket", tmp_path / "token"
    token.write_text("sesame")
    process = serve(f"jack={adapter}", "--socket", socket, "--token-file", token, "--json")
    first = process.stdout.readline() or process.stderr.read()
    assert_documented(["serve"], first)
    told = json.loads(first)
    assert told == {"url": "http://localhost/v1", "socket": str(socket), "models": ["jack", "tiny-llama"]}
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), timeout=60) as client:
        for name in told["models"]:
            answer = client.post(
                f"{told['url']}/chat/completions",
                json={"model": name, "messages": [{"role": "user", "content": "Ahoy?"}], "max_tokens": 5},
                headers={"Authorization": "Bearer sesame"},
            )
            assert answer.status_code == 200, answer.text
            line = process.stdout.readline()
            assert_documented(["serve"], line)
            request = json.loads(line)
            assert (request["model"], request["tokens"]) == (name, answer.json()["usage"]["completion_tokens"])
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, ""), err
    assert not socket.exists()


def test_a_server_does_not_start_beside_a_run_unasked():
    status = EngineStatus(pid=1, version="1", started=0, run="mate-01")
    with pytest.raises(WorkbenchError, match="Run mate-01 trains on this machine"):
        _check_engine(status, beside_run=False)
    _check_engine(status, beside_run=True)
    _check_engine(None, beside_run=False)
