"""`submit --pip` against a real cluster: Ray's own pip installs a wheel that was sent, and the job imports it."""

from __future__ import annotations

import subprocess
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from ray.job_submission import JobDetails
from raylets import BIN, raylets

from ltx_dist.cluster.ray_jobs import why_no_exit_code

STORE = """
from fsspec.spec import AbstractFileSystem

class Shelf(AbstractFileSystem):
    protocol = "shelf"

    def find(self, path, **options):
        raise PermissionError("the shelf at " + path + " is closed")
"""


def write_wheel(path: Path) -> None:
    """Write a package that adds the file system shelf:// to fsspec, which no other package has."""
    info = "shelf_store-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("shelf_store.py", STORE)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: shelf-store\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/entry_points.txt", "[fsspec.specs]\nshelf = shelf_store:Shelf\n")
        wheel.writestr(f"{info}/RECORD", "")


def make_environment(folder: Path) -> Path:
    """A virtual environment with all packages of this one, but only a few files, because Ray copies it."""
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    here = sysconfig.get_path("purelib")
    (packages / "others.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    ray = folder / "bin" / "ray"
    ray.write_text(f"#!{folder}/bin/python\nfrom ray.scripts.scripts import main\nmain()\n")
    ray.chmod(0o755)
    return folder / "bin"


PIP_FAILED = """runtime_env setup failed: Failed to set up runtime environment.
Could not create the actor because its associated runtime env failed to be created.
[Node 192.0.2.2] Traceback (most recent call last):
ray._private.runtime_env.utils.SubprocessCalledProcessError: Run cmd[13] failed with the following details.
Last 50 lines of stdout:
    Processing /nowhere/shelf_store-1.0-py3-none-any.whl
    ERROR: Could not install packages due to an OSError: [Errno 2] No such file or directory
"""
"""As Ray 2.60 words it, shortened."""


@pytest.mark.parametrize(
    ("status", "code", "node", "message", "reason"),
    [
        (
            "FAILED",
            None,
            None,
            PIP_FAILED,
            "did not begin: Could not install packages due to an OSError: [Errno 2] No such file or directory",
        ),
        ("FAILED", None, None, "setup failed: no disk\nTraceback", "did not begin: setup failed: no disk"),
        (
            "FAILED",
            None,
            "ab12",
            "Supervisor died: node lost",
            "ended without an exit code: Supervisor died: node lost",
        ),
        ("FAILED", 2, "ab12", PIP_FAILED, None),
        ("STOPPED", None, None, "Job was intentionally stopped.", None),
        ("SUCCEEDED", 0, "ab12", "Job finished successfully.", None),
    ],
)
def test_a_job_without_an_exit_code_has_a_reason_in_a_line(
    status: str, code: int | None, node: str | None, message: str, reason: str | None
):
    given = {"status": status, "driver_exit_code": code, "driver_node_id": node, "message": message}
    job = JobDetails.model_validate({"type": "SUBMISSION", "entrypoint": "", **given})
    assert why_no_exit_code(job) == reason


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_imports_a_package_that_was_sent(tmp_path: Path):
    """The package's own error proves the import: it refuses the output before anything is rendered."""
    pytest.importorskip("pip")
    write_wheel(tmp_path / "shelf_store-1.0-py3-none-any.whl")
    command = [BIN / "ltx-dist", "submit", "--prompt", "a red circle", "-o", "shelf://clips"]
    command += ["--pip", "shelf_store-1.0-py3-none-any.whl"]
    programs = make_environment(tmp_path / "environment")
    with raylets(environment={"PIP_NO_INDEX": "1"}, programs=programs) as addresses:
        result = subprocess.run(
            [*command, "--address", addresses.jobs],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    assert result.returncode == 74, result.stdout[-4000:] + result.stderr[-4000:]
    assert "shelf://clips: PermissionError: the shelf at clips is closed" in result.stdout
    assert "FAILED  exit code 74" in result.stdout.splitlines()[-1]
