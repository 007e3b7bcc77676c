"""`explore`: the curve at any threshold as the warehouse computes it, what bad input is told, and the page itself."""

import importlib.util
import json
import re
import signal
import socket
import time
import urllib.request
from types import SimpleNamespace

import polars as pl
import pytest
from polars.testing import assert_series_equal

from rare_tokens import warehouse
from rare_tokens.analyses.explore_charts import described, deviation_chart, ranking_chart, ratio_chart, ratios
from rare_tokens.commands import explore
from rare_tokens.common.presets import PRESETS
from tests.support.commands import finish
from tests.support.warehouses import stored

RUN = "synthetic-main-00000000"
SPECIFICITY = {
    "neuron": pl.UInt16,
    "ratio": pl.Float64,
    "ratio_low": pl.Float64,
    "ratio_high": pl.Float64,
    "adjusted_p_value": pl.Float64,
    "specific_to": pl.String,
}


@pytest.fixture
def published(commands):
    path = commands.folder / "rare_tokens.duckdb"
    stored(path, RUN, positions=768, neurons=400, window=64, vocabulary=300, zipf_share=0.8)
    return path


def test_the_curve_is_the_warehouse_s_own_at_a_preset_s_percentile(published):
    with warehouse.open(published) as opened:
        influence = opened.sql(
            "select * from influence_at($run, 50, words := true) where neuron is not null order by token_group, rank",
            run=RUN,
        )
        fits = opened.power_law_fit(run=RUN, preset="es").sort("token_group")
        held = opened.neuron_deviation(run=RUN, preset="es").sort("token_group", "rank")
    curve, fit = described(influence)
    assert fit["reason"].null_count() == len(fit) == 2
    for name in ("kappa", "beta", "r2"):
        assert fit[name].to_list() == pytest.approx(fits[name].to_list(), rel=1e-9), name
    assert fit.select("first_rank", "last_rank").rows() == fits.select("first_rank", "last_rank").rows()
    assert curve["neuron"].to_list() == held["neuron"].to_list()
    assert curve["deviation"].to_list() == pytest.approx(held["deviation"].to_list(), abs=1e-9)
    assert curve["regime"].to_list() == held["regime"].to_list()
    assert len(set(curve["regime"])) > 1


def test_a_group_with_few_neurons_has_no_fit_and_says_why():
    few = pl.DataFrame({"token_group": "rare", "neuron": range(12), "rank": range(1, 13), "positions": 7}).with_columns(
        influence=1.0 / pl.col("rank"), mean_delta_loss=0.0
    )
    curve, fit = described(few)
    assert fit["kappa"].item() is None
    assert "needs 150" in fit["reason"].item()
    assert curve["deviation"].null_count() == len(curve) == 12
    assert ranking_chart(curve).to_dict()
    assert described(few.clear())[0].is_empty()


@pytest.mark.parametrize("preset", ["nc", "ds"])
def test_the_other_presets_have_the_warehouse_s_own_curve_too(published, preset):
    rule = PRESETS[preset]
    with warehouse.open(published) as opened:
        influence = opened.influence_where(
            RUN, rule.percentile, rule.occurrences, rule.words, elbow=rule.elbow, strict=rule.strict
        )
        fits = opened.power_law_fit(run=RUN, preset=preset).sort("token_group")
    fit = described(influence.filter(pl.col("neuron").is_not_null()).sort("token_group", "rank"))[1]
    assert fit["kappa"].null_count() < len(fit)
    assert_series_equal(fit["kappa"], fits["kappa"], rel_tol=1e-9)
    assert fit["reason"].to_list() == fits["reason"].to_list()


def test_the_charts_hold_every_neuron_on_axes_as_long_as_the_data(published):
    with warehouse.open(published) as opened:
        curve, _ = described(opened.influence_at(RUN, 30))
    ranking = ranking_chart(curve).to_dict()
    (rows,) = ranking["datasets"].values()
    assert len(rows) == len(curve) > 400
    assert ranking["width"] == "container"
    assert [layer["encoding"]["x"]["scale"]["type"] for layer in ranking["layer"]] == ["log", "log"]
    low, high = ranking["layer"][0]["encoding"]["y"]["scale"]["domain"]
    assert curve["influence"].min() / 1.2 < low < curve["influence"].min()
    assert curve["influence"].max() < high < curve["influence"].max() * 1.4
    rare = deviation_chart(curve, "rare").to_dict()
    (points,) = rare["datasets"].values()
    assert {row["token_group"] for row in points} == {"rare"}
    assert rare["layer"][1]["encoding"]["y"]["scale"]["domain"] == [curve["deviation"].min(), curve["deviation"].max()]


def test_a_neuron_is_ringed_where_it_is(published):
    with warehouse.open(published) as opened:
        curve, _ = described(opened.influence_at(RUN, 30))
    untested = pl.DataFrame(schema=SPECIFICITY)
    for chart in (
        lambda marked: ranking_chart(curve, marked),
        lambda marked: deviation_chart(curve, "rare", marked),
        lambda marked: ratio_chart(ratios(curve, untested), marked),
    ):
        plain, ringed = chart(None).to_dict()["layer"], chart(7).to_dict()["layer"]
        assert len(ringed) == len(plain) + 2
        assert [layer["transform"] for layer in ringed[-2:]] == [[{"filter": "(datum.neuron === 7)"}]] * 2
        assert len(chart(100_000).to_dict()["layer"]) == len(plain)


def test_the_ratio_is_of_the_influences_and_what_is_settled_comes_first():
    curve = pl.DataFrame(
        {
            "token_group": ["rare", "rare", "rare", "common", "common", "common"],
            "neuron": [3, 5, 8, 5, 3, 9],
            "rank": [1, 2, 3, 1, 2, 3],
            "influence": [0.4, 0.2, 0.1, 0.1, 0.1, 0.05],
        }
    )
    tested = pl.DataFrame(
        {"neuron": [5, 3], "ratio": [2.0, 1.0], "ratio_low": [1.5, 0.9], "ratio_high": [3.0, 1.1]}
        | {"adjusted_p_value": [0.01, 1.0], "specific_to": ["rare", None]},
        schema=SPECIFICITY,
    )
    found = ratios(curve, tested)
    assert found.select("neuron", "ratio", "specificity", "specificity_low", "specific_to", "rare_rank").rows() == [
        (5, 2.0, 2.0, 1.5, "rare", 2),
        (3, 4.0, 1.0, 0.9, None, 1),
    ]
    assert ratios(curve, tested.clear())["neuron"].to_list() == [3, 5]
    colours = ratio_chart(found).to_dict()["layer"][2]["encoding"]["color"]["scale"]["domain"]
    assert colours == ["neither", "specific to rare", "specific to common"]
    assert ratio_chart(found.clear()).to_dict()


BAD = {
    "no run": (["--warehouse", "absent.duckdb"], "holds no published run"),
    "two ways at once": (["--edit", "a.py", "--html", "b.html"], "give one of the two"),
    "copy that is there": (["--edit", "there.py"], "is there already"),
    "copy that is no notebook": (["--edit", "notes.txt"], "ends in .py"),
    "copy in no folder": (["--edit", "no/where.py"], "cannot be written"),
    "page in no folder": (["--html", "no/where.html"], "does not exist"),
    "port of 0": (["--port", "0"], "--port"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(commands, published, monkeypatch, case):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: object())
    (commands.folder / "there.py").write_text("mine", encoding="utf-8")
    arguments, says = BAD[case]
    before = sorted(commands.folder.rglob("*"))
    ended = commands("explore", *arguments)
    assert ended.code == 2
    assert says in ended.err
    assert "Traceback" not in ended.err
    assert sorted(commands.folder.rglob("*")) == before
    assert (commands.folder / "there.py").read_text(encoding="utf-8") == "mine"


def test_without_marimo_the_user_is_told_what_to_install(commands, published, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    ended = commands("explore", "--html", "page.html")
    assert ended.code == 2
    assert 'python -m pip install -c constraints.txt ".[explore]"' in ended.err


# --- with marimo: in .ci/run full -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_page_holds_numbers_and_charts_and_no_error(commands, published):
    pytest.importorskip("marimo")
    ended = commands("explore", "--html", "page.html", "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out) == [{"page": "page.html"}]
    page = (commands.folder / "page.html").read_text(encoding="utf-8")
    cells = session(page)["cells"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert len(cells) > 10
    assert not [output for output in outputs if output["type"] == "error"]
    shown = json.dumps([output["data"] for output in outputs])
    with warehouse.open(published) as opened:
        first = opened.neuron_influence(run=RUN, preset="es", token_group="rare", rank=1).row(0, named=True)
        kappa = opened.power_law_fit(run=RUN, preset="es", token_group="rare")["kappa"].item()
    assert f"Neuron {first['neuron']}" in shown
    assert f"{kappa:.5g}".rstrip("0") in shown
    assert len(re.findall("marimo-vega", shown)) >= 4
    assert "It parts tokens counted" in shown
    assert "does not open offline. `rare-tokens report` writes" in ended.err
    assert "vega-lite" in shown
    assert not list(commands.folder.glob("*.partial"))
    assert not (explore.NOTEBOOK.parent / "__marimo__").exists()


@pytest.mark.slow
def test_what_the_notebook_shows_is_what_sql_says(commands, published, monkeypatch):
    pytest.importorskip("marimo")
    assert commands("analyze", RUN, "--quiet").code == 0
    for preset in ("es", "nc", "ds"):
        seen = notebook(monkeypatch, published, preset=held(preset))
        with warehouse.open(published) as opened:
            sizes = opened.token_group_size(run=RUN, preset=preset)
            fits = opened.power_law_fit(run=RUN, preset=preset).sort("token_group")
            groups = opened.neuron_influence(run=RUN, preset=preset)
            specific = opened.neuron_specificity(run=RUN, preset=preset, matching="loss")
        for size in sizes.rows(named=True):
            assert seen["line"].groups[size["token_group"]].positions == size["positions"]
        assert_series_equal(seen["fit"]["kappa"], fits["kappa"], rel_tol=1e-9)
        assert seen["neuron"] == groups.filter(pl.col("token_group") == "rare", pl.col("rank") == 1)["neuron"].item()
        wide = groups.pivot("token_group", index="neuron", values="influence").with_columns(
            ratio=pl.col("rare") / pl.col("common")
        )
        expected = dict(wide.select("neuron", "ratio").rows())
        shown = dict(seen["ratio"].select("neuron", "ratio").rows())
        assert shown == pytest.approx({neuron: expected[neuron] for neuron in shown}, rel=1e-12)
        assert len(shown) > 300
        tested = dict(specific.filter(pl.col("neuron").is_not_null()).select("neuron", "adjusted_p_value").rows())
        assert dict(seen["ratio"].select("neuron", "adjusted_p_value").rows()) == {
            neuron: tested.get(neuron) for neuron in shown
        }


@pytest.mark.slow
def test_the_notebook_goes_to_a_neuron_at_a_moved_line(commands, published, monkeypatch):
    pytest.importorskip("marimo")
    seen = notebook(monkeypatch, published, percentile=held(30), go=held(" 123 "))
    with warehouse.open(published) as opened:
        rows = opened.influence_at(RUN, 30, words=True, neuron=123).sort("token_group", descending=True)
        sides = opened.sql(
            "select token_group, count(distinct token_id) as types, count(*) as positions"
            " from group_where($run, 30, words := true) join position_frequency as p using (run_id, position_id)"
            " group by token_group",
            run=RUN,
        )
        contexts = opened.neuron_context(RUN, neuron=123).sort("direction", "place")
        profile = opened.neuron_profile(run=RUN, preset="es", neuron=123).sort("token_group", descending=True)
    assert seen["marked"] == seen["neuron"] == 123
    assert seen["here"].select("rank", "influence").rows() == rows.select("rank", "influence").rows()
    assert seen["contexts"]["delta_loss"].to_list() == contexts["delta_loss"].to_list()
    assert seen["profile"].select("rank", "settled_role").rows() == profile.select("rank", "settled_role").rows()
    for side in sides.rows(named=True):
        group = seen["line"].groups[side["token_group"]]
        assert group.positions == side["positions"]
        assert group.types >= side["types"]  # types that stand at no position have a side too
    for beyond in (seen["line"].first - 1, seen["line"].last + 1):
        moved = notebook(monkeypatch, published, percentile=held(beyond))["line"]
        crossed = seen["line"].down if beyond < 30 else seen["line"].up
        lies_below = [
            sum(tokens.positions for tokens in one.groups.values()) - one.groups["common"].positions
            for one in (moved, seen["line"])
        ]
        assert abs(lies_below[0] - lies_below[1]) == crossed.positions


@pytest.mark.slow
@pytest.mark.parametrize("typed", ["400", "-1", "seven", "٣"])
def test_a_neuron_that_is_not_there_is_no_neuron(commands, published, monkeypatch, typed):
    pytest.importorskip("marimo")
    seen = notebook(monkeypatch, published, go=held(typed))
    assert seen["marked"] is None
    assert f"There is no neuron {typed}" in seen["unknown"].text


def held(value):
    """An input of the page, at a value."""
    return SimpleNamespace(value=value)


def notebook(monkeypatch, path, **inputs):
    """Every name that the notebook defines when it is run with these inputs."""
    from rare_tokens.commands.notebook import app

    monkeypatch.setattr("sys.argv", ["notebook.py", "--warehouse", str(path)])
    return app.run(defs=inputs)[1]


@pytest.mark.slow
def test_a_cell_that_fails_leaves_no_page(commands, published, monkeypatch):
    pytest.importorskip("marimo")
    broken = commands.folder / "broken.py"
    source = explore.NOTEBOOK.read_text(encoding="utf-8")
    broken.write_text(source.replace("def _(ask):\n", "def _(ask):\n    1 / 0\n", 1), encoding="utf-8")
    environment = explore._environment()
    monkeypatch.setattr(explore, "_environment", lambda: environment)
    monkeypatch.setattr(explore, "NOTEBOOK", broken)
    ended = commands("explore", "--html", "page.html")
    assert ended.code == 2
    assert "division by zero" in ended.err
    assert not list(commands.folder.glob("page*"))


@pytest.mark.slow
def test_the_server_lets_others_write_and_ends_with_the_command(commands, published):
    pytest.importorskip("marimo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = commands.start("explore", "--no-browser", "--port", port)
    try:
        answer = None
        for _ in range(100):
            try:
                answer = urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).status
                break
            except OSError:
                time.sleep(0.3)
        assert answer == 200
        assert commands("delete", RUN).code == 0
    finally:
        server.send_signal(signal.SIGINT)
        ended = finish(server, 30)
    assert "token" in ended.out + ended.err
    assert not (explore.NOTEBOOK.parent / "__marimo__").exists()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=2)


@pytest.mark.slow
def test_a_copy_to_change_is_the_notebook_itself(commands, published, monkeypatch):
    became = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: object())
    monkeypatch.setattr(explore.os, "execve", lambda _file, arguments, _environment: became.append(arguments))
    assert commands("explore", "--edit", "mine.py", "--no-browser").code == 0
    assert (commands.folder / "mine.py").read_bytes() == explore.NOTEBOOK.read_bytes()
    ((_, _, _, verb, notebook, *_),) = became
    assert (verb, notebook) == ("edit", "mine.py")


def session(page: str) -> dict:
    """The results that marimo stored in a page."""
    start = page.index('"session":') + len('"session":')
    found, _ = json.JSONDecoder().raw_decode(page[start:].lstrip())
    return found
