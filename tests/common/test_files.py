"""Names that will do, and sizes in words."""

from pathlib import Path

import pytest

from rare_tokens import warehouse
from rare_tokens.common.errors import UserError
from rare_tokens.common.files import require_local, size_in_words


@pytest.mark.parametrize(
    "address", ["s3://bucket/a.duckdb", "s3:/bucket/a.duckdb", "https://host/a", "hf://datasets/x"]
)
def test_an_address_is_no_warehouse(address):
    with pytest.raises(UserError, match="a warehouse is a file on a disk of this machine"):
        require_local(Path(address))
    with pytest.raises(UserError, match="a warehouse is a file"), warehouse.open(address):
        pass


@pytest.mark.parametrize("path", ["a.duckdb", "C:/folder/a.duckdb", "C:\\a.duckdb", "/tmp/a:b/c.duckdb", "a:b.duckdb"])
def test_a_path_may_hold_a_colon(path):
    require_local(Path(path))


@pytest.mark.parametrize(
    "command", ["runs", "sql", "tables", "check", "analyze", "report", "vacuum", "migrate", "ingest"]
)
def test_every_command_refuses_an_address(commands, command):
    more = {"sql": ["select 1"], "ingest": ["--model", "none"]}.get(command, [])
    ended = commands(command, *more, "--warehouse", "s3://bucket/a.duckdb")
    assert (ended.code, "not at an address (s3:/)" in ended.err) == (2, True), ended.err


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 kB"), (940_000, "940 kB"), (1_234_567, "1.2 MB"), (949_000_000, "949 MB"), (999_999_999, "1.0 GB"),
     (12_300_000_000, "12 GB"), (1_230_000_000_000, "1,230 GB")],
)  # fmt: skip
def test_sizes_are_said_in_the_unit_that_fits(size, words):
    assert size_in_words(size) == words
