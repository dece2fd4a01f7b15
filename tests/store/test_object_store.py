"""Outputs at URLs: on fsspec's memory store, and on a real S3-compatible server on loopback."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import tiny
from tenacity import Retrying, stop_after_attempt, wait_none
from typer.testing import CliRunner, Result

import ltx_dist
from ltx_dist.cli import app
from ltx_dist.store.object_store import Mirror
from ltx_dist.store.output import open_output, staging_folder
from ltx_dist.store.output_errors import OutputError
from ltx_dist.store.remote_folder import RETRYING

SETTINGS = ("height=64", "width=64", "num_frames=9", "num_inference_steps=2")
NO_WAIT = RETRYING.copy(wait=wait_none())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", "0.9.5")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LTX_DIST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of a server of our own."""
    moto = pytest.importorskip("moto.server", reason="needs moto[server]; launch/setup.sh dev installs it")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()  # a cached instance would use the server of another test
    store = fsspec.filesystem("s3", skip_instance_cache=True)
    store.mkdir("bucket")
    yield "s3://bucket/clips"
    store.rm("bucket", recursive=True)  # moto's servers share their storage within a process
    server.stop()


@pytest.fixture
def memory() -> Iterator[str]:
    store = fsspec.filesystem("memory")
    yield "memory://clips/out"
    if store.exists("/clips"):
        store.rm("/clips", recursive=True)


def render(url: str, checkpoint: Path, prompts: str = "one\ntwo\n", *more: str) -> Result:
    settings = [f"defaults.{setting}" for setting in SETTINGS] + ["placement.device=cpu", "placement.threads=1"]
    arguments = ["render", "-", "-o", url, "--executor", "local", "--set", f"model.checkpoint={checkpoint}", *more]
    for setting in settings:
        arguments += ["--set", setting]
    return CliRunner().invoke(app, arguments, input=prompts)


def names(url: str) -> list[str]:
    store, root = fsspec.core.url_to_fs(url)
    store.invalidate_cache()
    return sorted(path.rpartition("/")[2] for path in store.ls(root, detail=False))


CLIPS = ["001-one.json", "001-one.mp4", "001-one.webp", "002-two.json", "002-two.mp4", "002-two.webp"]
RUN_FILES = ["index.html", "metadata.jsonl", "run.json", "trace.json"]


@pytest.mark.parametrize("store", ["memory", "s3"])
def test_a_batch_goes_to_a_store_and_on_from_there(
    store: str, request: pytest.FixtureRequest, checkpoint: Path, tmp_path: Path
) -> None:
    url = request.getfixturevalue(store)
    first = render(url, checkpoint)
    assert first.exit_code == 0, first.output
    assert names(url) == [*CLIPS, *RUN_FILES]
    files, root = fsspec.core.url_to_fs(url)
    page = files.cat_file(f"{root}/index.html")
    assert b'"url":"001-one.mp4"' in page, "clips that are over there are on the page"
    assert not list(staging_folder(url).glob("*.mp4")), "what has arrived is removed here"
    written = {name: files.cat_file(f"{root}/{name}") for name in names(url)}

    # The staging folder is gone, and a third prompt is new: two clips are not rendered again, nor even read.
    staging_folder(url).rename(tmp_path / "gone")
    again = render(url, checkpoint, "one\ntwo\nthree\n")
    assert again.exit_code == 0 and "2 already up to date" in again.output, again.output
    assert {name: files.cat_file(f"{root}/{name}") for name in CLIPS} == {name: written[name] for name in CLIPS}
    assert "003-three.mp4" in names(url)
    assert json.loads(files.cat_file(f"{root}/run.json"))["done"] == 3

    checked = CliRunner().invoke(app, ["verify", url])
    assert checked.exit_code == 0 and "3 of 3 clips are intact" in checked.output, checked.output


@pytest.mark.parametrize("may_delete", [True, False])
def test_files_of_a_clip_that_is_replaced_are_removed_or_off_the_page(
    memory: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, may_delete: bool
) -> None:
    assert render(memory, checkpoint, "one\n", "--set", "output.also=[ffv1]").exit_code == 0
    before = names(memory)
    assert "001-one.mkv" in before and "001-one.webp" in before
    if not may_delete:

        def refuse(store: object, path: str) -> None:
            raise PermissionError(path)

        monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "rm_file", refuse)
    again = render(memory, checkpoint, "one\n", "--set", "defaults.seed=5", "--set", "output.poster=false")
    assert again.exit_code == 0, again.output
    gone = {"001-one.mkv", "001-one.webp"}
    assert names(memory) == [name for name in before if name not in gone or not may_delete]
    files, root = fsspec.core.url_to_fs(memory)
    page = files.cat_file(f"{root}/index.html")
    assert b"001-one.webp" not in page and b"001-one.mp4" in page
    monkeypatch.undo()


def test_a_clip_that_was_damaged_over_there_is_rendered_again(memory: str, checkpoint: Path) -> None:
    assert render(memory, checkpoint).exit_code == 0
    files, root = fsspec.core.url_to_fs(memory)
    whole = files.cat_file(f"{root}/001-one.mp4")
    files.pipe_file(f"{root}/001-one.mp4", b"x" * len(whole))  # of the same size, but written after the sidecar
    files.rm_file(f"{root}/002-two.mp4")
    assert CliRunner().invoke(app, ["verify", memory]).exit_code == 3
    again = render(memory, checkpoint)
    assert again.exit_code == 0 and "already up to date" not in again.output, again.output
    assert files.cat_file(f"{root}/001-one.mp4") == whole
    assert names(memory) == [*CLIPS, *RUN_FILES]


@pytest.mark.fault(23)
def test_other_content_of_the_same_size_and_older_than_its_sidecar_is_noticed(
    s3: str, checkpoint: Path, tmp_path: Path
) -> None:
    """Sizes and times do not tell, as after a copy of the folder. What render does and verify reports must agree."""
    assert render(s3, checkpoint).exit_code == 0
    files, root = fsspec.core.url_to_fs(s3)
    sidecar, whole = files.cat_file(f"{root}/001-one.json"), files.cat_file(f"{root}/001-one.mp4")
    assert json.loads(sidecar)["mp4_etag"].strip('"') == hashlib.md5(whole).hexdigest()
    files.pipe_file(f"{root}/001-one.mp4", whole[:-200] + b"x" * 200)
    files.pipe_file(f"{root}/001-one.json", sidecar)
    checked = CliRunner().invoke(app, ["verify", s3])
    assert checked.exit_code == 3 and "1 of 2 clips are intact" in checked.output, checked.output
    again = render(s3, checkpoint)
    assert again.exit_code == 0 and "1 already up to date" in again.output, again.output
    files.invalidate_cache()
    assert files.cat_file(f"{root}/001-one.mp4") == whole
    assert CliRunner().invoke(app, ["verify", s3]).exit_code == 0


def test_a_copy_with_other_etags_is_read_and_found_whole(s3: str, checkpoint: Path) -> None:
    """The ETag of an upload in several parts, which is no MD5."""
    assert render(s3, checkpoint).exit_code == 0
    files, root = fsspec.core.url_to_fs(s3)
    for name in ("001-one", "002-two"):
        sidecar = json.loads(files.cat_file(f"{root}/{name}.json"))
        files.pipe_file(f"{root}/{name}.json", json.dumps(sidecar | {"mp4_etag": '"0123-2"'}).encode())
    again = render(s3, checkpoint)
    assert again.exit_code == 0 and "2 already up to date; nothing to do" in again.output, again.output


def test_clips_that_could_not_be_uploaded_are_by_the_next_run(
    memory: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fsspec.filesystem("memory")
    real = type(store).pipe_file

    def without_mp4s(self: object, path: str, value: bytes, **options: object) -> None:
        if path.endswith("one.mp4"):
            raise PermissionError("denied")
        real(store, path, value, **options)

    monkeypatch.setattr(type(store), "pipe_file", without_mp4s)
    stopped = render(memory, checkpoint)
    assert stopped.exit_code == 74, stopped.output
    said = " ".join(stopped.output.split())
    assert "clips not uploaded: 1, 001-one because of PermissionError: denied" in said
    assert "001-one.json" not in names(memory), "no sidecar without its mp4"
    assert (staging_folder(memory) / "001-one.mp4").exists()
    monkeypatch.setattr(type(store), "pipe_file", real)
    again = render(memory, checkpoint)
    assert again.exit_code == 0 and "nothing to do" in again.output, again.output
    assert set(CLIPS) <= set(names(memory))


def test_trouble_that_passes_is_waited_for(memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    store = fsspec.filesystem("memory")
    real = type(store).pipe_file

    def twice_in_vain(self: object, path: str, value: bytes, **options: object) -> None:
        calls.append(path)
        if len(calls) < 3:
            raise OSError("connection reset")
        real(store, path, value, **options)

    monkeypatch.setattr(type(store), "pipe_file", twice_in_vain)
    folder = staged_clip(tmp_path / "staging")
    mirror = Mirror(memory, folder, NO_WAIT)
    mirror.pull()
    mirror.upload("a")
    mirror.finish()
    mirror.close()
    assert names(memory) == ["a.json", "a.mp4"] and len(calls) == 4


def test_trouble_that_stays_is_named(memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_vain(*arguments: object, **options: object) -> None:
        raise OSError("connection reset")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "pipe_file", in_vain)
    mirror = Mirror(memory, staged_clip(tmp_path / "staging"), Retrying(stop=stop_after_attempt(2), reraise=True))
    mirror.pull()
    mirror.upload("a")
    with pytest.raises(OutputError, match="clips not uploaded: 1, a because of OSError: connection reset; kept in"):
        mirror.finish()
    mirror.close()


def staged_clip(folder: Path) -> Path:
    (folder / ".ltx-dist").mkdir(parents=True)
    (folder / "a.mp4").write_bytes(b"mp4")
    (folder / "a.json").write_text("{}")
    return folder


@pytest.mark.parametrize("command", ["report", "verify", "timeline", "export csv"])
def test_a_mistyped_url_is_bad_input_and_gets_no_page(command: str, memory: str, tmp_path: Path) -> None:
    store, root = fsspec.core.url_to_fs(memory)
    store.pipe_file(f"{root}/holiday.mp4", b"not ours")
    destination = ["-o", str(tmp_path / "table.csv")] if command == "export csv" else []
    result = CliRunner().invoke(app, [*command.split(), memory, *destination])
    said = " ".join(result.output.split())
    assert result.exit_code == 2 and f"{memory}: not an output of ltx-dist; check the URL" in said, said
    assert names(memory) == ["holiday.mp4"]
    with pytest.raises(ltx_dist.InputError, match="not an output of ltx-dist"):
        ltx_dist.clips(memory)


@pytest.mark.parametrize("kept", [("a.mp4", "a.json"), ("run.json",)])
def test_copied_clips_and_a_run_that_has_finished_none_are_outputs(
    kept: tuple[str, ...], memory: str, tmp_path: Path
) -> None:
    store, root = fsspec.core.url_to_fs(memory)
    for name in kept:
        store.pipe_file(f"{root}/{name}", b"{}")
    mirror = Mirror(memory, tmp_path / "staging")
    mirror.pull_output()
    mirror.close()


@pytest.mark.parametrize("url", ["nothing://x/y", "s4://bucket"])
def test_a_url_of_an_unknown_kind_is_bad_input(url: str, checkpoint: Path) -> None:
    result = render(url, checkpoint)
    assert result.exit_code == 2
    with pytest.raises(ValueError, match=r":// is not known; use a folder, s3://, gs://"):
        open_output(url)


def test_a_name_that_is_too_long_is_left_to_the_file_system(tmp_path: Path, checkpoint: Path) -> None:
    result = render(str(tmp_path / ("a" * 300)), checkpoint)
    assert result.exit_code == 74 and "File name too long; choose another output" in result.output


def test_each_url_has_a_folder_of_its_own(cache: Path) -> None:
    first, second = staging_folder("s3://bucket/a"), staging_folder("s3://bucket/a?")
    assert first != second and first.parent == second.parent == cache / "staged"
    assert open_output("s3://bucket/a/").folder == first
    assert open_output("out/demo").folder == Path("out/demo") and open_output("out/demo").mirror is None
