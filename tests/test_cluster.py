"""The scripts and manifests for clusters: as far as they can be judged without one."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.fabric.plugins.environments import LightningEnvironment, SLURMEnvironment

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "cluster"


@pytest.fixture
def machine(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A folder to work in, and an environment in which srun, scontrol and genvla write down how they are called."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, body in {
        "srun": 'shift; exec "$@"',
        "scontrol": "",
        "genvla": """trap 'echo saved >> calls; exit 75' TERM
if [ -n "${WAIT:-}" ]; then touch ready; sleep 30 & wait; fi
exit ${CODE:-0}""",
    }.items():
        script = programs / name
        script.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >> calls\n{body}\n')
        script.chmod(0o755)
    job = {"SLURM_JOB_ID": "42", "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "8", "SLURM_SUBMIT_DIR": str(ROOT)}
    return tmp_path, {**os.environ, **job, "PATH": f"{programs}:{os.environ['PATH']}"}


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


def test_a_slurm_job_begins_a_run_and_then_goes_on_with_it(machine: tuple[Path, dict[str, str]]) -> None:
    folder, environment = machine
    command = ["bash", str(CLUSTER / "slurm.sh"), "configs/ppoflow_n100.yaml", "--seed", "1"]
    assert subprocess.run(command, cwd=folder, env=environment).returncode == 0
    run = "runs/ppoflow_n100-42"
    size = "--hardware.devices 8 --hardware.num_nodes 2 --seed 1"
    assert calls(folder)[1] == f"genvla fit --config configs/ppoflow_n100.yaml --run_dir {run} {size}"
    (folder / run).mkdir(parents=True)
    (folder / run / "config.yaml").touch()
    assert subprocess.run(command, cwd=folder, env=environment).returncode == 0
    assert calls(folder)[3] == f"genvla fit --resume {run} {size}"
    assert not any(call.startswith("scontrol") for call in calls(folder))


@pytest.mark.parametrize(("code", "requeued"), [(75, True), (2, False), (1, False)])
def test_only_a_run_that_was_told_to_stop_queues_again(machine: tuple[Path, dict[str, str]], code: int, requeued: bool) -> None:
    folder, environment = machine
    done = subprocess.run(["bash", str(CLUSTER / "slurm.sh"), "a.yaml"], cwd=folder, env={**environment, "CODE": str(code)})
    assert done.returncode == code
    assert ("scontrol requeue 42" in calls(folder)) == requeued


def test_the_signal_reaches_the_run(machine: tuple[Path, dict[str, str]]) -> None:
    folder, environment = machine
    job = subprocess.Popen(["bash", str(CLUSTER / "slurm.sh"), "a.yaml"], cwd=folder, env={**environment, "WAIT": "1"})
    deadline = time.monotonic() + 120
    while not (folder / "ready").exists():
        assert time.monotonic() < deadline, "it did not start"
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    assert job.wait(30) == 75
    assert calls(folder)[-2:] == ["saved", "scontrol requeue 42"]


def test_fabric_reads_what_the_script_asks_slurm_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = dict(re.findall(r"#SBATCH --([\w-]+)=(\S+)", (CLUSTER / "slurm.sh").read_text()))
    assert asked["signal"] == "B:TERM@120" and asked["ntasks-per-node"] == asked["gpus-per-node"]
    tasks = 2 * int(asked["ntasks-per-node"])
    variables = {
        "SLURM_JOB_ID": "123456",
        "SLURM_JOB_NAME": asked["job-name"],
        "SLURM_NTASKS": tasks,
        "SLURM_NTASKS_PER_NODE": asked["ntasks-per-node"],
        "SLURM_NNODES": 2,
        "SLURM_NODELIST": "gpu[07-08]",
        "SLURM_PROCID": 11,
        "SLURM_LOCALID": 3,
        "SLURM_NODEID": 1,
    }
    for name in [name for name in os.environ if name.startswith(("SLURM_", "MASTER_"))]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    assert SLURMEnvironment.detect()
    environment = SLURMEnvironment()
    environment.validate_settings(num_devices=int(asked["ntasks-per-node"]), num_nodes=2)
    assert (environment.world_size(), environment.global_rank(), environment.local_rank()) == (tasks, 11, 3)
    assert environment.node_rank() == 1 and environment.main_address == "gpu07"


def pod_of(manifest: dict[str, Any]) -> dict[str, Any]:
    jobs = manifest["spec"].get("replicatedJobs")
    return (jobs[0]["template"] if jobs else manifest)["spec"]["template"]["spec"]


@pytest.mark.parametrize("name", ["kubernetes_job", "kubernetes_jobset"])
def test_manifests(name: str) -> None:
    manifest = yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())
    pod = pod_of(manifest)
    container = pod["containers"][0]
    assert pod["restartPolicy"] == "Never" and pod["securityContext"]["runAsNonRoot"]
    assert container["command"] == ["/opt/genvla/cluster/train.sh"] and (CLUSTER / "train.sh").stat().st_mode & 0o111
    assert (ROOT / container["args"][0]).is_file()
    settings = yaml.safe_load((ROOT / "configs" / "ppoflow_base.yaml").read_text())
    assert container["resources"]["limits"]["nvidia.com/gpu"] == settings["hardware"]["devices"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    validate = pytest.importorskip("kubernetes_validate")
    if manifest["kind"] == "JobSet":  # of which only the Job within has a published schema in that package
        template = manifest["spec"]["replicatedJobs"][0]["template"]
        manifest = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "machine"}, **template}
    validate.validate(manifest, "1.31", strict=True)


def test_fabric_finds_the_machines_of_the_jobset(monkeypatch: pytest.MonkeyPatch) -> None:
    container = pod_of(yaml.safe_load((CLUSTER / "kubernetes_jobset.yaml").read_text()))["containers"][0]
    for variable in container["env"]:
        monkeypatch.setenv(variable["name"], variable.get("value", "1"))
    environment = LightningEnvironment()
    assert environment.main_address == "genvla-machine-0-0.genvla" and environment.main_port == 29500
    assert environment.node_rank() == 1 and not environment.creates_processes_externally


def test_the_two_machines_of_the_jobset_make_the_papers_batch() -> None:
    options = dict(
        option.removeprefix("--").split("=")
        for option in pod_of(yaml.safe_load((CLUSTER / "kubernetes_jobset.yaml").read_text()))["containers"][0]["args"][2:]
    )
    settings = yaml.safe_load((ROOT / "configs" / "ppoflow_base.yaml").read_text())
    ranks = settings["hardware"]["devices"] * int(options["hardware.num_nodes"])
    assert ranks * int(options["data.num_envs"]) == 192 and ranks * int(options["data.minibatch_size"]) == 1_920


def test_the_images_pin_every_dependency() -> None:
    pins = re.findall(r"^([\w.-]+)==", (CLUSTER / "constraints.txt").read_text(), re.MULTILINE)
    pinned = {re.sub(r"[-_.]+", "-", name).lower() for name in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["llm"], *project["optional-dependencies"]["assets"]]
    names = {re.match(r"[\w.-]+", line)[0] for line in wanted if "python_version >=" not in line}  # type: ignore[index]
    assert {re.sub(r"[-_.]+", "-", name).lower() for name in names} <= pinned
    torch = re.search(r"^torch==(\S+)", (CLUSTER / "constraints.txt").read_text(), re.MULTILINE)
    assert torch is not None
    assert set(re.findall(r"torch==([\d.]+)", (ROOT / "Dockerfile").read_text())) == {torch[1]}


def test_the_image_copies_what_it_needs_and_ends_without_rights() -> None:
    text = (ROOT / "Dockerfile").read_text()
    ignored = (ROOT / ".dockerignore").read_text().split()
    for line in re.findall(r"^COPY (?:--\S+ )?(.*)$", text, re.MULTILINE):
        *sources, _ = shlex.split(line)
        assert all((ROOT / source).exists() and source not in ignored for source in sources)
    stages = text.split("\nFROM ")[-2:]
    assert all("USER 1000" in stage for stage in stages)
    assert [stage.split("\n")[0].rsplit(" ", 1)[1] for stage in stages] == ["cpu", "gpu"]
