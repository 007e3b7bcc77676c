"""The pieces of each architecture are found, and what does not fit is refused by name."""

import numpy as np
import pytest
import torch

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.ablation.stages.capture import Capture, forward
from rare_tokens.ingest.model.structure import find_structure, hooked
from tests.support.tiny import DENSE, SUPPORTED, UNSUPPORTED, tiny_model


@pytest.mark.parametrize("name", SUPPORTED)
def test_captured_arrays_give_the_models_own_logits(name):
    model = tiny_model(SUPPORTED[name])
    found = find_structure(model)
    assert found.layer == 1
    assert found.w_out.shape == found.w_in.shape == (80, 32)
    inputs = torch.randint(0, 300, (2, 12), generator=torch.Generator().manual_seed(1))
    residual, activations = forward(model, found, inputs)
    assert residual.shape == (24, 32)
    assert activations.shape == (24, 80)
    logits = model(input_ids=inputs).logits.reshape(24, -1).double()
    x = residual.double()
    x = x - x.mean(1, keepdim=True) if found.head.norm.centred else x
    normed = x / (x.square().mean(1, keepdim=True) + found.head.norm.eps).sqrt() * found.head.norm.gain.double()
    if found.head.norm.bias is not None:
        normed = normed + found.head.norm.bias.double()
    ours = normed @ found.head.unembedding.double().T
    if found.head.logit_bias is not None:
        ours = ours + found.head.logit_bias.double()
    torch.testing.assert_close(ours, logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "qwen3", "phi3", "mistral"])
def test_a_gated_mlps_gate_and_up_are_told_apart(name):
    model = tiny_model(SUPPORTED[name])
    found = find_structure(model)
    seen = {}
    mlp_input = (model.model.layers[-1].mlp, "before", lambda _m, args: seen.update(x=args[0]))
    output = (found.out_projection, "before", lambda _m, args: seen.update(n=args[0]))
    with hooked(mlp_input, output):
        model(input_ids=torch.arange(8).unsqueeze(0))
    gate, up = seen["x"] @ found.w_in.T, seen["x"] @ found.w_up.T
    torch.testing.assert_close(torch.nn.functional.silu(gate) * up, seen["n"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("mixtral", "layer 1 is a mixture of experts"),
        ("opt_projected", r"a projection \(model.decoder.project_out\) lies between"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_is_missing(name, missing):
    model = tiny_model(UNSUPPORTED[name])
    with pytest.raises(UserError, match=missing) as refused:
        find_structure(model)
    assert type(model).__name__ in str(refused.value)


ADDED = "does not reach the final norm by addition"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("name", "between"),
    [("gemma2", ["soft-capped"]), ("granite", [ADDED])],
)
def test_what_lies_between_the_last_mlp_and_the_loss_is_named_in_any_dtype(name, between, dtype):
    found = find_structure(tiny_model(DENSE[name]).to(dtype))
    assert len(found.between) == len(between)
    assert all(wanted in reason for reason, wanted in zip(found.between, between, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", SUPPORTED)
def test_plain_addition_and_the_kind_of_the_final_norm_are_seen_in_any_dtype(name, dtype):
    model = tiny_model(SUPPORTED[name])
    wanted = find_structure(model)
    found = find_structure(model.to(dtype))
    assert found.between == wanted.between == ()
    assert found.head.norm.centred == wanted.head.norm.centred
    assert (found.post_norm is not None) == (name in ("gemma3", "olmo2", "olmo3"))


@pytest.mark.parametrize("name", ["gemma3", "olmo2"])
def test_a_norm_after_the_mlp_that_acts_otherwise_is_not_taken_for_one(name, monkeypatch):
    """It reads what the MLP gives, but something else is added to the residual stream."""
    model = tiny_model(SUPPORTED[name])
    norm = model.model.layers[-1].post_feedforward_layernorm
    assert find_structure(model).post_norm.norm.gain.shape == norm.weight.shape
    halved = norm.register_forward_hook(lambda _module, _args, output: output / 2)
    found = find_structure(model)
    assert found.post_norm is None
    assert ADDED in found.between[0]
    halved.remove()
    assert find_structure(model).between == ()


def test_a_layer_below_the_last_is_found_and_named():
    model = tiny_model(SUPPORTED["gpt2"])
    found = find_structure(model, 0)
    assert found.between == ("layer 0 of 2 is below the last",)
    assert found.layer == find_structure(model, -2).layer == 0
    assert torch.equal(found.w_out, model.transformer.h[0].mlp.c_proj.weight)
    with pytest.raises(UserError, match="--layer 2: the model has 2 layers"):
        find_structure(model, 2)
    with pytest.raises(UserError, match="--layer -3: the model has 2 layers"):
        find_structure(model, -3)


def test_a_factor_on_the_logits_is_folded_into_the_head():
    model = tiny_model(SUPPORTED["cohere"])
    found = find_structure(model)
    model.logit_scale = 1.0
    torch.testing.assert_close(found.head.norm.gain, 4 * find_structure(model).head.norm.gain)


def test_activations_that_are_not_finite_end_the_capture(tmp_path):
    model = tiny_model(SUPPORTED["gpt2"])
    found = find_structure(model)
    model.transformer.h[1].mlp.c_proj.weight.data[:] = float("inf")
    capture = Capture(tmp_path, np.full((2, 9), 5), model, found)
    with pytest.raises(UserError, match="NaN or infinity in the residual stream of layer 1, windows 0"):
        capture.run(0)
    assert not capture.is_done(0)
