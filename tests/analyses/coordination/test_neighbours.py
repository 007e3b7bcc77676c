"""A neuron's nearest neighbours: against numpy's own correlation, and at the edges."""

import numpy as np

from rare_tokens.analyses.coordination.neighbours import neighbours


def test_they_are_those_of_the_largest_cosine_and_correlation() -> None:
    rng = np.random.default_rng(0)
    weights, activations = rng.normal(size=(300, 16)), rng.normal(size=(200, 300)).astype(np.float32)
    activations[:, 7] = -activations[:, 290] + 0.1 * rng.normal(size=200)
    found = neighbours(weights, activations, [7, 0], count=3)
    assert found["place"].to_list() == [1, 2, 3] * 4
    correlation = np.corrcoef(activations.astype(np.float64).T)
    unit = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    for kind, matrix in (("weight", unit @ unit.T), ("activation", correlation)):
        for neuron in (7, 0):
            mine = found.filter(kind=kind, neuron=neuron)
            others = np.delete(np.arange(300), neuron)
            first = others[np.argsort(-np.abs(matrix[neuron, others]))][:3]
            assert mine["other_neuron"].to_list() == first.tolist()
            np.testing.assert_allclose(mine["similarity"], matrix[neuron, first], atol=2e-6)
    opposite = found.filter(kind="activation", neuron=7, place=1).row(0, named=True)
    assert opposite["other_neuron"] == 290
    assert opposite["similarity"] < -0.98


def test_what_never_changes_has_no_neighbour_and_is_nobodys() -> None:
    activations = np.random.default_rng(1).normal(size=(50, 4))
    activations[:, 2] = 0.25
    weights = np.eye(4)
    weights[1] = 0
    found = neighbours(weights, activations, [0, 1, 2])
    assert found.filter(kind="activation", neuron=2).is_empty()
    assert 2 not in found.filter(kind="activation")["other_neuron"].to_list()
    assert found.filter(kind="weight", neuron=1).is_empty()
    assert found.filter(kind="weight", neuron=0)["other_neuron"].to_list() == [2, 3]  # both 0: the lower index first
