"""Weights in fewer bits really save memory, counted in bytes of storage; and what is refused."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import diffusers
import pytest
import tiny
import torch
import transformers
from builders import STAGES, D, E, V

from ltx_dist.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ltx_dist.checkpoints.versions import read_config
from ltx_dist.engine.executor import WorkerStartError
from ltx_dist.estimates.parameters import (
    component_bytes,
    quantized_bytes,
    transformer_block_parameters,
    transformer_parameters,
)
from ltx_dist.estimates.working_sets import decode_bytes
from ltx_dist.inputs.config import RenderConfig
from ltx_dist.models.ltx_video.estimates import weight_bytes
from ltx_dist.models.ltx_video.load import load_text_encoder, load_transformer, load_vae_decoder
from ltx_dist.models.ltx_video.presets import preset_for
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import UNTILED, Mp4Settings, Storage
from ltx_dist.pipeline.worker import Worker
from ltx_dist.placement.inventory import Inventory
from ltx_dist.run.batch import Batch
from ltx_dist.weights import loading, quantization
from ltx_dist.worker.spec import WorkerSpec
from ltx_dist.worker.stage_worker import StageWorker

REQUEST = RenderRequest("clip", "a prompt", "", 64, 64, 9, 25.0, 2, 3.0, 0.0, 3, 0.05, 0.025, 32)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(str(tiny.save_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", "0.9.5")))


def stored(module: torch.nn.Module) -> int:
    """Bytes of all storages behind the parameters, each counted once, including those inside quantised tensors."""
    storages = {s.data_ptr(): s.nbytes() for parameter in module.parameters() for s in _storages(parameter)}
    return sum(storages.values())


def _storages(tensor: Any) -> Iterator[Any]:
    if type(tensor) in (torch.Tensor, torch.nn.Parameter):
        yield tensor.untyped_storage()
        return
    for name in tensor.__tensor_flatten__()[0]:
        yield from _storages(getattr(tensor, name))


def batch(checkpoint: Checkpoint, **model: str) -> Batch:
    config = RenderConfig.model_validate({"model": model})
    return Batch(config, checkpoint, preset_for("auto", checkpoint), (REQUEST,))


def planned_bytes(batch: Batch, precision: str) -> dict[str, int]:
    """Bytes of each component's weights on the device."""
    return dict(batch.demand(precision).models.weights)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_float8_storage_saves_the_bytes_that_the_plan_says(checkpoint: Checkpoint, dtype: torch.dtype) -> None:
    plain, small = load_transformer(checkpoint, dtype), load_transformer(checkpoint, dtype, "float8")
    linear = [m for name, m in small.named_modules() if isinstance(m, torch.nn.Linear) and "proj_out" not in name]
    assert sum(m.weight.dtype == torch.float8_e4m3fn for m in linear) > 0.8 * len(linear)
    assert stored(small) < stored(plain) * (0.62 if dtype == torch.bfloat16 else 0.4)
    name = str(dtype).removeprefix("torch.")
    planned = planned_bytes(batch(checkpoint, transformer_storage="float8", precision=name), name)
    assert stored(small) < planned["transformer"] < stored(plain), "a bound: what is not in blocks is counted in full"


@pytest.mark.parametrize("name", ["transformer-2b", "transformer-13b"])
def test_the_plan_of_float8_at_full_size(name: str) -> None:
    config = read_config(name)
    with torch.device("meta"):
        transformer: Any = diffusers.LTXVideoTransformer3DModel.from_config(config)
    transformer.to(torch.bfloat16)
    transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16)
    actual = sum(parameter.nbytes for parameter in transformer.parameters())
    in_blocks = config["num_layers"] * transformer_block_parameters(config)
    rest = transformer_parameters(config) - in_blocks
    planned = quantized_bytes(in_blocks, "float8") + component_bytes(rest, "bfloat16")
    assert actual <= planned <= 1.03 * actual


@pytest.mark.parametrize(("storage", "per_weight"), [("int8", 1.0), ("int4", 1 / 2 + 1 / 64 + 4 / (64 * 256))])
def test_the_plan_of_t5_in_fewer_bits_at_full_size(storage: Any, per_weight: float) -> None:
    """bitsandbytes does not quantise each block's last layer, `wo`."""
    config = transformers.T5Config(**read_config("text_encoder"))
    with torch.device("meta"):
        encoder: Any = transformers.T5EncoderModel(config)
    layers = [one for name, one in encoder.named_modules() if isinstance(one, torch.nn.Linear) and ".wo" not in name]
    in_layers, scales = sum(one.weight.numel() for one in layers), sum(4 * one.out_features for one in layers)
    in_all = sum(one.numel() for one in encoder.parameters())
    expected = per_weight * in_layers + 2 * (in_all - in_layers) + (scales if storage == "int8" else 0)
    configs = {"text_encoder": config.to_dict(), "transformer": read_config("transformer-2b")}
    parameters = {"text_encoder": in_all, "transformer": 0, "vae": 0}
    planned = weight_bytes(configs, parameters, "bfloat16", Storage(text_encoder=storage))["text_encoder"]
    assert expected <= planned.total <= 1.01 * expected
    assert planned.cast_layer == 2 * max(one.weight.numel() for one in layers)


def test_a_clip_in_float8_is_near_the_plain_one_and_the_same_streamed(checkpoint: Checkpoint) -> None:
    def latents(storage: Storage, streamed: tuple[str, ...] = ()) -> torch.Tensor:
        residency = "streamed" if streamed else "resident"
        worker = Worker("cpu:0", STAGES, "cpu", residency=residency, threads=1, streamed=streamed)
        stage_worker = StageWorker(WorkerSpec(worker, checkpoint, "float32", Mp4Settings(), storage))
        conditioning, _ = stage_worker.run(E, [REQUEST])
        output, report = stage_worker.run(D, [REQUEST], conditioning)
        assert report.error is None, report.error
        return output.latents  # type: ignore[union-attr]

    plain, small = latents(Storage()), latents(Storage("float8"))
    assert not torch.equal(plain, small)
    assert torch.nn.functional.cosine_similarity(plain.flatten(), small.flatten(), 0) > 0.95
    assert torch.equal(small, latents(Storage("float8"), ("transformer",)))


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_the_plan_of_a_text_encoder_counts_what_float16_cannot_hold(checkpoint: Checkpoint, precision: str) -> None:
    loaded = load_text_encoder(checkpoint, loading.DTYPES[precision])
    planned = planned_bytes(batch(checkpoint, precision=precision), precision)["text_encoder"]
    assert planned == sum(parameter.nbytes for parameter in loaded.parameters())
    in_float32 = {name for name, one in loaded.named_parameters() if one.dtype == torch.float32}
    if precision == "float16":
        assert in_float32 and all(".wo." in name for name in in_float32)
    quantised = batch(checkpoint, precision=precision, text_encoder_quantization="int8")
    assert planned_bytes(quantised, precision)["text_encoder"] < planned


@pytest.mark.skipif(find_spec("torchao") is None, reason="needs the extra quantize")
def test_an_int8_text_encoder_takes_half_the_memory_of_its_layers_and_says_the_same(checkpoint: Checkpoint) -> None:
    plain = load_text_encoder(checkpoint, torch.bfloat16)
    small = load_text_encoder(checkpoint, torch.bfloat16, "int8")
    layers = stored(plain.encoder.block)
    assert stored(small.encoder.block) < 0.7 * layers, "scales are a larger part at this size"
    ids = torch.arange(40)[None]
    with torch.inference_mode():
        one, other = plain(ids).last_hidden_state.float(), small(ids).last_hidden_state.float()
    assert torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), 0) > 0.99


@pytest.mark.skipif(find_spec("torchao") is not None, reason="the extra is installed")
def test_what_is_not_installed_is_named_with_the_extra(checkpoint: Checkpoint) -> None:
    worker = Worker("cpu:0", STAGES, "cpu", threads=1)
    with pytest.raises(WorkerStartError, match=r"int8 needs torchao; pip install 'torchao>="):
        StageWorker(WorkerSpec(worker, checkpoint, "float32", Mp4Settings(), Storage(text_encoder="int8")))


def test_the_vae_in_its_own_precision_is_what_is_planned_and_loaded(checkpoint: Checkpoint) -> None:
    plain, wider = (
        batch(checkpoint, precision="bfloat16"),
        batch(checkpoint, precision="bfloat16", vae_precision="float32"),
    )
    before, after = planned_bytes(plain, "bfloat16"), planned_bytes(wider, "bfloat16")
    vae = load_vae_decoder(checkpoint, torch.float32)
    assert after == before | {part: 2 * before[part] for part in ("vae", "vae_encoder")}
    assert after["vae"] == sum(tensor.nbytes for tensor in vae.state_dict().values())
    decoding = [one.demand("bfloat16").working_set(V, UNTILED) for one in (plain, wider)]
    assert decoding[1] == decode_bytes(vae.config, REQUEST, 4) > decoding[0] == decode_bytes(vae.config, REQUEST, 2)
    assert wider.storage("float32") == Storage(), "the model's own precision is none of the VAE's own"


def test_a_text_encoder_that_is_quantised_is_read_and_not_mapped(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read as for a library that quantises it, but without one: every weight arrives, and no page of the file stays."""
    monkeypatch.setattr(quantization, "quantized", lambda *_: {})
    read, plain = load_text_encoder(checkpoint, torch.float32, "int8"), load_text_encoder(checkpoint, torch.float32)
    assert {name: tensor.tolist() for name, tensor in read.state_dict().items()} == {
        name: tensor.tolist() for name, tensor in plain.state_dict().items()
    }
    assert str(checkpoint.folder("text_encoder")) in Path("/proc/self/maps").read_text(), "the plain one's"
    del plain
    gc.collect()
    assert str(checkpoint.folder("text_encoder")) not in Path("/proc/self/maps").read_text()


def test_int4_is_refused_where_it_would_save_nothing(checkpoint: Checkpoint) -> None:
    with pytest.raises(ValueError, match="^model.text_encoder_quantization: int4 saves nothing on a CPU.*use int8"):
        batch(checkpoint, text_encoder_quantization="int4").placement(Inventory((), 2))
