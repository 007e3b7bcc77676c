"""What several references in one ingest cost, against one reference and against separate ingests; and the attribution.

    python -m benchmarks.speed.references --real FILE.gguf [--data FOLDER] [--positions 4096] [--skip-separate]

Each row is a command in a process of its own, from start to end, over the C4 sample: `mean` alone (the baseline), the
mean with the effect `attribution`, two to four references at once, and each reference by itself. `times mean` is a
row's seconds over those of `mean`. The optimal constants' own figures are beside: how many are far from every
activation, and what is stated as their error. Wants a quiet machine; takes about ten minutes on two cores. Writes
benchmarks/results/references.json.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks import ROOT, result
from benchmarks.speed.forecast import command
from benchmarks.warehouse.synthetic_runs import machine
from rare_tokens import warehouse

DATA = Path(os.environ.get("RARE_TOKENS_TEST_DATA", ROOT.parent / "shared" / "data"))
TOGETHER = ("mean,zero", "mean,zero,resample", "mean,zero,resample,optimal")
ALONE = ("zero", "resample", "optimal")


def measured(model: Path, corpus: Path, positions: int, ablation: str, effects: str = "loss") -> dict[str, Any]:
    """One ingest: its seconds, and what it left."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "warehouse.duckdb"
        options = ["--model", str(model), "--corpus", str(corpus), "--tokens", str(positions), "--warehouse", str(path)]
        minutes, _ = command("ingest", *options, "--ablation", ablation, "--effects", effects)
        with warehouse.open(path) as opened:
            runs = opened.sql(
                "select ablation, exact_pairs::double / (positions * neurons) as share, stage_seconds"
                " from dim_run order by all"
            )
            optimal = opened.sql(
                "select avg(reference_is_outside::int)::double as outside, median(reference_error) as error,"
                " quantile_cont(reference_error, 0.9) as error_90, count_if(reference_error is null)::double as unknown"
                " from dim_neuron join dim_run using (run_id) where ablation = 'optimal'"
            ).row(0, named=True)
    return {
        "ablation": ablation,
        "effects": effects,
        "positions": positions,
        "seconds": round(60 * minutes, 1),
        "stage_seconds": json.loads(runs["stage_seconds"][0]),
        "pairs over the vocabulary": {row["ablation"]: round(row["share"], 3) for row in runs.rows(named=True)},
        **({"optimal": optimal} if "optimal" in ablation else {}),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--positions", type=int, default=4_096)
    parser.add_argument("--skip-separate", action="store_true")
    parser.add_argument("--only", nargs="+", default=[], help="the rows with these references; others stay")
    given = parser.parse_args()
    corpus = given.data / "corpora" / "c4-sample" / "c4_sample.jsonl"
    wanted = [("mean", "loss"), ("mean", "loss,attribution"), *((names, "loss") for names in TOGETHER)]
    wanted += [] if given.skip_separate else [(name, "loss") for name in ALONE]
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    if given.only:
        rows = {(row["ablation"], row["effects"]): row for row in json.loads(result("references").read_text())["rows"]}
    for ablation, effects in wanted:
        if given.only and ablation not in given.only:
            continue
        rows[ablation, effects] = row = measured(given.real, corpus, given.positions, ablation, effects)
        row["times mean"] = round(row["seconds"] / rows["mean", "loss"]["seconds"], 2)
        print(json.dumps(row), flush=True)
        found = machine(torch.get_num_threads()) | {"model": given.real.stem, "rows": list(rows.values())}
        result("references").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
