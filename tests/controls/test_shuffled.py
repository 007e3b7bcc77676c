"""Labels drawn by chance over stored effects: as the relations have them, and rejected as often as they should."""

import numpy as np
import pytest
from transformers import GPTNeoXConfig

from studies.controls import shuffled
from studies.controls.pipeline import Text, ingest, permuted_counts, read
from tests.support.tiny import SUPPORTED, save_folder, tiny_corpus


def test_stored_effects_and_the_halves_of_occurrences_are_those_of_the_relations(tmp_path):
    assert isinstance(SUPPORTED["gpt_neox"], GPTNeoXConfig)
    model = save_folder(tmp_path / "tiny", SUPPORTED["gpt_neox"])
    np.save(tmp_path / "counts.npy", np.random.default_rng(0).geometric(1e-3, 300))
    counts = permuted_counts(tmp_path / "counts.npy", 1, tmp_path / "permuted.npy")
    text = Text(tiny_corpus(tmp_path / "text.jsonl"), str(counts), 256, 16)
    run_id = ingest(model, text, tmp_path / "w.duckdb")
    effects = shuffled.stored_effects(tmp_path / "w.duckdb", run_id, 16)
    labels = shuffled.halves_of_occurrences(effects, np.load(counts))
    for group, chosen in zip(("rare", "common"), labels, strict=True):
        rows = read(tmp_path / "w.duckdb", "neuron_influence", run=run_id, preset="nc", token_group=group)
        rows = rows.sort("neuron")
        assert rows["positions"].unique().to_list() == [chosen.sum()]
        assert effects.sums(chosen).influence() == pytest.approx(rows["influence"].to_numpy(), rel=1e-6)


def test_labels_permuted_over_positions_keep_their_number_in_every_window():
    rng = np.random.default_rng(0)
    rare = rng.random((50, 16)) < 0.3
    common = ~rare & (rng.random((50, 16)) < 0.9)
    found = shuffled.by_positions((rare, common), rng)
    for before, after in zip((rare, common), found, strict=True):
        assert (before.sum(axis=1) == after.sum(axis=1)).all()
        assert (before != after).any()
    assert not (found[0] & found[1]).any()


def test_a_difference_that_is_there_is_rejected_and_chance_is_not():
    rng = np.random.default_rng(0)
    line = np.exp(-0.4 * np.log(np.arange(1, 201)))
    size = line * rng.gamma(2, size=(60, 16, 200))
    rare = np.zeros((60, 16), bool)
    rare[:, ::2] = True
    effects = shuffled.StoredEffects(size, np.zeros((60, 16), int), np.ones((60, 16), bool))
    chance = shuffled.rejections(effects, lambda rng: shuffled.by_positions((rare, ~rare), rng), 6, 100)
    assert chance["kappa"]["rejected"] <= 3
    steeper = np.where(rare[:, :, None], size * line**0.5, size)
    there = shuffled.rejections(
        shuffled.StoredEffects(steeper, effects.target, effects.grouped), lambda rng: (rare, ~rare), 3, 100
    )
    assert there["kappa"]["rejected"] == there["kappa"]["tested"] > 0
