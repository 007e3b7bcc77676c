"""Seconds and pairs by stage: what each stage took, and that watching changes no result."""

import time

import pytest
import torch

from rare_tokens.ingest.ablation.ablation import Ablation
from rare_tokens.ingest.ablation.numerics.timing import STAGES, NoClock, StageClock
from tests.support.ablation_layers import made_up


def test_seconds_add_up_by_stage_and_the_device_is_waited_for() -> None:
    waits: list[None] = []
    clock = StageClock(wait=lambda: waits.append(None))
    for pause in (0.02, 0.03):
        with clock.of("moments", 4):
            time.sleep(pause)
    with pytest.raises(ZeroDivisionError), clock.of("series"):
        _ = 1 / 0
    assert 0.05 <= clock.seconds["moments"] < 5
    assert set(clock.seconds) == {"moments", "series"}
    assert clock.pairs == {"moments": 8, "series": 0}
    assert len(waits) == 6


def test_no_clock_keeps_nothing() -> None:
    clock = NoClock()
    with clock.of("moments"):
        pass
    assert not clock.seconds
    assert not clock.pairs


def test_every_stage_of_an_ablation_is_timed_once_and_changes_nothing() -> None:
    """Neurons so large that every way of computing a pair is taken; the stages make up nearly all of the time."""
    layer = made_up(1, neurons=1.0, V=3000, d=48, N=60, B=64)
    clock = StageClock()
    start = time.perf_counter()
    found = Ablation(*layer[:3], clock=clock).ablate(*layer[3:])
    whole = time.perf_counter() - start
    assert set(clock.seconds) == set(STAGES)
    assert 0.5 * whole < sum(clock.seconds.values()) <= whole
    # Some go to float64 at once
    assert 0 < clock.pairs["float64"] < found.exact_pairs
    assert 0 < clock.pairs["vocabulary"] < found.exact_pairs
    assert torch.equal(found.delta_loss, Ablation(*layer[:3]).ablate(*layer[3:]).delta_loss)
