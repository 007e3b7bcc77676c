"""What the first questions cost: seconds of `neuron` and `token`, each in a process of its own.

    python -m benchmarks.speed.questions WAREHOUSE RUN

Beside them, in the same run, what they stand against: the start of the program alone (`--version`), one plain scan over
all facts of the run (`sql`), and a neuron's context alone. Targets: 2 s for `neuron`, 3 s for `token`. Medians of
five; results go to benchmarks/results/questions.json.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import rare_tokens
from benchmarks import ROOT, result
from benchmarks.speed.report import machine

RESULTS = result("questions")
TIMES = 5


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("warehouse", type=Path)
    parser.add_argument("run", help="the start of its run_id")
    given = parser.parse_args()
    with rare_tokens.open(given.warehouse) as w:
        (row,) = w.dim_run(run=given.run).to_dicts()
        neuron = w.neuron_influence(run=row["run_id"], preset="es", token_group="common", rank=1)["neuron"][0]
        often = w.sql(
            "select text from dim_position join dim_run using (run_id) join dim_token using (tokenizer_id)"
            " where run_id = $run and token_id = target_token_id and not is_special"
            " group by text order by count(*) desc, text limit 1",
            run=row["run_id"],
        )["text"][0]
    run_id, end = row["run_id"], ["--warehouse", str(given.warehouse.resolve())]
    scan = f"select sum(abs(delta_loss)) from fct_effect where run_id = '{run_id}'"
    with tempfile.TemporaryDirectory() as folder:
        asked = {
            "--version": ["--version"],
            "sql: scan of all facts": ["sql", scan, *end],
            "sql: neuron_context": ["sql", f"from neuron_context('{run_id}', {neuron})", *end],
            "neuron": ["neuron", str(neuron), run_id, *end],
            "neuron --html": ["neuron", str(neuron), run_id, "--html", f"{folder}/card.html", *end],
            "token": ["token", often, run_id, *end],
        }
        seconds = {name: measured(words) for name, words in asked.items()}
    facts = row["positions"] * row["neurons"]
    found = {"machine": machine(), "run": run_id, "facts": facts, "token": often, "seconds": seconds}
    print(json.dumps(found, indent=1, ensure_ascii=False))
    RESULTS.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")


def measured(words: list[str]) -> float:
    """Median seconds of a command."""
    found = []
    for _ in range(TIMES):
        start = time.perf_counter()
        subprocess.run([sys.executable, "cli.py", *words], check=True, cwd=ROOT, capture_output=True)
        found.append(time.perf_counter() - start)
    return round(statistics.median(found), 2)


if __name__ == "__main__":
    main()
