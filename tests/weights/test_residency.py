"""Ways of holding weights: turns in waves, streamed blocks, weights that are read again; always the same latents."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import tiny
import torch
from builders import RECIPE, STAGES, D, E, M, V

from ltx_dist.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ltx_dist.engine.loop import BatchLoop
from ltx_dist.models.ltx_video import load
from ltx_dist.models.ltx_video.load import load_text_encoder
from ltx_dist.pipeline.payloads import Latents
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import Mp4Settings, Storage
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.placement.waves import wave_size
from ltx_dist.scheduling.scheduler import Scheduler
from ltx_dist.weights.residency import ResidentModule
from ltx_dist.weights.streaming import StreamedModule
from ltx_dist.worker.local_executor import LocalExecutor
from ltx_dist.worker.spec import WorkerSpec
from ltx_dist.worker.stage_worker import StageWorker

T5, TRANSFORMER, VAE = "text_encoder", "transformer", "vae"
CPU = torch.device("cpu")
REQUEST = RenderRequest("clip", "a prompt", "", 64, 64, 9, 25.0, 2, 3.0, 0.0, 3, 0.05, 0.025, 32)
WAYS = {
    "resident": Worker("cpu:0", STAGES, "cpu", threads=1),
    "time_sliced": Worker("cpu:0", STAGES, "cpu", residency="time_sliced", threads=1),
    "read again": Worker("cpu:0", STAGES, "cpu", residency="time_sliced", threads=1, keeps_host_copy=False),
    "streamed": Worker("cpu:0", STAGES, "cpu", residency="streamed", threads=1, streamed=(T5, TRANSFORMER)),
    "streamed, read again": Worker(
        "cpu:0", STAGES, "cpu", residency="streamed", threads=1, streamed=(T5, TRANSFORMER), keeps_host_copy=False
    ),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(str(tiny.save_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", "0.9.5")))


def spec(checkpoint: Checkpoint, worker: Worker) -> WorkerSpec:
    return WorkerSpec(worker, checkpoint, "float32", Mp4Settings())


def run_through(worker: StageWorker, request: RenderRequest = REQUEST) -> tuple[Latents, Any]:
    outputs: list[Any] = []
    for stage in (*STAGES, M):
        output, report = worker.run(stage, [request], *outputs[-1:])
        assert report.error is None, report.error
        outputs.append(output)
    return outputs[1], outputs[3]


def test_latents_and_frames_are_the_same_in_every_residency(checkpoint: Checkpoint) -> None:
    latents, video = run_through(StageWorker(spec(checkpoint, WAYS["resident"])))
    for name, way in WAYS.items():
        worker = StageWorker(spec(checkpoint, way))
        for _ in range(2):  # a second clip finds the streams and turns as the first left them
            again, mp4 = run_through(worker)
            assert torch.equal(again.latents, latents.latents), name
            assert mp4.frames_sha256 == video.frames_sha256, name


def test_components_take_turns(checkpoint: Checkpoint) -> None:
    for name in ("time_sliced", "read again", "streamed"):
        worker = StageWorker(spec(checkpoint, WAYS[name]))
        payloads: list[Any] = []
        for stage, component in zip(STAGES, (T5, TRANSFORMER, VAE), strict=True):
            payload, report = worker.run(stage, [REQUEST], *payloads[-1:])
            payloads.append(payload)
            assert report.error is None
            assert worker._components.on_device() == (component,), "one component on the device at a time"
            if name == "read again":
                assert list(worker._components._modules) == [component], "and in memory at all"


@pytest.mark.parametrize("wave", [1, 3, 4])
def test_a_wave_swaps_three_times(checkpoint: Checkpoint, wave: int) -> None:
    num_clips = 8
    requests = [replace(REQUEST, request_id=str(index), prompt=str(index)) for index in range(num_clips)]
    # With one slot per clip, no decode waits for x264, whose speed would decide when the worker turns to other stages.
    worker = replace(WAYS["time_sliced"], host_slots=num_clips)
    placement = Placement(RECIPE, "shared", (worker,), {D: wave, V: wave})
    executor = LocalExecutor([spec(checkpoint, worker)])
    results = list(BatchLoop(Scheduler(placement), executor).render(requests))
    assert [result.status for result in results] == ["done"] * num_clips
    (ran,) = executor._workers.values()
    uploads = sum(mover.uploads for mover in ran._components._movers.values())
    assert uploads == 3 * -(-num_clips // wave)


def test_what_fits_beside_a_stage_comes_once_while_that_works(checkpoint: Checkpoint) -> None:
    way = replace(WAYS["time_sliced"], capacity=10**9, peak_bytes=0)
    worker = StageWorker(spec(checkpoint, way))
    conditioning, _ = worker.run(E, [REQUEST])
    assert worker._components.on_device() == (T5, TRANSFORMER), "denoising is next"
    for _ in range(3):
        latents, report = worker.run(D, [REQUEST], conditioning)
        assert report.error is None and worker._components.on_device() == (TRANSFORMER, VAE)
    worker.run(V, [REQUEST], latents)
    assert worker._components.on_device() == (T5, VAE)
    uploads = {name: mover.uploads for name, mover in worker._components._movers.items()}
    assert uploads == {T5: 2, TRANSFORMER: 1, VAE: 1}


def test_an_upload_that_finds_no_memory_leaves_nothing_on_the_device() -> None:
    module = torch.nn.Linear(4, 4)
    before = {name: parameter.data_ptr() for name, parameter in module.named_parameters()}
    resident, copy = ResidentModule(module, CPU), ResidentModule._copy

    def fail() -> None:
        module.weight.data = module.weight.data.clone()
        raise torch.OutOfMemoryError("injected")

    resident._copy = fail
    with pytest.raises(torch.OutOfMemoryError):
        resident.upload()
    assert not resident.is_resident and resident.uploads == 0
    assert {name: parameter.data_ptr() for name, parameter in module.named_parameters()} == before
    resident._copy = lambda: copy(resident)
    resident.upload()
    assert resident.is_resident and resident.uploads == 1


def test_a_quantised_text_encoder_is_never_moved(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """bitsandbytes makes its layers on the device, and they cannot leave it, so they are dropped and read again."""
    made: list[torch.nn.Module] = []

    def quantised(*arguments: Any) -> torch.nn.Module:
        module = load_text_encoder(*arguments[:2])
        monkeypatch.setattr(module, "to", refuse)
        made.append(module)
        return module

    def refuse(*_: object) -> None:
        raise ValueError("`.to` is not supported for `8-bit` bitsandbytes models")

    monkeypatch.setattr(load, "load_text_encoder", quantised)
    for name in ("resident", "time_sliced"):
        made.clear()
        worker = StageWorker(replace(spec(checkpoint, WAYS[name]), storage=Storage(text_encoder="int8")))
        latents = [run_through(worker)[0].latents for _ in range(2)]
        assert torch.equal(*latents)
        assert len(made) == (1 if name == "resident" else 2)


def test_the_wave_that_the_formula_gives_keeps_swaps_under_5_percent() -> None:
    swap, clip = 0.58, 2.91
    wave = wave_size(swap, clip)
    assert swap / (wave * clip) <= 0.05 < swap / ((wave - 1) * clip)


def test_eviction_copies_nothing() -> None:
    module = torch.nn.Linear(4, 4)
    before = {name: parameter.data_ptr() for name, parameter in module.named_parameters()}
    resident = ResidentModule(module, CPU)
    resident.upload()
    resident.evict()
    assert {name: parameter.data_ptr() for name, parameter in module.named_parameters()} == before


class Chain(torch.nn.Module):
    """Blocks of different sizes and dtypes, with something around them."""

    def __init__(self, num_blocks: int) -> None:
        super().__init__()
        self.first = torch.nn.Linear(8, 8)
        self.blocks = torch.nn.ModuleList(
            torch.nn.Sequential(torch.nn.Linear(8, 16 + index), torch.nn.Linear(16 + index, 8))
            for index in range(num_blocks)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return x


@pytest.mark.parametrize("num_blocks", [1, 2, 3, 6])
def test_a_streamed_module_computes_the_same_and_holds_two_blocks(num_blocks: int) -> None:
    module, x = Chain(num_blocks), torch.randn(3, 8)
    expected = module(x)
    streamed = StreamedModule(module, list(module.blocks), CPU)
    sizes = [block.num_bytes for block in streamed._blocks]
    for turn in range(2):
        streamed.upload()
        for _ in range(3):
            assert torch.equal(module(x), expected)
        assert sum(slot.buffer.nbytes for slot in streamed._slots) == 2 * max(sizes)
        # Every block once per pass, and the first block for a pass that never came.
        assert streamed.copied_bytes == (turn + 1) * (3 * sum(sizes) + (sizes[0] if num_blocks > 1 else 0))
        streamed.evict()
        assert not streamed._slots


def test_a_pass_that_broke_off_leaves_the_next_one_right() -> None:
    module, x = Chain(4), torch.randn(3, 8)
    expected = module(x)
    streamed = StreamedModule(module, list(module.blocks), CPU)
    streamed.upload()

    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("injected")

    hook = module.blocks[2].register_forward_pre_hook(fail)
    with pytest.raises(torch.OutOfMemoryError):
        module(x)
    hook.remove()
    assert torch.equal(module(x), expected) and torch.equal(module(x), expected)


def test_streamed_weights_are_the_modules_own_again_after_eviction() -> None:
    module = Chain(3)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    streamed = StreamedModule(module, list(module.blocks), CPU)
    streamed.upload()
    module(torch.randn(1, 8))
    streamed.evict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


@pytest.mark.gpu
@pytest.mark.parametrize("way", ["resident", "streamed"])
def test_on_a_gpu_a_moved_module_computes_the_same_and_leaves_the_device(way: str) -> None:
    device = torch.device("cuda")
    module, x = Chain(5), torch.randn(64, 8, device=device)
    expected = Chain.forward(module.to(device), x)
    module.to("cpu")
    mover = ResidentModule(module, device) if way == "resident" else StreamedModule(module, list(module.blocks), device)
    for _ in range(3):
        mover.upload()
        assert torch.equal(module(x), expected) and torch.equal(module(x), expected)
        mover.evict()
        assert {parameter.device.type for parameter in module.parameters()} == {"cpu"}


def test_what_is_read_again_for_every_turn_is_not_read_before_the_first(checkpoint: Checkpoint) -> None:
    worker = StageWorker(spec(checkpoint, WAYS["read again"]))
    assert not worker._components._modules
