"""Ask the claims' queries of warehouses, and keep the answers in studies/results/findings.json.

    python -m studies.findings.measure FILE.duckdb [FILE.duckdb …]

The warehouses hold the runs that docs/findings.md names, made and analysed by the commands there.
"""

import argparse
import json
import platform
from pathlib import Path
from typing import Any

from rare_tokens import warehouse
from rare_tokens.common.version import VERSION
from studies.findings.claims import CLAIMS

RESULTS = Path(__file__).resolve().parent.parent / "results" / "findings.json"
_RUN = ("model", "revision", "layer", "ablation", "positions", "neurons", "corpus", "frequency_source", "training_step")


def main() -> None:
    """Ask and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("warehouses", type=Path, nargs="+")
    given = parser.parse_args()
    runs: dict[str, Any] = {}
    found: dict[str, list[dict[str, Any]]] = {claim.name: [] for claim in CLAIMS}
    for path in given.warehouses:
        with warehouse.open(path) as opened:
            rows = opened.dim_run(status="published")
            runs |= {row["run_id"]: {name: row[name] for name in _RUN} for row in rows.iter_rows(named=True)}
            for claim in CLAIMS:
                answers = opened.sql(claim.query.read_text(encoding="utf-8"))
                found[claim.name] += claim.answered(answers).to_dicts()
    written = {"machine": platform.machine(), "version": VERSION, "runs": runs, "claims": found}
    RESULTS.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
