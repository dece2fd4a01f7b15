"""Predicted bytes and operations equal those of the real classes at full size, which take no memory here."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import pytest
import tiny_ltx2 as tiny
import torch
import transformers
from diffusers.pipelines import ltx2
from torch.utils.flop_counter import FlopCounterMode

from ltx_dist.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ltx_dist.estimates.flops import decode_flops, upsample_flops
from ltx_dist.models.ltx2 import estimates, flops, working_sets
from ltx_dist.models.ltx2.passes import passes
from ltx_dist.pipeline.conditions import Condition
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import PLAIN, Storage
from ltx_dist.strict_files import read_json

sys.path[:0] = [str(Path(__file__).parents[3] / folder) for folder in ("benchmarks", "tools")]
from ltx2_configs import CLASSES, FULL, TEXT_ENCODER_CLASSES, VOCODER_CLASSES, text_encoder_config  # noqa: E402
from working_sets import fake_tensors, peak_of  # noqa: E402

META = torch.device("meta")
DTYPES = {2: torch.bfloat16, 4: torch.float32}
RATIOS = (32, 8)
PARTS = ("transformer", "connectors", "vae", "vae_encoder", "audio_vae", "vocoder", "latent_upsampler", "text_encoder")


@pytest.fixture(scope="module", params=tiny.VERSIONS)
def version(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module")
def checkpoint(version: Any, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A full-size checkpoint that consists only of headers."""
    folder = tmp_path_factory.mktemp("full") / version
    return open_checkpoint(str(tiny.make_checkpoint(version, folder, tiny=False, holes=True)))


@cache
def full_size(version: Any, component: str) -> Any:
    config = FULL[version].get(component, {})
    with META:
        if component == "text_encoder":
            return getattr(transformers, TEXT_ENCODER_CLASSES[version])(text_encoder_config(version, tiny=False))
        name = VOCODER_CLASSES[version] if component == "vocoder" else CLASSES[component]
        return (getattr(diffusers, name, None) or getattr(ltx2, name))(**config)


def configs(checkpoint: Checkpoint) -> dict[str, Any]:
    return {part: read_json(checkpoint.folder(part) / "config.json") for part in PARTS}


def elements(module: torch.nn.Module) -> int:
    """The number of elements that are stored; tied tensors count once."""
    return sum({id(tensor): tensor.numel() for tensor in module.state_dict(keep_vars=True).values()}.values())


def request(**changes: object) -> RenderRequest:
    return tiny.make_request(height=512, width=768, num_frames=121, max_sequence_length=1024, **changes)


def test_weights_are_those_of_the_real_classes_within_a_thousandth(version: Any, checkpoint: Checkpoint) -> None:
    found = estimates.weight_bytes(configs(checkpoint), checkpoint.num_loaded(), "bfloat16", PLAIN)
    vae, audio = full_size(version, "vae"), full_size(version, "audio_vae")
    expected = {
        "transformer": 2 * elements(full_size(version, "transformer")),
        "connectors": 2 * elements(full_size(version, "connectors")),
        "latent_upsampler": 2 * elements(full_size(version, "latent_upsampler")),
        "vae": 2 * elements(vae.decoder),
        "vae_encoder": 2 * elements(vae.encoder),
        "audio_vae": 4 * elements(audio.decoder),
        "vocoder": 4 * elements(full_size(version, "vocoder")),
        "text_encoder": 2 * elements(full_size(version, "text_encoder").model.language_model),
    }
    for name, num_bytes in expected.items():
        assert found[name].total == pytest.approx(num_bytes, rel=1e-3), name
    transformer = full_size(version, "transformer").transformer_blocks
    assert found["transformer"].num_blocks == len(transformer) == 48
    assert found["transformer"].block == 2 * elements(transformer[0])
    layers = [2 * elements(layer) for layer in full_size(version, "text_encoder").model.language_model.layers]
    encoder = found["text_encoder"]
    streamed = encoder.total - (encoder.num_blocks - 2) * encoder.block
    around = expected["text_encoder"] - sum(layers)
    assert streamed == pytest.approx(around + 2 * max(layers), rel=1e-3), "what surrounds the blocks and two of them"


def test_fewer_bits_take_fewer_bytes(version: Any, checkpoint: Checkpoint) -> None:
    parts, loaded = configs(checkpoint), checkpoint.num_loaded()
    plain = estimates.weight_bytes(parts, loaded, "bfloat16", PLAIN)
    small = estimates.weight_bytes(parts, loaded, "bfloat16", Storage(transformer="float8", text_encoder="int8"))
    assert small["transformer"].total < 0.53 * plain["transformer"].total
    assert small["text_encoder"].num_blocks == 0, "a quantised layer does not pass through in blocks"
    layers = [elements_of_layer(layer) for layer in full_size(version, "transformer").modules()]
    assert (plain["transformer"].cast_layer, small["transformer"].cast_layer) == (0, 2 * max(layers))


@pytest.mark.parametrize(("storage", "per_weight"), [("int8", 1.0), ("int4", 1 / 2 + 1 / 64 + 4 / (64 * 256))])
def test_a_quantised_text_encoder_takes_what_its_layers_are_stored_in(
    version: Any, checkpoint: Checkpoint, storage: Any, per_weight: float
) -> None:
    """All linear layers of the language model, which are in its blocks, are quantised; the rest stays in 16 bits."""
    language = full_size(version, "text_encoder").model.language_model
    linear = [module for module in language.layers.modules() if isinstance(module, torch.nn.Linear)]
    in_linear, scales = sum(map(elements, linear)), sum(4 * layer.out_features for layer in linear)
    expected = per_weight * in_linear + 2 * (elements(language) - in_linear) + (scales if storage == "int8" else 0)
    found = estimates.weight_bytes(
        configs(checkpoint), checkpoint.num_loaded(), "bfloat16", Storage(text_encoder=storage)
    )
    assert expected <= found["text_encoder"].total <= 1.01 * expected
    assert found["text_encoder"].cast_layer == 2 * max(map(elements, linear))


def elements_of_layer(layer: Any) -> int:
    return sum(one.numel() for one in layer.parameters(recurse=False))


TRANSFORMER_SHAPES = [(16, 16, 24, 126, 1024), (16, 22, 38, 126, 1024), (4, 17, 30, 30, 256)]


@pytest.mark.parametrize("per_token", [False, True], ids=["one timestep", "a timestep per token"])
@pytest.mark.parametrize("shape", TRANSFORMER_SHAPES, ids=str)
def test_operations_of_the_transformer(version: Any, shape: tuple[int, ...], per_token: bool) -> None:
    config = FULL[version]["transformer"] | {"num_layers": 2, "rope_double_precision": False}
    frames, height, width, sound, text = shape
    with META:
        model = diffusers.LTX2VideoTransformer3DModel(**config).to(torch.bfloat16)
        counted = _flops(
            lambda: tiny.call_transformer(model, version, frames, height, width, sound, text, 1, per_token, META)
        )
    predicted = flops.transformer_flops(dict(model.config), frames * height * width, sound, text, per_token)
    assert predicted == pytest.approx(counted, rel=0.02)


@pytest.mark.parametrize("latents", [(4, 8, 12), (16, 16, 24)], ids=str)
def test_operations_of_both_halves_of_the_vae_and_of_the_upsampler(version: Any, latents: tuple[int, int, int]) -> None:
    vae, upsampler = full_size(version, "vae"), full_size(version, "latent_upsampler")
    counted = _flops(lambda: vae.decoder(torch.empty(1, 128, *latents, device=META)))
    assert decode_flops(vae.config, *latents) == pytest.approx(counted, rel=0.02)
    frames, height, width = 8 * latents[0] - 7, 32 * latents[1], 32 * latents[2]
    counted = _flops(lambda: vae.encoder(torch.empty(1, 3, frames, height, width, device=META)))
    predicted = flops.encoder_flops(vae.config, frames, height // 4, width // 4)
    assert predicted == pytest.approx(counted, rel=0.1)
    counted = _flops(lambda: upsampler(torch.empty(1, 128, *latents, device=META)))
    assert upsample_flops(upsampler.config, *latents) == pytest.approx(counted, rel=0.02)


def test_operations_of_the_text_encoder_and_the_connectors(version: Any) -> None:
    with META:
        connectors = ltx2.LTX2TextConnectors(**FULL[version]["connectors"] | {"rope_double_precision": False})
    states, mask = torch.empty(1, 1024, 3840 * 49, device=META), torch.empty(1, 1024, device=META, dtype=torch.int64)
    counted = _flops(lambda: connectors(states, mask))
    assert flops.connectors_flops(connectors.config, 1024) == pytest.approx(counted, rel=0.05)
    config = text_encoder_config(version, tiny=False)
    # 22 TFLOP for 1,024 tokens: two for each of some 10.7 billion parameters of the layers, and attention.
    layers = sum(map(elements, full_size(version, "text_encoder").model.language_model.layers))
    predicted = flops.text_flops(config.to_dict(), 1024)
    assert predicted == pytest.approx(2 * 1024 * layers, rel=0.08)


@pytest.mark.parametrize("element", DTYPES)
@pytest.mark.parametrize("per_token", [False, True], ids=["one timestep", "a timestep per token"])
def test_working_set_of_denoising(version: Any, per_token: bool, element: int) -> None:
    conditions = (Condition("/a", "00"),) if per_token else ()
    clip = request(conditions=conditions)
    config = FULL[version]["transformer"] | {"num_layers": 2}
    with fake_tensors(DTYPES[element]):
        model = diffusers.LTX2VideoTransformer3DModel(**config).eval()
        counted = peak_of(lambda: tiny.call_transformer(model, version, 16, 16, 24, 126, 1024, 2, per_token))
    predicted = working_sets.denoise_bytes({"transformer": dict(model.config)}, RATIOS, clip, passes(clip)[0], element)
    assert predicted == pytest.approx(counted, rel=0.03)


@pytest.mark.parametrize("element", DTYPES)
def test_working_sets_of_the_other_stages(version: Any, element: int) -> None:
    clip = request(conditions=(Condition("/a", "00", num_frames=17, is_video=True),))
    two = replace(clip, second_pass=tiny.two_passes(request()).second_pass)
    parts = {name: dict(full_size(version, name).config) for name in ("vae", "connectors", "latent_upsampler")}
    parts["vocoder"] = dict(full_size(version, "vocoder").config) | {"_class_name": VOCODER_CLASSES[version]}
    with fake_tensors(DTYPES[element]):
        connectors = ltx2.LTX2TextConnectors(**FULL[version]["connectors"]).eval()
        mask = torch.ones(2, 1024, dtype=torch.long)
        counted = peak_of(lambda: connectors(torch.empty(2, 1024, 3840 * 49), mask, padding_side="left"))
        assert working_sets.encode_text_bytes(parts["connectors"], clip, element) == pytest.approx(counted, rel=0.05)
        vae = diffusers.AutoencoderKLLTX2Video(**FULL[version]["vae"]).eval()
        counted = peak_of(lambda: vae.decode(torch.empty(1, 128, 16, 16, 24), None, return_dict=False))
        assert working_sets.decode_bytes(parts, clip, element) == pytest.approx(counted, rel=0.03)
        counted = peak_of(lambda: vae.encode(torch.empty(1, 3, 17, 512, 768)))
        assert working_sets.encode_image_bytes(clip, element) == pytest.approx(counted, rel=0.03)
        upsampler = ltx2.LTX2LatentUpsamplerModel(**FULL[version]["latent_upsampler"]).eval()
        counted = peak_of(lambda: upsampler(torch.empty(1, 128, 16, 8, 12)))
        predicted = working_sets.upsample_bytes(parts["latent_upsampler"], RATIOS, two, element)
        assert predicted == pytest.approx(counted, rel=0.03)


def test_working_set_of_the_sound(version: Any) -> None:
    with fake_tensors(torch.float32):
        audio = diffusers.AutoencoderKLLTX2Audio().eval()
        vocoder = getattr(ltx2, VOCODER_CLASSES[version])().eval()
        counted = peak_of(lambda: vocoder(audio.decode(torch.empty(1, 8, 126, 16), return_dict=False)[0]))
    assert 126 * working_sets.SOUND_BYTES[VOCODER_CLASSES[version]] == pytest.approx(counted, rel=0.03)


def test_a_clip_is_its_stages(version: Any, checkpoint: Checkpoint) -> None:
    """Guided denoising takes nearly all of a clip's time; in a distilled clip of two passes, decoding counts, too."""
    parts = configs(checkpoint)
    text, image, denoise, refine, decode = estimates.stage_work(parts, RATIOS, request())
    assert image == refine == 0 and denoise / (text + denoise + decode) > 0.9
    # 198 TFLOP per pass at 768x512x121, and four passes in each of three steps.
    assert denoise == pytest.approx(12 * 198e12, rel=0.03)
    distilled = tiny.two_passes(tiny.unguided(request()))
    text, image, denoise, refine, decode = estimates.stage_work(parts, RATIOS, distilled)
    assert refine > 3 * denoise and decode > 0.05 * (denoise + refine)


def _flops(call: Any) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()
