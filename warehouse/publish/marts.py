"""Computing the marts of a run from what is loaded, in an order in which each finds what it reads.

Marts are the relations of `sql/marts` that say how they are filled for a run (`insert` statements with `$run_key`).
Their order follows from what these statements read.
"""

import re
from collections.abc import Mapping
from functools import cache

import duckdb

from rare_tokens.common import parts
from rare_tokens.common.parts import Manifest
from rare_tokens.warehouse.publish.loading import neuron_blocks
from rare_tokens.warehouse.schema import relations
from rare_tokens.warehouse.schema.relations import Relation

_FILLED = re.compile(r"insert into (store\.\w+)")


def of_run() -> tuple[str, ...]:
    """The marts that publishing computes, each after those that it reads."""
    return tuple(mart for mart in _all() if mart not in of_attention())


def of_attention() -> tuple[str, ...]:
    """The marts that read attention, and are computed when it is added to a run."""
    added = {f"store.{relation}" for relation in parts.ATTENTION_RELATIONS}
    return tuple(mart for mart in _all() if added & relations.tables_read(relations.relations()[mart].publish))


def in_order(marts: Mapping[str, Relation]) -> list[str]:
    """Names of marts, each after those that it reads.

    Raises:
        ValueError: some read one another; the message names them.
    """
    filled = {name: set(_tables(mart)) for name, mart in marts.items()}
    read = {name: relations.tables_read(mart.publish) for name, mart in marts.items()}
    needs = {name: [other for other in marts if other != name and read[name] & filled[other]] for name in marts}
    return relations.in_order(needs)


def fill(con: duckdb.DuckDBPyConnection, mart: str, key: int, manifest: Manifest) -> None:
    """Compute a mart for one run, in place of what is there; statements that name neurons take them block by block."""
    relation = relations.relations()[mart]
    for table in _tables(relation):
        con.execute(f"delete from {table} where run_key = $run_key", {"run_key": key})
    for statement in relation.publish:
        blocks = neuron_blocks(manifest) if "$first_neuron" in statement else [{}]
        for block in blocks:
            con.execute(statement, {"run_key": key, **block})


@cache
def _all() -> list[str]:
    known = relations.relations()
    return in_order({name: known[name] for name in known if any("$run_key" in text for text in known[name].publish)})


def _tables(mart: Relation) -> list[str]:
    """The stored tables that a mart's statements fill."""
    return [table for statement in mart.publish for table in _FILLED.findall(statement)]
