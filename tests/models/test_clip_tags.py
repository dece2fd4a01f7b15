"""What other programs read from a clip: its tags, as FFmpeg and the format of boxes have them."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import av
import numpy as np
import pytest
from builders import make_request

from ltx_dist.media.mp4 import encode_video
from ltx_dist.models.encode_video import clip_tags
from ltx_dist.pipeline.conditions import Condition, Lora
from ltx_dist.pipeline.sound import SoundSecondPass
from ltx_dist.pipeline.storage import Mp4Settings

REQUEST = make_request(
    "coast/storm", prompt='a "red" circle; été, 圆', negative_prompt="blurry", seed=7, frame_rate=24.0
)


def mp4(tags: dict[str, str]) -> bytes:
    frames = [np.full((32, 32, 3), 90, np.uint8)] * 5
    return encode_video(
        frames, height=32, width=32, num_frames=5, frame_rate=24.0, output=Mp4Settings(), metadata=tags
    ).mp4


@pytest.mark.fault(29)
def test_the_comment_is_one_flat_json_with_every_setting():
    told = json.loads(clip_tags(REQUEST, "Lightricks/LTX-Video-0.9.7-dev@abc", "key")["comment"])
    assert (told["prompt"], told["seed"], told["num_frames"]) == (REQUEST.prompt, 7, 9)
    assert (told["name"], told["model"], told["render_key"]) == ("coast/storm", "LTX-Video-0.9.7-dev", "key")
    assert "conditions" not in told and "second_pass" not in told
    assert not any(isinstance(value, dict | list) for value in told.values())


def test_what_only_some_clips_have_is_told_of_these():
    image = Condition("lamp.jpg", "12ab")
    told = json.loads(clip_tags(replace(REQUEST, conditions=(image,)), "demo", "key")["comment"])
    assert told["conditions"][0]["sha256"] == "12ab" and told["conditions"][0]["frame_index"] == 0


def test_the_folders_of_a_local_checkpoint_are_not_told():
    tags = clip_tags(REQUEST, "/home/me/secret/ltxv-13b.safetensors", "key")
    assert json.loads(tags["comment"])["model"] == "ltxv-13b" and "secret" not in str(tags)


def test_neither_are_those_of_media_and_loras():
    request = replace(
        REQUEST,
        conditions=(Condition("/home/me/secret/lamp.jpg", "12ab"),),
        video=Condition("https://secret.example/in/boat.mp4?token=secret#secret", "34cd", is_video=True),
        loras=(Lora("/home/me/secret/style.safetensors", "56ef"),),
        second_pass=SoundSecondPass(32, 32, (0.9,), loras=(Lora("/home/me/secret/more.safetensors", "78ab"),)),
    )
    tags = clip_tags(request, "demo", "key")
    told = json.loads(tags["comment"])
    assert "secret" not in str(tags)
    assert (told["conditions"][0]["place"], told["video"]["place"]) == ("lamp.jpg", "boat.mp4")
    assert (told["loras"][0]["place"], told["second_pass"]["loras"][0]["place"]) == (
        "style.safetensors", "more.safetensors",
    )  # fmt: skip
    assert told["second_pass"]["sigmas"] == [0.9] and told["loras"][0]["sha256"] == "56ef"


def test_parameters_are_as_automatic1111_writes_them():
    assert clip_tags(REQUEST, "demo", "key")["parameters"] == (
        'a "red" circle; été, 圆\nNegative prompt: blurry\n'
        "Steps: 8, CFG scale: 3, Seed: 7, Size: 64x64, Model: demo, Frames: 9, FPS: 24"
    )
    without = clip_tags(replace(REQUEST, negative_prompt=""), "demo", "key")["parameters"]
    assert without.splitlines()[1].startswith("Steps: 8, ")


def test_tags_are_plain_texts_in_the_file():
    tags = clip_tags(REQUEST, "demo", "key")
    with av.open(io.BytesIO(mp4(tags))) as container:
        assert {name: container.metadata[name] for name in tags} == tags
        assert "prompt" not in container.metadata, "ComfyUI's readers would take it for a graph"


def test_readers_of_boxes_find_the_names_as_keys():
    """The tags are in moov/udta/meta/keys, because ComfyUI's page reads no others."""
    content = mp4(clip_tags(REQUEST, "demo", "key"))
    moov = content[content.index(b"moov") : content.index(b"mdat")]
    keys = moov[moov.index(b"keys") :]
    assert moov.index(b"udta") < moov.index(b"meta") < moov.index(b"keys")
    assert all(b"mdta" + name in keys for name in (b"title", b"comment", b"parameters"))
