"""Text embeddings on disk: found again bit for bit, by all that decides them, within a limit, from several runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from ltx_dist.pipeline.conditions import Condition, Lora, SecondPass
from ltx_dist.pipeline.keys import embedding_keys
from ltx_dist.pipeline.payloads import Conditioning
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.sound import SoundSettings
from ltx_dist.store.embedding_cache import EmbeddingCache

REQUEST = RenderRequest("clip", "a prompt", "bad", 64, 64, 9, 25.0, 2, 3.0, 0.0, 3, 0.05, 0.025, 32)
DIGEST = {"text_encoder": "1", "tokenizer": "2", "transformer": "3", "vae": "4", "pipeline_class": "LTXPipeline"}
GIVEN = {
    "checkpoint_digest": DIGEST, "pipeline_class": "LTXPipeline", "precision": "float32", "quantization": "none",
    "device": "cpu", "versions": {"torch": "2.13", "transformers": "5.0"},
}  # fmt: skip


def keys(request: RenderRequest = REQUEST, **changed: object) -> tuple[str, ...]:
    return embedding_keys(request, **{**GIVEN, **changed})  # type: ignore[arg-type]


def random_pair(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embeds = torch.randn(1, 32, 16, generator=generator).bfloat16()
    return embeds, torch.rand(1, 32, generator=generator) > 0.5


def conditioning(seed: int) -> Conditioning:
    return Conditioning(*random_pair(seed), *random_pair(-1))


def keep(cache: EmbeddingCache, *names: str) -> None:
    """Prompts without guidance, one entry each."""
    for name in names:
        cache.keep((name,), Conditioning(*random_pair(len(name)), None, None))


def files(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in folder.glob("*.safetensors")}


def make(folder: Path, limit: int = 10**9) -> EmbeddingCache:
    return EmbeddingCache(folder, limit)


@pytest.mark.parametrize("guided", [True, False])
def test_embeddings_come_back_bit_for_bit(tmp_path: Path, guided: bool):
    both = keys(replace(REQUEST, guidance_scale=3.0 if guided else 1.0))
    given = conditioning(1) if guided else Conditioning(*random_pair(1), None, None)
    make(tmp_path).keep(both, given)
    again = make(tmp_path)
    assert again.holds(both)
    found = again.load(both)
    assert found is not None
    for field in fields(Conditioning):
        one, other = getattr(given, field.name), getattr(found, field.name)
        assert (one is None and other is None) or (torch.equal(one, other) and one.dtype == other.dtype), field.name


def test_the_negative_prompt_is_one_entry_for_all(tmp_path: Path):
    cache = make(tmp_path)
    first, second = (keys(replace(REQUEST, prompt=text)) for text in "ab")
    assert first[1] == second[1] != first[0] != second[0]
    cache.keep(first, conditioning(1))
    written = files(tmp_path)[first[1]].stat().st_mtime_ns
    assert not cache.holds(second), "its own prompt is not there"
    cache.keep(second, conditioning(2))
    assert len(files(tmp_path)) == 3 and files(tmp_path)[first[1]].stat().st_mtime_ns == written


CHANGES: Mapping[str, object] = {
    "pipeline_class": "LTXConditionPipeline", "precision": "bfloat16", "quantization": "int8", "device": "a GPU",
    "versions": {"torch": "2.14", "transformers": "5.0"},
}  # fmt: skip


def test_all_that_decides_embeddings_is_in_the_key_and_nothing_else():
    for name, value in CHANGES.items():
        assert set(keys()).isdisjoint(keys(**{name: value})), name
    for part in DIGEST:
        other = keys(checkpoint_digest={**DIGEST, part: "other"})
        assert (other == keys()) == (part not in ("text_encoder", "tokenizer")), part
    changed = {
        "prompt": "other", "negative_prompt": "other", "height": 96, "width": 96, "num_frames": 17, "frame_rate": 24.0,
        "num_inference_steps": 3, "guidance_scale": 2.0, "guidance_rescale": 0.5, "seed": 4, "max_sequence_length": 64,
        "timesteps": (1000.0, 500.0), "decode_timestep": 0.1, "decode_noise_scale": 0.5, "request_id": "other",
        "conditions": (Condition("/a.png", "1"),), "image_cond_noise_scale": 0.1, "video": Condition("/b.mp4", "2"),
        "denoise_strength": 0.5, "second_pass": SecondPass(32, 32, 2, None, 0.5, 1.0, 0.0, 0.0),
        "loras": (Lora("/c.safetensors", "3"),), "sound": SoundSettings(0.0, 1.0, 1.0, 0.0, 0.0, 1.0),
    }  # fmt: skip
    assert set(changed) == {field.name for field in fields(RenderRequest)}
    for name, value in changed.items():
        same = [a == b for a, b in zip(keys(), keys(replace(REQUEST, **{name: value})), strict=True)]
        expected = {"prompt": [False, True], "negative_prompt": [True, False], "max_sequence_length": [False, False]}
        assert same == expected.get(name, [True, True]), name
    assert keys(replace(REQUEST, guidance_scale=1.0)) == keys()[:1], "without guidance there is no negative prompt"


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "empty", "of another prompt"])
def test_a_damaged_file_is_as_good_as_none_and_is_written_anew(tmp_path: Path, damage: str):
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
    cache.holds(("key",))
    assert cache.load(("key",)) is None
    assert not cache.holds(("key",)), "so that nobody asks for it again"
    keep(cache, "key")
    found = cache.load(("key",))
    assert cache.holds(("key",)) and found is not None and torch.equal(found.prompt_embeds, random_pair(3)[0])


def test_the_least_recently_used_make_room(tmp_path: Path):
    keep(make(tmp_path), "a", "b", "c")
    for age, name in enumerate("abc"):
        os.utime(files(tmp_path)[name], (1000 + age, 1000 + age))
    assert make(tmp_path).holds(("a",)), "an earlier run used the oldest"
    limit = 3 * files(tmp_path)["a"].stat().st_size + 10
    keep(make(tmp_path, limit), "d")
    assert set(files(tmp_path)) == {"a", "c", "d"}


def test_a_run_never_removes_what_it_uses_itself(tmp_path: Path):
    keep(make(tmp_path), "a", "b")
    cache = make(tmp_path, 2 * files(tmp_path)["a"].stat().st_size + 10)
    assert cache.holds(("a",)) and cache.holds(("b",))
    keep(cache, "c")
    assert set(files(tmp_path)) == {"a", "b"} and cache.problem is None


def test_a_file_that_another_run_removed_is_a_miss(tmp_path: Path):
    cache = make(tmp_path)
    keep(cache, "a")
    assert cache.holds(("a",))
    files(tmp_path)["a"].unlink()
    assert cache.load(("a",)) is None and not cache.holds(("a",))


def test_two_runs_at_once_leave_whole_files_within_the_limit(tmp_path: Path):
    """Both write the same and other prompts, and remove each other's."""
    keep(make(tmp_path), "x")
    size = files(tmp_path)["x"].stat().st_size

    def run(name: str) -> EmbeddingCache:
        cache = make(tmp_path, 20 * size)
        for number in range(60):
            keep(cache, f"{name if number % 2 else 'same'}-{number:02d}")
            cache._own.clear()  # as if each prompt were of a run that is over, so that all may be removed
        return cache

    with ThreadPoolExecutor(2) as threads:
        caches = list(threads.map(run, ["one", "two"]))
    assert [cache.problem for cache in caches] == [None, None]
    left = files(tmp_path)
    assert left and all(make(tmp_path).load((name,)) is not None for name in left)
    assert sum(path.stat().st_size for path in left.values()) <= 2 * 20 * size, "each counts anew when it is full"
    assert not list((tmp_path / "tmp").iterdir())


def test_a_folder_that_cannot_be_written_is_told_and_harms_nothing(tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")
    cache = make(tmp_path / "file")
    assert not cache.holds(("a",))
    keep(cache, "a", "b")
    assert cache.problem is not None and "file" in cache.problem


def test_what_a_killed_run_left_half_written_goes_after_a_while(tmp_path: Path):
    (tmp_path / "tmp").mkdir()
    for name, age in (("old", 10_000), ("new", 0)):
        (tmp_path / "tmp" / name).write_bytes(b"half")
        stamp = (tmp_path / "tmp" / name).stat().st_mtime - age
        os.utime(tmp_path / "tmp" / name, (stamp, stamp))
    keep(make(tmp_path), "a")
    assert [path.name for path in (tmp_path / "tmp").iterdir()] == ["new"]
