"""Exponents of sub-matrices of one shape: the same for every shape of matrix where the entries have one law."""

import numpy as np
import polars as pl
import pytest
from scipy import integrate, optimize

from rare_tokens.analyses.coordination import equal_aspect
from rare_tokens.analyses.coordination.neuron_groups import with_controls
from rare_tokens.analyses.coordination.weight_spectra import RULES
from rare_tokens.analyses.coordination.weight_spectra import weight_spectrum as spectrum_of
from rare_tokens.analyses.statistics import group_tests
from tests.support.layers import group, real_layer

SHAPES = [(15, 300), (50, 300), (50, 1_200), (400, 80)]
LAWS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "Student's t, 3 degrees of freedom": lambda rng, shape: rng.standard_t(3, shape),
    "normal, Pareto norms": lambda rng, shape: rng.standard_normal(shape) * (rng.pareto(3.0, (shape[0], 1)) + 1),
}


def measured(law, shape, rule, seeds=6):
    """Plain and equal-aspect α of whole matrices: each (seeds,)."""
    found = []
    for seed in range(seeds):
        rows = LAWS[law](np.random.default_rng(seed), shape)
        layer = spectrum_of({"w_out": rows}, group(0), rules=[rule], seed=seed).filter(group_name="layer")
        found.append(layer.select("alpha", "equal_aspect_alpha").row(0))
    return np.array(found).T


def fresh(law, rule, seeds=40):
    """α of independent 10 × 20 matrices of that law, 32 at a time, by numpy alone: mean and its standard error."""
    found = []
    for seed in range(seeds):
        rng = np.random.default_rng(1_000 + seed)
        values = [np.linalg.svd(LAWS[law](rng, (10, 20)), compute_uv=False) ** 2 for _ in range(32)]
        ordered = np.sort(np.concatenate(values))[::-1]
        tail = len(ordered) // (2 if rule == "mid" else 10)
        found.append(1 / np.mean(np.log(ordered[:tail] / ordered[tail - 1])))
    return np.mean(found), np.std(found) / np.sqrt(seeds)


@pytest.mark.parametrize("rule", ["mid", "tenth"])
@pytest.mark.parametrize("law", LAWS)
def test_alpha_of_equal_aspect_is_one_for_all_shapes_where_plain_alpha_is_not(law, rule):
    expected, error = fresh(law, rule)
    plain = {}
    for shape in SHAPES:
        alphas, equal = measured(law, shape, rule)
        plain[shape] = np.mean(alphas) if np.isfinite(alphas.astype(float)).all() else np.nan
        allowed = 4 * np.hypot(error, np.std(equal, ddof=1) / np.sqrt(len(equal)))
        assert np.mean(equal) == pytest.approx(expected, abs=allowed), (shape, expected)
    spread = np.nanmax(list(plain.values())) / np.nanmin(list(plain.values()))
    assert spread > 1.4, plain


def test_with_the_aspect_alone_the_same_heavy_tails_still_depend_on_the_size():
    """Why the shape is fixed and not only the aspect: squares of Student's t, some 20,000 eigenvalues each, `tenth`."""
    found = {}
    for side in (15, 200):
        drawn = LAWS["Student's t, 3 degrees of freedom"](np.random.default_rng(5), (20_000 // side, side, side))
        ordered = np.sort(np.linalg.svd(drawn, compute_uv=False).ravel() ** 2)[::-1]
        tail = len(ordered) // 10
        found[side] = 1 / np.mean(np.log(ordered[:tail] / ordered[tail - 1]))
    assert found[15] == pytest.approx(2.1, abs=0.1)
    assert found[200] == pytest.approx(3.4, abs=0.1)


@pytest.mark.slow
def test_what_the_docs_show_by_shape():
    """The table in docs/definitions.md, "Spectra": plain α by `mid`, equal-aspect α by `mid` and `tenth`."""
    shapes = [(15, 576), (50, 576), (50, 768), (50, 2_048), (1_536, 576)]
    normal, student = "normal", "Student's t, 3 degrees of freedom"
    mid = {law: [measured(law, shape, "mid").mean(axis=1) for shape in shapes] for law in (normal, student)}
    tenth = [measured(student, shape, "tenth")[1].mean() for shape in shapes]
    assert [plain for plain, _ in mid[normal]] == pytest.approx([9.1, 4.2, 5.0, 8.1, 2.0], abs=0.06)
    assert [plain for plain, _ in mid[student]] == pytest.approx([4.9, 3.4, 3.7, 5.1, 1.9], abs=0.06)
    assert [equal for _, equal in mid[normal]] == pytest.approx([1.65, 1.65, 1.64, 1.65, 1.62], abs=0.01)
    assert [equal for _, equal in mid[student]] == pytest.approx([1.24, 1.23, 1.22, 1.26, 1.22], abs=0.01)
    assert tenth == pytest.approx([2.4, 2.4, 2.3, 2.3, 2.3], abs=0.06)


def test_alpha_of_normal_entries_is_nearly_that_of_the_law_of_marchenko_and_pastur():
    """For large matrices of aspect 1/2, α of the larger half is 1 / (E[ln λ | λ > m] − ln m), m the median."""
    ratio = equal_aspect.ASPECT
    low, high = (1 - np.sqrt(ratio)) ** 2, (1 + np.sqrt(ratio)) ** 2

    def density(x):
        return np.sqrt((high - x) * (x - low)) / (2 * np.pi * ratio * x)

    median = optimize.brentq(lambda m: integrate.quad(density, low, m)[0] - 0.5, low + 1e-9, high - 1e-9)
    mean_log = 2 * integrate.quad(lambda x: np.log(x) * density(x), median, high)[0]
    limit = 1 / (mean_log - np.log(median))
    assert limit == pytest.approx(1.71, abs=0.01)
    _, equal = measured("normal", (50, 1_200), "mid")
    assert np.mean(equal) == pytest.approx(limit, rel=0.06)  # ten rows are not many: 4 % below


def test_the_tail_of_heavy_entries_has_half_their_exponent():
    """P(|entry| > x) ~ 1/x: the largest eigenvalues are the squares of the largest entries, so α = 1/2."""
    found = []
    for shape in SHAPES[1:]:
        rows = np.random.default_rng(3).standard_cauchy(shape)
        found.append(spectrum_of({"w_out": rows}, group(0), rules=["tenth"])["equal_aspect_alpha"][0])
    assert np.array(found) == pytest.approx(0.5, rel=0.2)


def test_a_matrix_of_the_common_shape_is_its_own_sub_matrix():
    """Then all samples are 32 copies of its eigenvalues, and α of the larger half is the plain one."""
    rows = np.random.default_rng(4).standard_normal((40, 20))
    frame = spectrum_of({"w_out": rows}, group(*range(0, 20, 2)), rules=["mid"])
    boost = frame.row(1, named=True)
    assert boost["equal_aspect_alpha"] == pytest.approx(boost["alpha"])
    assert boost["equal_aspect_sd"] == pytest.approx(0, abs=1e-9)
    assert (boost["rows"], boost["columns"], boost["aspect"], boost["subsamples"]) == (10, 20, 0.5, 128)
    assert frame.select("rows", "columns").row(0) == (40, 20)


def test_samples_are_eigenvalues_of_drawn_rows_and_columns():
    """Each row of the matrix has a scale of its own, so the trace tells which rows a sub-matrix has."""
    rows = np.repeat(10.0 ** np.arange(14)[:, None], 50, axis=1) ** 0.5
    (spectra,) = equal_aspect.pooled_spectra(rows, np.arange(14)[None], samples=3, seed=1)
    assert spectra.shape == (3, 320)
    assert (np.diff(spectra, axis=1) <= 0).all()
    assert ((spectra > 0).sum(axis=1) == 32).all(), "rows that are parallel have one eigenvalue"
    sums = sorted({f"{value:.0f}" for value in spectra[spectra > 0]})
    assert all(text.count("1") == 10 and set(text) <= {"0", "1"} for text in sums), "ten different rows of fourteen"
    assert len(sums) > 40


def test_groups_and_their_random_groups_are_cut_alike():
    rows = np.random.default_rng(5).standard_normal((60, 100))
    groups = with_controls(group(*range(12)), 60, draws=3, seed=2)
    frame = spectrum_of({"w_out": rows}, groups, seed=7)
    again = spectrum_of({"w_out": rows}, groups, seed=7)
    other = spectrum_of({"w_out": rows}, groups, seed=8)
    assert frame.equals(again)
    assert not np.allclose(frame["equal_aspect_alpha"], other["equal_aspect_alpha"])
    same = pl.concat([group(*range(12)), group(*range(12), name="suppress")])
    twice = spectrum_of({"w_out": rows}, same, rules=["mid"])
    assert twice["equal_aspect_alpha"][1] == twice["equal_aspect_alpha"][2]


@pytest.mark.parametrize(("k", "width"), [(9, 100), (12, 19)])
def test_a_matrix_too_small_for_a_sub_matrix_has_none_and_says_so(k, width):
    rows = np.random.default_rng(6).standard_normal((30, width))
    boost = spectrum_of({"w_out": rows}, group(*range(k)), rules=["mid"]).row(1, named=True)
    assert boost["alpha"] is not None
    assert boost["equal_aspect_alpha"] is boost["aspect"] is boost["subsamples"] is None
    said = f"no exponent of equal aspect: a sub-matrix takes 10 × 20, the group is {k} × {width}"
    assert boost["reason"] == said
    assert (boost["rows"], boost["columns"]) == (k, width)


def test_equal_eigenvalues_have_no_exponent_of_equal_aspect_either():
    frame = spectrum_of({"w_out": np.zeros((12, 40))}, group(*range(11)), rules=["mid"])
    assert "no exponent of equal aspect: 0 eigenvalues are above zero" in frame["reason"][1]
    assert spectrum_of({"w_out": np.eye(30)}, group(0), equal_aspect_samples=0)["equal_aspect_alpha"].null_count() == 6


def test_a_heavy_tailed_group_stands_out():
    rng = np.random.default_rng(9)
    rows = rng.standard_normal((300, 100))
    rows[:40] *= rng.pareto(1.0, (40, 1)) + 1
    frame = spectrum_of({"w_out": rows}, with_controls(group(*range(40)), 300, draws=99, pool="disjoint"))
    tests = group_tests(frame, "equal_aspect_alpha", analysis="weight_spectrum", keys=["rule"], interval=None)
    assert tests["setting"].to_list() == [f"rule={rule}" for rule in RULES]
    mid = tests.row(1, named=True)
    assert mid["p_value"] == pytest.approx(0.01)
    assert mid["value"] < mid["reference_mean"]


@pytest.mark.slow
def test_a_real_layer_and_its_random_groups_have_one_exponent(real_inputs):
    """Novella's last layer, 1,024 × 256, beside random groups of 50: by plain α the layer seems far heavier."""
    weights = {"w_out": real_layer(real_inputs, windows=1)[1]}
    groups = with_controls(group(*range(50)), 1_024, draws=100, pool="layer")
    frame = spectrum_of(weights, groups, rules=["mid"])
    layer = frame.row(0, named=True)
    random = frame.filter(group_name="control")
    assert (layer["alpha"], random["alpha"].mean()) == pytest.approx((1.08, 1.84), abs=0.01)
    equal = random["equal_aspect_alpha"]
    assert (layer["equal_aspect_alpha"], equal.mean()) == pytest.approx((1.52, 1.51), abs=0.01)
    assert equal.std() == pytest.approx(0.04, abs=0.01)


@pytest.mark.slow
def test_random_groups_of_random_neurons_are_rejected_at_the_level():
    """200 random groups of 15 against 100 random controls, per rule: 2 to 21 rejections at 5 %."""
    rejected = dict.fromkeys(RULES, 0)
    rng = np.random.default_rng(11)
    rows = rng.standard_normal((600, 60)) * (rng.pareto(3.0, (600, 1)) + 1)
    for seed in range(200):
        chosen = np.random.default_rng([12, seed]).choice(600, 15, replace=False)
        groups = with_controls(group(*sorted(chosen.tolist())), 600, draws=100, seed=seed, pool="layer")
        tests = group_tests(spectrum_of({"w_out": rows}, groups, seed=seed), "equal_aspect_alpha", analysis="a",
                            keys=["rule"], interval=None)  # fmt: skip
        for rule, p in zip(RULES, tests["p_value"], strict=True):
            rejected[rule] += p <= 0.05
    assert all(2 <= count <= 21 for count in rejected.values()), rejected
