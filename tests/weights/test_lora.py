"""LoRAs in a transformer give diffusers' bits in all layouts, and have no effect on clips that do not use them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import loras
import pytest
import tiny
import torch

from ltx_dist.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ltx_dist.checkpoints.lora_files import LoraFile, linear_layers, read_lora
from ltx_dist.pipeline.conditions import Lora
from ltx_dist.weights.lora import add_loras, use_loras
from ltx_dist.weights.streaming import StreamedModule

DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tiny.save_checkpoint(tmp_path_factory.mktemp("tiny") / "model", "0.9.5", "LTXConditionPipeline")
    return open_checkpoint(str(folder))


@pytest.fixture(scope="module")
def linears(checkpoint: Checkpoint) -> dict[str, tuple[int, int]]:
    return linear_layers(checkpoint)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def load(checkpoint: Checkpoint, dtype: torch.dtype = torch.float32) -> Any:
    return diffusers.LTXVideoTransformer3DModel.from_pretrained(checkpoint.path / "transformer", dtype=dtype).eval()


def forward(transformer: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    dtype = next(p.dtype for p in transformer.parameters() if p.dtype in DTYPES)
    with torch.inference_mode():
        return transformer(
            hidden_states=torch.randn(1, 12, tiny.LATENT_CHANNELS, generator=generator).to(dtype),
            encoder_hidden_states=torch.randn(1, 8, tiny.CAPTION_CHANNELS, generator=generator).to(dtype),
            timestep=torch.full((1, 12), 500.0),
            encoder_attention_mask=torch.ones(1, 8, dtype=torch.bool),
            num_frames=2, height=2, width=3, return_dict=False,
        )[0]  # fmt: skip


def by_diffusers(checkpoint: Checkpoint, dtype: torch.dtype, weights: dict[str, float], *states: dict[str, Any]) -> Any:
    """A pipeline's transformer with LoRAs `a`, `b`, ... as a user of diffusers loads them."""
    pipeline = diffusers.LTXConditionPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(), vae=None, text_encoder=None, tokenizer=None,
        transformer=load(checkpoint, dtype),
    )  # fmt: skip
    for name, state in zip("ab", states, strict=False):
        state = {key: tensor.to(dtype) for key, tensor in loras.renamed(state, "transformer.").items()}
        pipeline.load_lora_weights(state, adapter_name=name)
    pipeline.set_adapters(list(weights), list(weights.values()))
    return pipeline.transformer


def read(path: Path, tensors: dict[str, Any], linears: dict[str, tuple[int, int]]) -> LoraFile:
    return read_lora(loras.save(path, tensors), linears)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", loras.LAYOUTS)
def test_every_layout_gives_the_bits_of_diffusers(
    tmp_path: Path, checkpoint: Checkpoint, linears: dict[str, tuple[int, int]], layout: str, dtype: torch.dtype
):
    """alpha is diffusers' `weight`: it multiplies by alpha / rank either way."""
    tensors, alpha = loras.make_lora(linears), loras.LAYOUTS[layout].get("alpha", 4.0)
    transformer = load(checkpoint, dtype)
    file = read(tmp_path / "a.safetensors", loras.renamed(tensors, **loras.LAYOUTS[layout]), linears)
    add_loras(transformer, {"aa": file}, dtype)
    use_loras(transformer, [Lora("", "aa")])
    expected = forward(by_diffusers(checkpoint, dtype, {"a": alpha / 4}, tensors))
    assert torch.equal(forward(transformer), expected)
    assert not torch.equal(expected, forward(load(checkpoint, dtype)))


def test_alphas_of_their_own_and_mixed_ranks_scale_each_layer(
    tmp_path: Path, checkpoint: Checkpoint, linears: dict[str, tuple[int, int]]
):
    first, second = "transformer_blocks.0.attn1.to_q", "transformer_blocks.1.ff.net.2"
    tensors = loras.make_lora(linears, [first], 4) | loras.make_lora(linears, [second], 8)
    with_alphas = tensors | {f"{first}.alpha": torch.tensor(2.0)}
    transformer = load(checkpoint)
    add_loras(transformer, {"aa": read(tmp_path / "a.safetensors", with_alphas, linears)}, torch.float32)
    use_loras(transformer, [Lora("", "aa")])
    scaled = dict(tensors) | {f"{first}.lora_B.weight": tensors[f"{first}.lora_B.weight"] / 2}  # exact: by two
    assert torch.equal(forward(transformer), forward(by_diffusers(checkpoint, torch.float32, {"a": 1.0}, scaled)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sets_are_chosen_and_left_without_a_trace(
    tmp_path: Path, checkpoint: Checkpoint, linears: dict[str, tuple[int, int]], dtype: torch.dtype
):
    a, b = loras.make_lora(linears, seed=1), loras.make_lora(linears, rank=6, seed=2)
    transformer = load(checkpoint, dtype)
    files = {"aa": read(tmp_path / "a.safetensors", a, linears), "bb": read(tmp_path / "b.safetensors", b, linears)}
    add_loras(transformer, files, dtype)
    sets: list[tuple[dict[str, float], list[Lora]]] = [
        ({"a": 1.0}, [Lora("", "aa")]),
        ({"a": 0.7, "b": 0.3}, [Lora("", "aa", 0.7), Lora("", "bb", 0.3)]),
        ({"b": 0.3, "a": 0.7}, [Lora("", "bb", 0.3), Lora("", "aa", 0.7)]),
        ({"b": 1.5}, [Lora("", "bb", 1.5)]),
    ]
    for _ in range(2):
        for weights, chosen in sets:
            use_loras(transformer, chosen)
            assert torch.equal(forward(transformer), forward(by_diffusers(checkpoint, dtype, weights, a, b)))
        use_loras(transformer, [])
        assert torch.equal(forward(transformer), forward(load(checkpoint, dtype)))


def test_a_transformer_without_loras_is_untouched(checkpoint: Checkpoint):
    transformer = load(checkpoint)
    add_loras(transformer, {}, torch.float32)
    use_loras(transformer, [])
    assert torch.equal(forward(transformer), forward(load(checkpoint)))


def test_beside_float8_weights_they_keep_their_precision(
    tmp_path: Path, checkpoint: Checkpoint, linears: dict[str, tuple[int, int]]
):
    in_blocks = [layer for layer in linears if layer.startswith("transformer_blocks")]
    tensors = loras.make_lora(linears, in_blocks)
    transformer = load(checkpoint, torch.bfloat16)
    transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16)
    plain = forward(transformer)
    add_loras(transformer, {"aa": read(tmp_path / "a.safetensors", tensors, linears)}, torch.bfloat16)
    dtypes = {name.split(".")[-3]: p.dtype for name, p in transformer.named_parameters() if ".lora_" in name}
    assert dtypes == {"lora_A": torch.bfloat16, "lora_B": torch.bfloat16}
    use_loras(transformer, [Lora("", "aa")])
    with_lora = forward(transformer)
    weight = transformer.transformer_blocks[0].attn1.to_q.base_layer.weight
    assert weight.dtype == torch.float8_e4m3fn
    assert transformer.transformer_blocks[0].attn1.to_q.lora_A["lora_aa"].weight.dtype == torch.bfloat16
    # The same weights, rounded to float8 once and kept in bfloat16.
    rounded = load(checkpoint, torch.bfloat16)
    for name, parameter in rounded.named_parameters():
        stored = dict(transformer.named_parameters())
        kept = stored.get(
            name, stored.get(name.replace(".weight", ".base_layer.weight").replace(".bias", ".base_layer.bias"))
        )
        parameter.data = kept.data.to(torch.bfloat16)
    add_loras(rounded, {"aa": read(tmp_path / "a.safetensors", tensors, linears)}, torch.bfloat16)
    use_loras(rounded, [Lora("", "aa")])
    assert torch.equal(with_lora, forward(rounded)) and not torch.equal(with_lora, plain)
    use_loras(transformer, [])
    assert torch.equal(forward(transformer), plain)


def test_a_streamed_transformer_brings_them_along(
    tmp_path: Path, checkpoint: Checkpoint, linears: dict[str, tuple[int, int]]
):
    tensors = loras.make_lora(linears)
    transformer = load(checkpoint)
    add_loras(transformer, {"aa": read(tmp_path / "a.safetensors", tensors, linears)}, torch.float32)
    streamed = StreamedModule(transformer, transformer.transformer_blocks, torch.device("cpu"))
    streamed.upload()
    for chosen, weights in (([Lora("", "aa", 0.5)], {"a": 0.5}), ([Lora("", "aa")], {"a": 1.0})):
        use_loras(transformer, chosen)
        assert torch.equal(forward(transformer), forward(by_diffusers(checkpoint, torch.float32, weights, tensors)))
    streamed.evict()
    use_loras(transformer, [])
    streamed.upload()
    assert torch.equal(forward(transformer), forward(load(checkpoint)))
