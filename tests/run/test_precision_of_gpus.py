"""What `auto` stands for in `model.precision` and `model.vae_precision`."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from ltx_dist.api.planning import plan_of
from ltx_dist.cluster import head_watch, ray_cluster
from ltx_dist.cluster.given_address import GivenAddress
from ltx_dist.inputs.config_file import load_config
from ltx_dist.placement.inventory import DeviceInfo, Inventory
from ltx_dist.run import run
from ltx_dist.run.batch import Batch, open_batch
from ltx_dist.run.crew import Crew
from ltx_dist.run.placed_batch import place_batch
from ltx_dist.run.precision import one_device
from ltx_dist.run.session import Session
from ltx_dist.run.stop import Stop
from ltx_dist.store.output import Output


def batch_of(tmp_path: Path, *settings: str) -> Batch:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red ball\na blue cube\n")
    return open_batch(str(prompts), load_config(None, ["model.checkpoint=demo", *settings]))


def test_a_vae_beside_float16_is_in_float32_unless_it_is_asked_for(tmp_path: Path) -> None:
    def vae(*settings: str) -> str:
        batch = batch_of(tmp_path, *settings)
        return batch.storage(batch.config.model.precision).vae_precision(batch.config.model.precision)

    assert vae("model.precision=float16") == "float32"
    assert vae("model.precision=float16", "model.vae_precision=float16") == "float16"
    assert vae("model.precision=bfloat16") == "bfloat16"


TURING = DeviceInfo("NVIDIA T4", 16 * 10**9, compute_capability=(7, 5))
ADA = DeviceInfo("NVIDIA L4", 24 * 10**9, compute_capability=(8, 9))
UNKNOWN = DeviceInfo("NVIDIA X", 24 * 10**9)


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        ((), "float32"),
        ((ADA,), "bfloat16"),
        ((UNKNOWN,), "bfloat16"),
        ((TURING, TURING), "float32"),
        ((TURING, ADA), "bfloat16"),
    ],
)
def test_weights_are_in_bfloat16_unless_every_gpu_lacks_it(
    tmp_path: Path, gpus: tuple[DeviceInfo, ...], expected: str
) -> None:
    batch, inventory = batch_of(tmp_path), Inventory(gpus, 4)
    assert batch.precision(inventory) == expected
    if gpus:
        used = (ADA,) if gpus == (TURING, ADA) else gpus
        assert {worker.device_name for worker in batch.placement(inventory).workers} == {gpu.name for gpu in used}


def test_old_gpus_beside_a_newer_one_are_left_out_with_a_warning(tmp_path: Path) -> None:
    inventory = Inventory((TURING, replace(ADA, index=1), replace(TURING, index=2)), 4)
    placed = place_batch(batch_of(tmp_path), inventory)
    assert [(worker.device_name, worker.device_index) for worker in placed.placement.workers] == [("NVIDIA L4", 1)]
    warning = "not used, because bfloat16 is slow on them: 2 x NVIDIA T4; to use them, set model.precision=float32"
    assert placed.batch.warnings == plan_of(batch_of(tmp_path), inventory).warnings == (warning,)
    for setting, used in (("model.precision=float32", 3), ("placement.device=cpu", 0)):
        placed = place_batch(batch_of(tmp_path, setting, "placement.layout=replicated"), inventory)
        assert placed.batch.warnings == ()
        assert sum(worker.device == "cuda" for worker in placed.placement.workers) == used


@pytest.mark.parametrize(
    ("settings", "used", "precision"),
    [((), ADA, "bfloat16"), (("model.precision=float32",), TURING, "float32")],
)
def test_executor_local_uses_the_first_gpu_that_a_plan_would_use(
    settings: tuple[str, ...], used: DeviceInfo, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of all GPUs may be too old for bfloat16."""
    gpus = TURING, replace(ADA, index=1)
    sessions: list[Session] = []
    monkeypatch.setattr(run, "local_inventory", lambda device: Inventory(gpus, 4))
    monkeypatch.setattr(run, "_run", sessions.append)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    batch, out = batch_of(tmp_path, *settings), Output(tmp_path / "out")
    run.render_batch(batch, out, "local", GivenAddress(None, ""), Stop(), Console(quiet=True))
    placed = sessions[0].placed
    assert [worker.device_name for worker in placed.placement.workers] == [used.name]
    assert [worker.device_index for worker in placed.placement.workers] == [0 if used is TURING else 1]
    assert placed.precision == precision


@pytest.mark.parametrize(
    ("settings", "visible", "num_warnings"), [((), "1,2", 1), (("model.precision=float32",), None, 0)]
)
def test_a_cluster_of_this_machine_does_not_see_the_gpus_that_a_plan_leaves_out(
    settings: tuple[str, ...],
    visible: str | None,
    num_warnings: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If Ray could give them to a worker, all would count as old ones, and the batch would be in float32."""
    gpus = TURING, replace(ADA, index=1), replace(ADA, index=2)
    sessions: list[Session] = []
    seen: list[str | None] = []

    def connect(address: str | None) -> Inventory:
        seen.append(os.environ.get("CUDA_VISIBLE_DEVICES"))
        return Inventory(gpus if visible is None else gpus[1:], 4)

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(run, "local_inventory", lambda device: Inventory(gpus, 4))
    monkeypatch.setattr(run, "_run", sessions.append)
    monkeypatch.setattr(ray_cluster, "connect", connect)
    monkeypatch.setattr(ray_cluster, "disconnect", lambda: None)  # the session's cluster, if there is one, stays
    monkeypatch.setattr(head_watch, "HeadWatch", lambda leave, is_ours: nullcontext())
    batch, out = batch_of(tmp_path, *settings), Output(tmp_path / "out")
    run.render_batch(batch, out, "ray", GivenAddress(None, ""), Stop(), Console(quiet=True))
    assert seen == [visible] and "CUDA_VISIBLE_DEVICES" not in os.environ
    warnings = sessions[0].placed.batch.warnings
    assert len(warnings) == num_warnings
    assert all(warning.startswith("not used, because bfloat16 is slow on them: NVIDIA T4;") for warning in warnings)


@pytest.mark.parametrize("setting", ["model.precision=bfloat16", "placement.devices=2"])
def test_an_old_gpu_that_is_asked_for_in_bfloat16_is_refused(tmp_path: Path, setting: str) -> None:
    batch = batch_of(tmp_path, setting)
    with pytest.raises(ValueError, match=r"NVIDIA T4 \(compute capability 7\.5\) has no efficient kernels"):
        batch.placement(Inventory((TURING, ADA), 4))


def test_an_old_gpu_that_joins_is_left_out_with_one_warning(tmp_path: Path) -> None:
    notes: list[str] = []
    crew = Crew(place_batch(batch_of(tmp_path), Inventory((ADA,), 4)), notes.append)
    assert [crew.hire(replace(TURING, node_id=node), 1) for node in ("a", "b")] == [None, None]
    assert len(notes) == 1 and notes[0].startswith("warning: a GPU that joined is not used: NVIDIA T4: model.precision")
    assert crew.hire(replace(ADA, node_id="c"), 1) is not None


def test_one_device_takes_the_first_gpu_that_has_kernels_for_bfloat16(tmp_path: Path) -> None:
    config = batch_of(tmp_path).config
    assert one_device(config, Inventory((TURING, ADA, UNKNOWN), 4)).gpus == (ADA,)
    assert one_device(config, Inventory((TURING,), 4)).gpus == (TURING,)
    assert one_device(config, Inventory((), 4)).gpus == ()
