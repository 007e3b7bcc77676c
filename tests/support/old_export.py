"""An export as earlier versions wrote it: format 2, the run in the name of a folder and not in the file."""

import json
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet as pq

from rare_tokens.warehouse.connection import reading
from rare_tokens.warehouse.sandbox import to_arrow
from rare_tokens.warehouse.share import layout
from rare_tokens.warehouse.share.export import LEFT_OUT


def to_format_2(path: Path, folder: Path) -> None:
    """Change an export of the warehouse `path` into what format 2 had of it."""
    manifest = json.loads((folder / layout.MANIFEST).read_text())
    files = {}
    for name, of in manifest["files"].items():
        table = pq.read_table(folder / name, partitioning=None)
        (folder / name).unlink()
        files |= _written(folder, name.split("/")[0], of["run_id"], table)
    with reading(path) as con:
        for relation in LEFT_OUT:
            for (run_id,) in con.execute(f"select distinct run_id from {relation} order by 1").fetchall():
                table = to_arrow(con, f"select * from {relation} where run_id = '{run_id}'")
                files |= _written(folder, relation, run_id, table)
    (folder / "README.md").unlink()
    (folder / layout.MANIFEST).write_text(json.dumps(manifest | {"format": 2, "files": files}))


def _written(folder: Path, relation: str, run_id: str | None, table: object) -> dict[str, dict[str, object]]:
    name = f"{relation}/part.parquet"
    if run_id is not None:
        name = f"{relation}/run_id={quote(run_id, safe='')}/part.parquet"
        table = table.drop_columns("run_id")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / name, compression="zstd")
    described = layout.described(folder / name, table.num_rows, run_id)
    return {name: {key: value for key, value in described.items() if key != "run_id"}}
