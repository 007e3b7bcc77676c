"""The report over a real warehouse: what its relations hold is what `ReportInputs` asks for."""

from pathlib import Path

import polars as pl
import pytest

from rare_tokens import warehouse
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.analyses.reference import published_values
from rare_tokens.analyses.report import ReportInputs, relations, write_report
from rare_tokens.analyses.report.data.inputs import INPUTS
from rare_tokens.analyses.report.figures import inputs as inputs_of_figures
from rare_tokens.analyses.report.page.content import build_content
from rare_tokens.common.parts import parts_root
from rare_tokens.warehouse.schema.relations import relations as public
from studies.synthetic.runs import make_parts

TOKENS = """
    select run_id, neuron, direction, rank, text
    from neuron_token join dim_run using (run_id) join dim_token using (tokenizer_id, token_id)
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> ReportInputs:
    path = tmp_path_factory.mktemp("warehouse") / "w.duckdb"
    for seed, revision in enumerate(("step0", "step64")):
        run_id = f"synthetic-{revision}-{seed:08x}"
        folder = parts_root(path) / run_id
        make_parts(
            folder, run_id=run_id, revision=revision, neurons=96, positions=1024, seed=7, model_seed=seed, window=64
        )
        warehouse.publish(path, folder, line=power_law_line, quiet=True)
    with warehouse.open(path) as opened:
        return ReportInputs(
            runs=opened.read("dim_run"),
            influence=opened.read("neuron_influence"),
            fits=opened.read("power_law_fit"),
            deviations=opened.read("neuron_deviation"),
            tokens=opened.sql(TOKENS),
            published=published_values(),
            command="python cli.py report",
            created_at="2026-11-21T00:00:00Z",
        )


def test_the_relations_are_what_the_report_reads(inputs: ReportInputs, tmp_path: Path) -> None:
    index = write_report(inputs, tmp_path)
    assert "synthetic" in index.read_text(encoding="utf-8")
    neurons = pl.read_parquet(tmp_path / "tables" / "neurons.parquet")
    assert neurons.height == inputs.influence.height > 0


def test_both_checkpoints_are_one_series_with_fits_of_the_warehouse(inputs: ReportInputs) -> None:
    content = build_content(inputs)
    (series,) = content.series
    assert [run.revision for run in series.runs] == ["step0", "step64"]
    stored = inputs.fits.filter(run_id=series.shown.run_id, preset="es", token_group="common").row(0, named=True)
    assert content.groups[series.shown.run_id, "es", "common"]["kappa"] == stored["kappa"]


def test_a_rank_is_unique_and_the_first_regime_stands_before_the_window(inputs: ReportInputs) -> None:
    neurons = build_content(inputs).tables["neurons"]
    keys = ["run_id", "preset", "token_group", "rank"]
    assert neurons.select(keys).is_unique().all()
    fits = inputs.fits.select("run_id", "preset", "token_group", "first_rank")
    heads = neurons.join(fits, on=keys[:3]).filter(pl.col("regime").is_in(["plateau", "head"]))
    assert (heads["rank"] < heads["first_rank"]).all()


def test_every_relation_and_column_that_is_read_is_public() -> None:
    for one in (*INPUTS, *inputs_of_figures()):
        if one.relation:
            assert {*one.columns, *one.optional} <= set(public()[one.relation].columns), one.name
    assert len(set(relations().values())) == len(relations())


def test_the_inputs_of_a_warehouse_are_read_by_the_names_that_they_have(inputs: ReportInputs) -> None:
    frames = {one.name: one.empty() for one in (*INPUTS, *inputs_of_figures()) if one.name != "runs"}
    made = ReportInputs.of(frames, runs=inputs.runs)
    assert set(made.of_figures) == {one.name for one in inputs_of_figures()}
    assert made.conformed(inputs_of_figures()).of_figures.keys() == made.of_figures.keys()
