"""Where media may be: relative to a folder, on this machine or at a URL, with a digest; never a pipe or a device."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import fsspec
import pytest

from ltx_dist.media import sources
from ltx_dist.media.sources import open_media, resolve_place


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LTX_DIST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def refused(place: str, sha256: str | None = None) -> str:
    with pytest.raises(ValueError) as caught:
        open_media(place, sha256)
    message = str(caught.value)
    assert message.startswith(f"{place}: ")
    return message.removeprefix(f"{place}: ")


def test_paths_are_relative_to_the_folder_and_urls_stay():
    assert resolve_place("a.png", Path("/rows")) == "/rows/a.png"
    assert resolve_place("../a.png", Path("/rows/x")) == "/rows/a.png"
    assert resolve_place("/b/a.png", Path("/rows")) == "/b/a.png"
    assert resolve_place("~/a.png", Path("/rows")) == str(Path.home() / "a.png")
    assert resolve_place("file:///b/a.png", Path("/rows")) == "/b/a.png"
    assert resolve_place("s3://bucket/a.png", Path("/rows")) == "s3://bucket/a.png"


def test_a_file_has_its_digest(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"content")
    found = open_media(str(tmp_path / "a"))
    assert (found.path, found.sha256) == (tmp_path / "a", hashlib.sha256(b"content").hexdigest())
    assert open_media(found.place, found.sha256) == found


def test_a_file_that_changed_is_refused(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"content")
    assert refused(str(tmp_path / "a"), "0" * 64).startswith("changed since it was first read")


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        (tmp_path / "link").symlink_to("/dev/zero")
        found = {name: refused(str(tmp_path / name)) for name in ("pipe", "socket", "link", "")}
    kinds = ["a pipe", "a socket", "a device", "a folder"]
    assert list(found.values()) == [f"{kind}, not a file; name an image or a video" for kind in kinds]


def test_missing_empty_and_too_large_files_are_refused(tmp_path: Path):
    (tmp_path / "empty").touch()
    with (tmp_path / "large").open("wb") as file:
        file.truncate(sources.MAX_BYTES + 1)
    assert refused(str(tmp_path / "none")) == "no such file; paths are relative to the prompt file's folder"
    assert refused(str(tmp_path / "empty" / "below")).startswith("no such file")
    assert refused(str(tmp_path / "empty")) == "empty; write it again"
    assert refused(str(tmp_path / "large")) == "larger than 16 GiB; cut out the part that is needed"


def test_a_url_is_copied_once(own_cache: Path):
    fsspec.filesystem("memory").pipe_file("/media/a", b"content")
    found = open_media("memory://media/a")
    assert found.path.read_bytes() == b"content" and found.path.parent == own_cache / "media"
    fsspec.filesystem("memory").rm_file("/media/a")
    assert open_media("memory://media/a", found.sha256) == found  # another worker of this machine
    assert [path.name for path in found.path.parent.iterdir()] == [found.sha256]


def test_a_url_that_cannot_be_read_is_refused(own_cache: Path, monkeypatch: pytest.MonkeyPatch):
    files = fsspec.filesystem("memory")
    files.pipe_file("/media/empty", b"")
    files.pipe_file("/media/large", b"12345")
    monkeypatch.setattr(sources, "MAX_BYTES", 4)
    assert refused("memory://media/none").endswith("check the URL and your access to it")
    assert refused("nosuch://media/a").startswith("cannot be read: Protocol not known")
    assert refused("memory://media/empty") == "empty; write it again"
    assert refused("memory://media/large").startswith("larger than 0 GiB")
    assert not list((own_cache / "media").iterdir())


def test_a_file_of_the_demo_is_found_in_this_machine_s_package(tmp_path: Path):
    """A worker on another machine may have the package at another path than the driver."""
    here = Path(sources.__file__).parents[1] / "demo" / "first_frame.png"
    sha256 = hashlib.sha256(here.read_bytes()).hexdigest()
    place = resolve_place("demo://first_frame.png", tmp_path)
    assert open_media(place) == open_media(place, sha256) == sources.MediaFile(place, sha256, here)
    assert refused(place, "ab" * 32).startswith("changed since it was first read")
    assert "no such file" in refused("demo://none.png") and "no such file" in refused("demo://../cli.py")
    elsewhere = str(tmp_path / "ltx_dist" / "demo" / "first_frame.png")
    assert "no such file" in refused(elsewhere, sha256), "a path means that path alone"
