"""What fits on a device, and how: at full size, by arithmetic alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from builders import RECIPE, STAGES

from ltx_dist.checkpoints.versions import read_config
from ltx_dist.estimates.parameters import (
    text_encoder_parameters,
    transformer_parameters,
    vae_decoder_parameters,
)
from ltx_dist.estimates.working_sets import decode_bytes, decoded_frames, decoded_side, largest_to_decode
from ltx_dist.models.ltx_video.estimates import stage_memory, weight_bytes
from ltx_dist.pipeline.conditions import SecondPass
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import PLAIN, UNTILED, DecodeTiling, Storage
from ltx_dist.pipeline.worker import Device
from ltx_dist.placement.fitting import BatchDemand, MemoryPlan, Models, Wish
from ltx_dist.placement.tilings import TilingCosts, candidate_tilings
from ltx_dist.placement.waves import wave_size

RATIOS = (32, 8)


def request(height: int = 480, width: int = 704, num_frames: int = 121) -> RenderRequest:
    return RenderRequest("clip", "", "", height, width, num_frames, 25.0, 40, 3.0, 0.0, 0, 0.05, 0.025, 128)


def full_size(transformer: str = "transformer-2b", precision: str = "bfloat16", storage: Storage = PLAIN) -> Models:
    names = {"text_encoder": "text_encoder", "transformer": transformer, "vae": "vae-0.9.5"}
    configs = {component: read_config(name) for component, name in names.items()}
    parameters = {
        "text_encoder": text_encoder_parameters(configs["text_encoder"]),
        "transformer": transformer_parameters(configs["transformer"]),
        "vae": vae_decoder_parameters(configs["vae"]),
    }
    weights = weight_bytes(configs, parameters, precision, storage)
    return Models(
        RECIPE,
        {name: found.total for name, found in weights.items()},
        {name: found.block for name, found in weights.items() if found.num_blocks},
        {name: found.num_blocks for name, found in weights.items() if found.num_blocks},
        stage_memory(configs, RATIOS, precision, storage),
        RATIOS,
    )


def fit_all(
    models: Models,
    gigabytes: float | None,
    device: Device = "cuda",
    residency: Wish = "auto",
    tilings: Sequence[DecodeTiling] | None = None,
) -> MemoryPlan:
    shapes = [request()]
    allowed = candidate_tilings("auto", "auto", shapes, RATIOS) if tilings is None else tilings
    capacity = None if gigabytes is None else int(gigabytes * 1e9)
    return BatchDemand(models, tuple(shapes), tuple(allowed)).plan_memory(device, capacity, STAGES, residency)


@pytest.mark.parametrize(
    ("transformer", "gigabytes", "residency", "streamed"),
    [
        ("transformer-2b", 80, "resident", ()),
        ("transformer-2b", 24, "resident", ()),
        ("transformer-2b", 16, "time_sliced", ()),
        ("transformer-2b", 6.4, "streamed", ("text_encoder",)),
        ("transformer-2b", 4, "streamed", ("text_encoder", "transformer")),
        ("transformer-13b", 80, "resident", ()),
        ("transformer-13b", 24, "streamed", ("transformer",)),
    ],
)
def test_cards(transformer: str, gigabytes: float, residency: str, streamed: tuple[str, ...]) -> None:
    way = fit_all(full_size(transformer), gigabytes)
    assert (way.residency, way.streamed) == (residency, streamed)
    assert way.peak_bytes <= gigabytes * 1e9


def test_2b_stays_on_24_gb_because_its_decode_is_cut() -> None:
    models = full_size()
    way = fit_all(models, 24)
    assert way.tiling != UNTILED
    assert TilingCosts([request()], RATIOS)(way.tiling) < 1.3
    assert fit_all(models, 24, tilings=[UNTILED]).residency == "time_sliced", "in one piece T5 must leave"
    assert fit_all(models, 80).tiling == UNTILED


def test_13b_with_float8_storage_need_not_be_streamed_on_24_gb() -> None:
    assert fit_all(full_size("transformer-13b", storage=Storage(transformer="float8")), 24).residency == "time_sliced"


def test_larger_devices_never_get_a_costlier_way() -> None:
    models, shapes = full_size(), [request()]
    order = ["streamed", "time_sliced", "resident"]
    ranks, costs = [], []
    for size in range(4, 60, 2):
        way = fit_all(models, size)
        ranks.append(order.index(way.residency))
        costs.append((way.residency, TilingCosts(shapes, RATIOS)(way.tiling)))
    assert ranks == sorted(ranks)
    for residency in order:
        of_one = [cost for name, cost in costs if name == residency]
        assert of_one == sorted(of_one, reverse=True)


def test_unknown_memory_is_time_sliced_on_a_gpu_and_resident_on_a_cpu() -> None:
    assert fit_all(full_size(), None).residency == "time_sliced"
    assert fit_all(full_size(), None, device="cpu").residency == "resident"


def test_a_cpu_takes_turns_but_streams_nothing() -> None:
    models = full_size(precision="float32")
    assert fit_all(models, 64, device="cpu").residency == "resident"
    assert fit_all(models, 24, device="cpu").residency == "time_sliced"
    with pytest.raises(ValueError, match=r"needs at least 19\..* for encode_text; set model.text_encoder_quant"):
        fit_all(models, 16, device="cpu")


def test_what_does_not_fit_is_named_with_what_would() -> None:
    assert fit_all(full_size(), 80, residency="streamed").streamed == ("text_encoder", "transformer")
    with pytest.raises(
        ValueError, match=r"^placement.residency: resident needs at least .* of the device.s 6.0 GB; use auto$"
    ):
        fit_all(full_size(), 6, residency="resident")
    with pytest.raises(ValueError, match=r"most of it .* for decode; leave decode.tile_size .* at auto, or else"):
        fit_all(full_size(), 6, tilings=[UNTILED])


@pytest.mark.parametrize(
    ("swap_seconds", "clip_seconds", "expected"),
    # docs: RTX 4090 at 704x480x121, 14.5 GB at 25 GB/s, 40 steps and distilled; both ways from pageable memory; SATA.
    [(0.58, 20.7, 1), (0.58, 2.91, 4), (3.97, 20.7, 4), (3.97, 2.91, 28), (29, 2.91, 100), (0, 1, 1)],
)
def test_a_wave_is_as_large_as_its_swaps_need(swap_seconds: float, clip_seconds: float, expected: int) -> None:
    assert wave_size(swap_seconds, clip_seconds) == expected


def test_candidates_are_sorted_by_work_and_begin_with_one_piece() -> None:
    shapes = [request(), request(512, 768, 97)]
    tilings = candidate_tilings("auto", "auto", shapes, RATIOS)
    costs = list(map(TilingCosts(shapes, RATIOS), tilings))
    assert tilings[0] == UNTILED and costs[0] == 1.0 and costs == sorted(costs)
    assert candidate_tilings("off", "off", shapes, RATIOS) == [UNTILED]
    assert candidate_tilings(512, 64, shapes, RATIOS) == [DecodeTiling(512, 64)]
    assert candidate_tilings(512, "off", shapes, RATIOS) == [DecodeTiling(512, None)]


@pytest.mark.parametrize(
    ("size", "frames", "field"), [(500, "off", "tile_size"), (64, 64, "tile_size"), (512, 8, "tile_frames")]
)
def test_tiles_of_broken_latents_or_nothing_but_overlap_are_refused(size: int, frames: int | str, field: str) -> None:
    with pytest.raises(ValueError, match=f"^decode.{field}: .* use a multiple of .* above"):
        candidate_tilings(size, frames, [request()], RATIOS)


def random_shapes(number: int) -> list[RenderRequest]:
    rng = random.Random(number)
    return [
        request(32 * rng.randint(2, 48), 32 * rng.randint(2, 48), 8 * rng.randint(0, 40) + 1) for _ in range(number)
    ]


def tiling_cost(request: RenderRequest, tiling: DecodeTiling, ratios: tuple[int, int]) -> float:
    """Decoded pixels, with overlaps counted as often as they are decoded, divided by the clip's; 1.0 without tiling."""
    spatial, temporal = ratios
    frames = (request.num_frames - 1) // temporal + 1
    height, width = (side // spatial for side in request.decoded_size)
    decoded = decoded_frames(frames, tiling.tile_frames, temporal)
    for side in (height, width):
        decoded *= decoded_side(side, tiling.tile_size, spatial)
    return decoded / (frames * height * width)


@pytest.mark.parametrize("number", [1, 2, 3, 30, 100])
def test_costs_of_tilings_are_the_mean_over_all_pixels(number: int) -> None:
    shapes = random_shapes(number)
    tilings = candidate_tilings("auto", "auto", shapes, RATIOS)
    cost, sizes = TilingCosts(shapes, RATIOS), [r.num_frames * r.height * r.width for r in shapes]
    for tiling in tilings[:: len(tilings) // 50 + 1]:
        plain = sum(size * tiling_cost(r, tiling, RATIOS) for size, r in zip(sizes, shapes, strict=True)) / sum(sizes)
        assert cost(tiling) == pytest.approx(plain, rel=1e-12)


def test_tiles_of_two_passes_are_those_of_the_size_that_is_decoded() -> None:
    """It is larger than the clip, to which the frames are scaled: 704 x 1216 pixels here, decoded at 896 x 1600."""
    clip = replace(request(704, 1216), second_pass=SecondPass(448, 800, 3, (909.4, 725.0, 421.9), 1.0, 1.0, 0.0, 0.15))
    tilings = candidate_tilings("auto", "auto", [clip], RATIOS)
    assert {tiling.tile_size for tiling in tilings} == {None, *range(256, 1600, 64)}
    cost = TilingCosts([clip], RATIOS)
    for tiling in tilings[::7]:
        assert cost(tiling) == pytest.approx(tiling_cost(clip, tiling, RATIOS), rel=1e-12)


@pytest.mark.parametrize("number", [1, 2, 3, 30, 300])
@pytest.mark.parametrize("element_bytes", [2, 4])
def test_the_largest_requests_decide_what_decoding_needs(number: int, element_bytes: int) -> None:
    shapes = random_shapes(number)
    config, largest = read_config("vae-0.9.5"), largest_to_decode(shapes)
    assert set(largest) <= set(shapes) and (number < 300 or len(largest) < 100)
    for tiling in candidate_tilings("auto", "auto", shapes, RATIOS)[::7]:
        of_all, of_largest = (
            max(decode_bytes(config, r, element_bytes, tiling) for r in some) for some in (shapes, largest)
        )
        assert of_all == of_largest, tiling


def test_equal_and_turned_requests_decide_once() -> None:
    assert len(largest_to_decode([request(480, 704), request(704, 480), request(480, 704, 9)])) == 1
    unlike = [request(32 * n, 32 * (50 - n), 8 * abs(n - 20) + 1) for n in range(1, 25)]
    plain = [
        one for one in unlike
        if not any(
            other is not one and other.num_frames >= one.num_frames
            and max(other.height, other.width) >= max(one.height, one.width)
            and min(other.height, other.width) >= min(one.height, one.width)
            for other in unlike
        )
    ]  # fmt: skip
    assert sorted(map(id, largest_to_decode(unlike))) == sorted(map(id, plain))


@pytest.mark.parametrize("shape", [(1088, 1920, 161), (1088, 1920, 257)])
def test_a_piece_that_cudnn_cannot_index_does_not_fit_whatever_the_memory(shape: tuple[int, int, int]) -> None:
    """Even with 1 TB: torch would convolve it without cuDNN, in 27 times the memory."""
    models, shapes = full_size(), (request(*shape),)
    demand = BatchDemand(models, shapes, tuple(candidate_tilings("auto", "auto", shapes, RATIOS)))
    elements = models.memory["decode"].elements
    assert elements is not None and elements(shapes[0], UNTILED) > 2**31 - 1
    plan = demand.plan_memory("cuda", 10**12, STAGES)
    assert plan.tiling != UNTILED and elements(shapes[0], plan.tiling) <= 2**31 - 1
    assert demand.plan_memory("cpu", 10**12, STAGES).tiling == UNTILED, "a CPU has no such limit"


def test_the_largest_tensor_of_a_decode_is_counted_as_it_is() -> None:
    models = full_size()
    elements = models.memory["decode"].elements
    assert elements is not None
    assert elements(request(), UNTILED) == 128 * 123 * 120 * 176, "the last block's at 704x480x121, padded in time"
    assert elements(request(), DecodeTiling(256, 32)) == 128 * 35 * 64 * 64
