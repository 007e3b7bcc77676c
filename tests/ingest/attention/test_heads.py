"""Every head of a tiny model of each architecture, edited from a recorded pass on, against a plainly hooked model."""

import numpy as np
import pytest
import torch

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.attention.edits import HeadEdits, Weights
from rare_tokens.ingest.attention.heads import eager, find_heads, parse_layers
from rare_tokens.ingest.attention.sums import gini, summarised
from rare_tokens.ingest.model.structure import find_structure
from tests.support.hooked_heads import heads_outputs, hooked_pass
from tests.support.tiny import DENSE, SUPPORTED, VOCABULARY, tiny_model

CONFIGS = SUPPORTED | DENSE
PARALLEL = {"gpt_neox", "gptj", "phi", "cohere"}
WINDOWS, LENGTH = 3, 12
GENERATOR = np.random.default_rng(0)
TOKENS = GENERATOR.integers(1, VOCABULARY, (WINDOWS, LENGTH + 1))
OTHERS = GENERATOR.integers(1, VOCABULARY, (WINDOWS, LENGTH + 1))


def even(model, layer) -> torch.Tensor:
    """What the heads give when each weighs all that it may look at alike, from the weights that the model gives."""
    with torch.inference_mode():
        inputs = torch.from_numpy(TOKENS[:, :-1])
        weights = model(input_ids=inputs, use_cache=False, output_attentions=True).attentions[layer.index]
        seen = []
        real = torch.nn.functional.softmax

        def even_softmax(scores, *args, **kwargs):
            result = real(scores, *args, **kwargs)
            if scores.dim() == 4:
                seen.append(scores)
                if len(seen) == layer.index + 1:
                    mask = weights > 0
                    return (mask / mask.sum(-1, keepdim=True)).to(result.dtype)
            return result

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(torch.nn.functional, "softmax", even_softmax)
            return heads_outputs(model, layer, TOKENS)


# What differs between models is where a head's values lie; how they are replaced is the same for all.
_EVERY_ABLATION = ("gpt2", "gpt_neo", "llama", "gemma2")
_ABLATIONS = [
    pytest.param(name, ablation, marks=() if quick else pytest.mark.slow)
    for name in CONFIGS
    for ablation in ("zero", "mean", "uniform")
    for quick in [ablation == "zero" or name in _EVERY_ABLATION]
]


@pytest.mark.parametrize(("name", "ablation"), _ABLATIONS)
def test_every_head_and_layer_is_within_1e_5_of_the_hooked_model(name: str, ablation: str) -> None:
    model = tiny_model(CONFIGS[name])
    structure = find_structure(model)
    with eager(model):
        layers = find_heads(model, structure, [0, 1])
        edits = HeadEdits(model, structure, layers, ablation=ablation, predicted=LENGTH)
        if ablation == "mean":
            edits.find_means([TOKENS[:2], TOKENS[2:]])
        patched = edits.heads_of(OTHERS)
        clean, _ = edits.record(TOKENS, loss=True)
        plain = hooked_pass(model, structure, TOKENS)
        size = max(1.0, float(plain.activations.abs().max()))
        assert float((clean - plain.activations).abs().max()) <= 1e-5 * size
        instead = {}
        for layer in layers:
            own = heads_outputs(model, layer, TOKENS)
            values = {"zero": torch.zeros_like(own), "mean": own.mean((0, 1)).expand_as(own)}
            instead[layer.index] = even(model, layer) if ablation == "uniform" else values[ablation]
        compared, largest = set(), 0.0
        for found in edits.edited(loss=True, patched=patched):
            for place, edit in enumerate(found.edits):
                layer = layers[edit.layer]
                if edit.draw is not None:
                    continue
                values = heads_outputs(model, layer, OTHERS) if edit.kind.startswith("patch") else instead[edit.layer]
                heads = None if edit.head is None else [edit.head]
                truth = hooked_pass(model, structure, TOKENS, layer, heads, values)
                change = truth.activations - plain.activations
                ours = torch.zeros_like(change) if found.change is None else found.change[place]
                assert float((ours - change).abs().max()) <= 1e-5 * size, edit
                assert float((found.delta_loss[place] - (truth.loss - plain.loss)).abs().max()) <= 1e-5 * size, edit
                largest = max(largest, float(change.abs().max()))
                compared.add((edit.kind, edit.layer, edit.head))
    assert len(compared) == 2 * 2 * (4 + 1), "every head and layer, ablated and patched"
    assert largest > 0.1, "the heads must matter for the test to mean anything"


@pytest.mark.parametrize("name", CONFIGS)
def test_all_heads_ablated_is_the_attention_output_ablated(name: str) -> None:
    model = tiny_model(CONFIGS[name])
    structure = find_structure(model)
    with eager(model):
        (layer,) = find_heads(model, structure, [0])
        edits = HeadEdits(model, structure, [layer], predicted=LENGTH)
        edits.record(TOKENS, loss=True)
        (whole,) = [
            found.change[place]
            for found in edits.edited(loss=False)
            for place, edit in enumerate(found.edits)
            if edit.kind == "layer"
        ]
        plain = hooked_pass(model, structure, TOKENS)
        bias = getattr(layer.out_projection, "bias", None)

        def silence(_module, _args, output):
            nothing = torch.zeros_like(output[0]) if bias is None else bias.expand_as(output[0])
            return (nothing, *output[1:])

        handle = layer.module.register_forward_hook(silence)
        without = hooked_pass(model, structure, TOKENS)
        handle.remove()
    truth = without.activations - plain.activations
    assert float(truth.abs().max()) > 0.1
    assert float((whole - truth).abs().max()) <= 1e-5 * max(1.0, float(plain.activations.abs().max()))


@pytest.mark.parametrize("name", CONFIGS)
def test_the_last_layer_feeds_the_last_mlp_unless_they_stand_side_by_side(name: str) -> None:
    model = tiny_model(CONFIGS[name])
    structure = find_structure(model)
    with eager(model):
        (last,) = find_heads(model, structure, [1])
        assert last.feeds == (name not in PARALLEL)
        silenced = hooked_pass(model, structure, TOKENS, last)
        plain = hooked_pass(model, structure, TOKENS)
        assert torch.equal(silenced.activations, plain.activations) == (name in PARALLEL)
        assert not torch.equal(silenced.loss, plain.loss)
        chosen = [layer.index for layer in find_heads(model, structure)]
    assert chosen == ([0] if name in PARALLEL else [0, 1]), "L - 3 and L - 2 side by side, else L - 2 and L - 1"


@pytest.mark.parametrize("kind", ["feed_forward", "norm"])
def test_controls_edit_a_share_as_large_as_a_head(kind: str) -> None:
    model = tiny_model(CONFIGS["llama"])
    structure = find_structure(model)
    with eager(model):
        (layer,) = find_heads(model, structure, [0])
        edits = HeadEdits(model, structure, [layer], predicted=LENGTH)
        edits.record(TOKENS, loss=False)
        found = {
            edit.draw: one.change[place]
            for one in edits.edited(loss=False)
            for place, edit in enumerate(one.edits)
            if edit.kind == kind
        }
        plain = hooked_pass(model, structure, TOKENS).activations
        shares = edits.shares(layer, kind, 80 if kind == "feed_forward" else 32)
        assert [len(share) for share in shares] == ([20, 20] if kind == "feed_forward" else [8, 8])
        for draw, share in enumerate(shares, 1):

            def silence(_module, args, output=None, share=share):
                return (args[0] if output is None else output).index_fill(-1, share, 0.0)

            before = layer.feed_forward.register_forward_pre_hook, layer.norm.register_forward_hook
            handle = before[kind == "norm"](silence)
            change = hooked_pass(model, structure, TOKENS).activations - plain
            handle.remove()
            assert float(change.abs().max()) > 0.01
            assert float((found[draw] - change).abs().max()) <= 1e-5 * float(plain.abs().max())


def test_gini_has_its_closed_forms() -> None:
    n = 7
    linear = torch.arange(1, n + 1) / (n * (n + 1) / 2)
    alone = torch.nn.functional.one_hot(torch.tensor(2), n).float()
    rows = torch.stack([torch.full((n,), 1 / n), linear, alone])
    found = gini(rows, torch.tensor([n, n, n]))
    # all alike 0; 1, 2 … n: (n − 1)/(3n); all on one: (n − 1)/n
    assert torch.allclose(found, torch.tensor([0.0, (n - 1) / (3 * n), (n - 1) / n]), atol=1e-6)
    padded = torch.cat([rows[1], torch.zeros(5)])
    assert torch.allclose(gini(padded[None], torch.tensor([n])), found[1:2], atol=1e-6), "what is masked is left out"
    assert gini(torch.tensor([[1.0, 0.0]]), torch.tensor([1])).item() == 0


def test_attention_in_numbers() -> None:
    weights = torch.tensor([[1.0, 0.0, 0.0], [0.25, 0.75, 0.0], [0.5, 0.25, 0.25]])[None, None]
    seen = torch.ones(3, 3).tril().bool()[None, None]
    found = summarised(Weights(weights, seen), 2)
    assert found["first_sum"].tolist() == [[[0.25, 0.5]]]
    assert found["weight_sum"].tolist() == [[[[0.75, 0.25, 0.0], [0.25, 0.25, 0.5]]]]
    expected = [-(0.25 * np.log(0.25) + 0.75 * np.log(0.75)), 0.5 * np.log(2) + 0.5 * np.log(4)]
    assert np.allclose(found["entropy_sum"][0, 0], expected)
    assert np.allclose(found["gini_sum"][0, 0], [0.25, 1 / 6])


@pytest.mark.parametrize("name", ["gpt2", "mistral", "gpt_neo", "gemma2", "gptj"])
def test_weights_are_those_that_the_model_gives(name: str) -> None:
    model = tiny_model(CONFIGS[name])
    structure = find_structure(model)
    with eager(model):
        edits = HeadEdits(model, structure, find_heads(model, structure, [0, 1]), predicted=LENGTH)
        _, seen = edits.record(TOKENS, loss=False)
        found = model(input_ids=torch.from_numpy(TOKENS[:, :-1]), use_cache=False, output_attentions=True).attentions
    for layer, weights in enumerate(found):
        if layer in seen:
            assert torch.allclose(seen[layer].weights, weights, atol=1e-6)
            assert torch.equal(seen[layer].visible.expand_as(weights), weights > 0)


def test_layers_are_read_as_spelled() -> None:
    assert parse_layers("2..3", 4) == [2, 3]
    assert parse_layers("1", 4) == [1]
    assert parse_layers("-2..-1", 4) == [2, 3]


@pytest.mark.parametrize(
    ("spelled", "said"),
    [
        ("2..4", "the model has 4 layers. Use 0 to 3"),
        ("-5", "the model has 4 layers"),
        ("3..1", "the first layer is after the last"),
        ("all", "give one layer, or two"),
        ("1..", "give one layer, or two"),
    ],
)
def test_layers_that_make_no_sense_are_refused(spelled: str, said: str) -> None:
    with pytest.raises(UserError, match=f"--attention-layers {spelled}: {said}"):
        parse_layers(spelled, 4)


class Averaging(torch.nn.Module):
    """In the place of an attention: a linear map of running means, which has no weights to show."""

    def __init__(self) -> None:
        super().__init__()
        self.o_proj = torch.nn.Linear(32, 32, bias=False)

    def forward(self, hidden_states, **_others):
        count = torch.arange(1, hidden_states.shape[1] + 1)[:, None]
        return self.o_proj(hidden_states.cumsum(1) / count), None


def test_a_layer_without_attention_weights_is_refused() -> None:
    model = tiny_model(CONFIGS["llama"])
    model.model.layers[0].self_attn = Averaging()
    structure = find_structure(model)
    with eager(model):
        with pytest.raises(UserError, match=r"layer 0 of LlamaForCausalLM has no attention weights"):
            find_heads(model, structure)
        assert [layer.index for layer in find_heads(model, structure, [1])] == [1]


def test_no_attention_upstream_is_refused() -> None:
    model = tiny_model(CONFIGS["gpt_neox"])
    structure = find_structure(model, 0)
    with eager(model):
        with pytest.raises(UserError, match="no attention is upstream of the neurons of layer 0"):
            find_heads(model, structure)
        assert [layer.feeds for layer in find_heads(model, structure, [0, 1])] == [False, False]


def test_the_model_keeps_the_attention_that_it_had() -> None:
    model = tiny_model(CONFIGS["llama"])
    before = model.config._attn_implementation
    with eager(model):
        assert model.config._attn_implementation == "eager"
    assert model.config._attn_implementation == before != "eager"
