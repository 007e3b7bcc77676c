"""Tells whether a code change changed a result: fixed runs, made by the command line, and a hash of every relation.

    python studies/relation_hashes.py --checkout OLD_CHECKOUT --out before.json
    python studies/relation_hashes.py --compare before.json

The runs are made in an empty folder, only by the checkout's `cli.py`, so the layout of its code does not matter. Then
every public relation is read from the warehouse file and every public macro is called; for each are kept:

- `exact`: a hash of all rows in any order, bit for bit;
- `rounded`: the same with floats to 6 significant digits;
- `rows`, `columns` with their types, and for each float column its sum and the sum of its absolute values.

If `exact` differs and `rounded` does not, only last digits have changed. If both differ that may still be so: some of
many values lie where rounding goes the other way. The largest change of a column's sum is shown too, relative to the
sum of absolute values, but one wrong value among many hardly moves it. `--folder DIR` keeps a warehouse to compare.

Make both sides on one machine with the same packages. Models, corpora and counts are read from the folder that
`RARE_TOKENS_TEST_DATA` names (default: `../shared/data`, seen from the checkout); small random models are made here
with fixed seeds. It takes three to four minutes. Exit 0: nothing differs or was compared; 1: it does; 2: it failed.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb

REPOSITORY = Path(__file__).resolve().parent.parent
DATA_VARIABLE = "RARE_TOKENS_TEST_DATA"
WAREHOUSE = "runs.duckdb"

# Columns that differ between two runs of the same code, or say what wrote a row, not what was found.
DROPPED = {
    **dict.fromkeys(("created_at", "published_at", "checked_at"), "time of day"),
    "seconds": "how long it took",
    "stage_seconds": "how long it took, by stage",
    "code_version": "changes with every release",
    "packages": "versions of what is installed; kept apart, as `packages`",
    "path": "of a Parquet file in `fact_file`: part of its name is random; its SHA-256 is compared",
}

# The ingests: both paths, both stores, every effect, attention, groups, a series with a gap, matched contexts.
STORIES = "--model {data}/models/stories260K --corpus {data}/corpora/tinystories"
NOVELLA = "--model {data}/models/novella --corpus {data}/corpora/c4-sample"
SMALL = "--window 16 --corpus news=news.txt --corpus literature=novel.txt"
MATCHED = "--model small-gpt2 --frequencies counts.npy --contexts nc-matched --window 16"
EVERY_EFFECT = "--effects loss,direct,entropy,kl,frequency"
RUNS = {
    "last layer": f"{STORIES} --tokens 1024 --window 64 {EVERY_EFFECT} --attention --group groups.json",
    "layer below": f"{STORIES} --tokens 256 --window 64 {EVERY_EFFECT} --layer -2",
    "series, Parquet": f"{NOVELLA} --revisions step1024..step3072:1024 --tokens 1024 --window 64 --store parquet"
    " --effects loss,kl,frequency --frequencies {data}/frequencies/novella-training.npy",
    "dense last layer": f"--model small-gemma2 {SMALL} --tokens 512 {EVERY_EFFECT}"
    " --ablation zero --begin-token --seed 1",
    "one position": f"--model small-gpt2 {SMALL} --tokens 256 --layer 0 --edit-scope position --frequencies counts.npy",
    "matched": f"{MATCHED} --corpus news=news.txt --corpus literature=novel.txt {EVERY_EFFECT}",
    "matched, too few": f"{MATCHED} --corpus few.txt",
}
NOT_ANALYSED = ("layer below",)  # to save time; everything else in such a run is compared
STORED_GROUPS = f"{RUNS['last layer']} --group boost --group nc:boost"  # groups that `analyze` made

# How each public macro is called; {run} stands for each published run in turn.
MACROS = {
    "attribution_sum": "from attribution_sum('{run}')",
    "attribution_error": "from attribution_error('{run}')",
    "elbow_distance": "select *, elbow_distance(count, rank, 900, 1, 500) from token_frequency where count > 0",
    "exact_avg": "select run_id, exact_avg(loss) as mean_loss from dim_position group by run_id",
    "group_activation": "from group_activation('{run}', 'es', draws := 2)",
    "group_test_across": "from group_test_across(['{run}'])",
    "group_where": "from group_where('{run}', 25, words := true)",
    "influence_at": "from influence_at('{run}', 15)",
    "influence_where": "from influence_where('{run}', 40, of_input := true, elbow := false, strict := true)",
    "nats": "select run_id, position_id, nats(units(loss)) as loss from dim_position",
    "neuron_activation": "select '{run}' as run, * from neuron_activation('{run}', 3, bins := 10)",
    "neuron_context": "from neuron_context('{run}', 3, contexts := 10)",
    "neuron_target": "from neuron_target('{run}', 3, fewest := 2)",
    "percentile_bucket": "select run_id, position_id, percentile_bucket(percentile) as bucket from position_frequency",
    "power_law_at": "from power_law_at('{run}', 5, 40)",
    "token_group_of": "select *, token_group_of(count, true, is_elbow, 9, true, false, true) from token_frequency",
    "units": "select run_id, position_id, units(loss) as units from dim_position",
}

# Words of the small models: rare and common nouns that can be paired, and the words around them.
RARE = "zebra walrus badger ferret donkey falcon beaver lizard magpie turtle weasel gopher osprey"
COMMON = "table window garden doctor letter winter market summer bridge river church dinner farmer forest"
OTHERS = "a the The old man saw near house and then went to by his friend ."
SENTENCES = (
    "the {} saw the old man near the house .",
    "the old man saw the {} near the house .",
    "the old man went to the house by the {} .",
)
SEPARATOR = "<|endoftext|>"
VOCABULARY = 128
COUNTED = 20_000_000  # tokens in the claimed source of the small models' frequencies

Found = dict[str, Any]


class CannotRunError(Exception):
    """Something is missing; the message says what."""


@dataclass(frozen=True)
class Fingerprint:
    """What is kept about a relation; for a macro that is not in `MACROS`, only that it exists."""

    rows: int | None = None
    exact: str | None = None
    rounded: str | None = None
    columns: dict[str, str] | None = None
    sums: dict[str, tuple[float, float]] | None = None
    error: str | None = None  # why it could not be read or called


def main() -> int:
    """Parse, make the runs, hash, print, write, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, default=REPOSITORY, help="whose cli.py to run [default: this one's]")
    parser.add_argument("--out", type=Path, help="write what was found to this JSON file")
    parser.add_argument("--compare", type=Path, metavar="OLD.json", help="say what differs from this file")
    parser.add_argument("--folder", type=Path, help="empty folder to work in, which is kept [default: a temporary one]")
    given = parser.parse_args()
    try:
        old = json.loads(given.compare.read_text(encoding="utf-8")) if given.compare else None
        with _work_folder(given.folder) as folder:
            found = measure(given.checkout.resolve(), folder)
    except (CannotRunError, OSError, ValueError, duckdb.Error) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    _show(found)
    if given.out:
        given.out.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    if old is None:
        return 0
    differences = compare(old, found)
    print("\n".join(["", f"Compared with {given.compare}: {len(differences)} differences", *differences]))
    return int(bool(differences))


def measure(checkout: Path, folder: Path) -> Found:
    """Make the runs with a checkout in an empty folder, and hash what they left."""
    cli = Cli(checkout, folder)
    made = make_runs(cli, _inputs(checkout), folder)
    kinds = {one["name"]: one["kind"] for one in json.loads(cli("tables", "--json"))}
    start = time.perf_counter()
    found = hash_relations(folder / WAREHOUSE, kinds)
    cli.seconds["hashes"] = round(time.perf_counter() - start, 1)
    return {"runs": made, "seconds": cli.seconds, **found}


def hash_relations(warehouse: Path, kinds: dict[str, str]) -> Found:
    """The fingerprint of each relation (`kinds`: view or macro), and the packages."""
    facts = f"{warehouse}.facts".replace("'", "''")
    with duckdb.connect(warehouse, read_only=True) as con:
        # A connection that the program did not open must be told where Parquet facts are (docs/storage.md)
        con.execute(f"set variable rare_tokens_facts = '{facts}'")
        relations = {}
        for name, kind in sorted(kinds.items()):
            try:
                relations[name] = asdict(_fingerprint(con, name, kind))
            except duckdb.Error as error:  # for example a macro with other arguments; the others still tell something
                relations[name] = asdict(Fingerprint(error=str(error).splitlines()[0]))
        ((packages,),) = con.execute("select any_value(packages)::varchar from dim_run").fetchall()
    return {"packages": json.loads(packages), "relations": relations}


class Cli:
    """The command line of a checkout, in a folder of its own; `seconds` says how long each command took."""

    def __init__(self, checkout: Path, folder: Path) -> None:
        self.program, self.folder = checkout / "cli.py", folder
        self.seconds: dict[str, float] = {}
        if not self.program.is_file():
            raise CannotRunError(f"{checkout} holds no cli.py; name a checkout with --checkout DIR.")
        # None of the caller's settings, no network, and one thread, on which matrix products repeat exactly
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RARE_TOKENS_", "PYTHON"))}
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        self.environment = kept | threads | {"HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"}

    def __call__(self, *arguments: str, name: str | None = None) -> str:
        """Run one command and return its output."""
        start = time.perf_counter()
        command = [sys.executable, str(self.program), *arguments, "--quiet", "--warehouse", WAREHOUSE]
        ended = subprocess.run(  # noqa: S603 - the command is ours
            command, cwd=self.folder, env=self.environment, capture_output=True, encoding="utf-8", check=False
        )
        if ended.returncode:
            raise CannotRunError(f"`cli.py {' '.join(arguments)}` ended with {ended.returncode}:\n{ended.stderr}")
        if name is not None:
            self.seconds[name] = round(time.perf_counter() - start, 1)
            print(f"{self.seconds[name]:7.1f} s  {name}", file=sys.stderr)
        return ended.stdout


def make_runs(cli: Cli, data: Path, folder: Path) -> dict[str, list[str]]:
    """Ingest, analyse, add stored groups, check; return the runs' ids by name."""
    make_small_inputs(folder)
    (folder / "groups.json").write_text(json.dumps({"first": [3, 17, 40], "second": [5]}), encoding="utf-8")

    def ingest(name: str, arguments: str) -> list[dict[str, Any]]:
        given = [part.format(data=data) for part in arguments.split()]
        listed: list[dict[str, Any]] = json.loads(cli("ingest", *given, "--device", "cpu", "--json", name=name))
        return listed

    made = {name: ingest(name, arguments) for name, arguments in RUNS.items()}
    wanted = [row for name, rows in made.items() if name not in NOT_ANALYSED for row in rows]
    cli("analyze", *(row["run_id"] for row in wanted if row["status"] == "published"), name="analyze")
    ingest("stored groups", STORED_GROUPS)
    cli("check", name="check")
    return {name: [row["run_id"] for row in rows] for name, rows in made.items()}


def make_small_inputs(folder: Path) -> None:
    """Small random models with a tokenizer of whole words, counts for it, and texts of its words."""
    import numpy as np

    rare, common = RARE.split(), COMMON.split()
    words = [SEPARATOR, "[UNK]", *OTHERS.split(), *rare, *common]
    words += [f"unused{number}" for number in range(VOCABULARY - len(words))]
    ids = {word: number for number, word in enumerate(words)}
    _make_models(folder, ids)
    counts = np.zeros(VOCABULARY, dtype=np.int64)
    counts[[ids[word] for word in rare]] = 3
    counts[[ids[word] for word in common]] = 1_000
    counts[ids["the"]] = COUNTED - counts.sum()
    np.save(folder / "counts.npy", counts)
    for seed, (name, nouns) in enumerate({"news": rare, "novel": rare, "few": rare[:4]}.items()):
        (folder / f"{name}.txt").write_text(_texts([*nouns, *common], random.Random(seed)), encoding="utf-8")


def _make_models(folder: Path, ids: dict[str, int]) -> None:
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()
    words = Tokenizer(WordLevel(ids, unk_token="[UNK]"))  # noqa: S106 - a word, not a password
    words.pre_tokenizer = Whitespace()
    special = {"bos_token": SEPARATOR, "eos_token": SEPARATOR, "unk_token": "[UNK]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, **special)
    shared: dict[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    shared |= {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
    gemma = Gemma2Config(
        **shared, intermediate_size=80, num_key_value_heads=2, head_dim=8, sliding_window=8, final_logit_softcapping=5.0
    )
    for name, config in {"small-gpt2": GPT2Config(**shared, n_inner=80), "small-gemma2": gemma}.items():
        model = AutoModelForCausalLM.from_config(config).eval()
        generator = torch.Generator().manual_seed(0)
        for parameter in model.parameters():  # larger than at initialisation, so that every neuron matters
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.data = 0.2 * drawn if parameter.dim() == 2 else 1 + 0.1 * drawn
        model.tie_weights()
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def _texts(nouns: list[str], draw: random.Random, documents: int = 30, sentences: int = 6) -> str:
    """Documents of sentences about nouns, each noun early, late or in the middle of its sentence."""
    written = []
    for _ in range(documents):
        said = [draw.choice(SENTENCES).format(draw.choice(nouns)) for _ in range(sentences)]
        written.append(" ".join(f"The{sentence[3:]}" for sentence in said))
    return f"\n{SEPARATOR}\n".join(written)


def _fingerprint(con: duckdb.DuckDBPyConnection, name: str, kind: str) -> Fingerprint:
    """Hashes and sums of one relation, or of a macro's result."""
    if kind == "view":
        query = f"from {name}"
    elif name in MACROS:
        runs = con.execute("select run_id from dim_run where status = 'published' order by run_id").fetchall()
        calls = dict.fromkeys(MACROS[name].format(run=run_id) for (run_id,) in runs)
        query = " union all by name ".join(f"({call})" for call in calls)
    else:
        return Fingerprint()
    described = con.execute(f"describe {query}").fetchall()
    columns = {column: kind for column, kind, *_ in sorted(described) if column not in DROPPED}
    quoted = {column: f'"{column}"' for column in columns}
    exact = ", ".join(quoted.values())
    rounded = ", ".join(_rounded(quoted[column], kind) for column, kind in columns.items())
    # A row's text tells any two floats apart, and rows are ordered by their hashes
    rows, of_exact, of_rounded = con.execute(
        f"""select count(*), sha256(coalesce(string_agg(exact, '' order by exact), '')),
            sha256(coalesce(string_agg(rounded, '' order by rounded), ''))
        from (select md5(row({exact})::varchar) as exact, md5(row({rounded})::varchar) as rounded from ({query}))"""
    ).fetchall()[0]
    floats = [column for column, kind in columns.items() if kind in ("FLOAT", "DOUBLE")]
    return Fingerprint(rows, of_exact, of_rounded, columns, _sums(con, query, floats))


def _rounded(column: str, kind: str) -> str:
    """SQL for a column with its floats to 6 significant digits, −0 as 0."""
    if kind in ("FLOAT", "DOUBLE"):
        return f"format('{{:.5e}}', {column} + 0)"
    if kind in ("FLOAT[]", "DOUBLE[]"):
        return f"list_transform({column}, lambda value: format('{{:.5e}}', value + 0))"
    return column


def _sums(con: duckdb.DuckDBPyConnection, query: str, columns: list[str]) -> dict[str, tuple[float, float]]:
    """Per column the sum of its finite values, and that of their absolute values."""
    if not columns:
        return {}
    both = 'coalesce(fsum("{0}") filter (isfinite("{0}")), 0), coalesce(fsum(abs("{0}")) filter (isfinite("{0}")), 0)'
    asked = ", ".join(both.format(column) for column in columns)
    values = con.execute(f"select {asked} from ({query})").fetchall()[0]
    return {column: (values[2 * at], values[2 * at + 1]) for at, column in enumerate(columns)}


def compare(old: Found, new: Found) -> list[str]:
    """What differs, one line each."""
    if old["packages"] != new["packages"]:
        changed = sorted(name for name, _ in set(old["packages"].items()) ^ set(new["packages"].items()))
        print(f"\nOther versions of {', '.join(dict.fromkeys(changed))}: numbers may differ for that reason alone.")
    runs = {name: (old["runs"].get(name), ids) for name, ids in new["runs"].items()}
    lines = [f"run {name}: is {ids}, was {had}" for name, (had, ids) in runs.items() if had != ids]
    before, after = old["relations"], new["relations"]
    for name in sorted(before.keys() | after.keys()):
        if name not in after or name not in before:
            lines.append(f"{name}: {'missing' if name not in after else 'new'}")
        elif found := _differences(before[name], after[name]):
            lines.append(f"{name}: {'; '.join(found)}")
    return lines


def _differences(old: Found, new: Found) -> list[str]:
    """How two fingerprints of one relation differ."""
    if new["error"] or old["error"]:
        told = f"cannot be read: {new['error']}" if new["error"] else "can be read now"
        return [] if new["error"] == old["error"] else [told]
    found = []
    was, is_now = old["columns"] or {}, new["columns"] or {}
    found += [f"column {name} is missing" for name in was if name not in is_now]
    found += [f"column {name} is new" for name in is_now if name not in was]
    common = [name for name in was if name in is_now]
    found += [f"column {name} is {is_now[name]}, was {was[name]}" for name in common if is_now[name] != was[name]]
    if old["rows"] != new["rows"]:
        found.append(f"{new['rows']} rows, were {old['rows']}")
    if old["exact"] != new["exact"]:
        same = old["rounded"] == new["rounded"]
        found.append("exact differs, rounded is the same" if same else "exact and rounded differ")
        found += _changed_sums(old["sums"] or {}, new["sums"] or {})
    return found


def _changed_sums(old: dict[str, list[float]], new: dict[str, list[float]]) -> list[str]:
    """The largest change of a column's sum, relative to the sum of its absolute values."""
    changes = {name: abs(new[name][0] - was) / (size or 1.0) for name, (was, size) in old.items() if name in new}
    largest = max(changes, key=lambda name: changes[name], default=None)
    return [] if largest is None else [f"sums by up to {changes[largest]:.1e} ({largest})"]


def _inputs(checkout: Path) -> Path:
    """The folder of real models, corpora and counts."""
    given = os.environ.get(DATA_VARIABLE)
    data = Path(given).resolve() if given else checkout.parent / "shared" / "data"
    if not (data / "models").is_dir():
        raise CannotRunError(f"No models, corpora and counts in {data}; say where they are with {DATA_VARIABLE}.")
    return data


@contextmanager
def _work_folder(wanted: Path | None) -> Iterator[Path]:
    """An empty folder: the named one, which is kept, or a temporary one."""
    if wanted is None:
        with tempfile.TemporaryDirectory(prefix="relation-hashes-") as folder:
            yield Path(folder).resolve()
        return
    wanted.mkdir(parents=True, exist_ok=True)
    if any(wanted.iterdir()):
        raise CannotRunError(f"--folder {wanted} is not empty: runs that are there already would not be made again.")
    yield wanted.resolve()


def _show(found: Found) -> None:
    """Print a table of the relations."""
    width = max(len(name) for name in found["relations"])
    print(f"{'relation':{width}}  {'rows':>9}  {'exact':12}  rounded")
    for name, one in found["relations"].items():
        rows = "not called" if one["rows"] is None else f"{one['rows']:,}"
        rows = "error" if one["error"] else rows
        print(f"{name:{width}}  {rows:>9}  {(one['exact'] or '–')[:12]:12}  {(one['rounded'] or '–')[:12]}")
    print(f"{sum(found['seconds'].values()):.0f} s: {found['seconds']}")


if __name__ == "__main__":
    sys.exit(main())
