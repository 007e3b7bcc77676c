"""Tables at 80 and 120 columns: words whole, nothing lost without a word, one field a line for few wide rows."""

import polars as pl
import pytest
from rich.cells import cell_len

from rare_tokens import warehouse
from rare_tokens.commands.support.table_layout import layout
from rare_tokens.commands.support.terminal import show
from rare_tokens.warehouse.schema import relations
from tests.commands.test_terminal import on_terminal, shown
from tests.support.warehouses import published, stored

RUN = "synthetic-main-00000000"
VIEWS = [name for name, relation in relations.relations().items() if not relation.is_macro]


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    path = tmp_path_factory.mktemp("layout") / "w.duckdb"
    stored(path, RUN)
    published(path, "synthetic-other-11111111")
    with warehouse.open(path) as opened:
        yield opened


def printed(frame, capsys, monkeypatch, columns=None, **given):
    """What is printed in a window of so many columns; None: into a pipe."""
    if columns is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", str(columns))
    show(frame, **given)
    return capsys.readouterr().out.rstrip("\n").split("\n")


WIDE = pl.DataFrame(
    {
        "run_id": [RUN] * 4,
        "preset": ["es", "es", "nc", "nc"],
        "token_group": ["rare", "common"] * 2,
        "influence": [0.0660797, 0.0344001, 0.0591234, 0.0312],
        "reason": ["the more influential half of the neurons all have the same influence", None, None, None],
        "neurons_above_0_5": [12, 0, 3, 1],
        "slope_break_log_rank": [5.25, None, 4.75, None],
    }
)
AT_80 = """\
In all rows: run_id synthetic-main-00000000

preset   token_group   influence   reason                      neurons_above_0_5
────────────────────────────────────────────────────────────────────────────────
es       rare          0.0660797   the more influential half                  12
                                   of the neurons all have
                                   the same influence
es       common        0.0344001   –                                           0
nc       rare          0.0591234   –                                           3
nc       common           0.0312   –                                           1
1 column hidden: slope_break_log_rank; --json has them all."""
AT_120 = """\
In all rows: run_id synthetic-main-00000000

preset   token_group   influence   reason                                       neurons_above_0_5   slope_break_log_rank
────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
es       rare          0.0660797   the more influential half of the neurons                    12                   5.25
                                   all have the same influence
es       common        0.0344001   –                                                            0                      –
nc       rare          0.0591234   –                                                            3                   4.75
nc       common           0.0312   –                                                            1                      –
"""
FIELDS_AT_80 = """\
run_id                 synthetic-main-00000000
preset                 es
token_group            rare
influence              0.0660797
reason                 the more influential half of the neurons all have the
                       same influence
neurons_above_0_5      12
slope_break_log_rank   5.25"""


def test_snapshots_at_80_columns(capsys, monkeypatch):
    assert [line.rstrip() for line in printed(WIDE, capsys, monkeypatch, 80)] == AT_80.split("\n")
    assert printed(WIDE.head(1), capsys, monkeypatch, 80) == FIELDS_AT_80.split("\n")


def test_a_snapshot_at_120_columns(capsys, monkeypatch):
    lines = [line.rstrip() for line in printed(WIDE, capsys, monkeypatch, 120)]
    assert lines == AT_120.rstrip("\n").split("\n")


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("rows", [2, 12])
def test_every_relation_fits_and_says_what_it_hides(opened, capsys, monkeypatch, columns, rows):
    for name in VIEWS:
        frame = opened.sql(f"from {name} limit {rows}")
        lines = printed(frame, capsys, monkeypatch, columns)
        text = " ".join(" ".join(lines).split())
        assert all(cell_len(line.rstrip()) <= columns for line in lines), name
        assert all(column in text for column in frame.columns), name
        for value in frame["run_id"] if "run_id" in frame.columns else []:
            assert any(value in line for line in lines), name


@pytest.mark.parametrize("columns", [10, 24])
def test_a_window_narrower_than_a_run_id_shows_it_whole(capsys, monkeypatch, columns):
    for frame in (WIDE, WIDE.head(1), WIDE.with_columns(run_id=pl.col("run_id") + pl.col("preset"))):
        assert any(RUN in line for line in printed(frame, capsys, monkeypatch, columns))


def test_a_pipe_has_no_width(capsys, monkeypatch):
    header, _, *rows = printed(WIDE, capsys, monkeypatch)
    assert header.split() == WIDE.columns
    assert len(rows) == 4
    assert "the more influential half of the neurons all have the same influence" in rows[0]


def test_what_is_cut_is_said(capsys, monkeypatch):
    frame = pl.DataFrame({"text": ["x" * 100, "short", "y" * 81]})
    lines = printed(frame, capsys, monkeypatch)
    assert lines[2] == "x" * 79 + "…"
    assert lines[-1] == "2 cells cut at …; --json has all of them."
    assert "cut" not in printed(frame.filter(pl.col("text") == "short"), capsys, monkeypatch)[-1]
    many = pl.DataFrame({"n": range(201)})
    last = printed(many, capsys, monkeypatch, whole="--format csv")[-1]
    assert last == "… 1 more row (of 201); --format csv prints them all."


def test_a_table_without_rows_keeps_its_columns(capsys, monkeypatch):
    lines = printed(WIDE.clear(), capsys, monkeypatch, 80)
    text = " ".join(lines)
    assert all(column in text for column in WIDE.columns)


def test_bytes_of_half_a_character_are_spelled(capsys, monkeypatch, opened):
    from rare_tokens.common.text import of_bytes

    frame = pl.DataFrame({"bytes": [b"\xe2\x80", b" \xe2"]})
    assert [line.strip() for line in printed(frame, capsys, monkeypatch)[2:]] == ["<0xE2><0x80>", "<0xE2>"]
    same = opened.sql(
        "select token_shown('?', '\\xE2\\x80'::blob), token_shown('?', ' \\xE2'::blob), token_shown('a', null)"
    )
    assert same.row(0) == (of_bytes(b"\xe2\x80"), of_bytes(b" \xe2"), "a")


def test_wide_characters_count_twice():
    assert layout(["a", "b"], [["日本語", "x"]] * 4, 10).shown == {0: 6, 1: 1}
    assert layout(["a", "b"], [["日本語", "x"]] * 4, 9).hidden == (1,)


def test_a_terminal_s_width_is_asked_for(commands):
    stored(commands.folder / "rare_tokens.duckdb", RUN)
    query = "from neuron_influence where rank <= 4"
    for columns in (80, 120):
        ended = on_terminal(commands.folder, "sql", query, "--quiet", columns=columns)
        lines = shown(ended.out)
        assert ended.code == 0
        assert max(cell_len(line.rstrip()) for line in lines) <= columns
        assert any(RUN in line for line in lines)
    narrow = on_terminal(commands.folder, "sql", query, "--quiet", columns=200, environment={"COLUMNS": "80"})
    assert max(cell_len(line.rstrip()) for line in shown(narrow.out)) <= 80
