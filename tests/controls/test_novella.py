"""Controls on a real small model, end to end: a folder on disk, `ingest`, `analyze`, the relations of the warehouse."""

import numpy as np
import pytest

from studies.controls.found import difference_found, module_found, plateau_found
from studies.controls.last_mlp import LastMlp, untrained
from studies.controls.pipeline import analyze, influence, ingest, permuted_counts, read
from studies.controls.planting import plant, share_driver
from studies.controls.study import AS_MODULE, MODULE, NEURONS, STRONG, TRUTHS, bench, planted_curve

pytestmark = pytest.mark.slow


@pytest.fixture
def novella(real_inputs, tmp_path):
    """Novella's last step, a text to plant with, another to find it on."""
    return bench(real_inputs, tmp_path)


def test_one_percent_raised_is_found_with_size_height_and_neurons(novella):
    planted, run_id = planted_curve(novella, TRUTHS["1 % raised by 0.7"], "nc", seed=11)
    analyze(novella.folder / "controls.duckdb", run_id, ["regimes"])
    found = plateau_found(novella.folder / "controls.duckdb", run_id, "nc", planted)
    assert planted.error < 0.1
    assert found["planted_line"]["step"] == pytest.approx(0.7, abs=0.05)
    assert found["decision"] == "present", found
    assert found["break_low"] <= 10 <= found["break_high"]
    assert found["break_rank"] == 10
    assert found["planted_among_first"] == 10
    # What is planted is exact on the text of planting alone: on other text s moves by more than its interval
    # (docs/controls.md).
    assert found["step"] == pytest.approx(0.7, abs=0.3)


def test_no_plateau_is_called_present_in_a_smooth_concave_curve(novella):
    planted, run_id = planted_curve(novella, TRUTHS["smooth concave curve"], "nc", seed=11)
    analyze(novella.folder / "controls.duckdb", run_id, ["regimes"])
    assert planted.error < 0.1
    assert plateau_found(novella.folder / "controls.duckdb", run_id, "nc")["decision"] != "present"


def test_a_module_that_acts_together_is_found_with_its_size_and_members(novella):
    warehouse, rng = novella.folder / "controls.duckdb", np.random.default_rng(11)
    members = np.sort(rng.choice(NEURONS, MODULE, replace=False))
    mlp = LastMlp(novella.trained)
    share_driver(mlp, members, STRONG, rng)
    curve = AS_MODULE.layer(NEURONS, rng, scattered=False)
    plant(
        mlp, curve, members, lambda edited: influence(edited, novella.planting, "nc", novella.folder),
        edits=2,
    )  # fmt: skip
    run_id = ingest(mlp.save(novella.folder / "edited"), novella.finding, warehouse)
    analyze(warehouse, run_id)
    found = module_found(warehouse, run_id, members)
    assert sum(found["members"].values()) >= 0.8 * MODULE
    assert found["members_correlation"] > 0.7
    assert found["p_value"] < 0.02
    assert found["correlation"] > found["random_correlation"] + 3 * found["random_sd"]
    for name in ("ward", "louvain"):
        part = found[name]
        assert part["planted_in_it"] >= 0.8 * part["planted"], (name, part)
    # Louvain may lay other neurons with them (docs/controls.md).
    assert found["ward"]["size"] <= found["ward"]["planted_in_it"] + 3


@pytest.mark.parametrize("seed", [0, 11])
def test_no_plateau_is_called_present_before_training(novella, seed):
    """Step 0 of the series, and weights drawn anew."""
    model = novella.data / "models" / "novella" / "step0"
    if seed:
        model = untrained(model, seed, novella.folder / "untrained")
    run_id = ingest(model, novella.finding, novella.folder / "controls.duckdb")
    analyze(novella.folder / "controls.duckdb", run_id, ["regimes"])
    for preset in ("es", "nc", "ds"):
        assert plateau_found(novella.folder / "controls.duckdb", run_id, preset)["decision"] != "present"


def test_no_plateau_is_called_present_where_labels_are_shuffled(novella):
    """κ and the ranks may well differ: a few frequent types decide what either side is (docs/controls.md)."""
    counts = permuted_counts(novella.counts, 11, novella.folder / "permuted.npy")
    warehouse = novella.folder / "controls.duckdb"
    model, text = novella.trained, novella.finding
    run_id = ingest(model, type(text)(text.corpus, str(counts), text.positions, text.window), warehouse)
    analyze(warehouse, run_id, ["regimes", "plateau_difference"])
    sizes = read(warehouse, "token_group_size", run=run_id, preset="nc")
    assert sizes["positions"].min() > 30
    for preset in ("es", "nc", "ds"):
        found = difference_found(warehouse, run_id, preset)
        assert "present" not in (found["rare"], found["common"]), found
        if found["determined"]:
            assert found["step_low"] <= 0.3, found
            assert found["step_high"] >= -0.3, found
