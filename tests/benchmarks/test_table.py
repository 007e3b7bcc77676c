"""What the README says of the ablation's cost is what the committed benchmark measured."""

import json

from benchmarks.speed.table import BEGIN, END, README, RESULT, replaced, table


def test_the_readme_shows_the_committed_result() -> None:
    text = README.read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1
    assert replaced(text, table(json.loads(RESULT.read_text(encoding="utf-8")))) == text


def test_ratios_are_of_seconds_and_a_missing_method_is_a_dash() -> None:
    common = {"shape": "tiny", "device": "cpu", "threads": 2, "positions": 2048, "neurons": 8}
    ours = {"method": "ours", "seconds": 2.0, "floor_seconds": 1.0, "share_of_floor": 0.5}
    ours |= {"exact_share": 0.0123, "worst_over_tolerance": 0.456}
    rows = [common | ours, common | {"method": "forward", "seconds": 1.0}]
    rows.append(common | {"method": "published", "seconds": 3000.0})
    machine = {"cpu": "A", "cores": 4, "float32_gflops": 100, "bf16_over_float32": 2.5, "load": 0.25}
    made = table({"machine": machine, "rows": rows}).splitlines()
    assert made[2] == "| tiny | 2,048 × 8 | 2 | 1,500 | – | 2 | 1 | 50% | 1.23% | 0.46 |"
    assert made[-1].startswith("A, 2 of 4 cores (cpu)")
    assert "load 0.2" in made[-1]


def test_the_text_around_the_table_stays() -> None:
    assert replaced(f"a\n{BEGIN}\nold\n{END}\nb", "new") == f"a\n{BEGIN}\n\nnew\n\n{END}\nb"
