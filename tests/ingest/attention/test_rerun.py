"""What an edited head makes run again, and what not: never more than reaches the neurons, never less."""

import numpy as np
import pytest
import torch

from rare_tokens.ingest.attention.dependence import find_reach
from rare_tokens.ingest.attention.edits import HEAD, HeadEdits
from rare_tokens.ingest.attention.heads import eager, find_heads
from rare_tokens.ingest.attention.low_rank import find_readers
from rare_tokens.ingest.model.structure import find_structure
from tests.support.hooked_heads import hooked_pass
from tests.support.tiny import DENSE, SUPPORTED, VOCABULARY, tiny_model

CONFIGS = SUPPORTED | DENSE
LENGTH = 12
GENERATOR = np.random.default_rng(1)
TOKENS = GENERATOR.integers(1, VOCABULARY, (2, LENGTH + 1))
OTHERS = GENERATOR.integers(1, VOCABULARY, (2, LENGTH + 1))
PROBE = torch.arange(1, 9)[None]
READ = {  # by architecture: what reads the residual stream behind the first attention, through a norm
    "gpt2": {"c_fc"}, "gpt_neo": {"c_fc"}, "opt": {"fc1"}, "gpt_neox_sequential": {"dense_h_to_4h"},
    "gpt_neox": {"query_key_value", "dense_h_to_4h"}, "gptj": {"q_proj", "k_proj", "v_proj", "fc_in"},
    "phi": {"q_proj", "k_proj", "v_proj", "fc1"}, "llama": {"gate_proj", "up_proj"}, "phi3": {"gate_up_proj"},
    "qwen3": {"gate_proj", "up_proj"}, "cohere": {"q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"},
    # A norm or a factor between the attention and the residual stream: the maps run as they are
    "gemma2": set(), "gemma3": set(), "olmo2": set(), "granite": set(),
}  # fmt: skip


def set_up(name: str, wanted: list[int] | None = None, **given):
    model = tiny_model(CONFIGS[name])
    structure = find_structure(model)
    with eager(model):
        layers = find_heads(model, structure, wanted)
    return model, structure, HeadEdits(model, structure, layers, predicted=LENGTH, **given)


def names(model, modules) -> set[str]:
    known = {module: name for name, module in model.named_modules()}
    return {known[module] for module in modules}


def test_beside_an_attention_in_parallel_nothing_is_reached() -> None:
    model, structure, edits = set_up("gpt_neox")
    (layer,) = edits.layers
    reach = find_reach(model, layer.module, structure.out_projection, PROBE)
    assert reach.feeds
    assert {"gpt_neox.layers.0.mlp", "gpt_neox.embed_in"} <= names(model, reach.untouched)
    assert not {name for name in names(model, reach.untouched) if name.startswith("gpt_neox.layers.1")}
    assert "gpt_neox.layers.1.attention" in names(model, reach.unread), "it runs beside the neurons"
    assert "gpt_neox.layers.1.attention" not in names(model, reach.untouched)


def test_in_sequence_the_own_mlp_is_reached_and_the_next_attention_read() -> None:
    model, structure, edits = set_up("llama")
    first, last = edits.layers
    reach = find_reach(model, first.module, structure.out_projection, PROBE)
    assert names(model, reach.unread) == names(model, reach.untouched), "nothing is idle"
    assert not {name for name in names(model, reach.unread) if name.startswith("model.layers.1")}
    assert "model.layers.0.mlp" not in names(model, reach.untouched)
    reach = find_reach(model, last.module, structure.out_projection, PROBE)
    assert "model.layers.0" in names(model, reach.untouched)


def test_an_edit_beyond_the_neurons_feeds_nothing() -> None:
    model, structure, edits = set_up("gpt_neox", [1])
    (layer,) = edits.layers
    reach = find_reach(model, layer.module, structure.out_projection, PROBE)
    assert not reach.feeds
    assert not reach.idle


def test_weights_that_want_gradients_still_do() -> None:
    model = tiny_model(CONFIGS["llama"]).requires_grad_(True)
    structure = find_structure(model)
    before = [weight.requires_grad for weight in model.parameters()]
    with eager(model):
        (layer,) = find_heads(model, structure, [0])
    assert find_reach(model, layer.module, structure.out_projection, PROBE).untouched
    assert [weight.requires_grad for weight in model.parameters()] == before == [True] * len(before)


@pytest.mark.parametrize(
    ("name", "products"),
    [
        ("gpt_neox", set()),  # nothing but the input of the next MLP, and that by low rank
        ("gptj", set()),
        ("gpt2", {"0.mlp.c_proj", "1.attn.c_attn", "1.attn.c_proj", "1.mlp.c_fc"}),
        (
            "llama",
            {"0.mlp.down_proj", *(f"1.self_attn.{part}_proj" for part in "qkvo"), "1.mlp.gate_proj", "1.mlp.up_proj"},
        ),
    ],
)
def test_edited_heads_run_no_more_than_they_must(name: str, products: set[str]) -> None:
    model, _structure, edits = set_up(name, [0])
    edits.record(TOKENS, loss=False)
    edits.edits = tuple(edit for edit in edits.edits if edit.kind == HEAD)
    ran: set[str] = set()
    for path, module in model.named_modules():
        if type(module).__name__ in ("Linear", "Conv1D"):

            def forward(*args, own=module.forward, path=path, **given):
                ran.add(path)
                return own(*args, **given)

            module.forward = forward
    found = [change for one in edits.edited(loss=False) for change in one.change]
    assert len(found) == edits.layers[0].heads
    assert {path.split(".", 2)[2] for path in ran} == products


@pytest.mark.parametrize("name", READ)
def test_maps_behind_the_norm_are_found(name: str) -> None:
    model, _structure, edits = set_up(name, [0])
    readers = edits.rerun.readers[edits.layers[0].module]
    found = names(model, [linear for reader in readers for linear in reader.maps])
    assert {path.rsplit(".", 1)[1] for path in found} == READ[name]


def test_less_than_float32_runs_its_own_products() -> None:
    model = tiny_model(CONFIGS["llama"]).to(torch.bfloat16)
    structure = find_structure(model)
    with eager(model):
        (layer,) = find_heads(model, structure, [0])
    assert find_readers(model, layer, PROBE) == []


class Odd(torch.nn.LayerNorm):
    """A norm by its name and weights, but not by what it does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + 0.1 * x.tanh()


@pytest.mark.parametrize("odd", ["norm", "map", "nothing"])
def test_what_is_not_what_it_seems_runs_as_it_is(odd: str) -> None:
    model, structure, whole = set_up("gpt2")
    block = model.transformer.h[1]
    if odd == "norm":
        block.ln_2.__class__ = Odd
    if odd == "map":
        real = block.mlp.c_fc.forward
        block.mlp.c_fc.forward = lambda x: real(x).clamp(max=0.05)
    layers = whole.layers[1:]
    edits = HeadEdits(model, structure, layers, predicted=LENGTH)
    assert len(edits.rerun.readers[layers[0].module]) == (odd == "nothing")
    edits.record(TOKENS, loss=False)
    plain = hooked_pass(model, structure, TOKENS)
    for one in edits.edited(loss=False):
        for place, edit in enumerate(one.edits):
            if edit.kind == HEAD:
                truth = hooked_pass(model, structure, TOKENS, layers[0], [edit.head]).activations - plain.activations
                assert float(truth.abs().max()) > 1e-3
                assert float((one.change[place] - truth).abs().max()) <= 1e-5


@pytest.mark.parametrize("name", ["gpt_neox", "gpt_neox_sequential", "gptj", "cohere", "llama"])
def test_windows_one_after_the_other_with_and_without_the_loss(name: str) -> None:
    """What was kept of one window, or skipped in it, must not show in the next."""
    model, structure, edits = set_up(name, patches=False)
    for tokens, loss in ((TOKENS, False), (OTHERS, False), (TOKENS, True), (OTHERS, False), (TOKENS[:1], False)):
        clean, weights = edits.record(tokens, loss=loss)
        plain = hooked_pass(model, structure, tokens)
        assert torch.allclose(clean, plain.activations, atol=1e-5)
        assert set(weights) == {layer.index for layer in edits.layers}
        for one in edits.edited(loss=loss):
            for place, edit in enumerate(one.edits):
                if edit.kind == HEAD:
                    layer = next(layer for layer in edits.layers if layer.index == edit.layer)
                    truth = hooked_pass(model, structure, tokens, layer, [edit.head])
                    assert torch.allclose(one.change[place], truth.activations - plain.activations, atol=1e-5)
                    if loss:
                        assert torch.allclose(one.delta_loss[place], truth.loss - plain.loss, atol=1e-5)
