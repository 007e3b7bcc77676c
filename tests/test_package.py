"""One import name: what a user's own folder holds does not matter, nor whether links were checked out."""

import shutil
import subprocess
import sys

from tests.conftest import REPOSITORY

ROOMS = ("analyses", "commands", "common", "ingest", "sql", "warehouse")
TRY = "import rare_tokens; from rare_tokens import cli; print(rare_tokens.open.__name__, sorted(cli.cli.commands)[0])"


def tried(folder, *paths) -> str:
    """What the first steps of a user print, with these folders on the path in this order."""
    code = f"import sys; sys.path[:0] = {[str(path) for path in paths]!r}; {TRY}"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_files_of_a_users_own_with_the_names_of_rooms_are_not_imported(tmp_path):
    for name in (*ROOMS, "cli"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of the user was imported')\n")
    assert tried(tmp_path, tmp_path, REPOSITORY) == "Warehouse analyze"


def test_a_checkout_without_links_works_too(tmp_path):
    """As git leaves it on Windows without developer mode: each link is a file that holds where it leads."""
    package = tmp_path / "rare_tokens"
    package.mkdir()
    shutil.copy(REPOSITORY / "rare_tokens" / "__init__.py", package)
    for name in (*ROOMS, "cli.py"):
        (package / name).write_text(f"../{name}")
        (tmp_path / name).symlink_to(REPOSITORY / name)
    assert tried(tmp_path, tmp_path) == "Warehouse analyze"
