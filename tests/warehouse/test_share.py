"""What `export` writes is a data set of the hub: every configuration loads, and the card says what is inside."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest
import yaml

from rare_tokens import warehouse
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common.errors import UserError
from rare_tokens.warehouse.connection import reading, writing
from rare_tokens.warehouse.schema import relations
from rare_tokens.warehouse.share import card, columns, layout
from rare_tokens.warehouse.share.export import LEFT_OUT
from studies.synthetic.runs import make_parts
from tests.conftest import REPOSITORY
from tests.support.warehouses import SMALL, contents, empty, parts_of, stored

ODD = "odd/run id é|<b>"
KEYS = ("tokenizer_id", "run_id", "preset", "token_group", "neuron", "position_id", "token_id")


def publish(path: Path, name: str, **given: Any) -> None:
    make_parts(parts_of(path, name), run_id=name, **(SMALL | {"effects": ("loss", "kl")} | given))
    warehouse.publish(path, parts_of(path, name), line=power_law_line)


def rows_of(folder: Path, relation: str) -> pl.DataFrame:
    return pl.read_parquet(folder / relation / "*.parquet")


def head(folder: Path) -> dict[str, Any]:
    """What the hub reads of a card."""
    return yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---\n")[1])


def body(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse of two published runs on other tokens and a gap, with what was compared, and its export."""
    folder = tmp_path_factory.mktemp("made")
    path = empty(folder / "w.duckdb")
    publish(path, ODD, seed=2)
    publish(path, "run-a", seed=1, tokenizer_id="another", frequency_source_id="its own")
    warehouse.record_gap(path, run_id="gap", model="m", revision="step5", why="no weights")
    with writing(path) as con:
        con.execute("update store.run set warnings = ['a | pipe', 'a <b>tag</b>\nand a line'] where run_id = 'run-a'")
        _compare(con)
    warehouse.export(path, folder / "out", licence="cc-by-4.0")
    return folder


def _compare(con: Any) -> None:
    """Rows of `ranking_overlap` about the run itself and about the other."""
    ((key,),) = con.execute("select run_key from store.run where run_id = 'run-a'").fetchall()
    for other in ("run-a", ODD):
        con.execute(
            "insert into store.ranking_overlap by name select $key as run_key, $other as other_run_id,"
            " 'es' as preset, 'rare' as token_group, 'influence' as ranking, 'es' as other_preset,"
            " 'rare' as other_token_group, 'influence' as other_ranking, 40 as neurons, 9 as shared_10",
            {"key": key, "other": other},
        )


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The library, without a network and with a cache of its own."""
    import datasets

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield datasets
    datasets.enable_progress_bars()


# --- the data set ---------------------------------------------------------------------------------------------------


def test_every_configuration_loads_with_its_relation_s_columns_and_rows(made: Path, datasets: Any) -> None:
    held = contents(made / "w.duckdb", leave_out=tuple(LEFT_OUT))
    expected = {name for name, frame in held.items() if len(frame)}
    assert {"neuron_weight", "dim_run", "preset", "ranking_overlap"} <= expected
    names = datasets.get_dataset_config_names(str(made / "out"))
    assert set(names) == expected
    for name in names:
        loaded = datasets.load_dataset(str(made / "out"), name, split="train")
        assert loaded.column_names == list(relations.relations()[name].columns), name
        assert len(loaded) == len(held[name]), name
        if "run_id" in loaded.column_names:
            assert set(loaded.unique("run_id")) == set(held[name]["run_id"]), name


def test_the_values_loaded_are_the_warehouse_s(made: Path, datasets: Any) -> None:
    held = contents(made / "w.duckdb")
    for name in ("neuron_influence", "neuron_weight", "fct_effect", "dim_token", "dim_run"):
        loaded = datasets.load_dataset(str(made / "out"), name, split="train").with_format("arrow")[:]
        frame = pl.from_arrow(loaded)
        assert isinstance(frame, pl.DataFrame)
        kept = [column for column in held[name].columns if column not in ("created_at", "published_at")]
        keys = [key for key in KEYS if key in kept and (key != "tokenizer_id" or name == "dim_token")]
        assert frame.select(kept).sort(keys).equals(held[name].select(kept).sort(keys)), name


def test_without_a_name_the_influence_is_loaded(made: Path, datasets: Any) -> None:
    assert (
        datasets.load_dataset(str(made / "out"), split="train").column_names[:4]
        == list(relations.relations()["neuron_influence"].columns)[:4]
    )


def test_no_relation_has_a_type_that_datasets_lacks(tmp_path: Path, datasets: Any) -> None:
    """Also of relations that are empty in these tests."""
    warehouse.export(empty(tmp_path / "w.duckdb"), tmp_path / "out")
    files = list((tmp_path / "out").rglob("*.parquet"))
    assert len(files) == len([one for one in relations.relations().values() if not one.is_macro]) - len(LEFT_OUT)
    for file in files:
        datasets.Features.from_arrow_schema(pq.read_schema(file))


def test_an_export_without_runs_is_a_data_set_too(tmp_path: Path, datasets: Any) -> None:
    warehouse.export(empty(tmp_path / "w.duckdb"), tmp_path / "out")
    assert [one["config_name"] for one in head(tmp_path / "out")["configs"]] == ["preset"]
    assert len(datasets.load_dataset(str(tmp_path / "out"), split="train")) == 4


def test_each_column_is_encoded_as_takes_least_room(tmp_path: Path) -> None:
    rows, file = 200_000, tmp_path / "out" / "rows.parquet"
    query = f"""
        select range as position_id, sin(range * 7919.0)::float as noise, (range % 3)::double / 3 as third,
            [cos(range * 7919.0)::float] as noises, 'word ' || (range % 5) as word
        from range({rows})
    """
    with duckdb.connect() as con:
        assert columns.write(con, [query, f"{query} limit 10"], {}, file) == rows + 10
    written = pq.ParquetFile(file)
    assert written.metadata.num_row_groups == 3
    group = written.metadata.row_group(0)
    encodings = {group.column(place).path_in_schema: group.column(place).encodings for place in range(5)}
    assert "DELTA_BINARY_PACKED" in encodings["position_id"]
    assert "BYTE_STREAM_SPLIT" in encodings["noise"]
    assert "BYTE_STREAM_SPLIT" in encodings["noises.list.element"]
    assert "RLE_DICTIONARY" in encodings["third"]
    assert "RLE_DICTIONARY" in encodings["word"]
    pq.write_table(written.read(), tmp_path / "usual.parquet", compression="zstd")
    assert file.stat().st_size < 0.75 * (tmp_path / "usual.parquet").stat().st_size
    assert group.column(0).statistics.max == columns.ROWS_PER_ROW_GROUP - 1
    assert pl.read_parquet(file).equals(pl.read_parquet(tmp_path / "usual.parquet"))


# --- the card -------------------------------------------------------------------------------------------------------


def test_the_card_s_head(made: Path) -> None:
    found = head(made / "out")
    assert found["license"] == "cc-by-4.0"
    assert found["size_categories"] == ["10K<n<100K"]
    assert [one["config_name"] for one in found["configs"] if one.get("default")] == ["neuron_influence"]
    assert all(one["data_files"] == f"{one['config_name']}/*.parquet" for one in found["configs"])
    assert "language" not in found


def test_the_card_says_what_is_inside(made: Path) -> None:
    text = body(made / "out")
    assert "run-a" in text
    assert "odd/run id é\\|&lt;b>" in text
    assert "gap (missing: no weights)" in text
    assert "- `run-a`: a \\| pipe" in text
    assert "- `run-a`: a &lt;b>tag&lt;/b> and a line" in text
    for name in ("neuron_influence", "dim_token"):
        relation = relations.relations()[name]
        assert f"### `{name}`\n\n{relation.summary} {relation.grain}" in text
        assert all(f"| `{column}` |" in text for column in relation.columns)
    assert "| [`fct_effect`](#fct_effect) | 10,240 | One row per run × neuron × position. |" in text
    without = re.search(r"^Without rows.*$", text, re.MULTILINE)
    assert without
    assert "`head_ablation`" in without[0]
    assert "### `head_ablation`" not in text
    assert all(f"- `{name}`: {why}." in text for name, why in LEFT_OUT.items())
    assert "names no licence" not in text
    assert "{{" not in text
    assert "\n\n\n\n" not in text


def test_the_card_s_blocks_are_whole(made: Path) -> None:
    text = body(made / "out")
    assert text.count("```") % 2 == 0
    table = [line for line in text.split("## Runs")[1].split("##")[0].splitlines() if line.startswith("|")]
    assert len(table) == 4  # names, rule, two runs
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1


def test_without_a_licence_the_card_says_so(made: Path, tmp_path: Path) -> None:
    warehouse.export(made / "w.duckdb", tmp_path / "out", ["run-a"])
    assert "license" not in head(tmp_path / "out")
    assert "This card names no licence" in " ".join(body(tmp_path / "out").split())


def test_the_card_cites_what_the_repository_cites() -> None:
    cited = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert (cited["title"], cited["authors"][0]["name"]) == (card.TITLE, card.AUTHOR)


# --- some of the runs -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one(made: Path) -> Path:
    warehouse.export(made / "w.duckdb", made / "one", ["run-"])
    return made / "one"


def test_one_run_comes_with_what_it_needs_and_no_more(made: Path, one: Path) -> None:
    held = contents(made / "w.duckdb")
    for name, relation in relations.relations().items():
        if relation.is_macro or name in LEFT_OUT:
            continue
        frame = rows_of(one, name)
        if "run_id" in frame.columns:
            wanted = held[name].filter(pl.col("run_id") == "run-a")
            assert set(frame["run_id"]) == set(wanted["run_id"]), name
            if "other_run_id" not in frame.columns:
                assert len(frame) == len(wanted), name
    assert rows_of(one, "ranking_overlap")["other_run_id"].to_list() == ["run-a"]
    assert rows_of(one, "dim_token")["tokenizer_id"].unique().to_list() == ["another"]
    assert rows_of(one, "token_frequency")["frequency_source_id"].unique().to_list() == ["its own"]
    assert len(rows_of(made / "out", "dim_token")) == 2 * len(rows_of(one, "dim_token")) > 0
    assert "odd/run" not in (one / "README.md").read_text(encoding="utf-8")
    assert "odd/run" not in (one / "manifest.json").read_text(encoding="utf-8")


def test_of_both_runs_the_comparison_is_there(made: Path, tmp_path: Path) -> None:
    rows = warehouse.export(made / "w.duckdb", tmp_path / "two", ["run-a", "odd", "run-a"])
    assert rows["ranking_overlap"] == 2
    assert rows["dim_run"] == 2


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (["absent"], "There is no run 'absent'"),
        ([""], "'' is the start of 3 runs"),
        (["run-a", "gap"], r"Run gap cannot be exported: its status is missing \(no weights\)\. Name a published run"),
    ],
)
def test_a_run_that_cannot_be_shared_is_refused(made: Path, tmp_path: Path, runs: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        warehouse.export(made / "w.duckdb", tmp_path / "out", runs)
    assert list(tmp_path.iterdir()) == []


def test_the_sums_left_out_are_no_small_part(made: Path, tmp_path: Path) -> None:
    """Why `agg_effect` is left out: with it, an export would be far larger than its facts."""
    with reading(made / "w.duckdb") as con:
        columns.write(con, ["from agg_effect where run_id = 'run-a'"], {}, tmp_path / "sums.parquet")
    facts = (made / "out" / "fct_effect" / "run-a.parquet").stat().st_size
    assert (tmp_path / "sums.parquet").stat().st_size > 0.1 * facts


# --- names of files -------------------------------------------------------------------------------------------------

NAMES = ["run-a", ODD, "odd_run_id", ".hidden", "_x", "..", "a/../b", "%2F", "x" * 300, "é", "A b", "A_b"]


def test_names_of_files_are_safe_and_differ() -> None:
    names = [layout.file_name("dim_run", run) for run in NAMES]
    assert len(set(names)) == len(names)
    for name in names:
        assert re.fullmatch(r"dim_run/[A-Za-z0-9][A-Za-z0-9._-]{0,130}\.parquet", name)
    assert layout.file_name("dim_run", "gpt2-main-0a1b2c3d") == "dim_run/gpt2-main-0a1b2c3d.parquet"


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_exports_one_run(commands: Any) -> None:
    path = commands.folder / "rare_tokens.duckdb"
    stored(path, "run-a", seed=1)
    ended = commands("export", "out", "--run", "run", "--license", "mit")
    assert ended.code == 0, ended.err
    assert "hf upload USER/NAME out . --repo-type dataset" in ended.err
    assert head(commands.folder / "out")["license"] == "mit"
    for arguments, message in (
        (("--run", "no"), "There is no run 'no'"),
        (("--license", "My Own!"), "--license My Own!: the hub's names"),
    ):
        refused = commands("export", "other", *arguments)
        assert refused.code == 2
        assert message in refused.err
    assert not (commands.folder / "other").exists()
