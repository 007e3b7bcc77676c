"""A warehouse with data as an earlier version of the program left it: the first migrations only, other views."""

from pathlib import Path

import duckdb

from rare_tokens.warehouse.schema import migrations


def make_old(path: Path, new: Path, last: int = 1) -> Path:
    """Make `path` a warehouse of schema `last` that holds what the warehouse `new`, of today, has for it.

    Tables are made by that schema's own migrations, then filled with the columns that they have; what only one of the
    two schemas has is lost or NULL.
    """
    with duckdb.connect(path) as con:
        for number, name, text in migrations.known()[:last]:
            con.execute(text)
            con.execute(
                "insert into store.migration values ($number, $name, now()::timestamp)",
                {"number": number, "name": name},
            )
        con.execute("insert into store.catalogue values ('the digest of an older version')")
        con.execute("create view dim_run as select run_id, run_key, status from store.run")
        con.execute("create view gone_since as select 1 as x")
        con.execute(f"attach '{new}' as new (read_only)")
        tables = con.execute(
            "select table_name from duckdb_tables() where database_name = current_database()"
            " and schema_name = 'store' and table_name not in ('migration', 'catalogue')"
        ).fetchall()
        for (table,) in tables:
            here, there = (con.execute(f"describe {where}store.{table}").fetchall() for where in ("", "new."))
            kept = {column[0] for column in there}
            columns = ", ".join(f'"{column[0]}"' for column in here if column[0] in kept)
            con.execute(f"insert into store.{table} by name select {columns} from new.store.{table} order by rowid")
        con.execute("detach new")
    return path
