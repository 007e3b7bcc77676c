"""Groups of neurons ablated at once: their members, and the exact effect of each group at every position.

In the last layer of a plain decoder the edit is Σ a_i w_i, added to the captured residual stream, and the loss is taken
in float64; everywhere else the dense path runs the model again with all of the group replaced.
"""

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rare_tokens.common.errors import UserError
from rare_tokens.common.parts import schema
from rare_tokens.common.version import VERSION
from rare_tokens.ingest.ablation.stages.capture import Capture, mean_activations
from rare_tokens.ingest.ablation.stages.parts import write_relation
from rare_tokens.ingest.dense.selfcheck import Edit, structural_error
from rare_tokens.ingest.group_units import GroupStage, GroupUnits, unit_name
from rare_tokens.ingest.run.execution import capture_rows
from rare_tokens.ingest.run.executors import Executor, gather
from rare_tokens.ingest.run.pipeline import Prepared
from rare_tokens.ingest.run.resuming import begin
from rare_tokens.ingest.run.shared_storage import Place

SUFFIXES = (".json", ".csv", ".txt")
CHECKED_WINDOWS = 2  # per group, against the hooked model


@dataclass(frozen=True)
class Group:
    """Neurons that are ablated at once; `source` says where they come from."""

    name: str
    neurons: tuple[int, ...]
    source: str


def is_group_file(spelled: str) -> bool:
    """Whether `--group` names a file rather than a group of the warehouse."""
    return Path(spelled).suffix.lower() in SUFFIXES or "/" in spelled or "\\" in spelled


def read_groups(spelled: str) -> list[Group]:
    """The groups of a file.

    JSON: ``{"NAME": [3, 17], …}``, or one list, which is named after the file. CSV: a header with ``neuron`` and,
    unless all is one group, ``group_name``; a row per neuron. Text: one neuron per line, named after the file.

    Raises:
        UserError: the file cannot be read or has another form, there is no group in it, or a group is empty or has a
            neuron twice.
    """
    path = Path(spelled).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"--group {spelled}: cannot be read ({error.strerror}). Check the path.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--group {spelled}: is not UTF-8 text. Save it as UTF-8.") from error
    readers: dict[str, Callable[[str, Path], dict[str, list[Any]]]] = {".json": _json, ".csv": _csv, ".txt": _lines}
    if path.suffix.lower() not in readers:
        raise UserError(
            f"--group {spelled}: a file of groups must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}."
        )
    named = readers[path.suffix.lower()](text, path)
    if not named:
        raise UserError(f"--group {spelled}: there is no group in it. Give at least one.")
    return [Group(name, _indices(spelled, name, found), f"file {path.name}") for name, found in named.items()]


def check_names(groups: Sequence[Group]) -> None:
    """Refuse groups that share a name.

    Raises:
        UserError: two do; the message gives the name.
    """
    names = [group.name for group in groups]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"--group: the name {twice[0]} is given twice. Name each group once.")


def check_groups(groups: Sequence[Group], neurons: int) -> None:
    """Refuse groups that a layer of `neurons` neurons cannot have.

    Raises:
        UserError: a name is given twice, or a neuron is not in the layer.
    """
    check_names(groups)
    for group in groups:
        if unknown := [neuron for neuron in group.neurons if not 0 <= neuron < neurons]:
            raise UserError(
                f"--group {group.name}: there is no neuron {unknown[0]} in the layer. Use 0 to {neurons - 1}."
            )


def groups_due(asked: Sequence[Group], stored: Sequence[Group], *, recomputed: bool) -> list[Group]:
    """Which groups to compute: the new ones of those asked for; all and the stored ones if the run is recomputed.

    Raises:
        UserError: a name is given twice, or the run has it for other neurons.
    """
    check_names(asked)
    there = {group.name: group for group in stored}
    if recomputed:
        return [*asked, *(group for group in stored if group.name not in {one.name for one in asked})]
    for group in asked:
        if group.name in there and there[group.name].neurons != group.neurons:
            raise UserError(
                f"--group {group.name}: the run has a group of that name with other neurons. Give it another name, or "
                "compute the run again with --again."
            )
    return [group for group in asked if group.name not in there]


def group_effects(
    prepared: Prepared, groups: Sequence[Group], folder: Path, executor: Executor, place: Place | None = None
) -> None:
    """Ablate each group at every position and write the parts into a folder, resuming what was interrupted.

    Args:
        prepared: the run's model and sample; the run itself is left as it is.
        groups: what to ablate.
        folder: for these parts alone.
        executor: runs the units.
        place: where units leave their files; None: in the folder, by this process.

    Raises:
        UserError: values are not finite, a group's effects differ from the hooked model's, or the place cannot be used.
    """
    check_groups(groups, prepared.structure.neurons)
    begin(folder, _plan(prepared, groups), place)
    captured = capture_rows(prepared, folder, executor, place)
    mean = mean_activations(captured.activations)
    reference = (mean if prepared.manifest.ablation == "mean" else np.zeros_like(mean)).astype(np.float32)
    members = [group.neurons for group in groups]
    scope = prepared.manifest.options["edit_scope"]
    units = GroupUnits(folder, prepared.loaded, members, reference, captured, scope)
    if place is None:
        units.announce()
        executor.run("groups", range(units.units), units.run, units.is_done)
    else:
        sample = prepared.material.sample
        batch = Capture.windows_in_a_batch(sample.tokens) * sample.predicted
        stage = GroupStage(units.units, members, reference, scope, batch)
        gather(executor, stage, prepared.loaded, place, lambda unit: place.get(unit_name(unit), units.path(unit)))
    effects = np.concatenate([np.load(units.path(unit)) for unit in range(units.units)])  # T × G
    if not np.isfinite(effects).all():
        raise UserError("A group's effect is NaN or infinite. Try --dtype float32, or check the weights.")
    errors = [_checked(prepared, group, effects[:, index], reference) for index, group in enumerate(groups)]
    _write(folder, prepared, groups, effects, errors)
    shutil.rmtree(folder / "capture")
    shutil.rmtree(folder / "units")


def _plan(prepared: Prepared, groups: Sequence[Group]) -> dict[str, Any]:
    """What the units of these groups depend on."""
    return {
        "identity": prepared.manifest.identity,
        "groups": [group.neurons for group in groups],
        "code_version": VERSION,
        "packages": prepared.manifest.packages,
    }


def _checked(prepared: Prepared, group: Group, effects: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Largest error of a group's effects (T) in seeded windows against the hooked model, in units of its tolerance.

    Raises:
        UserError: it is above 1.
    """
    sample, structure = prepared.material.sample, prepared.structure
    generator = np.random.default_rng([prepared.manifest.seed, 0x6E0F])
    windows = generator.choice(len(sample.tokens), min(CHECKED_WINDOWS, len(sample.tokens)), replace=False)
    at_once = prepared.manifest.options["edit_scope"] == "window" or structure.layer == structure.depth - 1
    worst = 0.0
    for window in windows.tolist():
        position = None if at_once else int(generator.integers(sample.predicted))
        where = np.arange(sample.predicted) if position is None else np.array([position])
        edit = Edit(group.neurons, reference[list(group.neurons)], position, sample.predicted)
        stored = effects[window * sample.predicted + where].astype(np.float64)
        found = structural_error(prepared.model, structure.out_projection, sample.tokens[window], edit, stored)
        worst = max(worst, found)
    if not worst <= 1:
        raise UserError(
            f"--group {group.name}: its effects differ from the hooked {type(prepared.model).__name__} by {worst:.3g} "
            "times what its precision explains. Nothing was added."
        )
    return worst


def _write(
    folder: Path, prepared: Prepared, groups: Sequence[Group], effects: NDArray[np.float32], errors: list[float]
) -> None:
    """Write the parts; `effects` is T × G."""
    sample = prepared.material.sample
    described = {
        "group_name": [group.name for group in groups],
        "k": [len(group.neurons) for group in groups],
        "neurons": [list(group.neurons) for group in groups],
        "source": [group.source for group in groups],
        "structural_check_error": errors,
    }
    write_relation(folder, "dim_group", pa.table(described, schema("dim_group")))
    positions = np.arange(len(effects), dtype=np.uint32)
    tokens = {"position_id": positions, "input_token_id": sample.inputs, "target_token_id": sample.targets}
    write_relation(folder, "group_position", pa.table(tokens))
    facts = {
        "group_name": [group.name for group in groups for _ in positions],
        "position_id": np.tile(positions, len(groups)),
        "delta_loss": effects.T.reshape(-1),
    }
    write_relation(folder, "fct_group_effect", pa.table(facts))


# --- files ----------------------------------------------------------------------------------------------------------


def _json(text: str, path: Path) -> dict[str, list[Any]]:
    def no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"--group {path.name}: the name {twice} is given twice. Name each group once.")
        return found

    try:
        found = json.loads(text, object_pairs_hook=no_name_twice)
    except ValueError as error:
        raise UserError(
            f'--group {path.name}: is not JSON ({error}). Write {{"NAME": [3, 17], …}} or one list.'
        ) from error
    if isinstance(found, list):
        return {path.stem: found}
    if not isinstance(found, dict) or not all(isinstance(value, list) for value in found.values()):
        raise UserError(f'--group {path.name}: its JSON has another form. Write {{"NAME": [3, 17], …}} or one list.')
    return found


def _csv(text: str, path: Path) -> dict[str, list[Any]]:
    rows = csv.DictReader(text.splitlines())
    if "neuron" not in (rows.fieldnames or ()):
        raise UserError(
            f"--group {path.name}: its header has no column neuron. Add it, and group_name for several groups."
        )
    found: dict[str, list[Any]] = {}
    for row in rows:
        found.setdefault(row.get("group_name", path.stem), []).append(row["neuron"])
    return found


def _lines(text: str, path: Path) -> dict[str, list[Any]]:
    return {path.stem: text.split()}


def _indices(spelled: str, name: str, found: list[Any]) -> tuple[int, ...]:
    """Whole numbers, ascending, each once."""
    if not name or not name.strip():
        raise UserError(f"--group {spelled}: a group has no name. Give it one.")
    try:
        neurons = [int(value) if isinstance(value, str) else _whole(value) for value in found]
    except (ValueError, TypeError) as error:
        raise UserError(
            f"--group {spelled}: {name} holds something other than indices of neurons ({error}). Use whole numbers."
        ) from error
    if not neurons:
        raise UserError(f"--group {spelled}: {name} is empty. Give at least one neuron.")
    if twice := [neuron for neuron in neurons if neurons.count(neuron) > 1]:
        raise UserError(f"--group {spelled}: {name} has neuron {twice[0]} twice. List each neuron once.")
    return tuple(sorted(neurons))


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} is not a whole number")
    return value
