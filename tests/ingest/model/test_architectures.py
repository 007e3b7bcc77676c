"""Some 85 kinds of decoders: published and right against the model hooked in float64, or refused by name."""

import numpy as np
import polars as pl
import pytest
import torch

from rare_tokens import warehouse
from rare_tokens.common.errors import UserError
from rare_tokens.ingest.model.files import Trust
from rare_tokens.ingest.model.load import load_model
from rare_tokens.ingest.model.locate import locate
from rare_tokens.ingest.model.structure import find_structure, hooked
from tests.support.architectures import EXPERTS, OTHERS, PUBLISHED, tiny_config
from tests.support.tiny import save_folder, tiny_corpus, tiny_model

WINDOW, POSITIONS = 16, 32
NEURONS = (0, 7, 30)
NOT_IN_FLOAT64 = ("nemotron_h", "xglm")  # of the library: grouped products, and a mask that overflows


@pytest.mark.quick_cases(4)
@pytest.mark.parametrize("kind", PUBLISHED)
def test_it_is_published_and_right(tmp_path, commands, kind):
    save_folder(tmp_path / "model", tiny_config(kind))
    corpus = tiny_corpus(tmp_path / "c.jsonl")
    options = ["--tokens", POSITIONS, "--window", WINDOW, "--quiet"]
    ended = commands("ingest", "--model", "model", "--corpus", corpus, *options)
    assert ended.code == 0, ended.err
    with warehouse.open(tmp_path / "rare_tokens.duckdb") as opened:
        places = opened.sql("from dim_position order by position_id")
        facts = opened.sql("select neuron, position_id, delta_loss, activation from fct_effect order by all")
    dtype = "float32" if kind in NOT_IN_FLOAT64 else "float64"
    loss, effects = hooked_effects(tmp_path / "model", dtype, places, facts)
    assert np.allclose(places["loss"], loss, rtol=1e-5, atol=1e-5)
    for neuron, truth in effects.items():
        ours = facts.filter(pl.col("neuron") == neuron)["delta_loss"].to_numpy()
        assert np.abs(truth).max() > 1e-6, "the neuron must matter for the test to mean anything"
        assert np.max(np.abs(ours - truth) / (1e-5 + 1e-3 * np.abs(truth))) <= 1, f"neuron {neuron}"


def hooked_effects(
    folder, dtype: str, places: pl.DataFrame, facts: pl.DataFrame
) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Loss (positions) and Δ of a few neurons, the neuron replaced in the model itself, run in float64."""
    model = load_model(locate(str(folder), None, Trust()), dtype=dtype, device="cpu", trust=Trust())
    found = find_structure(model)
    inputs = torch.from_numpy(places["input_token_id"].to_numpy().astype(np.int64)).reshape(-1, WINDOW)
    targets = torch.from_numpy(places["target_token_id"].to_numpy().astype(np.int64))

    def loss() -> torch.Tensor:
        with torch.inference_mode():
            logits = model(input_ids=inputs, use_cache=False).logits.double().reshape(len(targets), -1)
        return torch.nn.functional.cross_entropy(logits, targets, reduction="none")

    clean, effects = loss(), {}
    for neuron in NEURONS:
        mean = facts.filter(pl.col("neuron") == neuron)["activation"].mean()

        def replace(_module, args, neuron=neuron, mean=mean):
            edited = args[0].clone()
            edited[..., neuron] = mean
            return (edited, *args[1:])

        with hooked((found.out_projection, "before", replace)):
            effects[neuron] = (loss() - clean).numpy()
    return clean.numpy(), effects


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize("kind", EXPERTS)
def test_a_mixture_of_experts_is_refused_by_that_name(kind):
    with pytest.raises(UserError, match="is a mixture of experts"):
        find_structure(tiny_model(tiny_config(kind)))


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("kind", OTHERS)
def test_another_is_refused_with_what_it_lacks(kind):
    with pytest.raises(UserError, match=OTHERS[kind]):
        find_structure(tiny_model(tiny_config(kind)))
