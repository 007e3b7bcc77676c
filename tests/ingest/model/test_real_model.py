"""A real model, SmolLM2-135M: from its GGUF file and from a folder with the same weights, bit for bit."""

import subprocess
from pathlib import Path

import polars as pl
import pytest

from rare_tokens import warehouse
from rare_tokens.ingest.model.files import Trust
from rare_tokens.ingest.model.locate import locate
from rare_tokens.ingest.model.tokenizer import load_tokenizer
from tests.support.gguf_files import save_as_folder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def gguf(real_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's GGUF file."""
    script = real_inputs.parent / "tools" / "real_model.sh"
    if not script.is_file():
        pytest.skip(f"REAL MODEL ABSENT: no {script}")
    command = ["bash", script, tmp_path_factory.mktemp("model")]
    fetched = subprocess.run(command, capture_output=True, text=True, check=False)
    if fetched.returncode:
        pytest.skip(f"REAL MODEL ABSENT: {fetched.stderr.strip()}")
    return Path(fetched.stdout.strip())


def test_a_file_and_a_folder_of_the_same_weights_are_one_model(gguf, tmp_path, commands, real_inputs):
    folder = save_as_folder(gguf, tmp_path / "smollm2")
    corpus = real_inputs / "corpora" / "c4-sample"
    for model in (gguf, folder):
        ended = commands("ingest", "--model", model, "--corpus", corpus, "--tokens", 32, "--window", 16, "--quiet")
        assert ended.code == 0, ended.err
    with warehouse.open(tmp_path / "rare_tokens.duckdb") as opened:
        runs = opened.sql("select * from dim_run order by quantisation nulls last")
        facts = opened.sql("from fct_effect order by run_id, position_id, neuron").partition_by("run_id")
        words = opened.sql("select count(*) filter (is_word) from dim_token").item()
    assert runs["quantisation"].to_list() == ["Q4_1 (210 tensors), Q8_0 (1 tensor), F32 (61 tensors)", None]
    assert (runs["neurons"].unique().to_list(), runs["layer"].unique().to_list()) == ([1536], [29])
    assert runs["tokenizer_id"].n_unique() == 1
    assert facts[0].drop("run_id").equals(facts[1].drop("run_id"))
    assert facts[0].select(pl.col("delta_loss").abs().max()).item() > 0.1
    assert words > 10_000
    assert runs["self_check_error"].max() <= 1


def test_its_digits_are_split_as_its_authors_split_them(gguf):
    tokenizer = load_tokenizer(locate(str(gguf), None, Trust()), Trust())
    pieces = [piece for piece, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("8½ million, 2026")]
    assert pieces == ["8", "Â½", "Ġmillion", ",", "Ġ", "2", "0", "2", "6"]
