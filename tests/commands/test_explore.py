"""`explore`: the curve at any threshold as the warehouse computes it, what bad input is told, and the page itself."""

import importlib.util
import json
import re
import signal
import socket
import time
import urllib.request

import polars as pl
import pytest

from rare_tokens import warehouse
from rare_tokens.analyses.explore_charts import described, deviation_chart, ranking_chart
from rare_tokens.commands import explore
from tests.support.commands import finish
from tests.support.warehouses import stored

RUN = "synthetic-main-00000000"


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


def test_the_charts_hold_every_neuron_and_log_axes(published):
    with warehouse.open(published) as opened:
        curve, _ = described(opened.influence_at(RUN, 30))
    ranking = ranking_chart(curve).to_dict()
    (rows,) = ranking["datasets"].values()
    assert len(rows) == len(curve) > 400
    assert [layer["encoding"]["x"]["scale"]["type"] for layer in ranking["layer"]] == ["log", "log"]
    assert deviation_chart(curve).to_dict()["facet"]["field"] == "token_group"


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
    assert len(re.findall("marimo-vega", shown)) >= 2
    assert "vega-lite" in shown
    assert not list(commands.folder.glob("*.partial"))
    assert not (explore.NOTEBOOK.parent / "__marimo__").exists()


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
