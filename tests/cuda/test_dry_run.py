"""The real stages on fake CUDA tensors: every tensor on the right device and of the right dtype, without a GPU.

Everything that a stage can do needs a case here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from fake_cuda import CUDA, READS, HostTraffic, fake_cuda, to_cuda, without_values

from ltx_dist.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ltx_dist.models import frames
from ltx_dist.models.family import StageContext, family_of
from ltx_dist.models.ltx_video import decode, denoising, encode_text
from ltx_dist.pipeline.payloads import Conditioning, Latents
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import PLAIN, UNTILED, DecodeTiling, Storage

KINDS = {
    "0.9.0": ("0.9.0", "LTXPipeline"),
    "0.9.1": ("0.9.1", "LTXPipeline"),
    "0.9.5": ("0.9.5", "LTXPipeline"),
    "conditions": ("0.9.5", "LTXConditionPipeline"),
}

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "float32": {"dtype": torch.float32},
    "unguided": {"guidance_scale": 1.0},
    "rescaled": {"guidance_rescale": 0.7},
    "tiled": {"tiling": DecodeTiling(128, 16)},
    "float8": {"storage": Storage("float8")},
    "VAE float32": {"storage": Storage(vae="float32")},
    "two in a pass": {"clips": 2},
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    folder = tmp_path_factory.mktemp("tiny")
    return {name: open_checkpoint(str(tiny.save_checkpoint(folder / name, *kind))) for name, kind in KINDS.items()}


@pytest.fixture(autouse=True)
def without_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces what reads values: frames, which are checked here, finiteness checks, and a copy of the scheduler."""
    without_values(monkeypatch)
    monkeypatch.setattr(frames, "on_host", on_host)
    monkeypatch.setattr(frames, "check_finite", lambda *_: None)
    monkeypatch.setattr(denoising, "check_finite", lambda *_: None)
    monkeypatch.setattr(encode_text, "check_finite", lambda *_: None)
    monkeypatch.setattr(denoising.copy, "deepcopy", denoising.copy.copy)


def on_host(group: torch.Tensor) -> np.ndarray:
    assert group.device == CUDA and group.dtype == torch.uint8
    assert group.is_contiguous(), "the host would have to turn every frame over"
    return np.empty(tuple(group.shape), np.uint8)


def dry_run(
    checkpoint: Checkpoint,
    dtype: torch.dtype = torch.bfloat16,
    storage: Storage = PLAIN,
    tiling: DecodeTiling = UNTILED,
    clips: int = 1,
    steps: int = 2,
    guidance_scale: float = 3.0,
    guidance_rescale: float = 0.0,
) -> dict[str, Counter[str]]:
    """What was copied between host and device, by stage. Raises if devices or dtypes do not match."""
    family, traffic = family_of(checkpoint), dict[str, Counter[str]]()
    uses_own = checkpoint.pipeline_class == "LTXConditionPipeline"
    requests = [
        RenderRequest(
            f"clip {index}", "a prompt", "", 64, 96, 25, 25.0, steps, guidance_scale, guidance_rescale, 3 + index, 0.05,
            0.025, 32, timesteps=tuple(1000.0 - 100.0 * step for step in range(steps)) if uses_own else None,
        )
        for index in range(clips)
    ]  # fmt: skip
    with torch.no_grad():
        stages = {stage: family.recipe[stage] for stage in ("encode_text", "denoise", "decode")}
        names = [name for spec in stages.values() for name in spec.components]
        modules = {name: family.load_component(name, checkpoint, dtype, storage, torch.device("cpu")) for name in names}
        operations = {
            spec.name: family.operation(spec.operation)(
                {name: modules[name] for name in spec.components}, checkpoint, CUDA, dtype
            )
            for spec in stages.values()
        }

        def run(stage: str, some: list[RenderRequest], inputs: list[dict[str, Any]]) -> list[Any]:
            with HostTraffic() as counted:
                outputs = operations[stage].run(some, inputs, StageContext(stages[stage], tiling=tiling))
                outputs = [list(output.frames) if stage == "decode" else output for output in outputs]
            traffic[stage] = counted.counts
            return outputs

        with fake_cuda() as mode:
            for module in modules.values():
                to_cuda(mode, module)
            conditionings = run("encode_text", requests, [{} for _ in requests])
            latents = run("denoise", requests, [{"encode_text": one} for one in conditionings])
            for conditioning, one in zip(conditionings, latents, strict=True):
                _check(conditioning, one, dtype)
            object.__setattr__(latents[0], "generator_state", torch.Generator("cpu").get_state())
            decoded = run("decode", requests[:1], [{"denoise": Unhashed(latents[0])}])[0]
    assert len(decoded) == 25 and {frame.shape for frame in decoded} == {(64, 96, 3)}
    return traffic


def _check(conditioning: Conditioning, latents: Latents, dtype: torch.dtype) -> None:
    assert conditioning.prompt_embeds.device.type == latents.latents.device.type == "cpu"
    assert conditioning.prompt_embeds.dtype == dtype and latents.latents.dtype == torch.float32
    assert latents.latents.shape == (1, tiny.LATENT_CHANNELS, 4, 2, 3)


class Unhashed:
    """Latents without values, which have no digest."""

    def __init__(self, latents: Latents) -> None:
        self._latents = latents

    def __getattr__(self, name: str) -> Any:
        return getattr(self._latents, name)

    def sha256(self) -> str:
        return ""


CASES = [("0.9.5", option) for option in OPTIONS] + [
    (kind, option) for kind in ("0.9.0", "0.9.1", "conditions") for option in ("plain", "tiled", "float8")
]


@pytest.mark.parametrize(("kind", "option"), CASES)
def test_every_tensor_is_where_it_belongs(checkpoints: dict[str, Checkpoint], kind: str, option: str) -> None:
    dry_run(checkpoints[kind], **OPTIONS[option])


def test_nothing_passes_between_host_and_device_in_a_step(checkpoints: dict[str, Checkpoint]) -> None:
    for kind in ("0.9.5", "conditions"):
        few, many = (dry_run(checkpoints[kind], steps=steps) for steps in (2, 6))
        assert few["denoise"] == many["denoise"], "four steps more, and no copy more"
        assert few["denoise"]["cuda to cpu"] == 1, "the latents, once per clip"
        assert not READS & few["denoise"].keys(), "the host waits for nothing"


def test_frames_leave_in_groups(checkpoints: dict[str, Checkpoint], monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[int] = []

    def counted(group: torch.Tensor) -> np.ndarray:
        groups.append(len(group))
        return on_host(group)

    monkeypatch.setattr(frames, "on_host", counted)
    dry_run(checkpoints["0.9.5"])
    assert sum(groups) == 25 and len(groups) < 25


def left_on_cpu(self: Any, tensors: Any) -> Any:
    given = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(given) if given else None


def noise_on_cpu(self: Any, request: Any, latents: Any, samples: torch.Tensor) -> Any:
    return samples + torch.randn(samples.shape, dtype=samples.dtype), torch.zeros(1, device=CUDA, dtype=samples.dtype)


def timestep_on_cpu(self: Any, request: Any, latents: Any, samples: torch.Tensor) -> Any:
    return samples, torch.zeros(1, dtype=samples.dtype)


def prompts_on_cpu(self: Any, texts: Any, max_sequence_length: int, *_: Any) -> Any:
    embeds, mask, _, _ = self._pipeline.encode_prompt(
        [*texts], do_classifier_free_guidance=False, max_sequence_length=max_sequence_length, device=torch.device("cpu")
    )
    return embeds, mask


@pytest.mark.parametrize(
    ("where", "name", "planted"),
    [
        (denoising.Denoising, "_stacked", left_on_cpu),
        (decode.Decode, "_add_decode_noise", noise_on_cpu),
        (decode.Decode, "_add_decode_noise", timestep_on_cpu),
        (encode_text.EncodeText, "_encode", prompts_on_cpu),
    ],
    ids=["embeddings", "decode noise", "decode timestep", "prompts"],
)
def test_control_what_is_left_on_the_cpu_is_found(
    checkpoints: dict[str, Checkpoint], monkeypatch: pytest.MonkeyPatch, where: Any, name: str, planted: Any
) -> None:
    monkeypatch.setattr(where, name, planted)
    with pytest.raises((RuntimeError, AssertionError)):
        dry_run(checkpoints["0.9.5"])
