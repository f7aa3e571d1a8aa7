"""Files for several machines: accelerate reads them, and two launchers on this machine meet with them."""

import os
import subprocess

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from workbench.commands.launcher import launch_of
from workbench.errors import WorkbenchError
from workbench.planning.cluster import write_cluster_files
from workbench.planning.launch import Launch, accelerate_config, check_config, write_config
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit
from workbench.runs.folder import RunFolder, summarise
from workbench.storage.paths import Home


def test_the_configuration_is_accelerate_s_own(tmp_path):
    files = write_cluster_files(Home(tmp_path / "home"), tmp_path / "run", Recipe(), Launch(processes=4), machines=3)
    config = load_config_from_file(str(files.config))
    assert str(config.distributed_type) == "DistributedType.MULTI_GPU"
    assert (config.num_machines, config.num_processes, config.gpu_ids) == (3, 12, "all")
    assert "--gpus-per-node=4" in files.slurm.read_text()
    assert "--nodes=3" in files.slurm.read_text()
    for script in (files.node, files.slurm):
        subprocess.run(["bash", "-n", script], check=True)
    with pytest.raises(WorkbenchError, match="not empty"):
        write_cluster_files(Home(tmp_path / "home"), tmp_path / "run", Recipe(), Launch(processes=4), machines=3)


@pytest.mark.parametrize(("method", "originals"), [("nf4", False), ("none", True)])
def test_a_base_that_is_spread_over_gpus_has_a_configuration_for_fsdp(tmp_path, method, originals):
    recipe = edit(Recipe(), {"quantization.method": method})
    file = write_config(Launch(processes=2, devices=(1, 3), sharded=True), recipe, tmp_path)
    config = load_config_from_file(str(file))
    assert str(config.distributed_type) == "DistributedType.FSDP"
    assert config.gpu_ids == "1,3"
    assert config.fsdp_config["fsdp_state_dict_type"] == "FULL_STATE_DICT"
    assert config.fsdp_config["fsdp_use_orig_params"] is originals
    check_config(file)


def test_deepspeed_is_asked_for_only_where_it_is_installed(tmp_path):
    pytest.importorskip("accelerate")
    file = tmp_path / "zero.yaml"
    file.write_text(
        yaml.safe_dump(accelerate_config(Launch(processes=2), Recipe()) | {"distributed_type": "DEEPSPEED"})
    )
    try:
        import deepspeed  # noqa: F401
    except ImportError:
        with pytest.raises(WorkbenchError, match="DeepSpeed, which is not installed"):
            check_config(file)
    else:
        check_config(file)


def test_options_that_contradict_each_other_are_refused(tmp_path):
    assert launch_of(None, None, None, None, None) is None
    assert launch_of("accelerate", 6, None, None, 3) == Launch(processes=2)
    for arguments, words in {
        ("mpirun", 2, None, None, None): "Unknown launcher",
        (None, 5, None, None, 2): "cannot be split evenly",
        (None, None, "0;reboot", None, None): "comma-separated numbers",
        (None, None, "4000", None, None): "no GPU 4000",
        (None, 2, None, tmp_path / "none.yaml", None): "not a readable accelerate configuration",
    }.items():
        with pytest.raises(WorkbenchError, match=words):
            launch_of(*arguments)


def test_two_machines_train_one_run(tmp_path, recipe):
    """Both are this one; each has a launcher and a process of its own."""
    recipe = edit(recipe, {"training.max_steps": 4, "training.per_device_train_batch_size": 1})
    run = RunFolder(tmp_path / "a run")
    files = write_cluster_files(Home(tmp_path / "home"), run.path, recipe, Launch(processes=1), machines=2)
    environment = {**os.environ, "PORT": str(20000 + os.getpid() % 20000)}
    machines = [
        subprocess.Popen(
            [files.node, str(number), "127.0.0.1"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in (0, 1)
    ]
    try:
        told = [machine.communicate(timeout=240)[0] for machine in machines]
    finally:
        for machine in machines:
            machine.kill()
    assert [machine.returncode for machine in machines] == [0, 0], told
    summary = summarise(run)
    assert (summary.state, summary.step) == ("finished", 4), told
    assert (run.adapter / "adapter_model.safetensors").is_file()
