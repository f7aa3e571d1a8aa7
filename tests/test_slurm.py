"""``train --slurm``, with small programs in the place of Slurm's: they print what those of 22.05 print."""

import contextlib
import json
import os
import signal
import sys

import pytest

from tests.command_line import assert_a_sentence, call, facts
from workbench.commands import slurm as command
from workbench.errors import WorkbenchError
from workbench.planning.slurm import JobState, SlurmJob, options_of, why_it_ended, write_script
from workbench.recipe.schema import Recipe
from workbench.recipe.text import to_yaml
from workbench.runs.events import RunStarted
from workbench.runs.folder import RunFolder, create_run, summarise
from workbench.runs.journal import JournalWriter
from workbench.storage.paths import Home
from workbench.storage.settings import update

# One program for all commands. `cluster` is a folder with the job's script, process and end.
SLURM = """\
import json, os, re, signal, subprocess, sys
from pathlib import Path

cluster, name, words = Path(__file__).parent, Path(sys.argv[0]).name, sys.argv[1:]
plan = json.loads((cluster / "plan.json").read_text())
pid = int((cluster / "pid").read_text()) if (cluster / "pid").exists() else 0


def alive():
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


if name == "sbatch":
    script = Path(words[-1])
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", script.read_text(), re.M))
    if options.get("partition") == "nowhere":
        sys.exit("sbatch: error: invalid partition specified: nowhere\\n"
                 "sbatch: error: Batch job submission failed: Invalid partition name specified")
    (cluster / "options.json").write_text(json.dumps(options))
    if plan.get("runs", True):
        log = open(options["output"], "ab")
        environment = {**os.environ, "SLURM_JOB_ID": "42", "SLURM_JOB_NODELIST": "node", "SLURM_NODEID": "0"}
        job = subprocess.Popen(["bash", script], stdout=log, stderr=log, cwd=options["chdir"], env=environment,
                               start_new_session=True)
        (cluster / "pid").write_text(str(job.pid))
    print("42;here" if plan.get("cluster") else "42")
elif name == "squeue":
    (cluster / "asked").touch()
    if plan.get("waits", 0) > (asked := len(list(cluster.glob("squeue-*")))):
        (cluster / f"squeue-{asked}").touch()
        print("PENDING|Resources")
    elif alive():
        print("RUNNING|None")
    else:
        sys.exit("slurm_load_jobs error: Invalid job id specified")
elif name == "sacct":
    if plan.get("no_accounting"):
        sys.exit("Slurm accounting storage is disabled")
    print(plan.get("ended", "COMPLETED|0:0|None"))
elif name == "scontrol":
    if "hostnames" in words:
        print("127.0.0.1")
    else:
        state, code, reason = plan.get("ended", "COMPLETED|0:0|None").split("|")
        print(f"JobId=42 JobName=tiny JobState={state} Reason={reason} Dependency=(null) ExitCode={code} ")
elif name == "scancel":
    signals = [word.partition("=")[2] for word in words if word.startswith("--signal=")]
    os.kill(pid, getattr(signal, f"SIG{signals[0]}") if signals else signal.SIGKILL)
elif name == "srun":
    command = [word for word in words if not word.startswith("--kill")]
    os.execvp(command[0], command)
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """The folder of the programs; its ``plan.json`` says what is to happen to the job."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    for name in ("sbatch", "squeue", "sacct", "scancel", "scontrol", "srun"):
        (folder / name).write_text(f"#!{sys.executable}\n{SLURM}")
        (folder / name).chmod(0o755)
    (folder / "plan.json").write_text("{}")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(command, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(command, "LATE_SECONDS", 0.0)
    yield folder
    if (folder / "pid").exists():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int((folder / "pid").read_text()), signal.SIGKILL)


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


@pytest.fixture
def file(recipe, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(to_yaml(recipe))
    return path


def test_a_run_is_submitted_followed_and_stopped_and_resumed(home, file, cluster):
    (cluster / "plan.json").write_text(json.dumps({"waits": 2}))
    update(home, {"slurm": {"partition": "gpu", "sbatch": ["account=me"]}})
    options = ["--slurm", "--gres", "none", "--time", "1:00:00", "--sbatch", "mem=4G"]
    done = call(home, "train", file, *options, "--json")
    assert done.returncode == 0, done.stderr
    assert "tiny-01 is Slurm job 42" in done.stderr
    assert "42: PENDING (Resources)" in done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["step"] for event in events if event["event"] == "step"] == list(range(1, 9))
    assert (events[0]["job"], events[0]["host"]) == ("42", os.uname().nodename)
    asked = json.loads((cluster / "options.json").read_text())
    expected = {"partition": "gpu", "account": "me", "time": "1:00:00", "mem": "4G", "job-name": "tiny"}
    assert expected.items() <= asked.items()
    assert "gres" not in asked
    assert facts(home, "attach", "tiny-01") == events
    assert_a_sentence(call(home, "train", "--resume", "tiny-01", "--slurm", "--gres", "none"), "has finished")


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        ("OUT_OF_MEMORY|0:125|OutOfMemory", ["more memory than it asked for", "--sbatch mem=64G"]),
        ("TIMEOUT|0:0|TimeLimit", ["reached its time limit", "--time 24:00:00"]),
        ("NODE_FAIL|1:0|NodeDown", ["The machine of Slurm job 42 failed", "--resume tiny-01 --slurm"]),
        ("CANCELLED by 1000|0:15|None", ["was canceled"]),
        ("PREEMPTED|0:0|None", ["preempted"]),
        ("FAILED|127:0|NonZeroExitCode", ["FAILED", "NonZeroExitCode"]),
    ],
)
def test_a_job_that_died_is_explained_and_its_run_has_failed(home, file, cluster, ended, words):
    (cluster / "plan.json").write_text(json.dumps({"runs": False, "ended": ended}))
    done = call(home, "train", file, "--slurm", "--watch")
    assert_a_sentence(done, *words)
    (run,) = facts(home, "runs")
    assert run["state"] == "failed"
    assert words[0] in run["reason"]
    assert json.loads((cluster / "options.json").read_text())["gres"] == "gpu:1"


def test_what_slurm_refuses_is_a_sentence(home, file, cluster, monkeypatch):
    refused = call(home, "train", file, "--slurm", "--partition", "nowhere")
    assert_a_sentence(refused, "Invalid partition name specified", "`sinfo`", "--partition")
    assert facts(home, "runs") == []
    assert_a_sentence(call(home, "train", file, "--slurm", "--sbatch", "mem"), "mem is not KEY=VALUE")
    assert_a_sentence(call(home, "train", file, "--slurm", "--sbatch", "wrap=a\nreboot"), "not a value for --wrap")
    assert_a_sentence(call(home, "train", file, "--time", "1:00"), "belong to --slurm")
    monkeypatch.setenv("PATH", str(home.root))
    assert_a_sentence(call(home, "train", file, "--slurm"), "no sbatch", "--host")


def test_without_accounting_the_controller_is_asked(cluster):
    (cluster / "plan.json").write_text(json.dumps({"no_accounting": True, "ended": "TIMEOUT|0:15|TimeLimit"}))
    assert SlurmJob("42").state() == JobState("TIMEOUT", "TimeLimit", -15)


def test_a_detached_run_is_submitted_and_watched_later(home, file, cluster):
    (cluster / "plan.json").write_text(json.dumps({"runs": False, "cluster": True}))
    (begun,) = facts(home, "train", file, "--slurm", "--detach")
    assert (begun["run"], begun["job"], begun["seq"]) == ("tiny-01", "42", -1)
    assert SlurmJob.of(RunFolder(home.runs / "tiny-01")) == SlurmJob("42", "here")
    assert "scancel --signal=TERM 42" in call(home, "train", file, "--slurm", "--detach").stdout


def test_a_run_on_another_machine_is_not_lost_because_its_process_is_not_here(home):
    run = create_run(home, Recipe())
    for host, state in (("", "interrupted"), (os.uname().nodename, "interrupted"), ("node7", "running")):
        run.journal.unlink(missing_ok=True)
        with JournalWriter(run.journal) as journal:
            journal.write(RunStarted(run=run.id, pid=2**22, process_started=1.0, host=host, job="42" if host else ""))
        assert summarise(run).state == state, host


def test_the_script_of_several_processes_starts_each_machine_s_launcher(home, recipe):
    from workbench.planning.launch import Launch

    run = create_run(home, recipe)
    script = write_script(home, run, recipe, Launch(processes=2), {"gres": "gpu:2"}, machines=3).read_text()
    assert "#SBATCH --nodes=3" in script
    assert "#SBATCH --gres=gpu:2" in script
    assert str(run.path / "node.sh") in script
    assert "num_machines: 3" in (run.path / "accelerate.yaml").read_text()


def test_a_value_cannot_begin_another_line():
    assert options_of(["comment=a b"]) == {"comment": "a b"}
    for text in ("mem=", "wrap=a\nb", "A=1", 'comment="'):
        with pytest.raises(WorkbenchError):
            options_of([text])


def test_the_cause_is_also_read_from_the_output_of_slurm(home):
    run = create_run(home, Recipe())
    log = "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=42.batch. Some of your processes"
    assert why_it_ended(SlurmJob("42"), JobState("FAILED", exit_code=-9), run, log).kind == "out_of_memory"
    lost = why_it_ended(SlurmJob("42"), JobState(""), run, "")
    assert "no longer knows" in lost.message
