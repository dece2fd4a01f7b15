"""render_key: the name does not change it, everything that changes the clip does."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from ltx_dist.inputs.config_file import load_config
from ltx_dist.pipeline.conditions import Condition, Lora, SecondPass
from ltx_dist.pipeline.keys import latents_key, render_key, render_keys
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.sound import SoundSecondPass, SoundSettings
from ltx_dist.pipeline.storage import PLAIN, UNTILED, DecodeTiling, Mp4Settings, Storage
from ltx_dist.placement.inventory import Inventory
from ltx_dist.run.batch import PlacedBatch, open_batch, place_batch

REQUEST = RenderRequest(
    request_id="001-a",
    prompt="a",
    negative_prompt="",
    height=128,
    width=128,
    num_frames=25,
    frame_rate=12.0,
    num_inference_steps=25,
    guidance_scale=3.0,
    guidance_rescale=0.0,
    seed=0,
    decode_timestep=0.05,
    decode_noise_scale=0.025,
    max_sequence_length=128,
)
DIGEST = {"vae": "00", "transformer": "11"}


def key(request: RenderRequest = REQUEST, digest: dict[str, str] = DIGEST, **changed: Any) -> str:
    arguments = {"pipeline_class": "LTXPipeline", "precision": "float32", "output": Mp4Settings(), **changed}
    return render_key(request, digest, **arguments)


def test_the_key_is_a_sha256_and_stays() -> None:
    assert key() == key()
    assert len(bytes.fromhex(key())) == 32


def test_keys_are_those_of_before_passes_could_be_shared() -> None:
    assert key(batch_size=1) == key() == "bb1d26acf97ef75ce24cf8740e75e1e6e2c87360cf0e1fe00b88525f713d0dca"
    assert (
        latents_key(REQUEST, DIGEST, "LTXPipeline", "float32", batch_size=1)
        == "10e1ce1471c1e181fbcf67e7cbfbbec6f9d4c14a1564cfc0bc6a10d699c580df"
    )
    assert (
        latents_key(REQUEST, DIGEST, "LTXPipeline", "float32", batch_size=2)
        != "10e1ce1471c1e181fbcf67e7cbfbbec6f9d4c14a1564cfc0bc6a10d699c580df"
    )


def test_the_name_does_not_change_the_key() -> None:
    assert key(replace(REQUEST, request_id="other")) == key()


PICTURE = Condition("/a.png", "00" * 32)
SOUND = SoundSettings(1.0, 3.0, 7.0, 0.7, 1.0, 3.0, (28,), (1.0, 0.725))
TWO_SOUND_PASSES = SoundSecondPass(256, 384, (0.909375, 0.725))
TWO_PASSES = SecondPass(448, 800, 4, (909.4, 725.0, 421.9), 0.75, 1.0, 0.0, 0.15)
OTHERS: dict[str, tuple[object, ...]] = {
    "timesteps": ((1000.0,), (1000.0, 500.0)),
    "conditions": ((PICTURE,), (PICTURE, replace(PICTURE, frame_index=8)), (replace(PICTURE, frame_index=8), PICTURE)),
    "video": (PICTURE, replace(PICTURE, start_frame=1)),
    "second_pass": (TWO_PASSES, replace(TWO_PASSES, adain_factor=0.5)),
    "sound": (SOUND, replace(SOUND, sigmas=None), replace(SOUND, spatio_temporal_guidance_blocks=())),
    "loras": ((Lora("/a", "00"), Lora("/b", "11")), (Lora("/b", "11"), Lora("/a", "00"))),
}
"""Values of the fields that are no text and no number; the two LoRAs are added up in another order."""


@pytest.mark.parametrize("field", [field.name for field in fields(RenderRequest) if field.name != "request_id"])
def test_every_other_field_of_the_request_changes_the_key(field: str) -> None:
    value = getattr(REQUEST, field)
    others = OTHERS.get(field) or (value + ("x" if isinstance(value, str) else 1),)
    assert len({key(), *(key(replace(REQUEST, **{field: other})) for other in others)}) == len(others) + 1


@pytest.mark.parametrize(("of", "field"), [
    (of, field.name) for of in (PICTURE, TWO_PASSES, TWO_SOUND_PASSES, SOUND, Lora("/a", "00")) for field in fields(of)
])  # fmt: skip
def test_every_field_of_what_a_clip_is_conditioned_on_changes_the_key_but_its_place(of: Any, field: str) -> None:
    names = {
        Condition: "video",
        SecondPass: "second_pass",
        SoundSecondPass: "second_pass",
        SoundSettings: "sound",
        Lora: "loras",
    }
    value = getattr(of, field)
    tuples = {"loras": (Lora("/a", "00"),)}
    changed = replace(
        of,
        **{
            field: tuples.get(field, (8.5,))
            if isinstance(value, tuple)
            else f"{value}x"
            if isinstance(value, str)
            else value + 1
        },
    )
    keys = [
        key(replace(REQUEST, **{names[type(of)]: (one,) if isinstance(of, Lora) else one})) for one in (of, changed)
    ]
    assert (keys[0] == keys[1]) == (field == "place")


def test_numbers_of_nested_settings_are_one_setting_as_int_and_float() -> None:
    ints = replace(TWO_PASSES, guidance_scale=1, timesteps=(909, 725), adain_factor=1)
    floats = replace(TWO_PASSES, guidance_scale=1.0, timesteps=(909.0, 725.0), adain_factor=1.0)
    assert key(replace(REQUEST, second_pass=ints)) == key(replace(REQUEST, second_pass=floats))


def test_no_decode_noise_scale_is_not_zero() -> None:
    assert len({key(replace(REQUEST, decode_noise_scale=scale)) for scale in (None, 0.0, 0.025)}) == 3


def test_an_int_and_the_equal_float_are_one_setting() -> None:
    assert key(replace(REQUEST, frame_rate=12)) == key()


def test_order_of_the_digest_does_not_matter_and_its_content_does() -> None:
    assert key(digest={"transformer": "11", "vae": "00"}) == key()
    assert key(digest={"transformer": "11", "vae": "01"}) != key()


@pytest.mark.parametrize(
    "changed",
    [
        {"pipeline_class": "LTXConditionPipeline"},
        {"precision": "bfloat16"},
        {"output": Mp4Settings(crf=18)},
        {"output": Mp4Settings(preset="slow")},
        {"output": Mp4Settings(threads=1)},
        {"batch_size": 2},
    ],
)
def test_all_else_that_decides_the_clip_changes_the_key(changed: dict[str, Any]) -> None:
    assert key(**changed) != key()


def test_a_clip_in_tiles_that_auto_could_have_chosen_is_kept(tmp_path: Path) -> None:
    """The devices and the largest clip of the batch decide which: neither is a reason to make a clip again."""
    prompts = tmp_path / "p.jsonl"
    prompts.write_text('{"prompt": "a", "width": 640, "height": 384}\n')

    def placed(**decode: str) -> PlacedBatch:
        settings = ["placement.device=cpu", *(f"decode.{name}={value}" for name, value in decode.items())]
        return place_batch(open_batch(str(prompts), load_config(None, settings)), Inventory((), 2))

    auto = placed()
    (request,) = auto.batch.requests
    assert auto.placement.tiling == UNTILED
    for tiling in (DecodeTiling(512, None), DecodeTiling(256, 16)):
        (found,) = auto.render_keys(request, [tiling])
        assert found != auto.render_key(request) and auto.key_to_keep(request, found) == found
        off = placed(tile_size="off", tile_frames="off")
        assert off.key_to_keep(request, found) == off.render_key(request) == auto.render_key(request)
        other = placed(tile_size="384")
        assert other.key_to_keep(request, found) == other.render_key(request) != found, "this one was asked for"
    uncut = DecodeTiling(640, None)
    assert [*auto.render_keys(request, [uncut])] == [auto.render_key(request)], "a tile that cuts nothing is none"
    for foreign in (None, "0" * 64):
        assert auto.key_to_keep(request, foreign) == auto.render_key(request)


def test_keys_of_tilings_are_the_keys() -> None:
    """Stays as it was when each was made by itself."""
    strange = replace(REQUEST, prompt='"tiling":null, and "tiling":{}')
    tilings = [UNTILED, DecodeTiling(512, None), DecodeTiling(None, 64), DecodeTiling(256, 16)]
    keys = [*render_keys(strange, DIGEST, "LTXPipeline", "float32", Mp4Settings(), PLAIN, tilings, 1)]
    assert len(set(keys)) == 4 and keys == [key(strange, tiling=tiling) for tiling in tilings]
    assert key(tiling=DecodeTiling(512, 64)) == "63d55492a4db40c7a67723570b000c38ca132549de3612ae9fdbb9cdd8254126"


SIX_UNLIKE = {
    "plain": (replace(REQUEST), {}),
    "without guidance": (replace(REQUEST, guidance_scale=1.0, prompt="b", seed=7), {}),
    "its own timesteps": (
        replace(REQUEST, timesteps=(1000.0, 500.0), num_inference_steps=2),
        {"precision": "bfloat16"},
    ),
    "float8 and int8": (REQUEST, {"storage": Storage(transformer="float8", text_encoder="int8")}),
    "in tiles, VAE in float32": (REQUEST, {"storage": Storage(vae="float32"), "tiling": DecodeTiling(512, 64)}),
    "shared passes, lossless": (replace(REQUEST, prompt="c"), {"batch_size": 4, "output": Mp4Settings(crf=0)}),
}
"""Recorded: a refactoring must not change these keys, or every clip of every user is rendered again."""

KEYS_OF_SIX = {
    "plain": "bb1d26acf97ef75ce24cf8740e75e1e6e2c87360cf0e1fe00b88525f713d0dca",
    "without guidance": "a1d102ccf1d40f1963f075c45d69518e1e12c16fdf0658b1e6893f59bec350b7",
    "its own timesteps": "99e981f2a47db62533f8fdc6cff59b6779f5e6f87898f4b2b3c1e1444f494ab6",
    "float8 and int8": "470c373b2b4738bc39b7da196efaed21e8cab3d0a3beda683791dd6d8907b34f",
    "in tiles, VAE in float32": "11d1922d15a7287205a97896dbbffd0c281da069f619e4d29ff2d6c8e5aa310b",
    "shared passes, lossless": "2ec4194ae392f942a54776d6d91315d61cfb01db21c47d99561f4c1cabdf826c",
}


@pytest.mark.parametrize("name", SIX_UNLIKE)
def test_keys_are_those_recorded(name: str):
    request, changed = SIX_UNLIKE[name]
    assert key(request, **changed) == KEYS_OF_SIX[name]
