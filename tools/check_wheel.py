"""Builds the wheel and uses it without a checkout, as users do. Exits with 1 and the reason if that fails.

.venv/bin/python tools/check_wheel.py [--keep WHEEL_FOLDER]

The wheel is built from the files that git tracks or would add, installed without dependencies into an empty folder, and
run from another empty folder. The dependencies are those of the interpreter that runs this script.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]

ONLY_IN_A_CHECKOUT = re.compile(r"\b(?:docs|configs|launch|tools|tests|benchmarks)/[\w.]*|\.venv|'\.\[\w+\]'")
"""What help texts and messages must not name."""

COMMANDS = (
    "render", "demo", "plan", "decode", "timeline", "report", "verify", "export", "submit", "status", "stop", "doctor",
    "models", "config", "fields",
)  # fmt: skip

PRINTING = [
    ["config"], ["config", "--list"], ["config", "rtx4090"], ["fields"], ["fields", "0.9.8-13b-dev"], ["models"],
]  # fmt: skip

SMALL = [
    part
    for setting in ("num_inference_steps=1", "num_frames=9", "height=64", "width=64")
    for part in ("--set", f"defaults.{setting}")
]
ALONE = ["--executor", "local", "--set", "placement.layout=shared"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="keep the wheel in this folder")
    keep = parser.parse_args().keep
    with TemporaryDirectory(prefix="check-wheel-") as name:
        folder = Path(name)
        wheel = build(folder / "source", folder / "wheel")
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB")
        installed = Installed(folder, wheel)
        installed.check_help()
        installed.check_commands()
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            shutil.copy(wheel, keep)
    print("the wheel works")


def build(source: Path, target: Path) -> Path:
    """The wheel, built from a copy of the checkout: no build folder is left here, and no ignored file gets in."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(target), str(source))
    (wheel,) = target.glob("*.whl")
    return wheel


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True)


class Installed:
    """The wheel, installed in a folder of its own. Commands run in `here`, which is empty at first."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.site, self.here = folder / "site", folder / "here"
        self.here.mkdir()
        pip("install", "--no-deps", "--target", str(self.site), str(wheel))
        own = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "RAY_ADDRESS")}
        self._environment = own | {
            "PYTHONPATH": str(self.site),
            "LTX_DIST_CACHE": str(folder / "cache"),
            "COLUMNS": "200",
            "HF_HUB_OFFLINE": "1",
        }
        at = self.python("import ltx_dist; print(ltx_dist.__file__)")
        assert at.startswith(str(self.site)), f"{at} is not the wheel's"

    def python(self, code: str) -> str:
        return self._run([sys.executable, "-c", code])

    def ltx_dist(self, *arguments: str, exit_codes: tuple[int, ...] = (0,)) -> str:
        # Not the installed script: its first line names an interpreter, which is right only on some machines.
        code = "import sys; from ltx_dist.cli import main; sys.argv[0] = 'ltx-dist'; main()"
        return self._run([sys.executable, "-c", code, *arguments], exit_codes)

    def _run(self, command: list[str], exit_codes: tuple[int, ...] = (0,)) -> str:
        done = subprocess.run(
            command, cwd=self.here, env=self._environment, capture_output=True, text=True, check=False
        )
        assert done.returncode in exit_codes, f"{command} exited with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def check_help(self) -> None:
        """Assert that every command has help, which names nothing that only a checkout has."""
        printing = [["--help"], *([command, "--help"] for command in COMMANDS), *PRINTING]
        shown = self.python(
            "from typer.testing import CliRunner; from ltx_dist.cli import app\n"
            f"for words in {printing}:\n"
            " result = CliRunner().invoke(app, words); print(result.output); assert result.exit_code == 0, words"
        )
        without_links = re.sub(r"\S*github\.com\S*|docs/source/en/\S*", "", shown)
        found = ONLY_IN_A_CHECKOUT.search(without_links)
        assert found is None, f"help names {found and found[0]}, which a wheel does not have"

    def check_commands(self) -> None:
        """Take a new user's first steps with the packaged model, which needs no download and no GPU."""
        (self.here / "prompts.txt").write_text("a red circle\n")
        (self.here / "my.yaml").write_text(self.ltx_dist("config", "demo"))
        assert "layout pinned" in self.ltx_dist("plan", "prompts.txt", "-m", "demo", "-c", "my.yaml")
        assert "Open" in self.ltx_dist("demo", *SMALL, *ALONE)
        assert (self.here / "out" / "demo" / "index.html").is_file()
        assert "10 of 10 clips are intact" in self.ltx_dist("verify", "out/demo")
        self.ltx_dist("render", "prompts.txt", "-m", "demo", "-o", "clips", *SMALL, *ALONE)
        assert (self.here / "clips" / "001-a-red-circle.mp4").is_file()
        # It exits with 3 if something is missing on this machine, such as a place for Ray's token.
        checked = self.ltx_dist("doctor", "-m", "demo", exit_codes=(0, 3))
        assert "ok       checkpoint" in checked, checked
        found = ONLY_IN_A_CHECKOUT.search(checked)
        assert found is None, f"doctor names {found and found[0]}, which a wheel does not have"


if __name__ == "__main__":
    main()
