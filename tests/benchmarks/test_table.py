"""What README and docs say of the ablation's cost and accuracy is what the committed benchmark measured."""

import json

import pytest

from benchmarks.speed.table import END, RESULT, TABLES, begin, costs, errors, hostile, match, replaced, stages

OURS = {
    "method": "ours",
    "seconds": 2.0,
    "stage_seconds": {
        "folding": 0.1, "moments": 1.0, "series": 0.2, "vocabulary": 0.4, "float64": 0.2, "other": 0.1
    },
    "vocabulary_share": 0.0123,
    "float64_share": 0.001,
    "worst_over_tolerance": 0.456,
    "error_quantiles": [0.001, 0.02, 0.3, 0.44],
    "checked_pairs": 123_456,
    "peak_bytes": 1_440_000_000,
}  # fmt: skip
MACHINE = {"cpu": "A", "cores": 4, "float32_gflops": 100, "bf16_over_float32": 2.5, "load": 0.25}


def drawn_up(*shapes: str) -> dict:
    common = {"device": "cpu", "threads": 2, "positions": 2048, "neurons": 8}
    published = {"method": "published", "seconds": 3000.0, "worst_over_tolerance": 6.66}
    rows = [
        common | {"shape": shape} | row
        for shape in shapes
        for row in (OURS, {"method": "forward", "seconds": 1.0}, published)
    ]
    return {"machine": MACHINE, "rows": rows}


@pytest.mark.parametrize("name", TABLES)
def test_the_pages_show_the_committed_result(name: str) -> None:
    page, make = TABLES[name]
    text = page.read_text(encoding="utf-8")
    assert text.count(begin(name)) == 1
    assert replaced(text, name, make(json.loads(RESULT.read_text(encoding="utf-8")))) == text


def test_ratios_are_of_seconds_a_missing_method_is_a_dash_and_the_real_model_leads() -> None:
    made = costs(drawn_up("tiny", "smollm2")).splitlines()
    assert made[2].startswith("| **smollm2** |")
    assert made[3] == "| tiny | 2,048 × 8 | 2 | 1,500 | – | 2 | 1.2% | 0.1% | 0.46 | 1.4 |"
    assert made[-1].startswith("A, 2 of 4 cores (cpu)")
    assert "load 0.2" in made[-1]


def test_stages_are_shares_of_the_time() -> None:
    assert stages(drawn_up("tiny")).splitlines()[2] == "| tiny | 5% | 50% | 10% | 20% | 10% | 5% |"


def test_errors_stand_beside_published_codes() -> None:
    assert errors(drawn_up("tiny")).splitlines()[2] == "| tiny | 123,456 | 0.001 | 0.02 | 0.3 | 0.44 | 0.46 | 6.7 |"


def test_hostile_heads_stand_beside_the_ordinary_one() -> None:
    size = {"vocabulary": 8192, "width": 256, "neurons": 1024, "positions": 128}
    row = {"head": "huge", "ordinary_seconds": 0.5, **size, **OURS}
    made = hostile({"hostile": [row]}).splitlines()[2]
    assert made == "| huge | 8,192 × 256 × 1,024 × 128 | 2 | 4 | 1.2% | 0.1% | 123,456 | 0.46 |"


def test_a_match_names_what_is_apart() -> None:
    given = {"pattern": "real", "match": {"real": {"apart": []}, "a": {"apart": ["u at 0.5"]}, "b": {"apart": []}}}
    assert match(given).splitlines()[2:] == ["| a | u at 0.5 |", "| b | none |"]


def test_the_text_around_a_table_stays() -> None:
    mark = begin("costs")
    assert replaced(f"a\n{mark}\nold\n{END}\nb", "costs", "new") == f"a\n{mark}\n\nnew\n\n{END}\nb"
