"""launch/: what can run here is run; in the other files, fields and options are checked against what reads them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ltx_dist.cluster.submission import ENVIRONMENT

REPOSITORY = Path(__file__).parent.parent
LAUNCH = REPOSITORY / "launch"
VENV = Path(sys.executable).parent.parent


RECIPES = sorted(path for path in LAUNCH.iterdir() if path.suffix != ".json")  # which has no comments


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_recipe_begins_with_its_usage(path: Path):
    lines = path.read_text().splitlines()
    header = [line for line in lines[:16] if line.startswith("#") and not line.startswith("#!")]
    assert any(re.match(r"#   \S", line) for line in header), "a command to copy"
    assert max(map(len, lines)) <= 150
    if path.suffix in (".sh", ".sbatch"):
        subprocess.run(["bash", "-n", path], check=True)


def scripts_beside(root: Path, name: str) -> Path:
    """A copy of a script in a folder of its own, where nothing is installed; it uses the packages of the tests."""
    (root / "launch").mkdir(parents=True)
    (root / "launch" / "setup.sh").write_text("#!/bin/sh\n")
    (root / "launch" / "setup.sh").chmod(0o755)
    (root / ".venv").symlink_to(VENV)
    return Path(shutil.copy(LAUNCH / name, root / "launch"))


def test_workstation_renders_and_goes_on(tmp_path: Path):
    script = scripts_beside(tmp_path / "root", "workstation.sh")
    (tmp_path / "prompts.txt").write_text("a red circle\na blue square\n")
    small = "defaults.num_inference_steps=1 defaults.num_frames=9 defaults.height=64 defaults.width=64"
    settings = ["--profile", "demo", "--set", "placement.layout=shared", "--executor", "local"]
    settings += [part for setting in small.split() for part in ("--set", setting)]
    command = [script, "1", tmp_path / "prompts.txt", tmp_path / "out", *settings]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "out").glob("*.mp4"))) == 2
    again = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    assert "2 already up to date; nothing to do" in again.stdout
    assert subprocess.run([script], capture_output=True, check=False).returncode == 2, "its usage"


@pytest.mark.parametrize(("ray_starts", "exit_code"), [(True, 0), (True, 3), (True, 75), (False, 1)])
def test_slurm_ends_with_the_drivers_exit_code_or_fails(tmp_path: Path, ray_starts: bool, exit_code: int):
    """SLURM and Ray are stand-ins; Ray's `symmetric-run` exits 0 even if it could not start."""
    tools = tmp_path / "root" / ".venv" / "bin"
    tools.mkdir(parents=True)
    stand_ins = {
        "scontrol": 'echo "node-a\nnode-b"',
        "srun": 'shift; exec "$@"',  # its one option is --ntasks=N
        "ray": '[ "$1" = symmetric-run ] || exit 0\n'
        + ('while [ "$1" != -- ]; do shift; done; shift; exec "$@"' if ray_starts else "exit 0"),
        "ltx-dist": f'echo "$@" > {tmp_path}/arguments; exit {exit_code}',
    }
    for name, body in stand_ins.items():
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "SLURM_SUBMIT_DIR": str(tmp_path / "root"),
        "SLURM_JOB_NODELIST": "node-[a-b]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_ID": "4711",
    }
    command = ["bash", LAUNCH / "slurm.sbatch", "my prompts.csv", tmp_path / "out", "-c", "c.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.returncode == exit_code, done.stderr
    assert list((tmp_path / "out").iterdir()) == []
    if ray_starts:
        expected = f"render my prompts.csv -o {tmp_path}/out --address node-a:24711 -c c.yaml"
        assert (tmp_path / "arguments").read_text().strip() == expected
    else:
        assert "Ray did not start; nothing was rendered" in done.stderr


def test_ray_has_the_options_that_slurm_uses():
    said = subprocess.run(
        [VENV / "bin" / "ray", "symmetric-run", "--help"], capture_output=True, text=True, check=True
    ).stdout
    used = set(re.findall(r"--[a-z-]{3,}", (LAUNCH / "slurm.sbatch").read_text().split("ray symmetric-run --")[1][:80]))
    assert {"--min-nodes"} <= used and all(option in said for option in used | {"--address"})


def test_the_cluster_is_what_rays_launcher_takes_and_wants_a_token():
    from ray.autoscaler._private.util import prepare_config, validate_config

    recipe = yaml.safe_load((LAUNCH / "ray-cluster.yaml").read_text())
    validate_config(prepare_config(recipe))
    assert recipe["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    starts = [line for key in ("head", "worker") for line in recipe[f"{key}_start_ray_commands"] if "ray start" in line]
    assert len(starts) == 2 and all("RAY_AUTH_MODE=token" in line for line in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]


RAYJOB_FIELDS = {
    "": "apiVersion kind metadata spec",
    "spec": "activeDeadlineSeconds backoffLimit clusterSelector deletionStrategy entrypoint entrypointNumCpus "
    "entrypointNumGpus entrypointResources jobId managedBy metadata preRunningDeadlineSeconds rayClusterSpec "
    "runtimeEnvYAML shutdownAfterJobFinishes submissionMode submitterConfig submitterPodTemplate suspend "
    "ttlSecondsAfterFinished",
    "spec.rayClusterSpec": "authOptions autoscalerOptions enableInTreeAutoscaling gcsFaultToleranceOptions "
    "headGroupSpec headServiceAnnotations managedBy networkPolicy rayVersion suspend tlsOptions upgradeStrategy "
    "workerGroupSpecs",
    "spec.rayClusterSpec.authOptions": "enableK8sTokenAuth mode secretName",
    "spec.rayClusterSpec.headGroupSpec": "enableIngress headService ingressOptions labels rayStartParams resources "
    "serviceType template",
    "spec.rayClusterSpec.workerGroupSpecs": "groupName idleTimeoutSeconds labels maxReplicas minReplicas numOfHosts "
    "priority rayStartParams replicas resources scaleStrategy suspend template",
}
"""Fields of ray.io/v1 in KubeRay's ray-operator/config/crd/bases/ray.io_rayjobs.yaml, as of August 2026."""


def test_the_rayjob_has_fields_of_kuberay_and_a_token():
    recipe = yaml.safe_load((LAUNCH / "kuberay-rayjob.yaml").read_text())
    for place, known in RAYJOB_FIELDS.items():
        here: Any = recipe
        for key in filter(None, place.split(".")):
            here = here[key]
        for one in here if isinstance(here, list) else [here]:
            assert set(one) <= set(known.split()), place
    spec, cluster = recipe["spec"], recipe["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"} and spec["backoffLimit"] == 2
    constraints = (REPOSITORY / "constraints.txt").read_text()
    assert f"ray=={cluster['rayVersion']}" in constraints
    wanted = yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]
    assert wanted.items() <= ENVIRONMENT.items()
    arguments = shlex.split(spec["entrypoint"])
    assert arguments[:2] == ["ltx-dist", "render"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        assert "/data" in [mount["mountPath"] for mount in container["volumeMounts"]]


def test_what_the_image_is_made_of_is_there():
    lines = (LAUNCH / "Dockerfile").read_text().splitlines()
    for line in lines:
        if line.startswith("COPY"):
            *sources, _ = line.split()[1:]
            assert all((REPOSITORY / source).exists() for source in sources), line
    assert "USER ltx" in lines, "not root"


def test_compose_has_what_ray_needs_of_a_container():
    service = yaml.safe_load((LAUNCH / "compose.yaml").read_text())["services"]["render"]
    assert service["init"] is True and service["shm_size"] == "8gb"
    assert (LAUNCH / service["build"]["context"] / service["build"]["dockerfile"]).samefile(LAUNCH / "Dockerfile")
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
