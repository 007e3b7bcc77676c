"""What is planted in a tiny model is what the whole pipeline finds, and nothing where nothing is planted."""

import numpy as np
import pytest
from transformers import GPTNeoXConfig, LlamaConfig

from studies.controls.found import plateau_found
from studies.controls.last_mlp import LAYOUTS, LastMlp
from studies.controls.pipeline import Text, analyze, influence, ingest, permuted_counts, read
from studies.controls.planting import Planted, plant, share_driver
from studies.synthetic.heads import Head, power_law, quadratic
from tests.support.tiny import VOCABULARY, save_folder, tiny_corpus

NEURONS = 400
LINE = power_law(0.2, 0.2)
SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": NEURONS, "num_hidden_layers": 1,
    "num_attention_heads": 4, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
CONFIGS = {"gpt_neox": GPTNeoXConfig(**SHAPE), "llama": LlamaConfig(**SHAPE, num_key_value_heads=2)}


class Tiny:
    """A tiny model, a text to plant with and one to find it on, and a warehouse."""

    def __init__(self, folder, config):
        self.folder = folder
        mlp = LastMlp(save_folder(folder / "tiny", config))
        mlp.output *= 0.05  # a random MLP outweighs the rest of the residual stream; edits of a small one add up
        self.model = mlp.save(folder / "small")
        self.planting, self.finding = (
            Text(tiny_corpus(folder / f"text-{seed}.jsonl", 40, seed), "corpus", 512, 32) for seed in (1, 2)
        )
        self.warehouse = folder / "controls.duckdb"

    def found(self, truth: Head, *, edits: int) -> tuple[Planted, dict]:
        """What is found of a truth that is planted in this model."""
        mlp, rng = LastMlp(self.model), np.random.default_rng(15)
        first = rng.choice(NEURONS, truth.raised[0], replace=False)
        curve = truth.layer(NEURONS, rng, scattered=False)
        planted = plant(
            mlp, curve, first, lambda edited: influence(edited, self.planting, "nc", self.folder), edits=edits
        )
        run_id = ingest(mlp.save(self.folder / "edited"), self.finding, self.warehouse)
        analyze(self.warehouse, run_id, ["regimes"])
        return planted, plateau_found(self.warehouse, run_id, "nc", planted)


@pytest.fixture
def tiny(tmp_path, request):
    return Tiny(tmp_path, CONFIGS[request.param])


@pytest.mark.parametrize("tiny", ["gpt_neox"], indirect=True)
def test_a_step_that_is_planted_is_found_with_its_size_height_and_neurons(tiny):
    planted, found = tiny.found(Head(LINE, 0.2, (10, 0.7)), edits=1)
    assert planted.error < 0.1
    assert found["decision"] == "present", found
    assert (found["break_low"], found["break_rank"], found["break_high"]) == (10, 10, 10)
    assert found["planted_among_first"] == 10
    assert found["step"] == pytest.approx(0.7, abs=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("tiny", ["llama"], indirect=True)
def test_no_step_is_found_in_a_smooth_concave_curve(tiny):
    planted, found = tiny.found(Head(quadratic(0.08, 0.03)), edits=1)
    assert planted.error < 0.1
    assert found["decision"] != "present", found


@pytest.mark.parametrize("layout", CONFIGS)
def test_an_edit_reaches_the_saved_weights_and_nothing_else(tmp_path, layout):
    folder = save_folder(tmp_path / "tiny", CONFIGS[layout])
    before, edited = LastMlp(folder), LastMlp(folder)
    edited.output[7] *= 3
    edited.input[5] *= 2
    after = LastMlp(edited.save(tmp_path / "edited"))
    names = {f"{name.format(0)}.weight" for name in LAYOUTS[layout]}
    assert after.tensors.keys() == before.tensors.keys()
    for name, value in before.tensors.items():
        assert name in names or value.equal(after.tensors[name])
    assert after.output[7].equal(3 * before.output[7])
    assert after.input[5].equal(2 * before.input[5])
    assert after.output[8:].equal(before.output[8:])


def test_planting_reaches_the_curve_where_influence_is_proportional_to_the_weights(tmp_path):
    mlp = LastMlp(save_folder(tmp_path / "tiny", CONFIGS["gpt_neox"]))
    own = np.random.default_rng(0).lognormal(size=NEURONS)
    start = mlp.output.norm(dim=1).numpy().copy()
    rng, first = np.random.default_rng(0), np.array([30, 3, 300])
    curve = Head(power_law(0.4), 0.4, (3, 1.0)).layer(NEURONS, rng, scattered=False)
    planted = plant(mlp, curve, first, lambda edited: own * edited.output.norm(dim=1).numpy() / start, edits=1)
    assert planted.error < 1e-5
    assert planted.first.tolist() == [3, 30, 300]
    assert np.sort(planted.measured)[::-1] - planted.measured.mean() == pytest.approx(curve - curve.mean(), abs=1e-5)
    assert set(np.argsort(-planted.measured)[:3]) == {3, 30, 300}
    rest = np.setdiff1d(np.arange(NEURONS), first)
    assert (np.argsort(-planted.measured[rest]) == np.argsort(-own[rest])).all()


def test_members_of_a_module_read_the_driver_as_much_as_was_asked(tmp_path):
    mlp, before = (LastMlp(save_folder(tmp_path / "tiny", CONFIGS["gpt_neox"])) for _ in range(2))
    members = np.array([1, 2, 3, 350])
    share_driver(mlp, members, 1.0, np.random.default_rng(0))
    cosines = np.corrcoef(mlp.input[members].numpy())
    assert cosines == pytest.approx(np.ones((4, 4)), abs=1e-5)
    assert mlp.input[members].norm(dim=1).numpy() == pytest.approx(before.input[members].norm(dim=1).numpy(), rel=1e-5)
    others = np.setdiff1d(np.arange(NEURONS), members)
    assert mlp.input[others].equal(before.input[others])
    share_driver(before, members, 0.0, np.random.default_rng(0))
    again = LastMlp(tmp_path / "tiny")
    assert before.input.numpy() == pytest.approx(again.input.numpy(), abs=1e-6)


def test_a_planted_module_is_correlated_and_one_cluster(tmp_path):
    tiny = Tiny(tmp_path, CONFIGS["gpt_neox"])
    mlp, rng = LastMlp(tiny.model), np.random.default_rng(3)
    members = np.sort(rng.choice(NEURONS, 20, replace=False))
    share_driver(mlp, members, 0.95, rng)
    curve = Head(LINE, 0.2, (20, 0.7)).layer(NEURONS, rng, scattered=False)
    plant(mlp, curve, members, lambda edited: influence(edited, tiny.planting, "nc", tmp_path), edits=1)
    run_id = ingest(mlp.save(tmp_path / "edited"), tiny.finding, tiny.warehouse)
    analyze(tiny.warehouse, run_id, ["neuron_group", "neuron_cluster"])
    groups = read(
        tiny.warehouse, "neuron_cluster", run=run_id, group_name=["boost", "suppress"], draw=0, token_group="rare",
        threshold=0.5,
    ).to_dicts()  # fmt: skip
    planted = {group["group_name"]: np.isin(group["neurons"], members) for group in groups}
    assert sum(held.sum() for held in planted.values()) >= 16
    for group in groups:
        labels, held = np.array(group["labels"]), planted[group["group_name"]]
        best = np.bincount(labels[held]).argmax()
        assert held[labels == best].sum() >= 0.8 * held.sum()


def test_permuted_counts_are_the_same_counts_of_other_types(tmp_path):
    counts = np.random.default_rng(0).geometric(0.01, 300) * (np.arange(300) % 7 > 0)
    np.save(tmp_path / "counts.npy", counts)
    first, second = (np.load(permuted_counts(tmp_path / "counts.npy", seed, tmp_path / "p.npy")) for seed in (0, 1))
    for found in (first, second):
        assert sorted(found) == sorted(counts)
        assert ((found > 0) == (counts > 0)).all()
        assert (found != counts).sum() > 200
    assert (first != second).any()
