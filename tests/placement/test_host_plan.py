"""How much host memory workers take, and what is refused, with what would fit instead."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from builders import GB
from test_fitting import RATIOS, full_size, request

from ltx_dist.pipeline.storage import UNTILED
from ltx_dist.placement.fitting import BatchDemand, Models
from ltx_dist.placement.host_plan import PROCESS_BYTES, host_need
from ltx_dist.placement.inventory import DeviceInfo, Inventory
from ltx_dist.placement.local_devices import host_memory_bytes
from ltx_dist.placement.placement import Wishes, place
from ltx_dist.placement.tilings import candidate_tilings
from ltx_dist.weights.host_memory import plan_slabs


def demand(models: Models) -> BatchDemand:
    shapes = (request(),)
    return BatchDemand(models, shapes, tuple(candidate_tilings("auto", "auto", shapes, RATIOS)))


def inventory(count: int, gigabytes: float, host: float, nodes: int = 1) -> Inventory:
    gpus = tuple(
        DeviceInfo("NVIDIA GeForce RTX 4090", int(gigabytes * GB), node_id=f"node {n % nodes}", index=n)
        for n in range(count)
    )
    return Inventory(gpus, 16, int(host * GB))


def test_a_resident_worker_holds_no_weights_on_its_host_unless_they_are_cast() -> None:
    models = full_size()
    (worker,) = place(Wishes(), inventory(1, 80, 64), demand(models)).workers
    need = host_need(worker, demand(models))
    assert need.locked == need.casting == 0 and need.frames == 2 * 3 * 480 * 704 * 121
    cast = replace(models, cast=frozenset({"text_encoder"}))
    assert host_need(worker, demand(cast)).casting == models.weights["text_encoder"]


@pytest.mark.parametrize(("transformer", "gigabytes"), [("transformer-2b", 6), ("transformer-13b", 24)])
def test_locked_bytes_are_those_of_the_slabs_that_are_taken(transformer: str, gigabytes: float) -> None:
    models = full_size(transformer)
    (worker,) = place(Wishes(), inventory(1, gigabytes, 128), demand(models)).workers
    assert worker.residency == "streamed" and worker.keeps_host_copy
    taken = 0
    for name, total in models.weights.items():
        if name not in ("text_encoder", "transformer", "vae"):
            continue
        # What has no blocks, the VAE, has many tensors.
        count, block = models.blocks.get(name, 100), models.block_bytes.get(name, total // 100)
        taken += sum(plan_slabs([block] * count + [total - count * block]).slab_bytes)
    assert taken * 0.99 <= host_need(worker, demand(models)).locked <= taken * 1.1


def test_a_quantised_text_encoder_has_no_copy_on_the_host() -> None:
    plain = full_size()
    small = replace(plain, quantised=frozenset({"text_encoder"}))
    (worker,) = place(Wishes(residency="time_sliced"), inventory(1, 16, 64), demand(plain)).workers
    assert host_need(worker, demand(plain)).largest == "text_encoder"
    need = host_need(worker, demand(small))
    assert need.largest == "transformer"
    assert need.locked < host_need(worker, demand(plain)).locked - plain.weights["text_encoder"]
    for models, keeps in ((plain, False), (small, True)):
        (worker,) = place(Wishes(residency="time_sliced"), inventory(1, 16, 12), demand(models)).workers
        assert worker.keeps_host_copy == keeps


def test_a_host_too_small_for_what_streams_is_refused_with_the_number_of_devices_that_fits() -> None:
    models = demand(full_size("transformer-13b"))
    with pytest.raises(ValueError, match=r"^placement.host_memory_gb: 8 workers on one host need .* for transformer; "):
        place(Wishes(), inventory(8, 24, 128), models)
    with pytest.raises(ValueError, match=r"use placement.devices: (\d), or \d+\.\d GB of memory$") as refused:
        place(Wishes(), inventory(8, 24, 128), models)
    fitting = int(str(refused.value).split("devices: ")[1][0])
    assert len(place(Wishes(devices=fitting), inventory(8, 24, 128), models).workers) == fitting
    with pytest.raises(ValueError, match="placement.host_memory_gb"):
        place(Wishes(devices=fitting + 1), inventory(8, 24, 128), models)
    spread = place(Wishes(), inventory(8, 24, 128, nodes=4), models)
    assert len(spread.workers) == 8, "two on each host"


def test_what_is_wished_for_bounds_the_host() -> None:
    models = demand(full_size("transformer-13b"))
    assert place(Wishes(), inventory(1, 24, 128), models)
    with pytest.raises(ValueError, match=r"1 workers on one host need .* of its 16.0 GB"):
        place(Wishes(host_memory_gb=16), inventory(1, 24, 128), models)


def test_a_worker_on_a_cpu_takes_nothing_beside_its_device() -> None:
    cpu = replace(full_size(precision="float32"), cast=frozenset({"transformer"}))
    one = BatchDemand(cpu, (request(),), (UNTILED,))
    (worker,) = place(Wishes(), Inventory((), 2, 128 * GB), one).workers
    assert host_need(worker, one).total == PROCESS_BYTES


V1 = "sys/fs/cgroup/memory/x/memory.limit_in_bytes"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "3000000\n"}, 3000000),
        ({"proc/self/cgroup": "0::/pod/a\n", "sys/fs/cgroup/pod/memory.max": "4000\n"}, 4000),
        ({"proc/self/cgroup": "0::/elsewhere\n", "sys/fs/cgroup/memory.max": "5000\n"}, 5000),
        ({"proc/self/cgroup": "7:cpu:/x\n4:memory:/x\n", V1: "6000\n"}, 6000),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_a_containers_limit_counts(tmp_path: Path, files: dict[str, str], expected: int | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    whole = host_memory_bytes(tmp_path / "nothing")
    assert host_memory_bytes(tmp_path) == (whole if expected is None else expected)
