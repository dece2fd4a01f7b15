"""Links that someone puts into an output folder: nothing outside of the folder is written or removed through them."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from test_publisher import CHECKPOINT, REQUEST, done, video

from ltx_dist.store.files import open_folder, write_atomically
from ltx_dist.store.lock import folder_lock
from ltx_dist.store.publisher import Publisher


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of somebody else, with a file."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious").write_text("mine")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def is_untouched(outside: Path) -> bool:
    return [path.name for path in outside.iterdir()] == ["precious"] and (outside / "precious").read_text() == "mine"


def test_the_output_folder_may_be_a_link_of_the_users(out: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    out.symlink_to(tmp_path / "disk", target_is_directory=True)
    assert Publisher(out, CHECKPOINT).publish(done(), "key-1")
    assert (tmp_path / "disk" / "003-été.mp4").read_bytes() == video().mp4


@pytest.mark.parametrize("link", [".ltx-dist", ".ltx-dist/tmp"])
def test_a_link_in_place_of_a_folder_of_ours_is_refused(out: Path, outside: Path, link: str) -> None:
    """Above all, nothing is deleted there, although what a crash left in `.ltx-dist/tmp` is deleted otherwise."""
    (out / link).parent.mkdir(parents=True)
    (out / link).symlink_to(outside, target_is_directory=True)
    with pytest.raises(NotADirectoryError, match="a link or a file in the place of one of our folders"):
        Publisher(out, CHECKPOINT)
    assert is_untouched(outside)


def test_the_lock_is_not_taken_through_a_link(out: Path, outside: Path) -> None:
    out.mkdir()
    (out / ".ltx-dist").symlink_to(outside, target_is_directory=True)
    with pytest.raises(NotADirectoryError, match="a link or a file"), folder_lock(out):
        pass
    assert is_untouched(outside)


@pytest.mark.parametrize("name", ["003-été.mp4", "003-été.json", ".ltx-dist/holder.json"])
def test_a_link_in_place_of_a_file_is_replaced_and_not_followed(out: Path, outside: Path, name: str) -> None:
    publisher = Publisher(out, CHECKPOINT)
    (out / name).symlink_to(outside / "precious")
    with folder_lock(out):
        assert publisher.publish(done(), "key-1")
    assert is_untouched(outside) and not (out / name).is_symlink()


def test_a_folder_swapped_after_the_check_is_refused(out: Path, outside: Path) -> None:
    publisher = Publisher(out, CHECKPOINT)
    (out / ".ltx-dist" / "tmp").rmdir()
    (out / ".ltx-dist" / "tmp").symlink_to(outside, target_is_directory=True)
    with pytest.raises(OSError, match="a link or a file"):
        publisher.publish(done(), "key-1")
    assert is_untouched(outside)


def test_a_folder_swapped_at_any_moment_lets_nothing_out(out: Path, outside: Path) -> None:
    """Another thread swaps `.ltx-dist` for a link and back, as fast as it can, while files are written through it."""
    (out / ".ltx-dist" / "tmp").mkdir(parents=True)
    (outside / "tmp").mkdir()
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(out / ".ltx-dist", out / "aside")
            os.symlink(outside, out / ".ltx-dist")
            os.unlink(out / ".ltx-dist")
            os.rename(out / "aside", out / ".ltx-dist")

    swapper = threading.Thread(target=swap)
    swapper.start()
    written = attempts = 0
    deadline = time.monotonic() + 120
    try:
        while attempts < 2000 or (written < 20 and time.monotonic() < deadline):
            attempts += 1
            try:
                write_atomically(out / ".ltx-dist" / "holder.json", b"{}", out / ".ltx-dist" / "tmp")
                written += 1
            except OSError:
                assert sorted(path.name for path in outside.iterdir()) == ["precious", "tmp"]
    finally:
        stop.set()
        swapper.join()
    assert written >= 20, "some went through"
    assert sorted(path.name for path in outside.iterdir()) == ["precious", "tmp"] and not list(
        (outside / "tmp").iterdir()
    )


def test_open_folder_leaves_no_descriptor_open_when_it_refuses(out: Path, outside: Path) -> None:
    out.mkdir()
    (out / ".ltx-dist").symlink_to(outside)
    before = os.listdir("/proc/self/fd") if Path("/proc/self/fd").is_dir() else []
    with pytest.raises(OSError):
        open_folder(out / ".ltx-dist" / "tmp")
    assert len(os.listdir("/proc/self/fd") if before else []) == len(before)


def test_reading_a_clip_through_a_link_is_allowed(out: Path, outside: Path) -> None:
    """Finished clips that were moved to another disk and linked are kept."""
    publisher = Publisher(out, CHECKPOINT)
    publisher.publish(done(), "key-1")
    (out / "003-été.mp4").rename(outside / "moved.mp4")
    (out / "003-été.mp4").symlink_to(outside / "moved.mp4")
    assert publisher.is_published(REQUEST, "key-1")
