"""Which runs are references of one measurement, and `reference_agreement` against the facts."""

import json

import numpy as np
import polars as pl
import pytest
from scipy import stats

from rare_tokens import warehouse
from rare_tokens.analyses import registry
from rare_tokens.analyses.agreement import references
from rare_tokens.analyses.agreement.references import every_reference_set, reference_agreement
from rare_tokens.analyses.curve.effect_cells import GroupSums, WindowSums
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common.parts import parts_root
from studies.synthetic.runs import make_parts
from tests.commands.test_analyze import smaller_registry

SIZES = {"positions": 768, "neurons": 200, "zipf_share": 0.8}
KEY = ["preset", "token_group"]


def publish(path, run_id, ablation, **given):
    folder = parts_root(path) / run_id
    make_parts(folder, **(SIZES | given), run_id=run_id, ablation=ablation)
    warehouse.publish(path, folder, line=power_law_line, quiet=True)


@pytest.fixture
def path(commands, monkeypatch):
    """A warehouse where two references are to be compared; only what is needed for it is analysed."""
    needed = [one for one in smaller_registry() if one.name == "regimes"]
    monkeypatch.setattr(registry, "REGISTRY", needed)
    monkeypatch.setattr(references, "DRAWS", 40)
    path = commands.folder / "rare_tokens.duckdb"
    publish(path, "the-mean", "mean")
    publish(path, "a-zero", "zero", tolerance=1e-5)
    return path


def analysed(commands, *arguments):
    ended = commands("analyze", "--json", *arguments)
    assert ended.code == 0, ended.err
    return [row["run_id"] for row in json.loads(ended.out) if row["analysis"] == "reference_agreement"]


def compared(path):
    with warehouse.open(path) as opened:
        return opened.reference_agreement().sort("run_id", "other_run_id", *KEY)


def test_numbers_are_those_of_the_facts(commands, path):
    assert analysed(commands) == ["the-mean", "a-zero"]
    rows = compared(path)
    with warehouse.open(path) as opened:
        facts = opened.fct_effect().join(opened.position_group(), on=["run_id", "position_id"])
        facts = facts.join(
            opened.dim_position().select("run_id", "position_id", "window_id"), on=["run_id", "position_id"]
        )
        decisions = {tuple(row[name] for name in ("run_id", *KEY)): row for row in opened.regime_decision().to_dicts()}
    assert rows.select("run_id", "other_run_id", "ablation", "other_ablation", *KEY).rows() == [
        ("the-mean", "a-zero", "mean", "zero", preset, group)
        for preset in ("ds", "es", "nc") for group in ("common", "rare")
    ]  # fmt: skip
    for row in rows.to_dicts():
        group = facts.filter(preset=row["preset"], token_group=row["token_group"])
        means = [_influence(group.filter(run_id=run)) for run in (row["run_id"], row["other_run_id"])]
        own, other = (decisions[run, row["preset"], row["token_group"]] for run in (row["run_id"], row["other_run_id"]))
        assert row["rank_correlation"] == pytest.approx(stats.spearmanr(*means).statistic, abs=1e-12)
        assert 0.7 < row["rank_correlation"] < 0.99, "the references differ, and are of the same neurons"
        assert row["first"] == own["break_rank"]
        for name, count in (("10", 10), ("50", 50), ("first", own["break_rank"])):
            assert row[f"shared_{name}"] == _shared(*means, count)
        for name in ("kappa", "step", "break", "decision", "p_value"):
            for end in (
                ("_rank", "_low", "_high") if name == "break" else ("",) if name[0] in "dp" else ("", "_low", "_high")
            ):
                assert (row[name + end], row[f"other_{name}{end}"]) == (own[name + end], other[name + end])
        assert row["reason"] is None


def _influence(group):
    means = group.group_by("neuron").agg(pl.col("delta_loss").cast(pl.Float64).abs().mean()).sort("neuron")
    return means["delta_loss"].to_numpy()


def _shared(one, other, count):
    heads = [set(np.argsort(-means, kind="stable")[:count].tolist()) for means in (one, other)]
    return len(heads[0] & heads[1])


def test_intervals_are_those_of_a_loop_over_the_facts(commands, path):
    analysed(commands)
    (row,) = compared(path).filter(preset="es", token_group="rare").to_dicts()
    with warehouse.open(path) as opened:
        chosen = opened.position_group(run_id="the-mean", preset="es", token_group="rare")["position_id"].to_list()
        window = dict(opened.dim_position(run_id="the-mean").select("position_id", "window_id").rows())
        facts = opened.fct_effect().filter(pl.col("position_id").is_in(chosen)).with_columns(pl.col("delta_loss").abs())
    windows = sorted({window[position] for position in chosen})
    counts = np.random.default_rng(0).multinomial(len(windows), np.full(len(windows), 1 / len(windows)), size=40)
    drawn = []
    for sample in counts:
        times = dict(zip(windows, sample.tolist(), strict=True))
        weights = pl.DataFrame({"position_id": chosen, "times": [times[window[position]] for position in chosen]})
        weighted = facts.join(weights.cast({"position_id": pl.UInt32}), on="position_id")
        sums = weighted.group_by("run_id", "neuron").agg(
            total=(pl.col("delta_loss").cast(pl.Float64) * pl.col("times")).sum()
        )
        means = [sums.filter(run_id=run).sort("neuron")["total"].to_numpy() for run in ("the-mean", "a-zero")]
        drawn.append((stats.spearmanr(*means).statistic, _shared(*means, 10), _shared(*means, row["first"])))
    for name, values in zip(("rank_correlation", "shared_10", "shared_first"), np.array(drawn).T, strict=True):
        low, high = np.quantile(values, [0.025, 0.975])
        expected = min(low, row[name]), max(high, row[name])
        assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx(expected, abs=1e-9)
    assert (row["windows"], row["draws"]) == (len(windows), 40)


@pytest.mark.slow
def test_a_reference_that_joins_or_goes_changes_what_is_compared(commands, path):
    assert analysed(commands, "the-mean") == [], "the other reference is not analysed yet"
    assert analysed(commands) == ["the-mean", "a-zero"]
    assert analysed(commands) == []
    publish(path, "optimal", "optimal")
    publish(path, "resampled", "resample:4")
    assert analysed(commands) == ["the-mean", "a-zero", "resampled", "optimal"]
    pairs = compared(path).select("run_id", "other_run_id").unique().sort("run_id", "other_run_id").rows()
    assert pairs == [
        ("a-zero", "optimal"), ("a-zero", "resampled"), ("resampled", "optimal"),
        ("the-mean", "a-zero"), ("the-mean", "optimal"), ("the-mean", "resampled"),
    ]  # fmt: skip
    assert commands("delete", "a-zero").code == 0
    left = compared(path)
    assert set(left["run_id"]) | set(left["other_run_id"]) == {"the-mean", "optimal", "resampled"}
    with warehouse.open(path) as opened:
        stored = opened.sql("select count(*) from store.reference_agreement where other_run_id = 'a-zero'")
    assert stored.item() == 0
    assert analysed(commands) == ["the-mean", "resampled", "optimal"]
    publish(path, "optimal", "optimal", tolerance=1e-7)  # published again: what was compared with it is no longer true
    assert set(compared(path)["other_run_id"]) == {"resampled"}


def test_an_export_carries_them_whichever_run_is_attached_first(commands, path):
    analysed(commands)
    warehouse.export(path, commands.folder / "exported")
    warehouse.attach(commands.folder / "other.duckdb", commands.folder / "exported", line=power_law_line, quiet=True)
    attached = compared(commands.folder / "other.duckdb")
    assert len(attached) == 6
    assert attached.equals(compared(path))


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1}, {"dtype": "float64"}, {"layer": 2}, {"model_hash": "0"}, {"window": 32}, {"neurons": 190},
        {"frequency_source_id": "else"}, {"corpus_hash": "1"}, {"identity": {"seed": 0, "edit_scope": "position"}},
        {"contexts": "other"}, {"revision": "step1"}, {"tokenizer_id": "synthetic-tokenizer-else"},
    ],
    ids=str,
)  # fmt: skip
def test_runs_that_differ_in_anything_else_are_no_references(other, tmp_path):
    path = tmp_path / "w.duckdb"
    for run_id, ablation, given in (("one", "mean", {}), ("two", "zero", other), ("three", "mean", other)):
        small = {"positions": 128, "neurons": 200, "window": 64} | given
        warehouse.begin(path, make_parts(parts_root(path) / run_id, **small, run_id=run_id, ablation=ablation))
    runs = warehouse.runs(path).with_columns(status=pl.lit("published"))
    assert [part["run_id"].to_list() for part in every_reference_set(runs)] == [["three", "two"]]


def test_what_is_not_published_or_of_the_same_ablation_is_no_reference():
    columns = dict.fromkeys(references.SAME, "x") | {"status": "published"}
    rows = [
        columns | {"run_id": f"{n}", "ablation": kind, "identity": json.dumps({"ablation": kind, "begin_token": True})}
        for n, kind in enumerate(["zero", "mean", "mean", "other"])
    ]
    assert [part["run_id"].to_list() for part in every_reference_set(pl.DataFrame(rows))] == [["1", "2", "0", "3"]]
    gone = [row | {"status": "rejected" if row["ablation"] in ("zero", "other") else "published"} for row in rows]
    assert every_reference_set(pl.DataFrame(gone)) == []
    unlike = [row | {"identity": f'{{"begin_token": {n}}}'} for n, row in enumerate(rows)]
    assert every_reference_set(pl.DataFrame(unlike)) == []


def test_pairs_of_one_ablation_are_left_out_and_nulls_have_reasons():
    sums = {number: WindowSums(np.arange(60), np.ones(1), np.full((60, 1), 1.0 + number)) for number in (0, 1)}
    sums[0].sums[:, 0] = np.arange(1.0, 61)
    runs = pl.DataFrame({"run_id": ["a", "b", "c"], "ablation": ["mean", "mean", "zero"]})
    elsewhere = WindowSums(sums[0].neurons, np.full(1, 2.0), sums[0].sums)
    curves = {
        run: {("es", "rare"): GroupSums(one, one), ("es", "common"): "no position in the group", ("nc", "rare"): two}
        for run, one, two in (
            ("a", sums[0], GroupSums(sums[0], sums[0])), ("b", sums[0], GroupSums(sums[0], sums[0])),
            ("c", sums[1], GroupSums(elsewhere, elsewhere)),
        )
    }  # fmt: skip
    found = reference_agreement(runs, curves, {("a", "es", "rare"): 5}, draws=10, seed=0)
    assert found.select("run_id", "other_run_id").unique(maintain_order=True).rows() == [("a", "c"), ("b", "c")]
    single = "a single window of text: nothing to resample"
    assert found.select(*KEY, "run_id", "first", "shared_10", "shared_first", "reason").rows() == [
        ("es", "rare", "a", 5, None, None, f"all influences are equal; {single}"),
        ("es", "rare", "b", None, None, None, f"all influences are equal; {single}; the run's curve has no line"),
        ("es", "common", "a", None, None, None, "no position in the group"),
        ("es", "common", "b", None, None, None, "no position in the group"),
        ("nc", "rare", "a", None, None, None, "the token group has other positions in another of the runs"),
        ("nc", "rare", "b", None, None, None, "the token group has other positions in another of the runs"),
    ]
