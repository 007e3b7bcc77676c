"""The parts of a run: the files that ingest writes and the warehouse reads, the only contract between them.

A run's folder is ``<warehouse>.parts/<run_id>/``::

    manifest.json              written first: what the run is and what it will hold (`Manifest`)
    dim_document.parquet       one row per document drawn
    dim_token.parquet          one row per token id
    token_frequency.parquet    one row per token id: its count in the run's frequency source
    dim_position.parquet       one row per sampled position
    position_context.parquet   one row per position; only in a run of matched contexts
    dim_neuron.parquet         one row per neuron of the layer
    neuron_weight.parquet      one row per neuron
    neuron_token.parquet       one row per neuron, direction and rank
    fct_effect/00000.parquet   one row per neuron and position of the block of positions 00000
    summary.json               written last: what is known only at the end (`Summary`); its presence means staged

Every file appears whole (temporary name, then rename), so a file that exists is finished: it is its own completion
marker, and an interrupted run resumes with the first missing file.

Groups of neurons ablated at once are added to a published run. Their parts are
``<run_id>.groups/NAME.parquet``, ``fct_group_effect`` the last of them. Attention is added in the same way, from
``<run_id>.attention/NAME.parquet``.

A part of ``fct_effect`` is sorted by neuron, then position, and each of its row groups covers one block of
`NEURONS_PER_ROW_GROUP` neurons, so that a loader can take the neurons in order across all parts without one big sort.
"""

from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import pyarrow as pa

from rare_tokens.common.effects import EFFECTS
from rare_tokens.common.errors import UserError
from rare_tokens.common.files import read_json, write_json

Record = TypeVar("Record")

FORMAT = 1
NEURONS_PER_ROW_GROUP = 64

MANIFEST = "manifest.json"
SUMMARY = "summary.json"

_SCHEMAS: dict[str, list[tuple[str, pa.DataType]]] = {
    "dim_document": [
        ("document_id", pa.uint32()),
        ("document_hash", pa.string()),  # sha256 of the text, hex
        ("domain", pa.string()),  # label of the document's corpus
        ("tokens", pa.uint32()),
        ("first_position", pa.uint32()),  # first position whose target is in the document; NULL: none was sampled
    ],
    "dim_token": [
        ("token_id", pa.uint32()),
        ("text", pa.string()),  # decoded token, as it is (with its leading space, for example)
        ("is_word", pa.bool_()),  # stripped, alphabetic, two letters or more, known to the dictionary
        ("starts_word", pa.bool_()),
        ("is_special", pa.bool_()),  # a separator, begin or other special token
        ("bytes", pa.binary()),  # what the token adds, where that is no whole character; NULL: the text says it
    ],
    "token_frequency": [
        ("token_id", pa.uint32()),
        ("count", pa.uint64()),  # of the token in the frequency source; 0 if it never occurs
    ],
    "dim_position": [
        ("position_id", pa.uint32()),  # 0 … T-1; window_id * window_length + window_offset
        ("window_id", pa.uint32()),
        ("window_offset", pa.uint32()),
        ("document_id", pa.uint32()),  # of the target; NULL if the target is a separator
        ("input_token_id", pa.uint32()),
        ("target_token_id", pa.uint32()),
        ("loss", pa.float32()),  # cross-entropy of the target, nats
        ("entropy", pa.float32()),  # of the model's prediction, nats
    ],
    "position_context": [
        ("position_id", pa.uint32()),
        ("pair_id", pa.uint32()),  # from 0; a rare token and the common one it is matched with
        ("context_id", pa.uint32()),  # within the pair, from 0: one occurrence of each token
        ("token_group", pa.string()),  # `rare` or `common`: which of the two
        ("part_of_speech", pa.string()),  # universal part of speech of the word that the target is, or is in
        ("sentence_place", pa.string()),  # of that word: `beginning`, `middle` or `end`
        ("is_whole_word", pa.bool_()),
        ("syntactic_role", pa.string()),  # NULL if the tagger gives none
    ],
    "dim_neuron": [
        ("neuron", pa.uint16()),
        ("mean_activation", pa.float64()),  # over the run's positions
        ("reference_activation", pa.float64()),  # what replaced the neuron's own; NULL: another one at each position
        ("reference_error", pa.float64()),  # optimal: most by which the mean loss may exceed its minimum, nats
        ("reference_is_outside", pa.bool_()),  # optimal: whether it is far from every activation
        ("w_out_norm", pa.float32()),
        ("null_space_share", pa.float32()),
        ("logit_variance", pa.float32()),
        ("frequency_correlation", pa.float32()),  # NULL where undefined
    ],
    "neuron_weight": [
        ("neuron", pa.uint16()),
        ("w_out", pa.list_(pa.float32())),  # d
        ("w_in", pa.list_(pa.float32())),  # d; for a gated MLP the gate's row
        ("w_up", pa.list_(pa.float32())),  # d; NULL if the MLP is not gated
    ],
    "neuron_token": [
        ("neuron", pa.uint16()),
        ("direction", pa.string()),  # `up` or `down`: the tokens whose logits a larger activation raises or lowers most
        ("rank", pa.uint16()),  # 1 = largest
        ("token_id", pa.uint32()),
        ("logit", pa.float32()),  # change of the centred logit per unit of activation, final norm's scale left out
    ],
    "dim_group": [
        ("group_name", pa.string()),
        ("k", pa.uint32()),
        ("neurons", pa.list_(pa.uint16())),  # ascending
        ("source", pa.string()),  # the file, or the rows of neuron_group, from which the group was read
        ("structural_check_error", pa.float64()),  # against the hooked model, in units of its tolerance
    ],
    "fct_group_effect": [
        ("group_name", pa.string()),
        ("position_id", pa.uint32()),
        ("delta_loss", pa.float32()),  # nats
    ],
    "group_position": [  # where the groups were ablated, to be compared with the run's dim_position
        ("position_id", pa.uint32()),
        ("input_token_id", pa.uint32()),
        ("target_token_id", pa.uint32()),
    ],
    "dim_attention": [  # one row: how the attention of a run was measured
        ("head_ablation", pa.string()),  # `zero`, `mean` or `uniform`: what replaces a head's output
        ("layers", pa.list_(pa.uint16())),  # those whose heads were edited, ascending
        ("heads", pa.list_(pa.uint16())),  # in each of them
        ("loss_positions", pa.uint32()),  # positions at which the loss was measured
        ("windows_per_unit", pa.uint32()),  # windows whose activations are summed together, at most
        ("structural_check_error", pa.float64()),  # against the hooked model, in units of its tolerance
        ("seconds", pa.float64()),
        ("code_version", pa.string()),
    ],
    "dim_attention_edit": [
        ("edit", pa.uint16()),  # from 1
        ("kind", pa.string()),  # `head`, `layer`, `norm`, `feed_forward`, `patch_head` or `patch_layer`
        ("attention_layer", pa.uint16()),
        ("head", pa.uint16()),  # for `head` and `patch_head`
        ("draw", pa.uint16()),  # for `norm` and `feed_forward`: which random share, from 1
        ("feeds_neurons", pa.bool_()),  # whether there is a path to the run's neurons
        ("largest_change", pa.float64()),  # of any activation at any sampled position
    ],
    "dim_attention_cell": [  # one row per cell and token group that holds it
        ("cell", pa.uint32()),
        ("preset", pa.string()),
        ("token_group", pa.string()),
        ("window_id", pa.uint32()),  # first window of the cell's unit
        ("positions", pa.uint32()),
        ("has_loss", pa.bool_()),  # whether its unit is in the subsample whose loss is measured
    ],
    "agg_attention_head": [  # sums over the positions of a cell
        ("attention_layer", pa.uint16()),
        ("head", pa.uint16()),
        ("cell", pa.uint32()),
        ("gini_sum", pa.float32()),
        ("entropy_sum", pa.float32()),  # nats
        ("first_sum", pa.float32()),  # weight on the window's first token
    ],
    "agg_attention_distance": [
        ("attention_layer", pa.uint16()),
        ("head", pa.uint16()),
        ("cell", pa.uint32()),
        ("distance", pa.uint32()),  # tokens back; 0 is the position itself
        ("weight_sum", pa.float32()),  # attention weight, summed over the positions of the cell
    ],
    "agg_attention_activation": [
        ("edit", pa.uint16()),  # 0: none, and the sum is that of the activation itself
        ("cell", pa.uint32()),
        ("neuron", pa.uint16()),
        ("activation_sum", pa.float32()),  # for an edit: activation with it − activation without
    ],
    "fct_attention_effect": [
        ("edit", pa.uint16()),
        ("position_id", pa.uint32()),
        ("delta_loss", pa.float32()),  # nats
    ],
    "attention_position": [  # what the cells were made of, to be compared with the run's positions and token groups
        ("position_id", pa.uint32()),
        ("input_token_id", pa.uint32()),
        ("target_token_id", pa.uint32()),
        ("cell", pa.uint32()),  # NULL: in no token group
    ],
    "fct_effect": [
        ("neuron", pa.uint16()),
        ("position_id", pa.uint32()),
        ("activation", pa.float32()),
        # One column per effect that the run holds (`Manifest.effects`); absent columns read as NULL
        *((effect.column, pa.float32()) for effect in EFFECTS.values()),
    ],
}

EFFECT_COLUMNS = {effect.name: effect.column for effect in EFFECTS.values()}  # in fct_effect, by effect
CONTEXT_RELATIONS = ("position_context",)  # only in runs whose contexts are not `sample`
GROUP_RELATIONS = ("dim_group", "fct_group_effect", "group_position")  # in a folder of their own (`groups_folder`)
ATTENTION_RELATIONS = (  # likewise (`attention_folder`)
    "dim_attention",
    "dim_attention_edit",
    "dim_attention_cell",
    "agg_attention_head",
    "agg_attention_distance",
    "agg_attention_activation",
    "fct_attention_effect",
    "attention_position",
)
_ELSEWHERE = ("fct_effect", *CONTEXT_RELATIONS, *GROUP_RELATIONS, *ATTENTION_RELATIONS)
RELATIONS = tuple(name for name in _SCHEMAS if name not in _ELSEWHERE)


def schema(relation: str, effects: tuple[str, ...] = ("loss",)) -> pa.Schema:
    """Arrow schema of a relation's part; for ``fct_effect`` with the columns of `effects`."""
    columns = _SCHEMAS[relation]
    if relation == "fct_effect":
        wanted = {"neuron", "position_id", "activation"} | {EFFECT_COLUMNS[name] for name in effects}
        columns = [column for column in columns if column[0] in wanted]
    return pa.schema(columns)


def groups_folder(folder: Path) -> Path:
    """The folder for parts of groups added to a run, given the folder of the run's own parts."""
    return folder.with_name(folder.name + ".groups")


def attention_folder(folder: Path) -> Path:
    """The folder for parts of attention added to a run, given the folder of the run's own parts."""
    return folder.with_name(folder.name + ".attention")


def removed_folder(folder: Path) -> Path:
    """The name of a folder of parts while it is being removed, so that a removal killed half-way is recognised."""
    return folder.with_name(folder.name + ".removed")


def relation_path(folder: Path, relation: str) -> Path:
    """The path of a relation's single file in a run's folder."""
    return folder / f"{relation}.parquet"


def effect_path(folder: Path, block: int) -> Path:
    """The path of one block's facts in a run's folder."""
    return folder / "fct_effect" / f"{block:05d}.parquet"


@dataclass(frozen=True)
class Manifest:
    """What a run is, known before the first forward pass.

    Attributes:
        identity: the values whose hash is in the run's id.
        options: what the command was given, by option name, defaults included; folders of a path are left out. The
            command with these options makes the run again.
        facts: what was found or chosen for the run: which path it takes and why, device, tagger, pairs.
    """

    run_id: str
    model: str  # as the user named it: a hub id, or a folder's name (never its path)
    revision: str
    layer: int  # counted from 0
    positions: int  # T
    neurons: int  # N
    window_length: int  # predicted positions per window
    tokenizer_id: str
    frequency_source_id: str
    frequency_source: str  # in words: `counted over c4-sample`, `gpt2-openwebtext.npy`
    corpus: str
    corpus_hash: str
    model_hash: str
    ablation: str  # `mean` or `zero`
    seed: int
    dtype: str
    tolerance: float
    effects: list[str]
    separator_token_id: int | None
    position_block: int  # positions per part of fct_effect
    code_version: str
    created_at: str  # ISO 8601, UTC
    contexts: str = "sample"  # what the positions are: `sample` or `nc-matched`
    quantisation: str | None = None  # of the weights as they are stored; None: none
    identity: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)  # versions of packages that the numbers depend on
    format: int = FORMAT

    @property
    def blocks(self) -> int:
        """Number of parts of fct_effect."""
        return -(-self.positions // self.position_block)


@dataclass(frozen=True)
class Summary:
    """What is known about a run only when it is done.

    The self-check's errors are in units of their tolerance, at most 1.
    """

    device: str
    exact_pairs: int
    self_check_error: float  # (a) numeric, largest over the checked pairs
    structural_check_error: float  # (b) against the hooked model
    self_check_pairs: int
    seconds: float
    stage_seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, the first file of a run's folder."""
    write_json(folder / MANIFEST, asdict(manifest))


def write_summary(folder: Path, summary: Summary) -> None:
    """Write the summary, the last file of a run's folder: from here on the run is staged."""
    write_json(folder / SUMMARY, asdict(summary))


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a run's folder, or None if there is none (the run never began)."""
    return _read(folder / MANIFEST, Manifest)


def read_summary(folder: Path) -> Summary | None:
    """The summary of a run's folder, or None if the run is not staged."""
    return _read(folder / SUMMARY, Summary)


def _read(path: Path, record: type[Record]) -> Record | None:
    if not path.is_file():
        return None
    try:
        read = read_json(path)
        known = {item.name for item in fields(record)}  # type: ignore[arg-type]
        made = record(**{key: value for key, value in read.items() if key in known})
        if wrong := [name for name, hint in get_type_hints(record).items() if not _is_of(getattr(made, name), hint)]:
            raise TypeError(f"{wrong[0]} is {getattr(made, wrong[0])!r}")
        if isinstance(made, Manifest):
            datetime.fromisoformat(made.created_at)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        reason = str(error).splitlines()[0][:200]
        raise UserError(f"{path} is damaged ({reason}). Remove its folder, or ingest the run with --again.") from error
    return made


def _is_of(value: Any, hint: Any) -> bool:
    """Whether a value read from JSON has a field's type; a whole number is also a float, true and false are not."""
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    plain = tuple(get_origin(kind) or kind for kind in kinds)
    return isinstance(value, plain + ((int,) if float in plain else ())) and (
        not isinstance(value, bool) or bool in plain
    )


def parts_root(warehouse: Path) -> Path:
    """The folder that holds the parts of every run not yet published to a warehouse."""
    return warehouse.with_name(warehouse.name + ".parts")
