"""Gemma in fewer bits: which layers, how close every layer's output stays, how many bytes, and by which library.

On a CPU, int8 runs as on a GPU: torchao's weights, computing in the model's precision. bitsandbytes' NF4 is for GPUs;
here it runs with the library's CPU kernels, and is loaded with the same arguments except for the device.
"""

from __future__ import annotations

import gc
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import tiny_ltx2 as tiny
import torch

from ltx_dist.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ltx_dist.estimates.parameters import quantized_bytes
from ltx_dist.models.family import family_of
from ltx_dist.models.ltx2.load import load_component
from ltx_dist.pipeline.payloads import ConnectedText
from ltx_dist.pipeline.storage import PLAIN, Mp4Settings, Storage
from ltx_dist.pipeline.worker import Worker
from ltx_dist.weights import quantization
from ltx_dist.weights.loading import CPU
from ltx_dist.worker.spec import WorkerSpec
from ltx_dist.worker.stage_worker import StageWorker

CUDA = torch.device("cuda")
STORED = {name: Storage(text_encoder=name) for name in ("int8", "int4")}
NEEDS = {
    library: pytest.mark.skipif(find_spec(library) is None, reason="needs the extra quantize")
    for library in ("torchao", "bitsandbytes")
}
KINDS = [pytest.param("int8", marks=NEEDS["torchao"]), pytest.param("int4", marks=NEEDS["bitsandbytes"])]
LEAST_COSINE = {"int8": 0.998, "int4": 0.85}
"""Least cosine of the last layer to bfloat16, at a width of 16: NF4 has one scale for four rows of a weight."""


@pytest.fixture(scope="module", params=["2.3", "2.5"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """One checkpoint for each kind of Gemma: 3 (which 2.0 has, too) and 4."""
    folder = tiny.make_checkpoint(request.param, tmp_path_factory.mktemp("tiny") / request.param)
    return open_checkpoint(str(folder))


@pytest.fixture
def gpu_arguments_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader takes the arguments for a GPU, with this machine's CPU as the device."""
    real = quantization.quantized

    def on_cpu(kind: str, dtype: torch.dtype, _: torch.device, fits_float16: bool) -> dict[str, Any]:
        return real(kind, dtype, CUDA, fits_float16) | {"device_map": {"": CPU}}

    monkeypatch.setattr(quantization, "quantized", on_cpu)


def load(checkpoint: Checkpoint, storage: Storage) -> Any:
    return load_component("text_encoder", checkpoint, torch.bfloat16, storage)


def hidden_states(encoder: Any) -> list[torch.Tensor]:
    """Hidden states as in LTX2Pipeline.encode_prompt, of a prompt that is padded on the left; without the padding."""
    ids = torch.arange(5, 21)[None]
    mask = torch.ones_like(ids)
    mask[:, :4] = 0
    with torch.inference_mode():
        found = encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
    return [one[:, 4:].float().flatten() for one in found]


@pytest.mark.usefixtures("gpu_arguments_on_a_cpu")
@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_still_says_nearly_the_same(checkpoint: Checkpoint, kind: str) -> None:
    plain, small = load(checkpoint, PLAIN), load(checkpoint, STORED[kind])
    config = plain.config.text_config
    expected, found = hidden_states(plain), hidden_states(small)
    assert len(found) == config.num_hidden_layers + 1, "the connectors take all of them, and the embeddings"
    assert torch.equal(found[0], expected[0]), "embeddings are not quantised"
    cosines = [torch.nn.functional.cosine_similarity(*pair, dim=0) for pair in zip(expected, found, strict=True)]
    assert not torch.equal(found[-1], expected[-1]) and min(cosines) > LEAST_COSINE[kind]


@pytest.mark.usefixtures("gpu_arguments_on_a_cpu")
@pytest.mark.parametrize("kind", KINDS)
def test_all_linear_layers_of_the_language_model_are_quantised_and_nothing_else_is_kept(
    checkpoint: Checkpoint, kind: str
) -> None:
    small = load(checkpoint, STORED[kind])
    is_linear = {name: isinstance(module, torch.nn.Linear) for name, module in small.named_modules()}
    plain = {torch.bfloat16, torch.float32}
    for name, parameter in small.named_parameters():
        assert name.startswith("language_model."), "no head, no vision and no sound"
        is_quantised = type(parameter) is not torch.nn.Parameter or parameter.dtype not in plain
        assert is_quantised == is_linear[name.removesuffix(".weight")], name
    assert not small.language_model.config.use_cache and not any(module.training for module in small.modules())


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_takes_the_bytes_that_are_planned(kind: str) -> None:
    """For a layer of Gemma's width; in the plan, norms take less than a thousandth."""
    layer = torch.nn.Linear(3840, 512, bias=False, dtype=torch.bfloat16)
    if kind == "int8":
        from torchao.quantization import Int8WeightOnlyConfig, quantize_  # pyright: ignore[reportMissingImports]

        quantize_(layer, Int8WeightOnlyConfig(version=2))
        weight: Any = layer.weight
        tensors = [getattr(weight, name) for name in weight.__tensor_flatten__()[0]]
    else:
        from bitsandbytes.functional import quantize_4bit  # pyright: ignore[reportMissingImports]

        packed, state = quantize_4bit(layer.weight.data, quant_type="nf4", compress_statistics=True)
        tensors = [packed, state.absmax, state.state2.absmax]  # a code book of 1 kB belongs to a layer, not to a weight
    actual = sum(tensor.nbytes for tensor in tensors)
    assert actual <= quantized_bytes(layer.weight.numel(), kind) <= 1.003 * actual


@NEEDS["torchao"]
def test_a_worker_encodes_with_it_and_reads_it_again_for_every_turn(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, read, real = tiny.unguided(tiny.make_request()), [], quantization.quantized
    monkeypatch.setattr(quantization, "quantized", lambda *given: read.append(given[0]) or real(*given))

    def encoded(residency: Any, storage: Storage) -> list[torch.Tensor]:
        """The connectors' output for the prompt, twice, with another stage's turn in between."""
        worker = Worker("cpu:0", ("encode_text", "decode"), "cpu", residency=residency, threads=1)
        stage_worker, made = StageWorker(WorkerSpec(worker, checkpoint, "bfloat16", Mp4Settings(), storage)), []
        for _ in range(2):
            text, report = stage_worker.run("encode_text", [request])
            assert isinstance(text, ConnectedText), report.error
            made.append(text.video[0].float().flatten())
            stage_worker._components.ready(family_of(checkpoint).recipe["decode"])
        return made

    plain, resident = encoded("resident", PLAIN)[0], encoded("resident", STORED["int8"])
    assert torch.equal(*resident) and not torch.equal(plain, resident[0])
    assert torch.nn.functional.cosine_similarity(plain, resident[0], dim=0) > 0.99
    assert len(read) == 1
    for again in encoded("time_sliced", STORED["int8"]):
        assert torch.equal(again, resident[0])
    assert len(read) == 3


def test_it_is_read_and_not_mapped(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read as for a library that quantises it, but without one: every weight arrives, and no page of the file stays."""
    monkeypatch.setattr(quantization, "quantized", lambda *_: {})
    read, plain = (load(checkpoint, storage) for storage in (STORED["int8"], PLAIN))
    assert {name: tensor.tolist() for name, tensor in read.state_dict().items()} == {
        name: tensor.tolist() for name, tensor in plain.state_dict().items()
    }
    folder = str(checkpoint.folder("text_encoder"))
    assert folder in Path("/proc/self/maps").read_text(), "the plain one's"
    del plain
    gc.collect()
    assert folder not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize(
    ("kind", "device", "fits_float16", "library"),
    [
        ("int8", CPU, True, "torchao"),
        ("int8", CPU, False, "torchao"),
        ("int8", CUDA, True, "bitsandbytes"),
        ("int8", CUDA, False, "torchao"),
        ("int4", CUDA, True, "bitsandbytes"),
        ("int4", CUDA, False, "bitsandbytes"),
    ],
    ids=str,
)
def test_llm_int8_is_only_for_models_that_fit_float16(
    kind: str, device: torch.device, fits_float16: bool, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=f"{kind} needs {library}; pip install '{library}>="):
        quantization.quantized(kind, torch.bfloat16, device, fits_float16)


def test_gemma_does_not_fit_float16(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(quantization, "quantized", lambda *given: asked.append(given[3]) or {})
    load(checkpoint, STORED["int8"])
    assert asked == [False]
