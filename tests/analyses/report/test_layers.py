"""Layers on the page: which run shows them, what is drawn of each, and when there is nothing to show."""

from dataclasses import replace

import polars as pl
import pytest

from rare_tokens.analyses.report import ReportInputs
from rare_tokens.analyses.report.data.layers import shown_layers
from rare_tokens.analyses.report.page.content import Content, build_content
from rare_tokens.analyses.report.page.page import render_page
from studies.synthetic.report_inputs import make_inputs
from studies.synthetic.report_study import layer_profile, studied
from tests.support.report_page import Page, small_page

LAYERS = (0, 2, 1)


@pytest.fixture(scope="module")
def inputs() -> ReportInputs:
    """Three runs of one model that differ in the layer, in no order."""
    made = [make_inputs(steps=(7,), neurons=64, presets=("es",), intervals=True, seed=seed) for seed in range(3)]
    runs = [one.runs.with_columns(seed=0, layer=pl.lit(layer)) for one, layer in zip(made, LAYERS, strict=True)]
    ids = [one["run_id"].item() for one in runs]
    frames = {
        name: pl.concat([getattr(one, name) for one in made]) for name in ("influence", "fits", "deviations", "tokens")
    }
    profile = layer_profile({layer + 1: run_id for layer, run_id in zip(LAYERS, ids, strict=True)})
    of_figures = {"layers": profile.with_columns(pl.col("layer") - 1)}
    return replace(studied(made[0]), runs=pl.concat(runs), **frames, of_figures=of_figures)


@pytest.fixture(scope="module")
def content(inputs: ReportInputs) -> Content:
    return build_content(inputs)


def test_the_deepest_run_shows_all_layers_once(content: Content) -> None:
    shown = [one for one, sets in zip(content.series, content.sets, strict=True) if "layers" in sets]
    assert [one.shown.row["layer"] for one in shown] == [2]
    rows = content.sets[shown[0].index]["layers"]["es"]
    assert set(rows["run"]) == {shown[0].shown.index}
    kappa = rows.filter(group="kappa").select("layer", "tokens", "decision", "value", "low", "high").rows()
    unknown = "not decided yet"
    assert kappa == [
        (0, "common", unknown, 0.6, 0.5, 0.9),  # rare has no power law there
        (1, "rare", unknown, 0.7, 0.5, 0.9), (1, "common", unknown, 0.7, 0.5, 0.9),
        (2, "rare", "present", 0.8, 0.5, 0.9), (2, "common", "present", 0.8, 0.5, 0.9),
    ]  # fmt: skip
    step = rows.filter(group="step", tokens="rare").select("layer", "value", "low", "high").rows()
    assert step == [(layer, (layer + 1) / 4, (layer + 1) / 5, (layer + 1) / 3) for layer in range(3)]


def test_the_page_has_a_row_for_each_layer_and_group(content: Content) -> None:
    page = Page(render_page(content))
    assert "In which layers?" in page.text
    assert "0 rare 0.0100 0.100 – – 0.0020 4 0.25 [0.20, 0.33] 25 %" in page.text.replace("\u00a0", " ")
    assert "2 common 0.00333 0.100 0.800 [0.500, 0.900] present 0.0020 6 0.75 [0.60, 1.0] 25 %" in page.text.replace(
        "\u00a0", " "
    )


def test_with_one_layer_in_the_report_there_is_no_figure(inputs: ReportInputs) -> None:
    last = inputs.runs.filter(layer=2)["run_id"].item()
    frames = {name: frame for name, frame in vars(inputs).items() if isinstance(frame, pl.DataFrame)}
    of_run = {name: frame.filter(run_id=last) for name, frame in frames.items() if "run_id" in frame.columns}
    alone = replace(inputs, **of_run)
    assert all("layers" not in sets for sets in build_content(alone).sets)
    assert "In which layers?" not in small_page().text


def test_a_last_layer_of_two_scopes_shows_the_one_with_more_layers() -> None:
    window, position = layer_profile({1: "a", 3: "z"}), layer_profile({1: "b", 2: "c", 3: "z"})
    profile = pl.concat([window, position.with_columns(edit_scope=pl.lit("position"))])
    runs = pl.DataFrame({"run_id": ["a", "b", "c", "z"]})
    assert shown_layers(profile, runs)["run_id"].unique(maintain_order=True).to_list() == ["b", "c", "z"]
    fewer = runs.filter(pl.col("run_id") != "c")
    assert shown_layers(profile, fewer)["run_id"].unique(maintain_order=True).to_list() == ["a", "z"]
