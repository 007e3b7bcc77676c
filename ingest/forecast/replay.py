"""Times the dense path: one batch of positions run again, and the self-check's passes."""

import numpy as np

from rare_tokens.common.parts import Manifest
from rare_tokens.ingest.dense.ablation import DenseAblation, widened
from rare_tokens.ingest.dense.replay import Unrounded
from rare_tokens.ingest.dense.selfcheck import NEURONS, POSITIONS, WINDOWS, Edit, hooked_effect
from rare_tokens.ingest.forecast.clock import timed
from rare_tokens.ingest.run.stages import Loaded


def replay_seconds(loaded: Loaded, manifest: Manifest, dense: DenseAblation) -> float:
    """Seconds in which every neuron of a run is ablated by running the model again.

    An ingest tries a batch and a few attributions too, to announce the dense path, so these count twice.
    """
    sample, structure = loaded.sample, loaded.structure
    trying, each = timed(lambda: dense.seconds_per_row(sample.tokens[0]), loaded.device)
    windows = manifest.positions // sample.predicted
    length = sample.tokens.shape[1] - 1
    rows = structure.neurons * windows * (length if dense.at_once else sample.predicted)
    attributing, window = timed(lambda: dense.attribution_seconds(sample.tokens[0], sample.predicted), loaded.device)
    seconds = trying + rows * each + attributing + windows * window
    if dense.at_once:
        alone, _ = timed(lambda: dense.window(sample.tokens[0], [[0]], sample.predicted), loaded.device)
        seconds += windows * max(0.0, alone - length * each)
    return seconds


def replay_check_seconds(loaded: Loaded, manifest: Manifest, dense: DenseAblation) -> float:
    """Seconds of the dense path's self-check: whole passes, unedited and edited, of the model and its wider copy."""
    model, sample, structure = loaded.model, loaded.sample, loaded.structure
    edit = Edit([0], np.zeros(1, np.float32), None if dense.at_once else 0, sample.predicted)
    own, _ = timed(lambda: hooked_effect(model, structure.out_projection, sample.tokens[0], edit), loaded.device)
    copying, (wide, (projection,)) = timed(lambda: widened(model, structure.out_projection), loaded.device)
    with Unrounded():
        wider, _ = timed(lambda: hooked_effect(wide, projection, sample.tokens[0], edit), loaded.device)
    windows = min(WINDOWS, manifest.positions // sample.predicted)
    edits = windows * (NEURONS if dense.at_once else min(POSITIONS, sample.predicted))
    return copying + edits * (own + wider)
