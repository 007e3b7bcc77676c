"""Inputs that nobody meant: each must be taken or refused in words (exit 2, 3 or 4), never end as a bug (exit 1).

    python -m tests.robustness.fuzz TARGET [--runs 4000] [--seed 1]       coverage-guided, by atheris, in this process

The targets take bytes, so that atheris can turn them; Hypothesis feeds the same ones in tests/robustness/test_fuzz.py.
"""

import argparse
import contextlib
import gzip
import importlib
import io
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rare_tokens.common.errors import QualityError, UserError

WHY = (UserError, QualityError)
INSTRUMENTED = (
    "rare_tokens.ingest.text.readers",
    "rare_tokens.ingest.text.file_content",
    "rare_tokens.ingest.text.tables",
    "rare_tokens.ingest.text.counts",
    "rare_tokens.commands.support.settings",
    "rare_tokens.common.parts",
    "rare_tokens.common.files",
)


class Fuzzer:
    """Runs one target in one folder and counts how its inputs ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ends: Counter[str] = Counter()
        self._warehouse: Path | None = None

    def corpus(self, data: bytes) -> None:
        """A corpus file: the first byte says of which kind it pretends to be."""
        from rare_tokens.ingest.text.readers import read_texts

        suffixes = (".txt", ".jsonl", ".json", ".parquet", ".jsonl.gz", ".txt.bz2", ".json.zst", ".parquet")
        suffixes += (".arrow", ".ndjson", ".txt.xz", "")
        path = self.folder / f"corpus{suffixes[data[0] % len(suffixes)] if data else '.txt'}"
        path.write_bytes(data[1:])
        self._count("corpus", lambda: [text.encode() for text in read_texts(path)])

    def counts(self, data: bytes) -> None:
        """A count file for a vocabulary of 8 with 6 tokens known."""
        from rare_tokens.ingest.text.counts import read_count_file

        path = self.folder / "counts.npy"
        path.write_bytes(data)
        self._count("counts", lambda: read_count_file(path, 8, 6))

    def config(self, data: bytes) -> None:
        """A configuration file."""
        path = self.folder / "fuzzed.toml"
        path.write_bytes(data)
        self.command(["--config", str(path), "runs"])

    def parts(self, data: bytes) -> None:
        """One file of a finished run's parts, overwritten from some byte on; then it is published."""
        from rare_tokens import warehouse
        from rare_tokens.analyses.curve.power_law import power_law_line

        source, parts = self.folder / "parts of a run", self.folder / "fuzzed.parts"
        if not source.exists():
            from studies.synthetic.runs import make_parts

            make_parts(source, positions=64, neurons=8, window=32, vocabulary=40, run_id="run")
        shutil.rmtree(parts, ignore_errors=True)
        shutil.copytree(source, parts)
        files = sorted(file for file in parts.rglob("*") if file.is_file())
        file = files[data[0] % len(files)] if data else files[0]
        content = bytearray(file.read_bytes())
        at = int.from_bytes(data[1:4], "big") % max(1, len(content))
        content[at : at + len(data[4:])] = data[4:]
        file.write_bytes(content)
        path = self.folder / "published.duckdb"
        path.unlink(missing_ok=True)
        self._count("parts", lambda: warehouse.publish(path, parts, line=power_law_line, quiet=True))

    def arguments(self, data: bytes) -> None:
        """A command line: each byte a word, or a few bytes of text."""
        words = [WORDS[byte % len(WORDS)] for byte in data[:12]]
        self.command([data[12:].decode("utf-8", "replace") if word == "TEXT" else word for word in words])

    def command(self, arguments: list[str]) -> None:
        """Run a command line; exit 1 is a bug."""
        from rare_tokens import cli
        from rare_tokens.commands.support.settings import run

        self._fresh_warehouse()
        arguments = [item for item in arguments if item not in ("demo", "explore")]  # minutes, and a server
        out = io.TextIOWrapper(io.BytesIO(), "utf-8")
        err = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace")  # as Python's own
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                run(cli.cli, arguments)
            except SystemExit as ended:
                code = ended.code
        err.flush()
        said = err.buffer.getvalue().decode("utf-8", "replace")  # type: ignore[attr-defined]
        assert code in (0, 2, 3, 4), f"{arguments} ended with {code}: {said}"
        assert "--debug" in arguments or "Traceback" not in said, f"{arguments} showed a traceback"
        self.ends[f"command: exit {code}"] += 1

    def _count(self, name: str, call: Callable[[], Any]) -> None:
        try:
            call()
        except WHY:
            self.ends[f"{name}: refused"] += 1
        else:
            self.ends[f"{name}: taken"] += 1

    def _fresh_warehouse(self) -> None:
        """A small warehouse, made anew now and then: commands delete, migrate and export."""
        from tests.support.warehouses import published

        if self._warehouse is None:
            self._warehouse = self.folder / "kept" / "rare_tokens.duckdb"
            self._warehouse.parent.mkdir()
            published(self._warehouse)
            (self.folder / "garbage.duckdb").write_bytes(b"no database" * 1000)
            (self.folder / "empty.npy").write_bytes(b"")
            (self.folder / "q.sql").write_text("select 1")
            (self.folder / "not utf-8.sql").write_bytes(b"select '\xff'")
            shorten()
        if sum(self.ends.values()) % 25 == 0:
            shutil.copy(self._warehouse, self.folder / "rare_tokens.duckdb")


def shorten() -> None:
    """Let commands that take seconds by themselves take less: what is tried here is how they take their arguments."""
    import polars as pl

    from rare_tokens import warehouse
    from rare_tokens.commands import analyze
    from rare_tokens.warehouse import sandbox

    def run_sql(path: Path, text: str, timeout: float = 60.0, *, wait: float = 0.0) -> Any:
        return pl.from_arrow(sandbox.answer(path, text, min(timeout, 2.0), wait))

    warehouse.run_sql = run_sql
    warehouse.check = lambda *_, **__: ([], Path("page"))  # type: ignore[assignment,return-value]
    analyze._analyze = lambda *_: []  # type: ignore[assignment]


TYPED = """
ingest runs tables sql check analyze report export delete migrate vacuum TEXT TEXT TEXT TEXT
--warehouse --json --quiet --verbose --log-file --wait --debug --config --version --help -h --
--model --revision --corpus --text-field --frequencies --tokens --window --seed --begin-token --ablation --effects
--tolerance --device --dtype --again --dry-run --publish-anyway --out --format --timeout --explain --layer --edit-scope
--contexts --group rare_tokens.duckdb garbage.duckdb absent.duckdb . .. / /dev/null empty.npy q.sql absent.sql - builtin
c4 hf: hf:a/b:c:d:e news=hf:#x wordfreq
builtin=news run ru nothing fct_effect dim_run influence_at 0 -1 1 256 1e-6 nan inf -inf 1e400 99999999999999999999 0x10
1_000 ١٢ ½ loss loss,entropy loss,,loss mean zero float32 bfloat16 auto cpu cuda:99 table json csv markdown es nc
step3 last
"""
WORDS = [
    *TYPED.split(), "", " ", "\t", "a b", "not utf-8.sql", "'", '"', "\\", "\x00", "\x1b[31m", "\u202e", "\ud800", "🦆",
    "x" * 5000, "select 1", "from dim_run", "select * from fct_effect limit 3", "select 1;;", "selec",
    "drop table store.run", "select 'a' as \"x\ny\"", "select chr(0)", "select 1/0", "select [1, {'a': null}]",
    "select * from range(300)", "select 1::hugeint * 170141183460469231731687303715884105727",
    "select date '9999-12-31' + 1", "--out=page", "--wait=0", "--wait=nan", "--wait=-1", "--format=json", "--timeout=0",
    "--timeout=nan", "--timeout=1e-9", "--seed=x",
]  # fmt: skip


# --- seeds ----------------------------------------------------------------------------------------------------------


def seeds(target: str) -> list[bytes]:
    """Sound inputs to begin from."""
    if target == "corpus":
        lines = "".join(json.dumps({"text": text, "n": 1}) + "\n" for text in ("one", "two ½", "\ud83e\udd86"))
        buffer = io.BytesIO()
        pq.write_table(pa.table({"text": ["one", None, "two"]}), buffer)
        arrow = io.BytesIO()
        table = pa.table({"text": ["one", None, "two"]})
        with pa.ipc.new_stream(arrow, table.schema) as writer:
            writer.write_table(table)
        texts = [b"one\n<|endoftext|>\ntwo", lines.encode(), b'["one", {"text": "two"}]', buffer.getvalue()]
        found = [bytes([kind]) + text for kind, text in enumerate([*texts, gzip.compress(lines.encode())])]
        return [*found, bytes([8]) + arrow.getvalue()]  # of the suffix `.arrow`
    if target == "counts":
        found = []
        for array in (np.arange(8), np.arange(6, dtype=np.int32), np.zeros(3), np.arange(8).reshape(2, 4)):
            buffer = io.BytesIO()
            np.save(buffer, array)
            found.append(buffer.getvalue())
        return found
    if target == "config":
        return [b'warehouse = "w.duckdb"\n[ingest]\ntokens = 512\neffects = "loss"\n', b"json = true\nwait = 1.5\n"]
    if target == "arguments":
        places = {word: place for place, word in enumerate(WORDS)}
        lines = [
            "runs --json",
            "sql TEXT --format csv",
            "tables fct_effect",
            "delete run",
            "ingest --model . --tokens 256",
        ]
        return [bytes(places[word] for word in line.split()).ljust(12, b"\x0b") + b"select 1" for line in lines]
    return [bytes([kind, 0, 0, kind]) + b"PAR1\x00{}" for kind in range(10)]


TARGETS = ("corpus", "counts", "config", "parts", "arguments")


def main() -> None:
    """Let atheris turn one target's inputs; ends with its own exit code, 0 where no input was a bug."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--runs", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    import atheris

    with atheris.instrument_imports(include=list(INSTRUMENTED), enable_loader_override=False):
        for name in INSTRUMENTED:
            importlib.import_module(name)
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    (folder / "seeds").mkdir()
    for number, seed in enumerate(seeds(given.target)):
        (folder / "seeds" / str(number)).write_bytes(seed)
    work = folder / "work"
    work.mkdir()
    fuzzer = Fuzzer(work)
    target: Callable[[bytes], None] = getattr(fuzzer, given.target)

    def tried(data: bytes) -> None:
        target(data)
        if sum(fuzzer.ends.values()) % 1000 == 0:
            report(given.target, fuzzer)

    options = [f"-atheris_runs={given.runs}", f"-seed={given.seed}", "-max_len=600", "-verbosity=0"]
    options += ["-rss_limit_mb=0", "-timeout=60", f"-artifact_prefix={folder}/"]
    import atexit

    atexit.register(report, given.target, fuzzer)
    atheris.Setup(["fuzz", *options, str(folder / "seeds")], tried)
    atheris.Fuzz()


def report(target: str, fuzzer: Fuzzer) -> None:
    """Print the counts so far, as one line of JSON."""
    counts = {"target": target, "inputs": sum(fuzzer.ends.values()), "ends": dict(sorted(fuzzer.ends.items()))}
    print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
