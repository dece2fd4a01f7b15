"""Things that people give as a checkpoint although they are none: the error says what each is, and what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ltx_dist.checkpoints.checkpoint import DEMO_MODEL, open_checkpoint

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9989150328\n"
HEADS = {
    "a git-lfs pointer, not the file itself; run `git lfs pull`": POINTER,
    "a web page, not the file itself; download it with `hf download`": b"\n<!DOCTYPE html><html>",
    "GGUF, which is not supported; give the bfloat16 .safetensors": b"GGUF\x03\x00\x00\x00" + b"\0" * 60,
    "a pickle under another name, which could run code": b"PK\x03\x04" + b"\0" * 60,
    "a pickle under another name, which could": b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01K\x01u.",
    "empty; download it again": b"",
    "not a complete safetensors file": b"\x40\0\0\0\0\0\0\0{" + b" " * 20,
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEMO_MODEL, tmp_path / "model"))


def error(checkpoint: str | Path, text_encoder: str | Path | None = None) -> str:
    with pytest.raises(ValueError) as caught:
        open_checkpoint(str(checkpoint), None if text_encoder is None else str(text_encoder))
    return str(caught.value)


@pytest.mark.fault(25)
@pytest.mark.parametrize("says", HEADS)
def test_a_file_that_is_not_what_its_name_says(tmp_path: Path, says: str) -> None:
    path = tmp_path / "ltx.safetensors"
    path.write_bytes(HEADS[says])
    assert error(path, DEMO_MODEL).startswith(f"model.checkpoint: {path}: {says}")


@pytest.mark.fault(25)
@pytest.mark.parametrize("says", HEADS)
@pytest.mark.parametrize(
    "file", ["text_encoder/model", "transformer/diffusion_pytorch_model", "vae/diffusion_pytorch_model"]
)
def test_weights_in_a_folder_that_are_not_what_their_name_says(model: Path, file: str, says: str) -> None:
    (model / f"{file}.safetensors").write_bytes(HEADS[says])
    assert f"\n  {file}.safetensors: {says}" in error(model)
    if file.startswith("text"):
        message = error("demo", model)
        assert message.startswith("model.text_encoder: ") and f"{file}.safetensors: {says}" in message


def test_a_clone_without_git_lfs_names_every_pointer(model: Path) -> None:
    for weights in model.rglob("*.safetensors"):
        weights.write_bytes(POINTER)
    (model / "vae" / "config.json").write_bytes(POINTER)
    assert error(model).count("a git-lfs pointer, not the file itself") == 4


def test_a_header_length_that_looks_like_a_pickle_is_none(tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    from ltx_dist.checkpoints.weight_files import read_header

    path = tmp_path / "x.safetensors"
    for length in range(600, 700):
        save_file({"a": np.ones(1, np.uint8)}, path, {"pad": "x" * (length - 100)})
        if path.read_bytes()[:2] == b"\x80\x02":
            assert list(read_header(path).tensors) == ["a"]
            return
    raise AssertionError("no header of 640 bytes was made")


@pytest.mark.fault(25)
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("https://huggingface.co/o/n/blob/main/x.safetensors", "a URL; run `hf download o/n x.safetensors` and give"),
        ("https://huggingface.co/o/n/resolve/main/a/x.safetensors?download=true", "`hf download o/n a/x.safetensors`"),
        (
            "https://huggingface.co/o/n/blob/refs%2Fpr%2F3/x.safetensors",
            "a URL; run `hf download o/n x.safetensors --revision refs/pr/3` and",
        ),
        ("https://huggingface.co/o/n", "a URL; give o/n for the model in folders"),
        ("https://hf.co/o/n/tree/v1", "a URL; give o/n@v1 for the model in folders"),
        ("huggingface.co/o/n", "a URL; give o/n for the model in folders"),
        ("https://example.com/x.safetensors", "a URL; download it, and give the path"),
        ("s3://bucket/model", "a URL; download it, and give the path"),
        ("o/n/x.safetensors", "no such file; run `hf download o/n x.safetensors` and give the path that it prints"),
        ("x.gguf", "GGUF, which is not supported"),
        ("o/n.gguf", "GGUF, which is not supported"),
        ("x.safetensors", "no such file; check the path"),
        ("nowhere", "no such folder; give `demo`"),
    ],
)  # fmt: skip
def test_a_name_that_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, says: str) -> None:
    monkeypatch.chdir(tmp_path)
    message = error(name)
    assert message.startswith(f"model.checkpoint: {name}: ") and says in message


def test_a_gguf_file_that_is_there(tmp_path: Path, model: Path) -> None:
    path = tmp_path / "ltx-video-2b-v0.9-Q8_0.gguf"
    path.write_bytes(b"GGUF")
    assert "GGUF, which is not supported; give the bfloat16" in error(path)
    assert "GGUF, which is not supported; give the bfloat16" in error("demo", path)
    weights = model / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_name("model-Q8_0.gguf"))
    assert "\n  transformer: GGUF, which is not supported" in error(model)


@pytest.mark.fault(25)
def test_a_text_encoder_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "t5xxl_fp16.safetensors"
    shutil.copy(DEMO_MODEL / "text_encoder" / "model.safetensors", path)
    message = error("demo", path)
    assert message.startswith(f"model.text_encoder: {path}: is a file")
    assert "text_encoder/config.json" in message and "such as Lightricks/LTX-Video" in message
    assert "a URL; give o/n" in error("demo", "https://huggingface.co/o/n")


def test_a_text_encoder_whose_files_have_other_names(model: Path) -> None:
    (model / "text_encoder" / "config.json").rename(model / "text_encoder" / "text_encoder_config.json")
    weights = model / "text_encoder" / "model.safetensors"
    weights.rename(weights.with_name("t5xxl_fp16.safetensors"))
    message = error("demo", model)
    assert message.startswith(f"model.text_encoder: {model} is not a usable folder of T5")
    there = "text_encoder/ holds t5xxl_fp16.safetensors, text_encoder_config.json"
    assert f"{model}/text_encoder/config.json: missing; {there}" in message
    assert "text_encoder: no weights; model.safetensors (or model.safetensors.index.json and its shards)" in message
    assert f" is missing; {there}" in message


@pytest.mark.fault(25)
def test_folders_that_are_only_near_a_model(tmp_path: Path, model: Path) -> None:
    cache = tmp_path / "hub" / "models--someone--a-model" / "snapshots"
    cache.mkdir(parents=True)
    snapshot = model.rename(cache / "abc")
    assert open_checkpoint(str(snapshot)).path == snapshot
    assert error(cache.parent) == (
        f"model.checkpoint: {cache.parent}: a repository's folder in the hub's cache; give someone/a-model, or "
        f"someone/a-model@COMMIT, or {snapshot}"
    )
    assert "the hub's cache; give the name of one of its models: someone/a-model" in error(tmp_path / "hub")
    assert f"holds no model_index.json, but the folder {snapshot} does; give that" in error(cache)
    assert f"one component of a model; give the folder above, {snapshot}" in error(snapshot / "transformer")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "ltxv-2b.safetensors").write_bytes(b"")
    assert "give one of its files by its path: ltxv-2b.safetensors" in error(tmp_path / "files")
