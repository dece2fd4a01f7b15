"""An output folder that is renamed while a run writes to it: nothing reaches the folder that took its place."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ltx_dist.store.files import HeldFolder, clear_folder, remove_file, write_atomically, write_once
from ltx_dist.store.lock import folder_lock


def put_another_in_place(out: Path) -> None:
    out.rename(out.with_name("aside"))
    (out / ".ltx-dist" / "tmp").mkdir(parents=True)
    (out / ".ltx-dist" / "tmp" / "theirs").touch()
    (out / "clip.mp4").write_bytes(b"theirs")


@pytest.mark.fault(7)
def test_nothing_is_written_or_removed_in_the_folder_that_took_its_place(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with folder_lock(out) as held:
        (out / ".ltx-dist" / "tmp").mkdir()
        write_atomically(out / "clip.mp4", b"ours", out / ".ltx-dist" / "tmp", held)
        put_another_in_place(out)
        scratch = out / ".ltx-dist" / "tmp"
        for act in (
            lambda: write_atomically(out / "clip.mp4", b"ours", scratch, held),
            lambda: write_once(out / "clip.mp4", b"ours", scratch, lambda: False, held),
            lambda: write_atomically(scratch.parent / "config.json", b"ours", held=held),
            lambda: clear_folder(scratch, held),
            lambda: remove_file(scratch / "theirs", held),
        ):
            with pytest.raises(OSError, match="not the folder that this run began in"):
                act()
        with folder_lock(out) as theirs:
            assert theirs != held
    assert (out / "clip.mp4").read_bytes() == b"theirs" and [path.name for path in scratch.iterdir()] == ["theirs"]
    assert (tmp_path / "aside" / "clip.mp4").read_bytes() == b"ours"


def test_a_rename_back_is_the_same_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with folder_lock(out) as held:
        out.rename(tmp_path / "aside")
        (tmp_path / "aside").rename(out)
        write_atomically(out / "clip.mp4", b"ours", held=held)
    assert isinstance(held, HeldFolder) and (out / "clip.mp4").read_bytes() == b"ours"


@pytest.mark.fault(7)
def test_a_run_whose_folder_was_renamed_ends_with_74_and_leaves_the_other_run_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    rows = [{"prompt": f"a {n}", "name": f"c{n}", "num_inference_steps": 4} for n in range(200)]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    command = [sys.executable, "-m", "ltx_dist.cli", "render", str(tmp_path / "p.jsonl"), "-o", str(out)]
    process = subprocess.Popen([*command, "--executor", "local"], stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while not list(out.glob("*.mp4")) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert json.loads((out / "run.json").read_text())["exit_code"] is None, "it has not ended"
        put_another_in_place(out)
        printed, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 74, printed
    assert "not the folder that this run began in" in printed and "free space" not in printed
    assert sorted(path.name for path in out.iterdir()) == [".ltx-dist", "clip.mp4"]
    assert (out / "clip.mp4").read_bytes() == b"theirs"
    assert list((tmp_path / "aside").glob("*.mp4")), "what was published stays"
