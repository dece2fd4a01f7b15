"""Forty odd or hostile media and LoRA files: each is an error with its line and remedy, and nothing is rendered.

Files that test_media.py, test_images.py, test_video_in.py, test_sources.py and test_lora_files.py cover are not here.
"""

from __future__ import annotations

import io
import json
import os
import struct
import wave
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import loras
import numpy as np
import PIL.Image
import pytest
import tiny
import torch
from test_media import SMALL, save_video
from typer.testing import CliRunner

from ltx_dist.checkpoints.checkpoint import open_checkpoint
from ltx_dist.checkpoints.lora_files import linear_layers
from ltx_dist.cli import app

Q = "transformer.transformer_blocks.0.attn1.to_q"


@dataclass(frozen=True)
class Odd:
    """row: of the prompt file. says: a part of its error. make: writes the file that the row names, if any."""

    row: Mapping[str, Any]
    says: str
    make: Callable[[Path], object] = lambda folder: None


def image(name: str, says: str, content: bytes | None = None, make: Callable[[Path], object] | None = None) -> Odd:
    writer = make or (lambda path: path.write_bytes(content or b""))
    return Odd({"image": name}, f"image: {{folder}}/{name}: {says}", lambda folder: writer(folder / name))


def video(
    name: str, says: str, content: bytes | None = None, make: Callable[[Path], object] | None = None, **condition: Any
) -> Odd:
    writer = make or (lambda path: path.write_bytes(content or b""))
    row = {"conditions": [{"video": name, **condition}]}
    return Odd(row, f"conditions: [0].video: {{folder}}/{name}: {says}", lambda folder: writer(folder / name))


def lora(name: str, says: str, content: bytes | None = None, make: Callable[[Path], object] | None = None) -> Odd:
    writer = make or (lambda path: path.write_bytes(content or b""))
    return Odd({"loras": [name]}, f"loras: {{folder}}/{name}: {says}", lambda folder: writer(folder / name))


def png(size: tuple[int, int] = (96, 64)) -> bytes:
    content = io.BytesIO()
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)).save(
        content, "PNG"
    )
    return content.getvalue()


def flipped(content: bytes, at: float) -> bytes:
    place = int(len(content) * at)
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<xml/>")


def animated(path: Path) -> None:
    pictures = [PIL.Image.new("RGB", (96, 64), colour) for colour in ("red", "blue")]
    pictures[0].save(path, save_all=True, append_images=pictures[1:])


def glass(path: Path) -> None:
    PIL.Image.new("RGBA", (96, 64), (255, 0, 0, 9)).save(path)


def deep(path: Path) -> None:
    PIL.Image.fromarray(np.full((64, 96), 40_000, np.uint16)).save(path)


def circle(path: Path) -> None:
    path.symlink_to(path.name)


def sound(path: Path) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(1600))


def sound_in_mp4(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def without_its_index(path: Path) -> None:
    save_video(path, 9, 25)
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"mdat")] + b"mdat" + bytes(2000))


def tensors(path: Path, **named: torch.Tensor) -> None:
    loras.save(path, {name.replace("__", "."): tensor for name, tensor in named.items()})


def pair(a: torch.Tensor, b: torch.Tensor, **more: torch.Tensor) -> Callable[[Path], object]:
    layer = {f"{Q}.lora_A.weight": a, f"{Q}.lora_B.weight": b}
    return lambda path: loras.save(path, layer | {f"{Q}.{name}": tensor for name, tensor in more.items()})


def header(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


A, B = torch.zeros(4, 32), torch.zeros(32, 4)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n"
HTML = b"<!DOCTYPE html><html><title>Sign in</title></html>"

ODD = {
    "a web page saved as a picture": image("page.jpg", "not an image; use PNG", HTML),
    "a git-lfs pointer": image("pointer.png", "not an image; use PNG", LFS),
    "a PDF": image("scan.png", "not an image; use PNG", b"%PDF-1.7\n1 0 obj\n"),
    "a phone's HEIC": image("photo.jpg", "not an image; use PNG", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)),
    "an office document": image("brief.png", "not an image; use PNG", make=zipped),
    "a PNG with a flipped byte": image("flipped.png", "damaged or truncated", flipped(png(), 0.5)),
    "a JPEG of three bytes": image("stub.jpg", "not an image; use PNG", b"\xff\xd8\xff"),
    "a PNG that ends in its header": image("begun.png", "", png()[:20]),
    "an animated picture": image("moving.webp", "has 2 frames; give one frame as an image", make=animated),
    "a see-through picture": image("glass.png", "has transparent pixels; flatten it", make=glass),
    "a picture of 16 bits": image("deep.png", "its colours are I;16; save it as RGB with 8 bits", make=deep),
    "a link to itself": image("loop.png", "cannot be read: Too many levels of symbolic links", make=circle),
    "a link to nowhere": image("gone.png", "no such file", make=lambda path: path.symlink_to("/no/such.png")),
    "an endless device": image("zero.png", "a device, not a file", make=lambda path: path.symlink_to("/dev/zero")),
    "a pipe that nobody writes to": image("pipe.png", "a pipe, not a file", make=lambda path: os.mkfifo(path)),
    "a folder": image("folder.png", "a folder, not a file", make=lambda path: path.mkdir()),
    "a name with a zero byte": Odd({"image": "a\0.png"}, "image: 'a\\x00.png': not a file name"),
    "a name without end": Odd({"image": "a" * 5000 + ".png"}, "cannot be read: File name too long"),
    "another user's home": Odd({"image": "~nobody-here/a.png"}, "image: ~nobody-here/a.png: no such user's folder"),
    "a URL of no known kind": Odd({"image": "gopher://host/a.png"}, "image: gopher://host/a.png: cannot be read: "),
    "a URL to this machine": Odd({"image": "file:///no/such.png"}, "image: /no/such.png: no such file"),
    "a pattern for many files": Odd({"image": "frame%03d.png"}, "image: {folder}/frame%03d.png: no such file"),
    "a list where one is wanted": Odd({"image": ["a.png"]}, "image: ['a.png'] is not text"),
    "sound alone": video("sound.mp4", "has no video in it", make=sound_in_mp4),
    "sound under a video's name": video("wave.mp4", "not a video", make=sound),
    "a playlist": video("list.mp4", "not a video", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n"),
    "a list of files to join": video("concat.mp4", "not a video", b"ffconcat version 1.0\nfile /etc/passwd\n"),
    "an mp4 without its index": video("index.mp4", "not a video", make=without_its_index),
    "frames behind the end": video("nine.mp4", "has 9 frames, so none from start_frame 40 on", start_frame=40,
                                   make=lambda path: save_video(path, 9, 25)),
    "more frames than there are": video("nine.mp4", "has 9 frames from start_frame 0 on, not num_frames 17",
                                        num_frames=17, make=lambda path: save_video(path, 9, 25)),
    "an empty LoRA": lora("empty.safetensors", "empty; write it again", b""),
    "a header longer than the file": lora("long.safetensors", "not a complete safetensors file", header(b"{}", 2**60)),
    "a header that is no JSON": lora("words.safetensors", "not a complete safetensors file", header(b"{hello}")),
    "a LoRA without its data": lora("head.safetensors", "not a complete safetensors file", header(
        json.dumps({f"{Q}.lora_A.weight": {"dtype": "F32", "shape": [4, 32], "data_offsets": [0, 512]}}).encode())),
    "a pickle under a safe name": lora("pickle.safetensors", "a pickle under another name", b"\x80\x02}q\0."),
    "a web page saved as a LoRA": lora("page.safetensors", "", HTML),
    "an embedding": lora("word.safetensors", "emb_params: not a tensor of a LoRA",
                         make=lambda path: tensors(path, emb_params=torch.zeros(4, 32))),
    "a list of alphas": lora("alphas.safetensors", f"{Q}.alpha: 2 numbers, not one",
                             make=pair(A, B, alpha=torch.ones(2))),
    "rank 0": lora("none.safetensors", f"{Q}.lora_A.weight: has rank 0",
                   make=pair(torch.zeros(0, 32), torch.zeros(32, 0))),
    "whole numbers": lora("int.safetensors", f"{Q}.lora_A.weight: I8, not floating-point numbers",
                          make=pair(A.to(torch.int8), B.to(torch.int8))),
}  # fmt: skip
"""Odd files, by what they are."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    assert linear_layers(open_checkpoint(str(tiny.save_checkpoint(folder, "0.9.5", "LTXConditionPipeline"))))
    return folder


@pytest.mark.parametrize("odd", ODD)
def test_it_is_an_error_of_its_line_and_nothing_is_rendered(tmp_path: Path, model: Path, odd: str):
    case = ODD[odd]
    case.make(tmp_path)
    rows = [{"prompt": "p"}, {"prompt": "p", **case.row}, {"prompt": "p"}]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    settings = {"model.checkpoint": model} | {f"defaults.{key}": value for key, value in SMALL.items()}
    set_all = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    found = CliRunner().invoke(app, ["render", str(path), "-o", str(tmp_path / "out"), *set_all])
    assert found.exit_code == 2, found.output
    (line,) = found.stderr.splitlines()
    assert line.startswith(f"ltx-dist: {path}:2: ") and case.says.format(folder=tmp_path) in line
    assert not (tmp_path / "out").exists()


def test_there_are_forty():
    assert len(ODD) == 40
