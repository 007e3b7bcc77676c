"""References other than the mean: their names, permutations, hooked models, and all of one measurement at once."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from scipy.optimize import minimize_scalar

from rare_tokens.common.errors import OptionError
from rare_tokens.common.parts import effect_path, read_summary, relation_path
from rare_tokens.ingest.ablation.ablation import Ablation
from rare_tokens.ingest.ablation.reference import reference_effects
from rare_tokens.ingest.ablation.stages.capture import Captured
from rare_tokens.ingest.ablation.stages.optimum import optimum
from rare_tokens.ingest.ablation.stages.references import choices, resampled
from rare_tokens.ingest.model.structure import find_structure, hooked
from rare_tokens.ingest.run.execution import execute, folders_of
from rare_tokens.ingest.run.executors import LocalExecutor
from rare_tokens.ingest.run.pipeline import Prepared, Workbench
from rare_tokens.ingest.run.request import Options, identify
from tests.support.ablation_layers import made_up, trained
from tests.support.float64 import float64_model
from tests.support.tiny import SUPPORTED, save_folder, tiny_corpus

POSITIONS, WINDOW = 64, 16
ALL = "mean,zero,resample:2,optimal"


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("mean", ["mean"]),
        ("mean, zero", ["mean", "zero"]),
        ("resample:1", ["resample"]),
        (ALL, ["mean", "zero", "resample:2", "optimal"]),
    ],
)
def test_references_are_named_in_one_way(asked: str, found: list[str]) -> None:
    assert [choice.name for choice in choices(asked)] == found


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ("mean,zero,mean", "mean is named twice"),
        ("resample,resample:4", "resample is named twice"),
        ("resample:0", "no number of draws from 1 to 100"),
        ("resample:", "no number of draws"),
        ("resample:²", "no number of draws"),
        ("resample:101", "no number of draws"),
        ("mean:2", "no reference 'mean:2'"),
        ("median", "no reference 'median'"),
        ("mean,", "no reference ''"),
    ],
)
def test_what_is_no_reference_is_refused_by_name(asked: str, why: str) -> None:
    with pytest.raises(OptionError, match=why) as refused:
        choices(asked)
    assert asked in str(refused.value)


def test_a_draw_is_a_permutation_that_leaves_no_window_to_itself() -> None:
    (choice,) = choices("resample:3")
    found = resampled(choice, 9, 32, seed=4)
    here = np.arange(9 * 32) // 32
    for source in found.sources:
        assert sorted(source) == list(range(9 * 32))
        assert (source // 32 != here).all()
        assert len(set(source[:32] // 32)) == 1, "a window's activations come from one other"
    assert not np.array_equal(found.sources[0], found.sources[1])
    assert np.array_equal(found.sources[0], resampled(choices("resample")[0], 9, 32, seed=4).sources[0])
    rows = np.random.default_rng(0).standard_normal((9 * 32, 5)).astype(np.float32)
    positions = np.array([3, 200, 201, 77])
    for source, draw in zip(found.sources, found.draws(rows, positions), strict=True):
        assert np.array_equal(draw.numpy(), rows[source[positions]])


def test_a_single_window_has_none_to_take_activations_from() -> None:
    with pytest.raises(OptionError, match="--ablation resample: a single window"):
        resampled(choices("resample")[0], 1, 32, seed=0)


def test_several_references_give_bit_for_bit_what_each_gives_alone() -> None:
    head, w, mean, x, n, y = made_up(3, neurons=0.3, logits=2.0)
    references = [mean, torch.zeros_like(mean), n.roll(5, dims=0)]
    together = list(Ablation(head, w, mean, sample=x).ablate_by(x, n, y, references))
    assert all(0 < found.exact_pairs < n.numel() for found in together)
    for reference, found in zip(references, together, strict=True):
        (alone,) = Ablation(head, w, mean, sample=x).ablate_by(x, n, y, [reference])
        assert torch.equal(alone.delta_loss, found.delta_loss)
        pairs = torch.cartesian_prod(torch.arange(len(x)), torch.arange(len(w)))
        truth = reference_effects(head, w, reference, x, n, y, pairs)["loss"].view_as(found.delta_loss)
        assert ((found.delta_loss - truth).abs() / (1e-6 + 1e-4 * truth.abs())).max() <= 1


# --- whole ingests ----------------------------------------------------------------------------------------------------


def prepare(tmp_path: Path, name: str, ablation: str, *, units: int = 1, **options: object) -> Prepared:
    model = tmp_path / name
    model = model if model.exists() else save_folder(model, SUPPORTED[name])
    corpus = tiny_corpus(tmp_path / "corpus.jsonl")
    given = {"tokens": POSITIONS, "window": WINDOW, "device": "cpu"} | options
    requests = identify(Options(str(model), corpus=(str(corpus),), ablation=ablation, **given))
    return Workbench().prepare(*requests, units=units)


def facts(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(effect_path(folder, 0)).sort("position_id", "neuron")


class Hooked:
    """A float64 model in which activations are replaced by a hook."""

    def __init__(self, name: str, tokens: np.ndarray) -> None:
        self.model = float64_model(SUPPORTED[name])
        self.found = find_structure(self.model)
        self.inputs, self.targets = torch.from_numpy(tokens[:, :-1]), torch.from_numpy(tokens[:, 1:]).reshape(-1)
        seen = []
        with hooked((self.found.out_projection, "before", lambda _m, args: seen.append(args[0]))):
            self.baseline = self.loss()
        self.activations = seen[0].reshape(-1, self.found.neurons).detach()

    def loss(self) -> torch.Tensor:
        logits = self.model(input_ids=self.inputs).logits.reshape(len(self.targets), -1)
        return torch.nn.functional.cross_entropy(logits, self.targets, reduction="none").detach()

    def effect(self, neuron: int, values: torch.Tensor | float) -> torch.Tensor:
        """Δ at every position, where the neuron's activation is replaced (by a value or one per position)."""

        def replace(_module, args):
            edited = args[0].clone()
            shape = edited.shape[:-1]
            edited[..., neuron] = values.reshape(shape) if isinstance(values, torch.Tensor) else values
            return (edited,)

        with hooked((self.found.out_projection, "before", replace)):
            return self.loss() - self.baseline


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize("name", SUPPORTED)
def test_every_pair_of_every_reference_is_that_of_the_hooked_model(name: str, tmp_path: Path) -> None:
    prepared = prepare(tmp_path, name, ALL)
    execute(prepared, tmp_path / "parts" / "first", LocalExecutor(quiet=True))
    folders = folders_of(prepared, tmp_path / "parts" / "first")
    model = Hooked(name, prepared.material.sample.tokens)
    sources = resampled(choices("resample:2")[0], POSITIONS // WINDOW, WINDOW, seed=0).sources
    neurons = range(model.found.neurons)
    for manifest, folder in zip(prepared.manifests, folders, strict=True):
        constant = pl.read_parquet(relation_path(folder, "dim_neuron")).sort("neuron")["reference_activation"]
        if manifest.ablation.startswith("resample"):
            assert constant.null_count() == len(constant)
            draws = [
                torch.stack([model.effect(i, model.activations[source, i]) for i in neurons], 1) for source in sources
            ]
            truth = torch.stack(draws).abs().mean(0).copysign(torch.stack(draws).mean(0)).numpy()
        else:
            truth = torch.stack([model.effect(i, constant[i]) for i in neurons], 1).numpy()
        ours = facts(folder)["delta_loss"].to_numpy().reshape(truth.shape)
        # Captured residuals are float32: that moves cohere's pairs, whose logits are scaled by 4, and those of edits as
        # long as the residual stream
        allowed = (1e-6 + 1e-4 * np.abs(truth)) * (1.25 if name == "cohere" else 1)
        allowed *= 2 if manifest.ablation == "optimal" else 1
        assert np.abs(truth).max() > 1e-3
        # Where two draws cancel the sign is chance; the magnitude is not
        clear = np.abs(truth) > 1e-5
        assert (np.abs(np.abs(ours) - np.abs(truth)) / allowed).max() <= 1, manifest.ablation
        assert (np.sign(ours) == np.sign(truth))[clear].mean() > 0.999
        summary = read_summary(folder)
        assert summary is not None
        assert summary.self_check_error <= 1
        assert summary.structural_check_error <= 1
    assert_is_least(model, pl.read_parquet(relation_path(folders[-1], "dim_neuron")).sort("neuron"))


def assert_is_least(model: Hooked, neurons: pl.DataFrame) -> None:
    """No constant near the optimal one, or anywhere that a direct minimisation goes, does better by 1e-6."""
    for i in range(0, model.found.neurons, max(1, model.found.neurons // 4)):
        row = neurons.row(i, named=True)
        ours = float(model.effect(i, row["reference_activation"]).mean())
        spread = float(model.activations[:, i].std()) + abs(row["reference_activation"] - row["mean_activation"])

        def mean_loss(value: float, i: int = i) -> float:
            return float(model.effect(i, value).mean())

        middle = row["reference_activation"]
        for reach in (0.1, 1.0):
            bounds = middle - reach * spread, middle + reach * spread
            direct = minimize_scalar(mean_loss, bounds=bounds, method="bounded", options={"xatol": 1e-7})
            is_found = row["reference_error"] is not None
            assert ours <= direct.fun + 1e-6 or not is_found, f"neuron {i}: {ours - direct.fun}"
        if row["reference_error"] is not None:
            assert ours - direct.fun <= row["reference_error"] + 1e-6


def test_references_measured_together_leave_what_separate_ingests_leave(tmp_path: Path) -> None:
    together = prepare(tmp_path, "llama", ALL)
    execute(together, tmp_path / "together" / "first", LocalExecutor(quiet=True))
    folders = folders_of(together, tmp_path / "together" / "first")
    for manifest, folder in zip(together.manifests, folders, strict=True):
        alone = prepare(tmp_path, "llama", manifest.ablation)
        assert alone.manifest.run_id == manifest.run_id
        execute(alone, tmp_path / "alone" / manifest.run_id, LocalExecutor(quiet=True))
        for path in sorted(folder.rglob("*.parquet")):
            other = tmp_path / "alone" / manifest.run_id / path.relative_to(folder)
            assert pl.read_parquet(path).equals(pl.read_parquet(other)), path.name


def test_an_interrupted_measurement_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare(tmp_path, "llama", "mean,resample", tokens=512, window=32, units=2)
    folders = folders_of(prepared, tmp_path / "parts" / "first")

    class StopsError(RuntimeError):
        pass

    class Stopping(LocalExecutor):
        def run(self, title, units, run, is_done, expected=None):
            if title != "ablation":
                return super().run(title, units, run, is_done, expected)
            run(1)
            effect_path(folders[1], 1).unlink()  # as if killed between the two references
            run(0)
            raise StopsError

    with pytest.raises(StopsError):
        execute(prepared, folders[0], Stopping(quiet=True))
    written = effect_path(folders[1], 0).stat().st_mtime_ns
    execute(prepared, folders[0], LocalExecutor(quiet=True))
    assert effect_path(folders[1], 0).stat().st_mtime_ns == written, "a finished block is not computed again"
    whole = prepare(tmp_path, "llama", "mean,resample", tokens=512, window=32, units=2)
    execute(whole, tmp_path / "whole" / "first", LocalExecutor(quiet=True))
    for folder, other in zip(folders, folders_of(whole, tmp_path / "whole" / "first"), strict=True):
        for block in range(prepared.manifest.blocks):
            assert pl.read_parquet(effect_path(folder, block)).equals(pl.read_parquet(effect_path(other, block)))


# --- optimal constants ------------------------------------------------------------------------------------------------


def test_optimal_constants_are_least_by_direct_minimisation() -> None:
    head, w, _, x, n, y = made_up(3, neurons=0.1, logits=2.0)
    w = w.clone()
    w[4] = 0  # a neuron that does nothing: every constant is optimal
    mean = n.double().mean(0).numpy()
    captured = Captured(x.numpy(), n.numpy())
    found = optimum(Ablation(head, w, torch.zeros(len(w)), sample=x), captured, y.numpy(), mean)
    pairs = torch.stack([torch.arange(len(x)), torch.zeros(len(x), dtype=torch.int64)], 1)
    for i in range(len(w)):

        def mean_loss(value: float, i: int = i) -> float:
            reference = torch.full((len(w),), value, dtype=torch.float64)
            at = pairs + torch.tensor([0, i])
            return float(reference_effects(head, w, reference, x, n, y, at)["loss"].mean())

        ours = mean_loss(found.values[i])
        wide = abs(found.values[i] - mean[i]) + n[:, i].std().item()
        bounds = found.values[i] - 0.5 * wide, found.values[i] + 0.5 * wide
        direct = minimize_scalar(mean_loss, bounds=bounds, method="bounded", options={"xatol": 1e-8})
        assert ours <= direct.fun + 1e-6
        assert ours <= min(mean_loss(value) for value in (0.0, mean[i], *n[:3, i].tolist())) + 1e-6
    assert found.values[4] == mean[4]
    assert found.error[4] == 0
    spread = n.amax(0) - n.amin(0)
    far = (found.values > (n.amax(0) + spread).numpy()) | (found.values < (n.amin(0) - spread).numpy())
    assert np.array_equal(found.is_outside, far)
    assert found.is_outside.any()


def test_optimal_constants_of_a_sample_say_how_far_they_may_be_off(
    real_inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trained model: the search on a few positions comes as near as it says to the one on all of them."""
    monkeypatch.setattr("rare_tokens.ingest.ablation.stages.optimum.SAMPLED", 128)
    monkeypatch.setattr("rare_tokens.ingest.ablation.stages.optimum.ROUGHLY", 64)
    head, w, _, x, n, y = trained(real_inputs, "stories260K", 512)
    mean = n.double().mean(0).numpy()
    ablation = Ablation(head, w, torch.zeros(len(w)), sample=x[::4])
    few = optimum(ablation, Captured(x.numpy(), n.numpy()), y.numpy(), mean)
    monkeypatch.setattr("rare_tokens.ingest.ablation.stages.optimum.SAMPLED", 512)
    all_of_them = optimum(ablation, Captured(x.numpy(), n.numpy()), y.numpy(), mean)
    assert np.nanquantile(all_of_them.error, 0.9) <= 1e-6

    def mean_losses(values: np.ndarray) -> np.ndarray:
        (found,) = ablation.ablate_by(x, n, y, [torch.from_numpy(values.astype(np.float32))])
        return found.delta_loss.double().mean(0).numpy()

    above = mean_losses(few.values) - mean_losses(all_of_them.values)
    assert (above <= np.nan_to_num(few.error, nan=np.inf) + 2e-6).mean() >= 0.9  # stated with 95 % confidence
    assert (mean_losses(all_of_them.values) <= mean_losses(mean) + 1e-6).all()
