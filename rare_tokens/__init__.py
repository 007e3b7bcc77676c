"""Rare token neurons: which single neurons of a language model carry its rare words, and how?

import rare_tokens

w = rare_tokens.open("rare_tokens.duckdb")  # w shows its runs; w.runs() and w.tables() list what there is
w.influence("novella", preset="es")  # a Polars frame; the start of a run_id is enough
help(w.neuron_influence)  # every relation says what it holds, and is called for its rows
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rare_tokens.common.errors import LockedError, QualityError, RareTokensError, UserError
    from rare_tokens.warehouse import Warehouse, open, tables  # noqa: A004
    from rare_tokens.warehouse.runs import runs

# In a checkout the packages are next to this folder, and links in it point to them. If links were not checked out
# (Windows without developer mode) they are files, and the packages are found next to this folder.
if not Path(__file__).with_name("warehouse").is_dir():
    __path__.insert(0, str(Path(__file__).resolve().parents[1]))

__all__ = [  # noqa: RUF022  in the order in which a reader needs them
    # A warehouse file: `w = open(PATH)` is a Warehouse; its runs and relations without keeping it open.
    "open",
    "Warehouse",
    "runs",
    "tables",
    # What is raised. UserError: input that you can correct. The others: see `rare_tokens.common.errors`.
    "UserError",
    "LockedError",
    "QualityError",
    "RareTokensError",
]


def __getattr__(name: str) -> Any:
    """The names in `__all__`, imported on first use: a worker of an ingest needs no database."""
    if name in __all__ and name.endswith("Error"):
        from rare_tokens.common import errors

        return getattr(errors, name)
    if name in __all__:
        from rare_tokens import warehouse

        return getattr(warehouse, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names."""
    return __all__
