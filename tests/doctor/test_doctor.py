"""`ltx-dist doctor` on this machine, and with things broken on purpose: it names each, and stops at none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ltx_dist.cli import app
from ltx_dist.doctor import cluster, machine, packages, storage
from ltx_dist.doctor.finding import Check, Finding, Status, examine
from ltx_dist.doctor.probe import ProbeError, probe

BLOCKER = """
import os, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in os.environ["BLOCKED"].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
"""


def doctor(tmp_path: Path, *arguments: str, blocked: str = "", prefix: tuple[str, ...] = ()) -> tuple[int, str]:
    """Exit code and output of a process in which the `blocked` packages cannot be imported."""
    (tmp_path / "site").mkdir(exist_ok=True)
    (tmp_path / "site" / "sitecustomize.py").write_text(BLOCKER)
    path = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    command = [*prefix, sys.executable, "-m", "ltx_dist.cli", "doctor", *arguments]
    environment = os.environ | {"PYTHONPATH": path, "BLOCKED": blocked}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)
    assert done.stderr == "", done.stderr
    return done.returncode, done.stdout


def failures(report: str) -> dict[str, str]:
    """The message about each subject that failed, with its remedy."""
    blocks = report.replace("\n" + " " * 24, " ").splitlines()
    return {line[9:24].strip(): line[24:] for line in blocks if line.startswith("FAILURE")}


def test_a_machine_that_can_render_has_no_failures(tmp_path: Path):
    code, report = doctor(tmp_path, "-o", str(tmp_path / "not" / "yet"))
    assert code == 0 and failures(report) == {}, report
    for line in ("python", "torch", "PyAV", "ray ", "checkpoint     demo: demo, complete", "MB/s written"):
        assert line in report
    assert list(tmp_path.iterdir()) == [tmp_path / "site"], "nothing is left behind"


def test_all_that_is_broken_is_named_at_once_and_nothing_crashes(tmp_path: Path):
    (tmp_path / "file").write_text("no folder")
    broken = ["--set", "model.checkpoint=/nowhere", "--address", "127.0.0.1:1", "-o", str(tmp_path / "file")]
    code, report = doctor(tmp_path, *broken, blocked="torch,ray,av")
    assert code == 3, report
    found = failures(report)
    assert set(found) == {"torch", "codecs", "ray", "cluster", "checkpoint", "output"}, report
    for name, module in (("torch", "torch"), ("codecs", "av"), ("ray", "ray")):
        assert f"No module named '{module}'" in found[name] and "->" in found[name], found[name]
    assert "/nowhere: no such folder" in found["checkpoint"]
    assert "is a file" in found["output"]


def test_packages_that_the_checks_themselves_need_may_be_missing(tmp_path: Path):
    code, report = doctor(tmp_path, blocked="yaml,packaging,safetensors,numpy")
    assert code == 3
    found = failures(report)
    assert "package yaml is missing" in found["config"], report
    assert "package packaging is missing" in found["packages"] and "codecs" in found


def test_a_cluster_that_is_not_there_is_named():
    for address in ("127.0.0.1:1", "http://127.0.0.1:1"):
        (finding,) = cluster.check_cluster(address, "--address")
        assert finding.status is Status.FAILURE and f"nothing answers at {address}" in finding.text


def test_a_full_disk_is_named_with_what_is_free(tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    inside = f'mount -t tmpfs -o size=256k full {disk} && exec "$@"'
    prefix = ("unshare", "--map-root-user", "--mount", "sh", "-c", inside, "sh")
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody mount a small disk (unshare --map-root-user --mount)")
    code, report = doctor(tmp_path, "-o", str(disk / "clips"), blocked="torch,ray,av", prefix=prefix)
    assert code == 3
    assert f"{disk}: 0.3 MB free, and cannot be written: No space left on device" in failures(report)["output"], report


def test_the_output_may_be_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (finding,) = storage.check_output("~/clips")
    assert finding.text.startswith(f"{tmp_path}: ")


def test_a_store_is_written_to_and_one_that_cannot_be_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LTX_DIST_CACHE", str(tmp_path))
    store, staged = storage.check_output("memory://bucket/clips")
    assert store.status is not Status.FAILURE and "MB/s for one object" in store.text
    assert staged.text.startswith(f"{tmp_path}: ")
    store, _ = storage.check_output("s4://bucket/clips")
    assert store.status is Status.FAILURE and "s4" in store.text and "s3fs" in store.remedy


def test_a_checkpoint_that_was_cut_short_is_named(tmp_path: Path):
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", Path(packages.__file__).parent.parent / "demo" / "model", copy], check=True)
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    found = list(storage.check_checkpoint(str(copy), None, "auto"))
    assert all(finding.status is Status.FAILURE for finding in found)
    assert any("not a complete safetensors file" in finding.text for finding in found)
    assert any("download it again" in finding.remedy for finding in found)


def test_an_upscaler_in_the_home_of_nobody_is_named():
    (finding,) = storage.check_checkpoint("demo", None, "auto", "~nobody-9/upscaler")
    assert finding.text == "model.upscaler: ~nobody-9/upscaler: that user has no home folder"


def test_an_upscaler_that_is_not_there_is_named():
    (finding,) = storage.check_checkpoint("demo", None, "auto", "/nowhere/upscaler")
    assert finding.status is Status.FAILURE and "model.upscaler: /nowhere/upscaler: not a latent" in finding.text


def test_a_checkpoint_on_the_hub_is_looked_for_and_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    (finding,) = storage.check_checkpoint("nobody/nothing", None, "auto")
    assert finding.status is Status.WARNING and "not in the cache" in finding.text
    assert "`render` downloads it" in finding.remedy and not list(tmp_path.rglob("*.safetensors"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (finding,) = storage.check_checkpoint("nobody/nothing", None, "auto")
    assert finding.status is Status.FAILURE and "copy the cache" in finding.remedy


NVIDIA_SMI = """#!/bin/sh
cat <<'END'
0, NVIDIA GeForce RTX 4090, 24564, 24100, 4, 16, 16, 580.65.06
1, NVIDIA GeForce RTX 4090, 24564, 9000, 4, 16, 16, 580.65.06
2, NVIDIA GeForce RTX 4090, 24564, 24100, 4, 4, 16, 580.65.06
3, NVIDIA GB10, [N/A], [N/A], [N/A], [N/A], [N/A], 580.65.06
END
"""


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A driver with four cards, to be changed by the test."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(NVIDIA_SMI)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    return tool


def test_each_gpu_is_told_of_with_its_memory_and_link(nvidia_smi: Path):
    idle, busy, narrow, silent = machine.check_gpus(wants_gpu=True)
    assert idle.status is Status.OK and idle.text.startswith(
        "NVIDIA GeForce RTX 4090, 25.3 of 25.8 GB free, PCIe 4 x16"
    )
    assert busy.status is Status.WARNING and "another program uses its memory" in busy.remedy
    assert narrow.status is Status.WARNING and "x16" in narrow.remedy
    assert silent.status is Status.OK and "memory unknown, link unknown" in silent.text
    assert machine.count_gpus() == 4


def test_a_driver_that_does_not_answer_is_named(nvidia_smi: Path):
    nvidia_smi.write_text("#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'\nexit 18\n")
    (finding,) = machine.check_gpus(wants_gpu=False)
    assert finding.status is Status.FAILURE and "version mismatch" in finding.text
    assert machine.count_gpus() == 0


def test_a_driver_that_pages_is_warned_of(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("platform.release", lambda: "6.6.87.2-microsoft-standard-WSL2")
    (finding,) = machine.check_paging(num_gpus=1)
    assert finding.status is Status.WARNING and "Prefer No Sysmem Fallback" in finding.remedy
    assert list(machine.check_paging(num_gpus=0)) == []


def test_ray_without_a_token_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    (finding,) = packages.check_ray()
    assert finding.status is Status.WARNING and "without a token" in finding.text
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    (finding,) = packages.check_ray()
    assert finding.status is Status.FAILURE and "there is no token" in finding.text
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret-of-the-cluster")
    (finding,) = packages.check_ray()
    assert finding.status is Status.OK and finding.text.endswith("token from RAY_AUTH_TOKEN")


def test_a_config_that_is_wrong_does_not_end_the_report(tmp_path: Path):
    result = CliRunner().invoke(app, ["doctor", "--set", "placement.layuot=pinned", "-o", str(tmp_path)])
    assert result.exit_code == 3
    assert "did you mean placement.layout?" in failures(result.output)["config"]
    assert "MB/s written" in result.output


def test_a_check_that_fails_itself_is_a_failure_of_its_subject():
    def raises() -> list[Finding]:
        raise RuntimeError("no such luck")

    found = list(examine([Check("luck", raises), Check("python", packages.check_python)]))
    assert [finding.status for finding in found] == [Status.FAILURE, Status.OK]
    assert "no such luck" in found[0].text


def test_a_probe_that_crashes_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "crash.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ProbeError, match="SIGSEGV"):
        probe("crash")
