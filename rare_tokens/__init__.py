"""Rare token neurons: which single neurons of a language model carry its rare words, and how?

``import rare_tokens; w = rare_tokens.open("rare_tokens.duckdb"); w.influence(run, preset)``.
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

_ERRORS = ("LockedError", "QualityError", "RareTokensError", "UserError")
_DOORS = ("Warehouse", "open", "runs", "tables")

__all__ = ["LockedError", "QualityError", "RareTokensError", "UserError", "Warehouse", "open", "runs", "tables"]


def __getattr__(name: str) -> Any:
    """The names in `__all__`, imported on first use: a worker of an ingest needs no database."""
    if name in _DOORS:
        from rare_tokens import warehouse

        return getattr(warehouse, name)
    if name in _ERRORS:
        from rare_tokens.common import errors

        return getattr(errors, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names."""
    return __all__
