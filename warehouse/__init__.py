"""Everything that opens a warehouse file: the schema, publishing, queries, housekeeping.

``import warehouse; w = warehouse.open("rare_tokens.duckdb"); w.influence(run, preset)``.
"""

from warehouse.attaching import attach
from warehouse.attention import StoredAttention, add_attention, require_same_model, stored_attention
from warehouse.checking import Checked, check
from warehouse.claims import claim
from warehouse.door import Warehouse
from warehouse.exporting import export
from warehouse.facts import STORES
from warehouse.groups import NamedGroup, add_groups, analysed_group, stored_groups
from warehouse.housekeeping import Space, delete, migrate, remove_parts, require_writable, vacuum
from warehouse.publishing import begin, publish, record_missing
from warehouse.reporting import card_frames, report_frames, same_positions
from warehouse.results import Stored, activations, read, store, store_published_values, stored
from warehouse.runs import find, runs, status
from warehouse.sandbox import run_sql
from warehouse.storing import keep
from warehouse.tables import tables

open = Warehouse  # noqa: A001  `warehouse.open(path)` is how it is meant to read

__all__ = [
    "STORES",
    "Checked",
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
    "keep",
    "migrate",
    "open",
    "publish",
    "read",
    "record_missing",
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
