"""Threads with rows of their own: what they give does not depend on how many there are, and torch gets its own back."""

from collections.abc import Iterator

import pytest
import torch

from rare_tokens.ingest.ablation.ablation import Ablation
from rare_tokens.ingest.ablation.numerics.row_threads import STRIPES, Stripes
from rare_tokens.ingest.ablation.series.moments import accumulate
from tests.support.ablation_layers import made_up

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    """Leave torch's threads as they were."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("total", "held"), [(1, 8), (3, 8), (16, 16), (17, 16), (100, 16), (4096, 2048), (0, 8)])
def test_every_row_is_in_one_slice_and_no_more_are_held_than_said(total: int, held: int) -> None:
    slices = Stripes(CPU).split(total, held)
    assert [row for rows in slices for row in range(rows.start, rows.stop)] == list(range(total))
    assert all(STRIPES * (rows.stop - rows.start) <= max(held, STRIPES) for rows in slices)
    assert sum(rows.stop - rows.start for rows in Stripes(torch.device("cuda")).split(total, held)) == total


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 9])
def test_results_come_in_the_slices_order_and_torch_gets_its_threads_back(threads: int) -> None:
    torch.set_num_threads(threads)
    with Stripes(CPU) as stripes:
        assert stripes.map(lambda rows: rows.start, stripes.split(100, 8)) == list(range(0, 100, 2))
        inside = stripes.map(lambda _: torch.get_num_threads(), stripes.split(8, 8))
        assert set(inside) == {threads // min(threads, STRIPES)}
    assert torch.get_num_threads() == threads


def test_an_error_in_a_thread_is_the_callers_and_torch_gets_its_threads_back() -> None:
    torch.set_num_threads(3)

    def fail(rows: slice) -> None:
        if rows.start:
            raise ArithmeticError(f"row {rows.start}")

    with pytest.raises(ArithmeticError, match="row 2"), Stripes(CPU) as stripes:
        stripes.map(fail, stripes.split(8, 8))
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_threads_work_in_the_callers_mode(mode: type) -> None:
    torch.set_num_threads(2)
    with mode(), Stripes(CPU) as stripes:
        here = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
        modes = stripes.map(lambda _: (torch.is_inference_mode_enabled(), torch.is_grad_enabled()), stripes.split(4, 4))
    assert set(modes) == {here}


@pytest.mark.parametrize("reduced", [torch.float32, torch.bfloat16])
def test_moments_have_the_same_bits_whatever_the_number_of_threads(reduced: torch.dtype) -> None:
    head, w, reference, x, n, _ = made_up(3)
    ablation = Ablation(head, w, reference, sample=x)
    found = []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        sums = accumulate(
            ablation.folded, ablation.layer.at(x, n, ablation.reference).rows, ablation.layer.w, reduced, keep_z=True
        )
        assert sums.kept_z is not None
        found.append((sums.common.m2, sums.rare.m2, sums.rare.zz, sums.common.z_row, sums.weight, sums.kept_z))
    for others in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], others, strict=True))
