"""Devices, sizes and config give workers, or a message that says what to change."""

from __future__ import annotations

from dataclasses import replace

import pytest
from builders import RECIPE, STAGES, D, E, V
from test_fitting import RATIOS, full_size, request

from ltx_dist.pipeline.storage import UNTILED
from ltx_dist.pipeline.worker import Placement
from ltx_dist.placement.fitting import BatchDemand, Models
from ltx_dist.placement.inventory import DeviceInfo, Inventory
from ltx_dist.placement.placement import Wishes, place, with_device
from ltx_dist.placement.tilings import candidate_tilings

GIB = 2**30
ON_CPU = Inventory(gpus=(), num_cpus=4)
LTX_2B = BatchDemand(Models(RECIPE, {"text_encoder": int(9.525e9), "transformer": int(3.847e9), "vae": int(1.106e9)}))
"""Weights only; test_fitting.py is about what clips need beside them."""


def gpu(gib: float | None, index: int = 0) -> DeviceInfo:
    return DeviceInfo(f"{gib} GiB", None if gib is None else int(gib * GIB), index=index)


def gpus(count: int, gib: float | None = 24) -> Inventory:
    return Inventory(tuple(gpu(gib, index) for index in range(count)), num_cpus=16)


def stages(placement: Placement) -> list[tuple[str, ...]]:
    return [worker.stages for worker in placement.workers]


@pytest.mark.parametrize(
    ("num_gpus", "expected"),
    [(2, [(E, V), (D,)]), (3, [(E,), (D,), (V,)]), (5, [(E,), (D,), (D,), (D,), (V,)])],
)
def test_pinned_gives_further_devices_to_the_transformer(num_gpus, expected):
    placement = place(Wishes(layout="pinned"), gpus(num_gpus), LTX_2B)
    assert stages(placement) == expected
    assert {worker.residency for worker in placement.workers} == {"resident"}


@pytest.mark.parametrize(
    ("layout", "num_gpus", "needed", "expected"),
    [
        ("pinned", 2, (D, V), [(D,), (V,)]),
        ("pinned", 4, (D, V), [(D,), (D,), (D,), (V,)]),
        ("pinned", 3, (V,), [(V,)] * 3),
        ("shared", 2, (D, V), [(D, V)]),
        ("replicated", 2, (V,), [(V,)] * 2),
    ],
)
def test_a_stage_that_is_not_needed_is_hosted_nowhere(layout, num_gpus, needed, expected):
    placement = place(Wishes(layout=layout), gpus(num_gpus), LTX_2B, needed)
    assert stages(placement) == expected
    joined = with_device(placement, gpu(24, 9), 9, Wishes(layout=layout), LTX_2B)
    assert set(stages(joined)[-1]) <= set(needed)


def test_without_the_text_encoder_the_rest_may_be_resident():
    whole, rest = (place(Wishes(), gpus(1, 12), LTX_2B, needed) for needed in (STAGES, (D, V)))
    assert whole.workers[0].residency == "time_sliced" and rest.workers[0].residency == "resident"


def test_shared_is_one_worker_even_on_many_gpus():
    assert stages(place(Wishes(layout="shared"), gpus(4), LTX_2B)) == [STAGES]


def test_replicated_is_every_stage_on_every_gpu():
    assert stages(place(Wishes(layout="replicated"), gpus(3), LTX_2B)) == [STAGES] * 3


def test_auto_is_shared_on_one_device_and_replicated_on_several():
    assert place(Wishes(), gpus(1), LTX_2B).layout == "shared"
    assert place(Wishes(), gpus(2), LTX_2B).layout == "replicated"
    assert place(Wishes(), ON_CPU, LTX_2B).layout == "shared"


def test_pinned_on_a_cpu_makes_a_worker_a_stage_and_shares_the_cores():
    placement = place(Wishes(layout="pinned"), ON_CPU, LTX_2B)
    assert stages(placement) == [(E,), (D,), (V,)]
    assert [worker.threads for worker in placement.workers] == [1, 1, 1]
    assert [worker.num_gpus for worker in placement.workers] == [0, 0, 0]


def test_residency_follows_the_devices_memory_and_the_wish():
    assert place(Wishes(), gpus(1, 24), LTX_2B).workers[0].residency == "resident"
    assert place(Wishes(), gpus(1, 12), LTX_2B).workers[0].residency == "time_sliced"
    assert place(Wishes(memory_gb=12), gpus(1, 48), LTX_2B).workers[0].residency == "time_sliced"
    assert place(Wishes(residency="time_sliced"), gpus(1, 48), LTX_2B).workers[0].residency == "time_sliced"


def test_weights_stay_on_a_host_that_has_room_for_every_workers():
    def keeps(host: float, layout: str) -> set[bool]:
        inventory = replace(gpus(2, 12), host_memory_bytes=int(host * 1e9))
        return {worker.keeps_host_copy for worker in place(Wishes(layout=layout), inventory, LTX_2B).workers}

    assert (keeps(16, "shared"), keeps(20, "shared")) == ({False}, {True})
    assert (keeps(20, "replicated"), keeps(40, "replicated")) == ({False}, {True})


def test_the_smallest_device_that_decodes_settles_the_tiles_of_all():
    models, shapes = full_size(), [request()]
    demand = BatchDemand(models, tuple(shapes), tuple(candidate_tilings("auto", "auto", shapes, RATIOS)))
    alone = place(Wishes(), Inventory((gpu(80),), 16), demand)
    mixed = place(Wishes(), Inventory((gpu(80), gpu(24, 1)), 16), demand)
    assert alone.tiling == UNTILED
    assert {worker.tiling for worker in mixed.workers} == {mixed.tiling} and mixed.tiling != UNTILED
    rest = place(Wishes(), Inventory((gpu(80), gpu(24, 1)), 16), demand, (V,))
    assert rest.tiling == mixed.tiling, "tiles change the pixels, so they do not depend on what is done already"
    joined = with_device(mixed, gpu(80, 2), 2, Wishes(), demand)
    assert joined.workers[-1].tiling == mixed.tiling


def test_unknown_memory_is_treated_as_too_small():
    assert place(Wishes(), gpus(1, None), LTX_2B).workers[0].residency == "time_sliced"


def test_each_device_of_a_mixed_cluster_is_used_for_what_it_holds():
    inventory = Inventory((gpu(80), gpu(24, 1), gpu(12, 2)), 16)
    workers = place(Wishes(), inventory, LTX_2B).workers
    assert [worker.residency for worker in workers] == ["resident", "resident", "time_sliced"]
    assert [worker.device_name for worker in workers] == ["80 GiB", "24 GiB", "12 GiB"]
    less, more = (place(Wishes(memory_gb=wished), inventory, LTX_2B).workers for wished in (11, 40))
    assert {worker.residency for worker in less} == {"time_sliced"}
    assert [worker.residency for worker in more] == ["resident", "resident", "time_sliced"], "none is made larger"


@pytest.mark.parametrize(("layout", "expected"), [("pinned", (D,)), ("replicated", STAGES)])
def test_a_device_that_joins_is_a_worker_more_and_room_for_its_work(layout, expected):
    before = place(Wishes(layout=layout), gpus(3), LTX_2B)
    after = with_device(before, DeviceInfo("RTX 4090", 24 * GIB, "a1b2", 0), 7, Wishes(layout=layout), LTX_2B)
    assert after.workers[:-1] == before.workers
    joined = after.workers[-1]
    assert (joined.worker_id, joined.stages, joined.node_id, joined.num_gpus) == ("cuda:7", expected, "a1b2", 1.0)
    assert after.max_queued[D] > before.max_queued[D]


def test_a_device_that_joins_gets_the_fewest_host_slots():
    two = place(Wishes(layout="replicated"), gpus(2), LTX_2B)
    many, few = (replace(worker, host_slots=slots) for worker, slots in zip(two.workers, (16, 3), strict=True))
    joined = with_device(replace(two, workers=(many, few)), gpu(24, 9), 9, Wishes(layout="replicated"), LTX_2B)
    assert [worker.host_slots for worker in joined.workers] == [16, 3, 3]


def test_a_wave_is_the_queue_bound_of_one_worker():
    placement = place(Wishes(layout="shared", wave=5), ON_CPU, LTX_2B)
    assert placement.max_queued == {D: 5, V: 5}


def test_the_bound_never_keeps_one_of_several_producers_idle():
    placement = place(Wishes(layout="pinned", wave=1), gpus(10), LTX_2B)
    assert placement.max_queued[V] == 8, "8 transformers may all be at work while the decoder takes what they made"


@pytest.mark.parametrize(
    ("wishes", "inventory", "message"),
    [
        (Wishes(layout="pinned"), gpus(1), "placement.layout: pinned needs at least 2 devices"),
        (Wishes(device="cuda"), ON_CPU, "placement.device: cuda was requested, but no GPU was found"),
        (Wishes(layout="shared", devices=3), gpus(4), "placement.devices: shared uses one device, not 3"),
        (Wishes(devices=4), gpus(2), "placement.devices: 4 GPUs were requested, but 2 were found"),
    ],
)
def test_what_cannot_be_placed_is_refused_by_name(wishes, inventory, message):
    with pytest.raises(ValueError, match=message):
        place(wishes, inventory, LTX_2B)


def shared_passes(batch_size: int) -> BatchDemand:
    """Many equal clips of a size that is large for sharing a pass, and one larger clip."""
    many, one = request(512, 768, 97), request()
    together = {many: batch_size, one: 1}
    return BatchDemand(full_size(), (many, one), (UNTILED,), batch_size, together)


def test_what_is_planned_holds_the_largest_pass():
    alone, eight = shared_passes(1), shared_passes(8)
    assert eight.working_set(D, UNTILED) == pytest.approx(
        8 * BatchDemand(full_size(), (request(512, 768, 97),)).working_set(D, UNTILED), rel=1e-6
    ), "eight of the small ones are more than one of the large"
    assert eight.working_set(V, UNTILED) == alone.working_set(V, UNTILED), "decoded one by one"
    placement = place(Wishes(layout="pinned"), gpus(3, 80), eight)
    denoiser = placement.workers[1]
    assert denoiser.batch_size == 8 and denoiser.peak_bytes > eight.working_set(D, UNTILED) * 1.1
    with pytest.raises(ValueError, match=r"placement.memory_gb: .* for denoise; lower denoise.batch_size"):
        place(Wishes(layout="pinned"), gpus(3, 5), eight)
    place(Wishes(layout="pinned", residency="auto"), gpus(3, 80), alone)


def test_a_shared_pass_can_come_about():
    placement = place(Wishes(layout="pinned"), gpus(4, 80), shared_passes(8))
    assert placement.max_queued == {D: 16, V: 8 + 8}, "a pass for each that takes, and for each but one that makes"
    assert place(Wishes(layout="pinned", wave=2), gpus(3, 80), shared_passes(4)).max_queued == {D: 2, V: 2}


TURING = DeviceInfo("NVIDIA GeForce RTX 2060", 6 * GIB, compute_capability=(7, 5))
ADA = DeviceInfo("NVIDIA GeForce RTX 4090", 24 * GIB, index=1, compute_capability=(8, 9))


@pytest.mark.parametrize(("model", "vae"), [("bfloat16", "bfloat16"), ("float32", "bfloat16")])
def test_a_card_without_kernels_for_bfloat16_is_refused_with_what_to_use(model: str, vae: str) -> None:
    demand = replace(LTX_2B, models=replace(LTX_2B.models, precisions=frozenset({model, vae})))
    problem = r"RTX 2060 \(compute capability 7\.5\) has no efficient kernels"
    with pytest.raises(ValueError, match=f"{problem} .* use float32, .* CUDA_VISIBLE_DEVICES, .* --num-gpus=0$"):
        place(Wishes(), Inventory((TURING, ADA), 16), demand)
    with pytest.raises(ValueError, match="RTX 2060"):
        with_device(place(Wishes(), Inventory((ADA,), 16), demand), TURING, 1, Wishes(), demand)


def test_such_a_card_renders_in_float32_and_is_no_obstacle_where_it_is_not_used() -> None:
    demand = replace(LTX_2B, models=replace(LTX_2B.models, precisions=frozenset({"float32"})))
    assert len(place(Wishes(), Inventory((replace(TURING, memory_bytes=16 * GIB), ADA), 16), demand).workers) == 2
    demand = replace(LTX_2B, models=replace(LTX_2B.models, precisions=frozenset({"bfloat16"})))
    assert len(place(Wishes(devices=1), Inventory((ADA, TURING), 16), demand).workers) == 1
