"""One GPU, random weights at full size and no download: stages, residencies and diffusers' own offloading side by side.

    python benchmarks/gpu.py [--cap-gb 24|6|none] [--model 2b|13b] [--scale full|tiny] [--clips N]

--cap-gb makes of a large card a small one: torch refuses allocations beyond it. --scale tiny runs the same on a CPU, to
test this file. All ways render the same clips from the same weights in one process, in turns, and their latents must be
equal. Printed: seconds of each stage, of the whole, peak bytes, the rate of copies to the device, and ratios:

  resident     every component stays on the device (only where they fit)
  waves        ours, time-sliced: K clips a turn, weights only travel to the device
  streamed     ours, the transformer block by block
  model offload, group offload   diffusers' enable_model_cpu_offload and enable_group_offload

Then, of clips that are small for the card, whether it pays that several share a pass (`denoise.batch_size`).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import shared_passes
import torch
from text_to_video import STAGES, D, M, V

from ltx_dist.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ltx_dist.inputs.config import RenderConfig
from ltx_dist.models.ltx_video.load import load_text_encoder, load_tokenizer, load_transformer
from ltx_dist.models.ltx_video.presets import preset_for
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import Mp4Settings
from ltx_dist.pipeline.worker import Worker
from ltx_dist.placement.fitting import wave_size
from ltx_dist.placement.inventory import DeviceInfo, Inventory
from ltx_dist.placement.placement import place
from ltx_dist.run.batch import Batch
from ltx_dist.weights.loading import load_noise_scheduler
from ltx_dist.worker.stage_worker import StageWorker, WorkerSpec

HERE = Path(__file__).parent
VERSIONS = {"2b": "0.9.5", "13b": "0.9.7-13b-dev"}
SIZES = {"full": ((480, 704, 121), (512, 768, 97)), "tiny": ((64, 64, 9),)}
KINDS = {"40 steps, guidance 3": (40, 3.0), "8 steps, distilled": (8, 1.0)}
SMALL = {"full": ((256, 256, 25), (320, 512, 49)), "tiny": ((64, 64, 9),)}
BATCH_SIZES = (1, 2, 4, 8)
TINY_KINDS = {"2 steps, guidance 3": (2, 3.0)}
GIB = 2**30


@dataclass
class Measured:
    """A way to render: seconds of all clips and of each, by stage where we run the stages; latents by clip."""

    whole: float = 0.0
    clips: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})
    load_seconds: float = 0.0
    peak_bytes: int = 0
    latents: list[torch.Tensor] = field(default_factory=list)

    @property
    def work(self) -> float:
        """E + D + V of all clips: what no way that moves weights can beat."""
        return sum(sum(seconds) for seconds in self.stages.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cap-gb", default="none")
    parser.add_argument("--model", choices=VERSIONS, default="2b")
    parser.add_argument("--scale", choices=SIZES, default="full")
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--keep", type=Path, help="where the checkpoint is, or is to be")
    arguments = parser.parse_args()
    if arguments.scale == "full" and not torch.cuda.is_available():
        raise SystemExit("no GPU here; --scale tiny runs on a CPU")
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    capacity = set_cap(device, arguments.cap_gb)
    print(f"{describe(device)}, cap {arguments.cap_gb}, torch {torch.__version__}, diffusers {diffusers.__version__}")
    if device.type == "cuda":
        print(f"copies from pinned memory to the device: {copy_rate(device) / 1e9:.1f} GB/s")
    with tempfile.TemporaryDirectory(prefix="gpu-") as temporary:
        checkpoint = make(arguments.keep or Path(temporary), VERSIONS[arguments.model], arguments.scale)
        for height, width, num_frames in SIZES[arguments.scale]:
            for name, (steps, guidance) in (KINDS if arguments.scale == "full" else TINY_KINDS).items():
                print(f"\n{arguments.model} {width}x{height}x{num_frames}, {name}, {arguments.clips} clips")
                requests = [
                    RenderRequest(
                        f"{index}", f"prompt number {index}", "", height, width, num_frames, 25.0, steps, guidance, 0.0,
                        index, 0.05, 0.025, 256 if arguments.scale == "full" else 32,
                    )
                    for index in range(arguments.clips)
                ]  # fmt: skip
                compare(checkpoint, requests, device, capacity)
        compare_passes(checkpoint, arguments.scale, arguments.model, device, capacity)


def compare_passes(checkpoint: Checkpoint, scale: str, model: str, device: torch.device, capacity: int | None) -> None:
    """Seconds a clip with 1, 2, 4 and 8 in a pass, as far as they fit."""
    precision = "bfloat16" if device.type == "cuda" else "float32"
    sizes, steps = (BATCH_SIZES, 8) if scale == "full" else (BATCH_SIZES[:2], 2)
    for height, width, num_frames in SMALL[scale]:
        print(f"\n{model} {width}x{height}x{num_frames}, {steps} steps, guidance 3, clips that share a pass")
        requests = [
            RenderRequest(
                f"{i}", f"prompt number {i}", "", height, width, num_frames, 25.0, steps, 3.0, 0.0, i, 0.05, 0.025, 128
            )
            for i in range(max(sizes))
        ]
        try:
            worker = planned_worker(checkpoint, requests, device, capacity, precision, "auto", max(sizes))
            spec = WorkerSpec(worker, checkpoint, {}, precision, Mp4Settings())
            shared_passes.compare(StageWorker(spec), requests, 3, sizes)
        except ValueError as error:
            print(f"  {error}")
        finally:
            empty(device)


def compare(checkpoint: Checkpoint, requests: list[RenderRequest], device: torch.device, capacity: int | None) -> None:
    """Every way in turn; what does not fit is said and left out. Raises AssertionError for latents that differ."""
    precision = "bfloat16" if device.type == "cuda" else "float32"
    ways: dict[str, Callable[[], Measured]] = {
        residency: lambda residency=residency: ours(checkpoint, requests, device, capacity, precision, residency)
        for residency in ("resident", "time_sliced", "streamed")
    }
    if device.type == "cuda":
        ways |= {
            "model offload": lambda: bare(checkpoint, requests, device, "model"),
            "group offload": lambda: bare(checkpoint, requests, device, "group"),
        }
    results: dict[str, Measured] = {}
    for name, way in ways.items():
        try:
            results[name] = measured = way()
        except (ValueError, torch.OutOfMemoryError) as error:
            print(f"  {name:14} {type(error).__name__}: {str(error).splitlines()[0]}")
            continue
        finally:
            empty(device)
        spread = max(measured.clips) / statistics.median(measured.clips)
        by_stage = " ".join(f"{stage.value} {statistics.median(s):.3f}" for stage, s in measured.stages.items() if s)
        print(
            f"  {name:14} {measured.whole:9.2f} s   peak {measured.peak_bytes / 1e9:6.2f} GB   "
            f"slowest/median {spread:.2f}   moving {measured.load_seconds:.2f} s   {by_stage}"
        )
    first = next(iter(results.values()))
    for name, measured in results.items():
        assert all(map(torch.equal, first.latents, measured.latents)), f"{name}: other latents"
    print("  latents are equal in all of them")
    if capacity is not None:
        for name, measured in results.items():
            print(f"  {name}: peak / cap {measured.peak_bytes / capacity:.2f}")
    ratio(results, "time_sliced", None, "waves / (E+D+V), aim <= 1.05")
    ratio(results, "model offload", "time_sliced", "model offload / waves, aim >= 1.1 at 40 steps, >= 2 distilled")
    ratio(results, "streamed", "resident", "streamed / resident, aim <= 1.15 for 13B")
    ratio(results, "group offload", "streamed", "group offload / streamed")


def ratio(results: dict[str, Measured], above: str, below: str | None, what: str) -> None:
    if above not in results or (below is not None and below not in results):
        return
    seconds = results[above].work if below is None else results[below].whole
    print(f"  {what}: {results[above].whole / seconds:.3f}")


def ours(
    checkpoint: Checkpoint,
    requests: list[RenderRequest],
    device: torch.device,
    capacity: int | None,
    precision: str,
    residency: str,
) -> Measured:
    """A worker as `render` makes it, its stages in waves as the scheduler would choose them."""
    worker = planned_worker(checkpoint, requests, device, capacity, precision, residency)
    stage_worker = StageWorker(WorkerSpec(worker, checkpoint, {}, precision, Mp4Settings(preset="ultrafast")))
    measured = Measured()
    warm_up = [run(stage_worker, requests[:1], Measured()) for _ in range(2)][-1]  # also tells what a wave should be
    swap = warm_up.load_seconds
    wave = len(requests) if residency == "resident" else wave_size(swap, warm_up.work) if swap else 1
    started = time.perf_counter()
    for start in range(0, len(requests), wave):
        run(stage_worker, requests[start : start + wave], measured)
    measured.whole = time.perf_counter() - started
    return measured


def planned_worker(
    checkpoint: Checkpoint,
    requests: list[RenderRequest],
    device: torch.device,
    capacity: int | None,
    precision: str,
    residency: str,
    batch_size: int = 1,
) -> Worker:
    """Raises ValueError when this residency does not fit."""
    placement = {"residency": residency, "layout": "shared", "device": device.type, "threads": None}
    config = RenderConfig.model_validate({"placement": placement, "denoise": {"batch_size": batch_size}})
    batch = Batch(config, checkpoint, preset_for("auto", checkpoint), tuple(requests))
    gpus = (DeviceInfo(describe(device), capacity or total_memory(device)),) if device.type == "cuda" else ()
    (worker,) = place_one(batch, Inventory(gpus, torch.get_num_threads()), precision)
    return worker


def place_one(batch: Batch, inventory: Inventory, precision: str) -> tuple[Worker, ...]:
    from ltx_dist.placement.placement import Wishes

    return place(Wishes(**batch.config.placement.model_dump()), inventory, batch.demand(precision)).workers


def run(worker: StageWorker, requests: list[RenderRequest], measured: Measured) -> Measured:
    """One wave: each stage for all of them, then the next."""
    payloads: dict[str, Any] = {request.request_id: None for request in requests}
    clips = dict.fromkeys(payloads, 0.0)
    for stage in STAGES:
        for request in requests:
            inputs = [] if stage is STAGES[0] else [payloads[request.request_id]]
            output, report = worker.run(stage, [request], *inputs)
            if report.error:
                raise (
                    torch.OutOfMemoryError(report.error) if "OutOfMemory" in report.error else ValueError(report.error)
                )
            if stage == V and output is None:
                worker.run(M, [request], None)
            payloads[request.request_id] = output
            if stage == D:
                measured.latents.append(output.latents)  # type: ignore[union-attr]
            measured.stages[stage].append(report.seconds)
            measured.load_seconds += report.load_seconds
            measured.peak_bytes = max(measured.peak_bytes, report.peak_bytes or 0)
            clips[request.request_id] += report.seconds
    measured.clips += clips.values()
    return measured


def bare(checkpoint: Checkpoint, requests: list[RenderRequest], device: torch.device, how: str) -> Measured:
    """diffusers' pipeline with its own offloading, a clip after the other; frames are not encoded."""
    pipeline = whole_pipeline(checkpoint)
    if how == "model":
        pipeline.enable_model_cpu_offload(device=device)
    else:
        pipeline.enable_group_offload(
            onload_device=device, offload_type="leaf_level", use_stream=True, record_stream=True
        )
    measured = Measured()
    one_clip(pipeline, requests[0])
    torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    for request in requests:
        clip_started = time.perf_counter()
        measured.latents.append(one_clip(pipeline, request))
        torch.cuda.synchronize(device)
        measured.clips.append(time.perf_counter() - clip_started)
    measured.whole = time.perf_counter() - started
    measured.peak_bytes = torch.cuda.max_memory_allocated(device)
    return measured


def whole_pipeline(checkpoint: Checkpoint) -> Any:
    dtype = torch.bfloat16
    vae = diffusers.AutoencoderKLLTXVideo.from_pretrained(checkpoint.source("vae"), dtype=dtype)
    pipeline = getattr(diffusers, checkpoint.pipeline_class)(
        scheduler=load_noise_scheduler(checkpoint),
        vae=vae.eval(),
        text_encoder=load_text_encoder(checkpoint, dtype),
        tokenizer=load_tokenizer(checkpoint),
        transformer=load_transformer(checkpoint, dtype),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def one_clip(pipeline: Any, request: RenderRequest) -> torch.Tensor:
    """Frames are made and dropped; what is returned are the latents before decoding, (1, C, F, H, W) in float32."""
    kept: list[torch.Tensor] = []

    def keep(_: Any, step: int, timestep: Any, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
        if step == request.num_inference_steps - 1:
            kept.append(tensors["latents"])
        return {}

    with torch.inference_mode():
        pipeline(
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            height=request.height,
            width=request.width,
            num_frames=request.num_frames,
            frame_rate=request.frame_rate,
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            decode_timestep=request.decode_timestep,
            decode_noise_scale=request.decode_noise_scale,
            max_sequence_length=request.max_sequence_length,
            generator=torch.Generator("cpu").manual_seed(request.seed),
            output_type="np",
            callback_on_step_end=keep,
            callback_on_step_end_tensor_inputs=["latents"],
        )
    return (
        pipeline._unpack_latents(
            kept[0],
            (request.num_frames - 1) // pipeline.vae_temporal_compression_ratio + 1,
            request.height // pipeline.vae_spatial_compression_ratio,
            request.width // pipeline.vae_spatial_compression_ratio,
            pipeline.transformer_spatial_patch_size,
            pipeline.transformer_temporal_patch_size,
        )
        .float()
        .cpu()
    )


def make(folder: Path, version: str, scale: str) -> Checkpoint:
    path = folder / f"ltxv-{version}-{scale}"
    if not path.exists():
        tool = HERE.parent / "tools" / "make_checkpoint.py"
        subprocess.run([sys.executable, str(tool), version, str(path), "--scale", scale], check=True)
    return open_checkpoint(str(path))


def set_cap(device: torch.device, cap: str) -> int | None:
    """Bytes that torch may take; None without a cap."""
    if cap == "none" or device.type != "cuda":
        return None
    capacity = int(float(cap) * 1e9)
    torch.cuda.set_per_process_memory_fraction(min(1.0, capacity / total_memory(device)), device)
    return capacity


def copy_rate(device: torch.device) -> float:
    """Bytes a second of one large copy from pinned memory, the best of five."""
    host = torch.empty(GIB, dtype=torch.uint8, pin_memory=True)
    on_device = torch.empty(GIB, dtype=torch.uint8, device=device)
    seconds = []
    for _ in range(5):
        torch.cuda.synchronize(device)
        started = time.perf_counter()
        on_device.copy_(host, non_blocking=True)
        torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return GIB / min(seconds)


def total_memory(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).total_memory


def describe(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def empty(device: torch.device) -> None:
    import gc

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
