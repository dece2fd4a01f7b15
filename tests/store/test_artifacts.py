"""Outputs of stages on disk are found again bit for bit by their key, within a limit, by several runs."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from ltx_dist.pipeline.payloads import (
    Conditioning,
    ConditionLatents,
    ConnectedText,
    DecodedClip,
    EncodedMedia,
    Latents,
    SoundLatents,
    StageOutput,
)
from ltx_dist.store.artifacts import ArtifactStore


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def mask(seed: int) -> torch.Tensor:
    return noise(seed, 1, 32) > 0.5


def text(seed: int) -> Conditioning:
    return Conditioning(noise(seed, 1, 32, 16), mask(seed), None, None)


STATE = torch.Generator().manual_seed(5).get_state()
PICTURE = noise(1, 1, 9, 1, 2, 2)
OUTPUTS: dict[str, StageOutput] = {
    "text with guidance": Conditioning(noise(1, 1, 32, 16), mask(1), noise(2, 1, 32, 16), mask(2)),
    "text without": text(1),
    "text of LTX-2": ConnectedText(
        (noise(1, 2, 8, 4), noise(2, 1, 8, 4)),
        (noise(3, 2, 8, 2), noise(4, 1, 8, 2)),
        (mask(5), mask(6)),
        (0, 1),
        "bfloat16",
    ),
    "images": EncodedMedia((noise(1, 1, 9, 1, 2, 2), noise(2, 1, 9, 2, 2, 2)), (), None, noise(3, 8), noise(4, 8)),
    "an image twice": EncodedMedia((PICTURE, PICTURE), (), PICTURE[:, :, :1], noise(3, 8), noise(4, 8)),
    "a video": EncodedMedia((), (), noise(1, 1, 9, 3, 2, 2), noise(3, 8), noise(4, 8)),
    "images of LTX-2": ConditionLatents((noise(1, 1, 8, 1, 2, 2),), (noise(2, 1, 8, 1, 4, 4),)),
    "latents": Latents(torch.randn(1, 16, 2, 2, 2), STATE, "bfloat16"),
    "latents with sound": SoundLatents(torch.randn(1, 16, 2, 2, 2), STATE, "float32", torch.randn(1, 8, 3, 4)),
}


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other) and one.dtype == other.dtype
    elif isinstance(one, tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert one == other


def make(folder: Path, limit: int = 10**9) -> ArtifactStore:
    return ArtifactStore(folder, folder / "tmp", limit, is_shared=True)


def keep(cache: ArtifactStore, *names: str) -> None:
    for name in names:
        cache.keep(name, name, text(len(name)))


def files(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in folder.glob("*.safetensors")}


@pytest.mark.parametrize("name", OUTPUTS)
def test_every_kind_of_output_comes_back_bit_for_bit(tmp_path: Path, name: str):
    make(tmp_path).keep("name", "key", OUTPUTS[name])
    again = make(tmp_path)
    assert again.holds("name", "key") and not again.holds("name", "other") and not again.holds("other", "key")
    found = again.load("name", "key")
    assert type(found) is type(OUTPUTS[name])
    for field in fields(OUTPUTS[name]):
        assert_same(getattr(OUTPUTS[name], field.name), getattr(found, field.name))


def test_frames_are_never_saved(tmp_path: Path):
    with pytest.raises(AssertionError):
        make(tmp_path).keep("name", "key", DecodedClip(iter(()), ""))


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "empty", "of another prompt"])
def test_a_damaged_file_is_as_good_as_none_and_is_written_again(tmp_path: Path, damage: str):
    keep(make(tmp_path), "key", "longer")
    path = files(tmp_path)["key"]
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[-3] ^= 1
    path.write_bytes(
        {"cut": content[:-40], "flipped": bytes(flipped), "foreign": b"\x80\x04pickle", "empty": b"",
         "of another prompt": files(tmp_path)["longer"].read_bytes()}[damage]
    )  # fmt: skip
    cache = make(tmp_path)
    cache.holds("key", "key")
    assert cache.load("key", "key") is None
    assert not cache.holds("key", "key"), "so that nobody asks for it again"
    keep(cache, "key")
    found = cache.load("key", "key")
    assert cache.holds("key", "key") and isinstance(found, Conditioning)
    assert torch.equal(found.prompt_embeds, text(3).prompt_embeds)


@pytest.mark.parametrize(
    "told", ["", "[]", "{}", '{"kind": "Exploit"}', '{"kind": "Latents", "fields": {"latents": []}}']
)
def test_a_file_that_tells_no_output_of_ours_is_as_good_as_none(tmp_path: Path, told: str):
    from ltx_dist.store.tensor_file import pack

    tmp_path.joinpath("a.safetensors").write_bytes(pack("key", {"latents": torch.ones(1)}, {"output": told}))
    assert not make(tmp_path).holds("a", "key") and make(tmp_path).load("a", "key") is None


def test_a_tensor_that_the_text_does_not_name_makes_a_file_as_good_as_none(tmp_path: Path):
    from ltx_dist.store.tensor_file import pack

    fields = '"latents": ["tensor"], "generator_state": null, "embeds_dtype": "float32"'
    told = {"output": f'{{"kind": "Latents", "fields": {{{fields}}}}}'}
    tmp_path.joinpath("a.safetensors").write_bytes(pack("key", {"latents": torch.ones(1)}, told))
    assert not make(tmp_path).holds("a", "key") and make(tmp_path).load("a", "key") is None


def test_the_least_recently_used_make_room(tmp_path: Path):
    keep(make(tmp_path), "a", "b", "c")
    for age, name in enumerate("abc"):
        os.utime(files(tmp_path)[name], (1000 + age, 1000 + age))
    assert make(tmp_path).holds("a", "a"), "an earlier run used the oldest"
    limit = 3 * files(tmp_path)["a"].stat().st_size + 10
    keep(make(tmp_path, limit), "d")
    assert set(files(tmp_path)) == {"a", "c", "d"}


def test_a_run_never_removes_what_it_uses_itself(tmp_path: Path):
    keep(make(tmp_path), "a", "b")
    cache = make(tmp_path, 2 * files(tmp_path)["a"].stat().st_size + 10)
    assert cache.holds("a", "a") and cache.holds("b", "b")
    keep(cache, "c")
    assert set(files(tmp_path)) == {"a", "b"}


def test_a_file_that_another_run_removed_is_a_miss(tmp_path: Path):
    cache = make(tmp_path)
    keep(cache, "a")
    assert cache.holds("a", "a")
    files(tmp_path)["a"].unlink()
    assert cache.load("a", "a") is None and not cache.holds("a", "a")


def test_two_runs_at_once_leave_whole_files_within_the_limit(tmp_path: Path):
    """Both write the same and other prompts, and remove each other's."""
    keep(make(tmp_path), "x")
    size = files(tmp_path)["x"].stat().st_size

    def run(name: str) -> None:
        cache = make(tmp_path, 20 * size)
        for number in range(60):
            keep(cache, f"{name if number % 2 else 'same'}-{number:02d}")
            cache._own.clear()  # as if each prompt were of a run that is over, so that all may be removed

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(run, ["one", "two"]))
    left = files(tmp_path)
    assert left and all(make(tmp_path).load(name, name) is not None for name in left)
    assert sum(path.stat().st_size for path in left.values()) <= 2 * 20 * size, "each counts again when it is full"
    assert not list((tmp_path / "tmp").iterdir())


def test_a_cache_that_is_only_read_needs_no_folder_and_one_that_cannot_be_made_is_told_when_it_is_written(
    tmp_path: Path,
):
    assert not make(tmp_path / "none").holds("a", "a") and not (tmp_path / "none").exists()
    (tmp_path / "file").write_text("not a folder")
    cache = make(tmp_path / "file")
    assert not cache.holds("a", "a")
    with pytest.raises(OSError, match="file"):
        keep(cache, "a")


def test_what_a_killed_run_left_half_written_goes_after_a_while(tmp_path: Path):
    (tmp_path / "tmp").mkdir()
    for name, age in (("old", 10_000), ("new", 0)):
        (tmp_path / "tmp" / name).write_bytes(b"half")
        stamp = (tmp_path / "tmp" / name).stat().st_mtime - age
        os.utime(tmp_path / "tmp" / name, (stamp, stamp))
    keep(make(tmp_path), "a")
    assert [path.name for path in (tmp_path / "tmp").iterdir()] == ["new"]


def test_a_link_in_a_cache_is_read_and_what_it_leads_to_stays(tmp_path: Path):
    keep(make(tmp_path / "elsewhere"), "a")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "a.safetensors").symlink_to(tmp_path / "elsewhere" / "a.safetensors")
    cache = make(tmp_path / "cache", 10)
    assert cache.holds("a", "a") and cache.load("a", "a") is not None
    keep(cache, "b")
    assert files(tmp_path / "elsewhere")["a"].exists() and set(files(tmp_path / "cache")) == {"a"}, "no room for b"
