"""Which device computes, chosen by what is there. No accelerator is needed: what torch says of itself is replaced."""

import numpy as np
import pytest
import torch

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.dense import ablation
from rare_tokens.ingest.model.structure import find_structure
from rare_tokens.ingest.run.pipeline import choose_device
from tests.support.tiny import SUPPORTED, tiny_model


@pytest.fixture
def machine(monkeypatch):
    """Makes torch see CUDA devices and MPS as said."""

    def see(*, cuda: int = 0, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return see


@pytest.mark.parametrize(
    ("there", "wanted", "chosen"),
    [
        ({}, "auto", "cpu"),
        ({"mps": True}, "auto", "mps"),
        ({"cuda": 1}, "auto", "cuda"),
        ({"cuda": 2, "mps": True}, "auto", "cuda"),
        ({"cuda": 2}, "cuda:1", "cuda:1"),
        ({"cuda": 2, "mps": True}, "cpu", "cpu"),
        ({"cuda": 1, "mps": True}, "mps", "mps"),
    ],
)
def test_a_device_that_is_there_is_chosen(machine, there, wanted, chosen):
    machine(**there)
    assert choose_device(wanted) == chosen


@pytest.mark.parametrize(
    ("there", "wanted", "instead"),
    [
        ({}, "cuda", "Use auto, or cpu."),
        ({}, "mps", "Use auto, or cpu."),
        ({"cuda": 2}, "cuda:2", "Use auto, or cpu, cuda."),
        ({"cuda": 2}, "cuda:x", "Use auto, or cpu, cuda."),
        ({"mps": True}, "mps:1", "Use auto, or cpu, mps."),
        ({}, "cpu:0", "Use auto, or cpu."),
        ({}, "tpu", "Use auto, or cpu."),
        ({}, "", "Use auto, or cpu."),
    ],
)
def test_a_device_that_is_not_there_is_refused_with_those_that_are(machine, there, wanted, instead):
    machine(**there)
    with pytest.raises(UserError, match=f"--device {wanted}: not available here") as refused:
        choose_device(wanted)
    assert instead in str(refused.value)


def test_float32_stays_float32_in_matrix_products(machine):
    """A process that allowed TF32 before does not change what a run computes."""
    torch.set_float32_matmul_precision("high")
    try:
        choose_device("cpu")
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(
    ("own", "wide"),
    [("float32", "float64"), ("float64", "float64"), ("bfloat16", "float32"), ("float16", "float32")],
)
def test_the_dense_path_computes_one_precision_above_the_models(own, wide):
    model = tiny_model(SUPPORTED["gpt2"]).to(getattr(torch, own))
    structure = find_structure(model, 0)
    copy, (projection,) = ablation.widened(model, structure.out_projection)
    assert copy.dtype == projection.weight.dtype == getattr(torch, wide)
    assert model.dtype == getattr(torch, own), "the model itself is as it was"
    assert projection is copy.transformer.h[0].mlp.c_proj
    effects = ablation.DenseAblation(model, structure, torch.zeros(80)).window(np.arange(9)).values["loss"]
    assert effects.dtype == np.float32
    assert np.abs(effects).max() > 1e-3
