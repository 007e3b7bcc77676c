"""Which checkpoints a range names, whatever they are called."""

from itertools import pairwise

import pytest

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.run.ranges import select

PYTHIA = [f"step{step}" for step in (0, *(2**k for k in range(10)), *range(1_000, 144_000, 1_000))] + ["main"]


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ("step0..step8", ["step0", "step1", "step2", "step4", "step8"]),
        ("0..4", ["step0", "step1", "step2", "step4"]),
        ("step1000..step5000:2000", ["step1000", "step3000", "step5000"]),
        ("step0..step1000:400", ["step0", "step400", "step800"]),
        ("step256..step4000:log", ["step256", "step512", "step1000", "step2000", "step4000"]),
        ("step0..step4:log", ["step0", "step1", "step2", "step4"]),
    ],
)
def test_a_range_names_its_checkpoints(wanted, chosen):
    assert select(wanted, PYTHIA) == chosen


def test_log_spacing_of_a_whole_training():
    chosen = [int(name[4:]) for name in select("step0..step143000:log", PYTHIA)]
    assert chosen[0] == 0
    assert chosen[-1] == 143_000
    assert 18 <= len(chosen) <= 20
    assert all(1.4 < later / earlier < 2.9 for earlier, later in pairwise(chosen[1:-1]))


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("step0", "not a range"),
        ("step0..main", "not a range"),
        ("..step4", "not a range"),
        ("step8..step0", "no range of checkpoints"),
        ("step0..tag8", "not a range"),
        ("step0..checkpoint-8", "no range of checkpoints"),
        ("step0..step8:0", "no stride"),
        ("step0..step8:often", "no stride"),
        ("step150000..step160000", "It has step0 to step143000"),
        ("epoch1..epoch2", "It has step0 to step143000"),
    ],
)
def test_what_is_no_range_is_refused(wanted, said):
    with pytest.raises(UserError, match=said):
        select(wanted, PYTHIA)


# As models have them: by name, in no order
OLMO = ["main", "stage1-step1000-tokens5B", "stage1-step0-tokens0B", "stage1-step2000-tokens9B"]
OLMO += [f"stage2-ingredient{n}-step{step}-tokens{step // 1000}B" for n in (1, 2) for step in (1000, 2000)]
SMOL = [f"stage{stage}-step-{step}" for stage in (2, 1) for step in (10, 20, 40, 1)]
LISTED = {
    "pythia": PYTHIA,
    "olmo": OLMO,
    "smol": SMOL,
    "amber": [f"ckpt_{n:03d}" for n in range(359)],
    "trainer": ["checkpoint-500", "checkpoint-1000", "checkpoint-1500"],
    "megatron": ["iter_0000500", "iter_0001000"],
    "deepspeed": ["global_step500", "global_step1000"],
    "merged": ["step10_merged", "step20_merged"],
    "seeds": ["step10", "step20", "step10-seed2", "step20-seed2"],
    "only seeds": ["step10-seed1", "step20-seed2"],
    "twice": ["step10", "step-10", "step20"],
    "tags": ["main", "v1.0", "v2.0"],
}


@pytest.mark.parametrize(
    ("model", "wanted", "chosen"),
    [
        ("trainer", "checkpoint-500..checkpoint-1000", ["checkpoint-500", "checkpoint-1000"]),
        ("trainer", "500..1500:1000", ["checkpoint-500", "checkpoint-1500"]),
        ("trainer", "0..1500:750", ["checkpoint-0", "checkpoint-750", "checkpoint-1500"]),
        ("amber", "ckpt_098..ckpt_101", ["ckpt_098", "ckpt_099", "ckpt_100", "ckpt_101"]),
        ("amber", "0..358:179", ["ckpt_000", "ckpt_179", "ckpt_358"]),
        ("amber", "350..370:10", ["ckpt_350", "ckpt_360", "ckpt_370"]),
        ("megatron", "0..2000:1000", ["iter_0000000", "iter_0001000", "iter_0002000"]),
        ("deepspeed", "global_step500..global_step1000", ["global_step500", "global_step1000"]),
        ("merged", "step10..step20", ["step10_merged", "step20_merged"]),
        ("merged", "step10_merged..20", ["step10_merged", "step20_merged"]),
        ("seeds", "0..20", ["step10", "step20"]),
        ("seeds", "step10-seed2..step20-seed2", ["step10-seed2", "step20-seed2"]),
        ("olmo", "0..1000", ["stage1-step0-tokens0B", "stage1-step1000-tokens5B"]),
        ("olmo", "stage1-step0..stage1-step1000", ["stage1-step0-tokens0B", "stage1-step1000-tokens5B"]),
        ("olmo", "stage1-step0..1000:500", ["stage1-step0-tokens0B", "stage1-step500", "stage1-step1000-tokens5B"]),
        (
            "olmo",
            "stage2-ingredient2-step0..stage2-ingredient2-step9000",
            ["stage2-ingredient2-step1000-tokens1B", "stage2-ingredient2-step2000-tokens2B"],
        ),
        (
            "smol",
            "stage1-step20..stage2-step10",
            ["stage1-step-20", "stage1-step-40", "stage2-step-1", "stage2-step-10"],
        ),
        ("smol", "stage1..stage2:20", [f"stage{n}" for n in ("1-step-1", "1-step-21", "2-step-1", "2-step-21")]),
        ("smol", "stage2..stage2:log", [f"stage2-step-{n}" for n in (1, 10, 20, 40)]),
        ("smol", "stage2-step10..20", ["stage2-step-10", "stage2-step-20"]),
    ],
)  # fmt: skip
def test_a_range_names_checkpoints_of_any_kind(model, wanted, chosen):
    assert select(wanted, LISTED[model]) == chosen


@pytest.mark.parametrize(
    ("model", "wanted", "said"),
    [
        ("smol", "0..20", "stages 1, 2. Name the stage at both ends"),
        ("smol", "stage2-step1..stage1-step20", "no range of checkpoints"),
        ("olmo", "stage1..stage2", "stage 2 has stage2-ingredient1-step1000-tokens1B and the like"),
        ("olmo", "stage1-step0..stage2-ingredient1-step1000", "no range of checkpoints"),
        ("only seeds", "10..20", "step10-seed1 and step20-seed2 are not of one series"),
        ("twice", "step1..step20", "step-10 and step10 are both step 10"),
        ("trainer", "step500..step1000", "It has checkpoint-500 to checkpoint-1500"),
        ("tags", "1..2", "no numbered checkpoints"),
        ("tags", "v1.0..v2.0", "not a range"),
        ("pythia", "stage1..stage2", "It has step0 to step143000"),
    ],
)
def test_what_a_range_leaves_open_is_refused(model, wanted, said):
    with pytest.raises(UserError) as refused:
        select(wanted, LISTED[model])
    assert said in str(refused.value)
    assert len(str(refused.value)) <= 600
