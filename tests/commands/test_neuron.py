"""The commands `neuron` and `token`: their numbers against numpy on the stored effects, their page, their refusals."""

import json

import numpy as np
import polars as pl
import pytest
from scipy import stats

from rare_tokens import warehouse
from rare_tokens.analyses.coordination.neighbours import neighbours
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common.parts import parts_root
from studies.synthetic.runs import make_parts
from tests.support.report_page import Page

RUN, OTHER = "one-main-aaaa", "two-main-bbbb"
NEURON = 17


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("neuron") / "w.duckdb"
    for run_id, seed in ((RUN, 0), (OTHER, 5)):
        folder = parts_root(path) / run_id
        make_parts(folder, positions=1024, neurons=96, run_id=run_id, model_seed=seed)
        warehouse.publish(path, folder, line=power_law_line, quiet=True)
    return path


@pytest.fixture(scope="module")
def layer(path):
    """Activations and Δ of a run, shape (N, T) each, and its positions in order."""
    with warehouse.open(path) as opened:
        facts = opened.sql("from fct_effect where run_id = $r order by neuron, position_id", r=RUN)
        positions = opened.sql("from dim_position where run_id = $r order by position_id", r=RUN)
        texts = dict(opened.sql("select token_id, text from dim_token").rows())
    shape = (96, 1024)
    activation, change = (facts[name].to_numpy().astype(float).reshape(shape) for name in ("activation", "delta_loss"))
    return activation, change, positions, texts


def answered(commands, path, *words):
    ended = commands(*words, "--warehouse", path, "--json")
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


def test_a_neuron_is_told_with_what_the_relations_hold(commands, path, layer):
    activation, change, _, _ = layer
    found = answered(commands, path, "neuron", NEURON, RUN)
    with warehouse.open(path) as opened:
        ranks = opened.neuron_influence(run_id=RUN).filter(neuron=NEURON)
    keyed = {(row["preset"], row["token_group"]): row for row in found["influence"]}
    for row in ranks.iter_rows(named=True):
        assert keyed[row["preset"], row["token_group"]]["rank"] == row["rank"]
    moments = {(row["quantity"], row["token_group"]): row for row in found["moments"]}
    for quantity, values in (("activation", activation[NEURON]), ("delta_loss", change[NEURON])):
        row = moments[quantity, "all"]
        expected = (
            values.mean(),
            values.std(ddof=1),
            stats.skew(values, bias=False),
            stats.kurtosis(values, bias=False),
        )
        assert [row[name] for name in ("mean", "sd", "skew", "kurtosis")] == pytest.approx(expected, rel=1e-9)
        assert (row["smallest"], row["largest"]) == (values.min(), values.max())
    near = [row for row in found["neighbours"] if row["kind"] == "activation"]
    correlation = np.corrcoef(activation)[NEURON]
    correlation[NEURON] = 0
    order = np.argsort(-np.abs(correlation))[:5]
    assert [row["other_neuron"] for row in near] == order.tolist()
    assert [row["similarity"] for row in near] == pytest.approx(correlation[order], abs=1e-6)


def test_the_nearest_neurons_of_one_are_those_that_a_report_finds_for_many(path, layer):
    activation, _, _, _ = layer
    weights = warehouse.output_weights(path, RUN)
    many = neighbours(weights, activation.T, range(96)).cast({"place": pl.UInt32, "other_neuron": pl.UInt16})
    with warehouse.open(path) as opened:
        one = opened.neuron_neighbour(RUN, NEURON)
    mine = many.filter(neuron=NEURON).sort(pl.col("kind") == "activation", "place")
    columns = ["kind", "place", "other_neuron"]
    assert one.select(columns).equals(mine.select(columns))
    assert one["similarity"].to_list() == pytest.approx(mine["similarity"].to_list(), abs=2e-6)


def test_passages_are_of_the_most_active_windows_and_of_bands_of_quantiles(path, layer):
    activation, change, positions, texts = layer
    with warehouse.open(path) as opened:
        found = opened.neuron_top_activation(RUN, NEURON, contexts=3, around=4)
    values, windows = activation[NEURON], positions["window_id"].to_numpy()
    best = [values[windows == window].max() for window in np.unique(windows)]
    largest = found.filter(sample="largest")
    assert largest["activation"].to_list() == sorted(best, reverse=True)[:3]
    worst = [values[windows == window].min() for window in np.unique(windows)]
    assert found.filter(sample="smallest")["activation"].to_list() == sorted(worst)[:3]
    for sample, low, high in (("high", 0.9, 0.99), ("middle", 0.25, 0.75), ("low", 0.01, 0.1)):
        band = found.filter(sample=sample)
        assert len(band) == 2
        assert band["quantile"].is_between(low, high).all()
        assert band["quantile"].to_list() == pytest.approx([(values < x).sum() / 1023 for x in band["activation"]])
    inputs, targets = positions["input_token_id"], positions["target_token_id"]
    for row in found.iter_rows(named=True):
        place, window = row["position_id"], windows[row["position_id"]]
        near = [t for t in range(place - 4, place + 5) if 0 <= t < 1024 and windows[t] == window]
        assert row["tokens"] == [texts[inputs[t]] for t in near] + [texts[targets[near[-1]]]]
        assert row["at"] == near.index(place) + 1
        assert row["activations"][:-1] == pytest.approx([values[t] for t in near])
        before = [change[NEURON][t - 1] if t > 0 and windows[t - 1] == window else None for t in near]
        assert row["delta_losses"] == pytest.approx([*before, change[NEURON][near[-1]]])
        after = near[-1] + 1
        inside = after < 1024 and windows[after] == window
        assert row["activations"][-1] == (pytest.approx(values[after]) if inside else None)


def test_the_neurons_of_a_token_are_ranked_with_an_interval_over_windows(commands, path, layer):
    _, change, positions, texts = layer
    counts = positions.group_by("target_token_id").agg(pl.len(), pl.col("window_id").n_unique().alias("windows"))
    token_id = counts.filter(pl.col("windows") > 2).sort("len", "target_token_id")["target_token_id"][-1]
    at = positions["target_token_id"].to_numpy() == token_id
    text = texts[token_id]
    found = answered(commands, path, "token", text, RUN, "--neurons", 96)
    rows = sorted((row for row in found["neurons"] if row["token_id"] == token_id), key=lambda row: row["neuron"])
    assert len(rows) == 96
    size = np.abs(change)
    assert [row["influence"] for row in rows] == pytest.approx(size[:, at].mean(axis=1), rel=1e-6)
    assert [row["mean_elsewhere"] for row in rows] == pytest.approx(size[:, ~at].mean(axis=1), rel=1e-6)
    order = sorted(range(96), key=lambda neuron: (-rows[neuron]["influence"], neuron))
    assert [rows[neuron]["rank"] for neuron in order] == list(range(1, 97))
    windows = positions["window_id"].to_numpy()[at]
    for row in rows[:8]:
        mine = change[row["neuron"], at]
        mean, count = mine.mean(), len(np.unique(windows))
        residual = [(mine[windows == window] - mean).sum() for window in np.unique(windows)]
        error = np.sqrt(count / (count - 1) * np.sum(np.square(residual))) / at.sum()
        half = stats.t.ppf(0.975, count - 1) * error
        expected = (mean, mean - half, mean + half)
        shown = [row[name] for name in ("mean_delta_loss", "mean_delta_low", "mean_delta_high")]
        assert shown == pytest.approx(expected, rel=2e-3, abs=1e-9)
    (told,) = [row for row in found["tokens"] if row["token_id"] == token_id]
    assert told["positions"] == at.sum()


def test_students_t_is_that_of_scipy(path):
    with warehouse.open(path) as opened:
        found = opened.sql("select k, student_975(k) as t from range(0, 200) as r (k)")
    assert found["t"][0] is None
    freedom = np.arange(1, 200)
    np.testing.assert_allclose(found["t"].to_numpy()[1:], stats.t.ppf(0.975, freedom), rtol=5e-4)


def test_a_person_reads_tables_and_the_run_taken_is_said(commands, path):
    ended = commands("neuron", NEURON, "--warehouse", path)
    assert ended.code == 0
    assert OTHER in ended.err, "the last one made"
    for title in ("Neuron 17 of", "Spread", "raises", "hurts most", "Nearest neurons", "Where it is active"):
        assert title in ended.out


def test_the_page_is_the_reports_card_and_loads_nothing(commands, path, tmp_path):
    html = tmp_path / "card.html"
    ended = commands("neuron", NEURON, "one", "--warehouse", path, "--html", html)
    assert ended.code == 0, ended.err
    assert ended.out.strip() == str(html)
    page = Page(html.read_text(encoding="utf-8"))
    assert f"Neuron {NEURON} of" in page.text
    assert ("details", "id", f"n{NEURON}") in page.attributes
    assert not [value for _, name, value in page.attributes if name in ("src", "href") and not value.startswith("#")]
    packed = json.loads(page.scripts[0][1])["passages"][f"n{NEURON}"]
    assert set(packed["places"]["sample"]) == {"largest", "high", "middle", "low", "smallest"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["neuron", "96", "one"], "has no neuron 96: its layer has neurons 0 to 95"),
        (["neuron", "-1", "one"], "-1"),
        (["neuron", "x"], "'x' is not a valid integer"),
        (["neuron", "1", "nowhere"], "no run 'nowhere'"),
        (["neuron", "1", "one", "--html", "no/such/card.html"], "the folder no/such does not exist"),
        (["token", "nosuchtoken", "one"], "'nosuchtoken' is no token of run one-main-aaaa"),
        (["token", "x", "nowhere"], "no run 'nowhere'"),
    ],
)
def test_what_is_not_there_is_refused(commands, path, words, said):
    ended = commands(*words, "--warehouse", path)
    assert ended.code == 2
    assert said in ended.err
    assert ended.out == ""


def test_a_warehouse_without_runs_says_how_to_make_one(commands, tmp_path):
    ended = commands("neuron", "1", "--warehouse", tmp_path / "none.duckdb")
    assert ended.code == 2
    assert "ingest" in ended.err
    assert not (tmp_path / "none.duckdb").exists()
