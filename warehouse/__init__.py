"""Everything that opens a warehouse file: the schema, publishing, queries, housekeeping.

``from rare_tokens import warehouse; w = warehouse.open("rare_tokens.duckdb"); w.influence(run, preset)``.
"""

from rare_tokens.warehouse.catalogue import tables
from rare_tokens.warehouse.check.stored_data import Checked, check
from rare_tokens.warehouse.client.opened import Warehouse
from rare_tokens.warehouse.locks import claim
from rare_tokens.warehouse.maintenance import Space, delete, migrate, remove_parts, require_writable, vacuum
from rare_tokens.warehouse.publish.attention import StoredAttention, add_attention, require_same_model, stored_attention
from rare_tokens.warehouse.publish.gaps import find_twin, forget_gaps, record_gap, record_twin
from rare_tokens.warehouse.publish.groups import NamedGroup, add_groups, analysed_group, stored_groups
from rare_tokens.warehouse.publish.moving import keep
from rare_tokens.warehouse.publish.results import (
    Magnitudes,
    Stored,
    activations,
    read,
    store,
    store_published_values,
    stored,
)
from rare_tokens.warehouse.publish.runs import begin, publish, publish_together
from rare_tokens.warehouse.report_inputs import (
    card_frames,
    neuron_frames,
    output_weights,
    report_frames,
    same_positions,
)
from rare_tokens.warehouse.runs import find, runs, status
from rare_tokens.warehouse.sandbox import run_sql
from rare_tokens.warehouse.share.attach import attach
from rare_tokens.warehouse.share.export import export
from rare_tokens.warehouse.store.parquet_facts import STORES

open = Warehouse  # noqa: A001  meant to be used as `warehouse.open(path)`

__all__ = [
    "STORES",
    "Checked",
    "Magnitudes",
    "NamedGroup",
    "Space",
    "Stored",
    "StoredAttention",
    "Warehouse",
    "activations",
    "add_attention",
    "add_groups",
    "analysed_group",
    "attach",
    "begin",
    "card_frames",
    "check",
    "claim",
    "delete",
    "export",
    "find",
    "find_twin",
    "forget_gaps",
    "keep",
    "migrate",
    "neuron_frames",
    "open",
    "output_weights",
    "publish",
    "publish_together",
    "read",
    "record_gap",
    "record_twin",
    "remove_parts",
    "report_frames",
    "require_same_model",
    "require_writable",
    "run_sql",
    "runs",
    "same_positions",
    "status",
    "store",
    "store_published_values",
    "stored",
    "stored_attention",
    "stored_groups",
    "tables",
    "vacuum",
]
