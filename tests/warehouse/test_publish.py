"""Publishing: what gets in, how it is replaced, and that it repeats bit for bit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rare_tokens import warehouse
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common import parts
from rare_tokens.warehouse import connection
from rare_tokens.warehouse.publish import loading
from studies.synthetic.runs import make_parts, write_summary
from tests.support.warehouses import SMALL, assert_same, change, contents, empty, parts_of, published, stored


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return empty(tmp_path / "w.duckdb")


def test_a_run_is_begun_staged_and_published(path: Path) -> None:
    folder = parts_of(path)
    manifest = make_parts(folder, run_id="run", staged=False, **SMALL)
    warehouse.begin(path, manifest)
    assert warehouse.status(path, "run") == "running"
    write_summary(folder)
    assert warehouse.status(path, "run") == "staged"
    assert warehouse.publish(path, folder, line=power_law_line) == "run"
    assert warehouse.status(path, "run") == "published"
    assert not folder.exists()


def test_the_stored_facts_are_the_parts(path: Path) -> None:
    folder = parts_of(path)
    effects = ("loss", "direct", "kl")
    make_parts(folder, run_id="run", position_block=50, effects=effects, layer=7, **SMALL)
    blocks = [pl.read_parquet(parts.effect_path(folder, block)) for block in range(3)]
    others = {name: pl.read_parquet(parts.relation_path(folder, name)) for name in parts.RELATIONS}
    warehouse.publish(path, folder, line=power_law_line)
    with warehouse.open(path) as opened:
        stored = opened.sql("select * from store.fct_effect order by rowid")
        assert stored.drop("run_key", "delta_entropy", "frozen_frequency_delta_loss", "attributed_delta_loss").equals(
            pl.concat(blocks).sort("neuron", "position_id")
        )
        for name in ("delta_entropy", "frozen_frequency_delta_loss"):
            assert stored[name].null_count() == len(stored)
        assert opened.fct_effect()["layer"].unique().to_list() == [7]
        for name, part in others.items():
            assert opened.sql(f"select {', '.join(part.columns)} from {name} order by all").equals(
                part.select(pl.all()).sort(pl.all(), nulls_last=True)
            ), name


def test_the_manifest_and_summary_are_in_dim_run(path: Path) -> None:
    folder = parts_of(path)
    manifest = make_parts(folder, run_id="run", created_at="2026-11-21T03:00:00+02:00", **SMALL)
    summary = parts.read_summary(folder)
    warehouse.publish(path, folder, line=power_law_line)
    with warehouse.open(path) as opened:
        run = opened.dim_run().row(0, named=True)
    for name in ("model", "revision", "layer", "positions", "neurons", "seed", "tolerance", "effects", "code_version"):
        assert run[name] == getattr(manifest, name), name
    assert summary is not None
    for name in ("device", "exact_pairs", "self_check_error", "structural_check_error", "seconds", "warnings"):
        assert run[name] == getattr(summary, name), name
    assert str(run["created_at"]) == "2026-11-21 01:00:00"
    assert run["options"] == '{"tokens": 128, "window": 32}'


def test_publishing_again_replaces_the_run(path: Path) -> None:
    stored(path, seed=0)
    published(path, "other", seed=5)
    before = contents(path)
    published(path, seed=0, code_version="0.2.0", model_hash="n" * 64)
    after = contents(path)
    assert after.pop("dim_run")["code_version"].to_list().count("0.2.0") == 1
    before.pop("dim_run")
    assert_same(before, after)


def test_a_run_extended_by_an_effect_replaces_the_run(path: Path) -> None:
    stored(path)
    published(path, effects=("loss", "direct"))
    with warehouse.open(path) as opened:
        facts = opened.fct_effect()
    assert len(facts) == 128 * 40
    assert facts["direct_delta_loss"].null_count() == 0


@pytest.mark.slow
def test_marts_are_the_same_bit_for_bit_on_any_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Large enough that the engine works with several threads: 8 blocks of 122,880 rows.
    seen = []
    for threads in (1, 3):
        monkeypatch.setitem(connection.WRITE_CONFIG, "threads", threads)
        path = tmp_path / f"{threads}.duckdb"
        make_parts(parts_of(path), positions=2048, neurons=512, vocabulary=5000, window=256, run_id="run")
        warehouse.publish(path, parts_of(path), line=power_law_line)
        seen.append(contents(path, leave_out=("fct_effect", "neuron_weight", "dim_position", "position_frequency")))
    assert_same(*seen)


@pytest.mark.slow
def test_marts_do_not_depend_on_how_the_facts_were_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for block, facts in ((50, 1), (128, 10**9)):
        monkeypatch.setattr(loading, "FACTS_PER_STATEMENT", facts)
        path = tmp_path / f"{block}.duckdb"
        make_parts(parts_of(path), run_id="run", position_block=128, **(SMALL | {"neurons": 150}))
        _cut(parts_of(path), block)
        warehouse.publish(path, parts_of(path), line=power_law_line)
        seen.append(contents(path))
    assert_same(*seen)


def _cut(folder: Path, block: int) -> None:
    """Cut the one part of fct_effect into parts of `block` positions."""
    whole = pq.read_table(parts.effect_path(folder, 0))
    manifest = parts.read_manifest(folder)
    assert manifest is not None
    parts.write_manifest(folder, replace(manifest, position_block=block))
    of_block = whole["position_id"].to_numpy() // block
    for number in range(of_block.max() + 1):
        pq.write_table(whole.filter(pa.array(of_block == number)), parts.effect_path(folder, number))


def test_tokens_and_frequencies_are_stored_once(path: Path) -> None:
    stored(path, "first", seed=3)
    published(path, "second", seed=3)
    published(path, "third", seed=4)
    with warehouse.open(path) as opened:
        assert len(opened.dim_token()) == 60
        assert len(opened.token_frequency()) == 2 * 60
        assert len(opened.position_group(run="second")) == len(opened.position_group(run="first")) > 0


def test_paths_with_odd_characters(tmp_path: Path) -> None:
    path = tmp_path / "it's we[ird]* ünï çødé" / 'say "hi".duckdb'
    path.parent.mkdir()
    assert published(path) == "run"
    with warehouse.open(path) as opened:
        assert len(opened.fct_effect()) == 128 * 40


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert published(Path("w.duckdb")) == "run"
    assert warehouse.status(Path("w.duckdb"), "run") == "published"


def test_hostile_texts_of_tokens_are_kept_as_they_are(path: Path) -> None:
    texts = [
        "<script>alert(1)</script>",
        "\x1b[31mred",
        "null\x00byte",
        "\u202eright to left",
        "'; drop table t; --",
        "x" * 10**7,
    ]
    folder = parts_of(path)
    make_parts(folder, run_id="run", **SMALL)
    for row, text in enumerate(texts, 1):
        change("dim_token", "text", row, text)(folder)
    warehouse.publish(path, folder, line=power_law_line)
    with warehouse.open(path) as opened:
        assert opened.dim_token(token_id=[*range(1, 7)]).sort("token_id")["text"].to_list() == texts


def test_a_run_without_rare_tokens_is_published(path: Path) -> None:
    folder = parts_of(path)
    make_parts(folder, run_id="run", **SMALL)
    table = pq.read_table(parts.relation_path(folder, "token_frequency"))
    even = table.set_column(1, "count", pa.array(np.full(60, 7, dtype=np.uint64)))
    pq.write_table(even, parts.relation_path(folder, "token_frequency"))
    warehouse.publish(path, folder, line=power_law_line)
    with warehouse.open(path) as opened:
        fits = opened.power_law_fit(preset="es").sort("token_group")
        few = "40 neurons with an influence above 0; a power law needs 150"
        assert fits["reason"].to_list() == ["no position in the group", few]  # all types tie at percentile 0
