"""Names of checkpoints: what each kind says, and that none is read in another order than it was trained in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rare_tokens.common.checkpoint_names import CheckpointName, parse

KINDS = [  # name, stage, step, tokens, branch, and the same at step 7
    ("step1000", None, 1_000, None, "", "step7"),
    ("step-1000", None, 1_000, None, "", "step-7"),
    ("step_512", None, 512, None, "", "step_7"),
    ("checkpoint-1000", None, 1_000, None, "", "checkpoint-7"),
    ("ckpt_000", None, 0, None, "", "ckpt_007"),
    ("CKPT_015", None, 15, None, "", "CKPT_007"),
    ("iter_0000500", None, 500, None, "", "iter_0000007"),
    ("global_step1000", None, 1_000, None, "", "global_step7"),
    ("step1000-tokens4B", None, 1_000, 4 * 10**9, "", "step7"),
    ("stage1-step1000-tokens3B", 1, 1_000, 3 * 10**9, "", "stage1-step7"),
    ("stage1-step-40000", 1, 40_000, None, "", "stage1-step-7"),
    ("stage2-ingredient1-step1000-tokens3B", 2, 1_000, 3 * 10**9, "ingredient1", "stage2-ingredient1-step7"),
    ("CrystalCoder_phase1_checkpoint_027728", 1, 27_728, None, "CrystalCoder", None),
    ("step1000-tokens4B-seed2", None, 1_000, 4 * 10**9, "seed2", "step7-seed2"),
    ("step1000-unsharded", None, 1_000, None, "unsharded", "step7-unsharded"),
    ("step1000-hf", None, 1_000, None, "hf", "step7-hf"),
    ("checkpoint-1000_merged", None, 1_000, None, "merged", "checkpoint-7_merged"),
    ("step-480k-token-1007B", None, 480_000, 1_007 * 10**9, "", "step-7"),
    ("step-715k-token-1.5T", None, 715_000, 1_500 * 10**9, "", "step-7"),
    ("epoch=0-step=1000", None, 1_000, None, "", "epoch=0-step=7"),
    ("epoch_3", None, 3, None, "", "epoch_7"),
    ("64", None, 64, None, "", "7"),
]


@pytest.mark.parametrize(("name", "stage", "step", "tokens", "branch", "at_7"), KINDS)
def test_what_a_name_says(name: str, stage: int | None, step: int, tokens: int | None, branch: str, at_7: str) -> None:
    found = parse(name)
    assert found is not None
    assert (found.listed, found.stage, found.step, found.tokens, found.branch) == (name, stage, step, tokens, branch)
    if at_7 is not None:
        again = parse(found.at(7))
        assert (found.at(7), again and again.kind) == (at_7, found.kind)


@pytest.mark.parametrize(
    "name",
    [
        *("main", "v1.0", "", "stepwise", "step", "checkpoint-best", "refs/pr/1", "stage2", "tokens4B", "1.5"),
        *("9" * 40, "0123456789abcdef0123456789abcdef01234567", "logstep-x", "substep5"),
    ],
)
def test_what_is_no_checkpoint(name: str) -> None:
    assert parse(name) is None


PARTS = st.sampled_from(["step", "step-", "step_", "checkpoint-", "global_step", "ckpt_", "iter_000", "Step="])
PLACES = st.tuples(st.none() | st.integers(1, 9), st.integers(0, 10**9))


def written(place: tuple[int | None, int], word: str, tail: str) -> str:
    stage, step = place
    return f"{'' if stage is None else f'stage{stage}-'}{word}{step}{tail}"


@given(PLACES, PLACES, PARTS, st.sampled_from(["", "-tokens4B", "-hf", "_merged", "-tokens12B-seed2", "-unsharded"]))
def test_names_are_in_the_order_of_training(
    one: tuple[int | None, int], other: tuple[int | None, int], word: str, tail: str
) -> None:
    found = [parse(written(place, word, tail)) for place in (one, other)]
    orders = [name.order for name in found if name]
    assert orders == [(stage or 0, step) for stage, step in (one, other)]
    assert (orders[0] < orders[1]) == ((one[0] or 0, one[1]) < (other[0] or 0, other[1]))


@given(st.text(max_size=60))
def test_any_text_is_a_name_or_none_and_says_what_a_column_holds(text: str) -> None:
    found = parse(text)
    assert found is None or isinstance(found, CheckpointName)
    if found:
        assert 0 <= found.step < 2**63
        assert found.tokens is None or 0 <= found.tokens < 2**63
        assert found.stage is None or 0 <= found.stage < 2**16
        again = parse(found.at(3))
        assert again is not None
        assert again.step == 3
