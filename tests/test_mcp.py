"""``loraworkbench mcp`` as an agent uses it: the protocol package's own client, with the real process."""

import json
import os
import sys
from contextlib import asynccontextmanager

import pytest
from mcp import ClientSession, StdioServerParameters, stdio_client

from tests.command_line import facts
from tests.conftest import make_tiny_llama, write_records
from workbench.commands.mcp_server.client_folder import ClientFolder
from workbench.engine.client.process import stop_engine
from workbench.errors import WorkbenchError
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit
from workbench.storage.paths import Home

SECRET = "hf_averysecretvalue"
QUICK = {
    "model.source": "tiny",
    "data.source": "records.jsonl",
    "data.max_length": 64,
    "adapter.r": 8,
    "training.max_steps": 4,
    "training.gradient_accumulation_steps": 1,
    "training.learning_rate": 0.02,
    "training.save_steps": 0,
    "output.name": "tiny",
}


@asynccontextmanager
async def connected(home, folder):
    """A session of the package's client with the command, as an agent's program starts it."""
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "workbench.cli", "--home", str(home.root), "mcp", "--folder", str(folder)],
        env={**os.environ, "HF_TOKEN": SECRET, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    async with stdio_client(server) as (read, write), ClientSession(read, write) as session:
        await session.initialize()
        yield session


async def test_from_the_model_list_to_an_export(tmp_path):
    home, folder = Home(tmp_path / "home"), tmp_path / "work"
    folder.mkdir()
    make_tiny_llama(folder / "tiny")
    write_records(folder / "records.jsonl")
    said = []

    async with connected(home, folder) as session:

        async def ask(tool, **arguments):
            result = await session.call_tool(tool, arguments)
            said.append(result.model_dump_json())
            assert not result.is_error, result.content
            return result.structured_content

        async def refused(tool, **arguments):
            result = await session.call_tool(tool, arguments)
            said.append(result.model_dump_json())
            assert result.is_error, result.structured_content
            return result.content[0].text

        tools = {tool.name: tool for tool in (await session.list_tools()).tools}
        assert {"models", "estimate", "data_facts", "train", "watch", "evaluate", "export"} <= set(tools)
        assert all(tool.description for tool in tools.values())
        assert tools["watch"].annotations.read_only_hint
        assert not tools["train"].annotations.read_only_hint

        # The same values as the command of that name.
        listed = await ask("models", search="smollm2-135m", limit=500)
        assert listed["models"] == [
            one for one in facts(home, "models") if "smollm2-135m" in one.get("source", "").casefold()
        ]
        model = "meta-llama/Llama-2-7b-hf"
        priced = await ask("estimate", model=model, settings={"adapter.r": 4}, memory="24GB")
        assert priced == json.loads(
            json.dumps(facts(home, "estimate", model, "--set", "adapter.r=4", "--vram", "24GB")[0])
        )
        counted = await ask("data_facts", source="records.jsonl", model="tiny", show=1)
        assert (counted["records"], len(counted["examples"])) == (20, 1)

        # What it may not name, and what it named wrongly.
        outside = await refused("data_facts", source="../secret.jsonl", model="tiny")
        assert "outside" in outside
        assert "--folder" in outside
        assert "kernels" in await refused("train", settings={**QUICK, "training.kernels": "hub"})
        assert "adapter.rank" in await refused("train", settings={"adapter.rank": 8})
        assert "no-such-run" in await refused("watch", run="no-such-run")

        started = await ask("train", settings=QUICK, force=True)
        progress = []

        async def note(done, total, message):
            progress.append(message)

        arguments = {"run": started["run"], "seconds": 300, "limit": 1000}
        ended = (await session.call_tool("watch", arguments, progress_callback=note)).structured_content
        assert (ended["state"], ended["step"], ended["is_over"]) == ("finished", 4, True)
        assert any(message.startswith(started["run"]) for message in progress)
        steps = [event["step"] for event in ended["events"] if event["event"] == "step"]
        assert steps == [1, 2, 3, 4]
        last = ended["events"][-1]["seq"]
        later = await ask("watch", run=started["run"], after=last)
        assert later["events"] == []
        assert [run["id"] for run in (await ask("runs", search="tiny"))["runs"]] == [started["run"]]
        assert "not live" in await refused("stop", run=started["run"])

        compared = await ask("evaluate", run=started["run"], records=4, replies=0, prompts=[])
        assert [one["name"] for one in compared["judged"]] == ["base", started["run"]]
        assert "task of lm-eval" in await refused("evaluate", run=started["run"], tasks=["../evil.yaml"])

        planned = await ask("export", run=started["run"], target="adapter", name="mine", plan=True)
        assert not planned["exported"]
        assert not (folder / "mine").exists()
        made = await ask("export", run=started["run"], target="adapter", name="mine")
        assert made["exported"]
        assert (folder / "mine" / "adapter_model.safetensors").is_file()
        assert "valid name" in await refused("export", run=started["run"], target="adapter", name="../mine")
    await stop_engine(home)
    assert not any(SECRET in text for text in said)


@pytest.mark.parametrize(
    "changes",
    [
        {"model.trust_remote_code": True},
        {"training.kernels": "hub"},
        {"data.source": "/etc/hostname"},
        {"data.source": "cooking + ~/.ssh/config*2"},
        {"data.source": [{"source": "link/records.jsonl"}]},
        {"data.template": "../../template.jinja"},
        {"model.source": "../model"},
        {"model.source": "/elsewhere"},
        {"adapter.continue_from": "../adapter"},
        {"output.dir": "/tmp"},
    ],
    ids=str,
)
def test_a_recipe_that_leaves_the_folder_or_runs_code_is_refused(changes, tmp_path):
    root, other = tmp_path / "root", tmp_path / "other"
    root.mkdir()
    other.mkdir()
    write_records(other / "records.jsonl")
    (root / "link").symlink_to(other)
    with pytest.raises(WorkbenchError) as refused:
        ClientFolder(root.resolve()).check(Home(tmp_path / "home"), edit(Recipe(), changes))
    assert refused.value.kind == "outside"


def test_a_recipe_within_the_folder_or_of_the_hub_is_allowed(tmp_path):
    write_records(tmp_path / "records.jsonl")
    (tmp_path / "model").mkdir()
    folder, home = ClientFolder(tmp_path.resolve()), Home(tmp_path / "home")
    for changes in (
        {},
        {"data.source": "records.jsonl*0.5 + tatsu-lab/alpaca", "model.source": "model"},
        {"data.source": str(tmp_path / "records.jsonl"), "model.source": "Qwen/Qwen3-8B"},
        {"data.source": "owner/name:config?streaming", "adapter.continue_from": "demo-01@40"},
        {"data.template": "chatml", "output.dir": "runs"},
    ):
        folder.check(home, edit(Recipe(), changes))
    with pytest.raises(WorkbenchError, match="export"):
        folder.export_folder("a/b")


def test_without_the_package_it_says_how_to_install_it(tmp_path, monkeypatch):
    from tests.command_line import assert_a_sentence, call
    from workbench.commands import mcp

    monkeypatch.setattr(mcp, "find_spec", lambda name: None)
    assert_a_sentence(call(Home(tmp_path), "mcp"), "needs the package mcp", 'pip install "loraworkbench[mcp]"')
