"""Keys of stages: each changes with what its stage reads and with the keys of its inputs, and with nothing else."""

from __future__ import annotations

import inspect
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltx_dist.inputs.config_file import load_config
from ltx_dist.models.family import FAMILIES, Family
from ltx_dist.pipeline.conditions import Condition, Lora, SecondPass
from ltx_dist.pipeline.keys import BatchKeys, Making, render_key, stage_keys
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.sound import SoundSecondPass, SoundSettings
from ltx_dist.pipeline.storage import UNTILED, DecodeTiling, Mp4Settings, Storage
from ltx_dist.placement.inventory import Inventory
from ltx_dist.run.batch import open_batch
from ltx_dist.run.placed_batch import PlacedBatch, place_batch

LTX_VIDEO, LTX2 = FAMILIES

REQUEST = RenderRequest(
    request_id="001-a",
    prompt="a",
    negative_prompt="bad",
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
PICTURE = Condition("/a.png", "00" * 32)
SOUND = SoundSettings(1.0, 3.0, 7.0, 0.7, 1.0, 3.0, (28,), (1.0, 0.725))
TWO_SOUND_PASSES = SoundSecondPass(64, 64, (0.909375, 0.725))
TWO_PASSES = SecondPass(64, 64, 4, (909.4, 725.0, 421.9), 0.75, 1.0, 0.0, 0.15)
WITH_SOUND = replace(REQUEST, sound=SOUND)
BASE = {"ltx_video": REQUEST, "ltx2": WITH_SOUND}

PARTS = (
    "text_encoder", "connectors", "transformer", "vae", "audio_vae", "vocoder", "latent_upsampler", "scheduler",
    "tokenizer",
)  # fmt: skip


def making(family: Family = LTX_VIDEO, **changed: Any) -> Making:
    given: dict[str, Any] = {
        "recipe": family.recipe,
        "digest": {part: f"{number:02x}" for number, part in enumerate(PARTS)},
        "pipeline_class": family.pipeline_classes[0],
        "ratios": (32, 8),
        "precision": "float32",
        "part_of": {component.name: component.part for component in family.components if component.part},
    }
    return Making(**(given | changed))


def keys(
    request: RenderRequest = REQUEST, family: Family = LTX_VIDEO, tiling: DecodeTiling = UNTILED, **changed: Any
) -> dict[str, str]:
    return stage_keys(making(family, **changed), request, tiling)


def key(request: RenderRequest = REQUEST, family: Family = LTX_VIDEO, **changed: Any) -> str:
    return render_key(keys(request, family, **changed))


def changed_stages(one: dict[str, str], other: dict[str, str]) -> set[str]:
    return {stage for stage in one.keys() | other.keys() if one.get(stage) != other.get(stage)}


def test_there_is_a_sha256_for_each_stage_and_the_last_is_the_clips() -> None:
    found = keys()
    assert list(found) == ["encode_text", "denoise", "decode", "encode_video"] and found == keys()
    assert all(len(bytes.fromhex(one)) == 32 for one in found.values())
    assert key() == found["encode_video"]


def test_the_name_changes_no_key() -> None:
    assert keys(replace(REQUEST, request_id="other")) == keys()


def test_prompts_are_encoded_for_all_seeds_and_images_for_all_prompts() -> None:
    of_image = replace(REQUEST, conditions=(PICTURE,))
    for family, request in ((LTX_VIDEO, of_image), (LTX2, replace(of_image, sound=SOUND))):
        first = keys(request, family)
        seeded = keys(replace(request, seed=7, guidance_scale=5.0, num_inference_steps=3), family)
        assert first["encode_text"] == seeded["encode_text"] and first["denoise"] != seeded["denoise"]
        prompted = keys(replace(request, prompt="b", negative_prompt="c", seed=8), family)
        assert first["encode_image"] == prompted["encode_image"] and first["encode_text"] != prompted["encode_text"]


def test_settings_of_decoding_do_not_change_the_latents() -> None:
    changed = replace(REQUEST, decode_timestep=0.5, decode_noise_scale=None)
    assert changed_stages(keys(), keys(changed)) == {"decode", "encode_video"}


def test_a_negative_prompt_that_is_not_used_is_no_setting() -> None:
    unguided = replace(REQUEST, guidance_scale=1.0)
    assert keys(unguided) == keys(replace(unguided, negative_prompt="other"))
    assert key() != key(replace(REQUEST, negative_prompt="other"))


OTHERS: dict[str, tuple[object, ...]] = {
    "timesteps": (None, (1000.0,), (1000.0, 500.0)),
    "conditions": ((), (PICTURE,), (PICTURE, replace(PICTURE, frame_index=8)), (replace(PICTURE, strength=0.5),)),
    "video": (None, PICTURE, replace(PICTURE, start_frame=1)),
    "second_pass": (None, TWO_PASSES, replace(TWO_PASSES, adain_factor=0.5)),
    "loras": ((), (Lora("/a", "00"), Lora("/b", "11")), (Lora("/b", "11"), Lora("/a", "00"))),
    "decode_noise_scale": (None, 0.0, 0.025),
    "prompt": ("a", "b"),
    "negative_prompt": ("bad", "worse"),
    "guidance_scale": (1.0, 3.0, 4.0),
}
"""Values for these fields (the two LoRAs in both orders); all other fields get two numbers."""

OF_SOUND = OTHERS | {
    "second_pass": (None, TWO_SOUND_PASSES, replace(TWO_SOUND_PASSES, audio="first")),
    "sound": (SOUND, replace(SOUND, audio_guidance_scale=1.0), replace(SOUND, sigmas=None)),
}
NAMES = [field.name for field in fields(RenderRequest)]


def values(family: Family, name: str) -> tuple[object, ...]:
    others = OTHERS if family is LTX_VIDEO else OF_SOUND
    if name in others:
        return others[name]
    value = getattr(BASE[family.name], name)
    if isinstance(value, int | float):
        return value, value * 2 + 1
    return (value,) if value is None else (value, f"{value}x")


@st.composite
def requests(draw: st.DrawFn, family: Family) -> RenderRequest:
    drawn = {name: draw(st.sampled_from(values(family, name))) for name in NAMES}
    return replace(BASE[family.name], **drawn)


def reading(family: Family, one: RenderRequest, other: RenderRequest) -> set[str]:
    """The stages that read what differs between the two, and all later ones, by the recipe's table."""
    found: set[str] = set()
    for stage in family.recipe:
        runs = [stage.name in family.recipe.of(request) for request in (one, other)]
        inputs = [family.recipe.reads(stage.name, family.recipe.of(request)) for request in (one, other)]
        differs = any(getattr(one, name) != getattr(other, name) for name in stage.settings)
        if any(runs) and (runs[0] != runs[1] or differs or inputs[0] != inputs[1] or found & inputs[0]):
            found.add(stage.name)
    return found


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_setting_changes_the_keys_of_the_stages_that_read_it_and_of_those_after(
    family: Family, data: st.DataObject
) -> None:
    request = data.draw(requests(family))
    name = data.draw(st.sampled_from(NAMES))
    other = replace(request, **{name: data.draw(st.sampled_from(values(family, name)))})
    assert changed_stages(keys(request, family), keys(other, family)) == reading(family, request, other)


NOT_READ = {
    "ltx_video": {"request_id", "sound"},
    "ltx2": {
        "request_id", "timesteps", "image_cond_noise_scale", "video", "denoise_strength", "decode_timestep",
        "decode_noise_scale",
    },
}  # fmt: skip
"""Fields that no stage of the family reads; its rows cannot set them."""


def relevant(family: Family, request: RenderRequest) -> tuple[object, ...]:
    """All that may change the clip: everything but what the family lacks, and a negative prompt that is not used."""
    names = [name for name in NAMES if name not in NOT_READ[family.name] | {"negative_prompt"}]
    return (*(getattr(request, name) for name in names), request.used_negative_prompt)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_equal_keys_are_equal_clips_and_unequal_ones_are_not(family: Family, data: st.DataObject) -> None:
    one = data.draw(requests(family))
    few = data.draw(st.lists(st.sampled_from(NAMES), max_size=2))
    other = replace(one, **{name: data.draw(st.sampled_from(values(family, name))) for name in few})
    is_same = relevant(family, one) == relevant(family, other)
    assert (key(one, family) == key(other, family)) == is_same


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("name", NAMES)
def test_every_field_of_a_request_changes_the_key_but_those_that_the_family_lacks(family: Family, name: str) -> None:
    if name == "sound" and family is LTX_VIDEO:
        return
    base = replace(BASE[family.name], second_pass=None)
    found = {key(replace(base, **{name: value}), family) for value in values(family, name)}
    assert len(found) == (1 if name in NOT_READ[family.name] else len(values(family, name)))


@pytest.mark.parametrize(("of", "field"), [
    (of, field.name) for of in (PICTURE, TWO_PASSES, TWO_SOUND_PASSES, SOUND, Lora("/a", "00")) for field in fields(of)
])  # fmt: skip
def test_every_field_of_what_a_clip_is_conditioned_on_changes_the_key_but_its_place(of: Any, field: str) -> None:
    names = {
        Condition: "conditions",
        SecondPass: "second_pass",
        SoundSecondPass: "second_pass",
        SoundSettings: "sound",
        Lora: "loras",
    }
    family = LTX2 if isinstance(of, SoundSecondPass | SoundSettings) else LTX_VIDEO
    value = getattr(of, field)
    several = (Lora("/a", "00"),) if field == "loras" else (8.5,)
    other = several if isinstance(value, tuple) else f"{value}x" if isinstance(value, str) else value + 1
    many = isinstance(of, Lora | Condition)
    found = [
        key(replace(BASE[family.name], **{names[type(of)]: (one,) if many else one}), family)
        for one in (of, replace(of, **{field: other}))
    ]
    assert (found[0] == found[1]) == (field == "place")


def test_numbers_are_one_setting_as_int_and_float() -> None:
    assert key(replace(REQUEST, frame_rate=12)) == key()
    ints = replace(TWO_PASSES, guidance_scale=1, timesteps=(909, 725), adain_factor=1)
    floats = replace(TWO_PASSES, guidance_scale=1.0, timesteps=(909.0, 725.0), adain_factor=1.0)
    assert key(replace(REQUEST, second_pass=ints)) == key(replace(REQUEST, second_pass=floats))


def test_the_order_of_digests_does_not_matter() -> None:
    digest = making().digest
    assert keys(digest=dict(reversed(digest.items()))) == keys()


FULL = replace(REQUEST, conditions=(PICTURE,), second_pass=TWO_PASSES)
FULL_SOUND = replace(WITH_SOUND, conditions=(PICTURE,), second_pass=TWO_SOUND_PASSES)
ALL = {"encode_text", "encode_image", "denoise", "refine", "decode", "encode_video"}
FROM_DENOISE, FROM_REFINE, FROM_DECODE = ALL - {"encode_text", "encode_image"}, {"refine"}, {"decode", "encode_video"}
CHANGES: list[tuple[Family, dict[str, Any], set[str]]] = [
    *((family, {"pipeline_class": "Other"}, ALL) for family in FAMILIES),
    *((family, {"precision": "bfloat16"}, ALL) for family in FAMILIES),
    *((family, {"ratios": (16, 8)}, ALL) for family in FAMILIES),
    *((family, {"mp4": Mp4Settings(crf=18)}, {"encode_video"}) for family in FAMILIES),
    *((family, {"mp4": Mp4Settings(threads=1)}, {"encode_video"}) for family in FAMILIES),
    *((family, {"tiling": DecodeTiling(512, 64)}, FROM_DECODE) for family in FAMILIES),
    *((family, {"storage": Storage(transformer="float8")}, FROM_DENOISE) for family in FAMILIES),
    *((family, {"storage": Storage(text_encoder="int8")}, ALL - {"encode_image"}) for family in FAMILIES),
    (LTX_VIDEO, {"storage": Storage(vae="float16")}, ALL - {"encode_text"}),
    (LTX_VIDEO, {"batch_size": 2}, ALL - {"encode_image"}),
    (LTX_VIDEO, {"mp4": Mp4Settings(audio="alac")}, set()),
    (LTX2, {"mp4": Mp4Settings(audio="alac")}, {"encode_video"}),
    (LTX2, {"mp4": Mp4Settings(pad_audio=False)}, {"encode_video"}),
    (LTX2, {"batch_size": 2}, set()),
]
PARTS_CHANGE = {
    ("ltx_video", "text_encoder"): ALL - {"encode_image"},
    ("ltx_video", "tokenizer"): ALL - {"encode_image"},
    ("ltx_video", "scheduler"): FROM_DENOISE,
    ("ltx_video", "transformer"): FROM_DENOISE,
    ("ltx_video", "latent_upsampler"): FROM_REFINE | FROM_DECODE,
    ("ltx_video", "vae"): ALL - {"encode_text"},
    ("ltx2", "connectors"): ALL - {"encode_image"},
    ("ltx2", "vae"): ALL - {"encode_text"},
    ("ltx2", "audio_vae"): FROM_DENOISE,
    ("ltx2", "vocoder"): FROM_DECODE,
    ("ltx2", "latent_upsampler"): FROM_REFINE | FROM_DECODE,
}


@pytest.mark.parametrize(
    ("family", "changed", "expected"), CHANGES, ids=[f"{family.name} {changed}" for family, changed, _ in CHANGES]
)
def test_what_a_run_is_made_with_changes_the_stages_that_it_concerns(
    family: Family, changed: dict[str, Any], expected: set[str]
) -> None:
    full = FULL if family is LTX_VIDEO else FULL_SOUND
    assert changed_stages(keys(full, family), keys(full, family, **changed)) == expected


@pytest.mark.parametrize(("name", "part"), PARTS_CHANGE)
def test_weights_change_the_stages_that_read_them(name: str, part: str) -> None:
    family = LTX_VIDEO if name == "ltx_video" else LTX2
    full = FULL if family is LTX_VIDEO else FULL_SOUND
    other = keys(full, family, digest={**making().digest, part: "other"})
    assert changed_stages(keys(full, family), other) == PARTS_CHANGE[name, part]


def test_a_clip_of_text_and_one_pass_knows_no_encoder_of_images_and_no_upsampler() -> None:
    """This keeps latents valid with another VAE, and a whole clip with another upsampler."""
    assert changed_stages(keys(), keys(digest={**making().digest, "vae": "other"})) == FROM_DECODE
    assert changed_stages(keys(), keys(storage=Storage(vae="float16"))) == FROM_DECODE
    assert keys() == keys(digest={**making().digest, "latent_upsampler": "other"})


def test_every_setting_of_storage_and_of_the_mp4_is_in_the_key() -> None:
    """So a new setting that is missing in the key is found here, and not by a user."""
    for name, options in (
        (name, get_args(kind)) for name, kind in inspect.get_annotations(Storage, eval_str=True).items()
    ):
        assert len({key(FULL, storage=Storage(**{name: option})) for option in options}) == len(options), name
    for field in fields(Mp4Settings):
        value = getattr(Mp4Settings(), field.name)
        other = not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else f"{value}x"
        changed = replace(Mp4Settings(), **{field.name: other})
        assert key(WITH_SOUND, LTX2, mp4=changed) != key(WITH_SOUND, LTX2), field.name


def test_a_request_of_a_batch_has_one_set_of_keys_and_a_tile_that_cuts_nothing_is_none() -> None:
    batch = BatchKeys(making(), DecodeTiling(512, None))
    assert batch.of(REQUEST) is batch.of(REQUEST) and batch.of(REQUEST) == keys()
    large = replace(REQUEST, request_id="002-b", width=640)
    tilings = [UNTILED, DecodeTiling(640, None), DecodeTiling(256, 16)]
    uncut, same, cut = batch.in_tilings(large, tilings)
    assert uncut == same == key(large) != batch.render_key(large) == key(large, tiling=DecodeTiling(512, None))
    assert cut == key(large, tiling=DecodeTiling(256, 16))


def test_a_clip_in_tiles_that_auto_could_have_chosen_is_kept(tmp_path: Path) -> None:
    """The tiles depend on the devices and on the batch's largest clip, neither of which is a reason to redo a clip."""
    prompts = tmp_path / "p.jsonl"
    prompts.write_text('{"prompt": "a", "width": 640, "height": 384}\n')

    def placed(**decode: str) -> PlacedBatch:
        settings = ["placement.device=cpu", *(f"decode.{name}={value}" for name, value in decode.items())]
        return place_batch(open_batch(str(prompts), load_config(None, settings)), Inventory((), 2))

    auto = placed()
    (request,) = auto.batch.requests
    planned = auto.keys.render_key(request)
    assert auto.placement.tiling == UNTILED
    for tiling in (DecodeTiling(512, None), DecodeTiling(256, 16)):
        (found,) = auto.keys.in_tilings(request, [tiling])
        assert found != planned and auto.key_to_keep(request, found) == found
        off = placed(tile_size="off", tile_frames="off")
        assert off.key_to_keep(request, found) == off.keys.render_key(request) == planned
        other = placed(tile_size="384")
        assert other.key_to_keep(request, found) == other.keys.render_key(request) != found, "this one was asked for"
    for foreign in (None, "0" * 64):
        assert auto.key_to_keep(request, foreign) == planned


SIX_UNLIKE: dict[str, tuple[RenderRequest, Family, dict[str, Any]]] = {
    "plain": (REQUEST, LTX_VIDEO, {}),
    "without guidance": (replace(REQUEST, guidance_scale=1.0, prompt="b", seed=7), LTX_VIDEO, {}),
    "two passes from an image": (FULL, LTX_VIDEO, {"precision": "bfloat16"}),
    "float8, int8, in tiles": (
        REQUEST,
        LTX_VIDEO,
        {"storage": Storage("float8", "int8"), "tiling": DecodeTiling(512, 64)},
    ),
    "shared passes, lossless": (replace(REQUEST, prompt="c"), LTX_VIDEO, {"batch_size": 4, "mp4": Mp4Settings(crf=0)}),
    "with sound": (FULL_SOUND, LTX2, {}),
}
"""Recorded keys: if a refactoring changed them, every clip of every user would be rendered again."""

KEYS_OF_SIX = {
    "plain": "7a0122b3dab29eda0feea18372348bce0d40cb34556044f72dcb5ee103a6bffb",
    "without guidance": "090700d92b18738f79d2e72846745fbd8b6bbbec65e9ec45036752b3a94c8d00",
    "two passes from an image": "6b793fb38a26af564560cd164d1fb55d51fadd1199c6ab86bf4ef1d38a6b25ec",
    "float8, int8, in tiles": "638461b98ef811799f466cf2a2c2d54a85b5ca298395b36f6e5e6c44f1a37bce",
    "shared passes, lossless": "203c8a0592ae52935d3c95b204db7c36ea57e8b4d7996ca69ce3f520b85b0fd7",
    "with sound": "8b14e51faa47e4be69db02f280db5cf1f6ee4df9f5ae1143c546eb2f03bdfe96",
}


@pytest.mark.parametrize("name", SIX_UNLIKE)
def test_keys_are_those_recorded(name: str) -> None:
    request, family, changed = SIX_UNLIKE[name]
    assert key(request, family, **changed) == KEYS_OF_SIX[name]
