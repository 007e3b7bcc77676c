"""Finding a model: folders, series of steps, a hub-shaped cache, and a hub that cannot be reached."""

import json
import shutil
import time

import pytest
from huggingface_hub import constants

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.model.files import ModelFolder, Trust, file_hash, model_hash
from rare_tokens.ingest.model.locate import locate
from tests.support.tiny import SUPPORTED, save_folder, tiny_corpus

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_folder(tmp_path_factory.mktemp("models") / "plain", SUPPORTED["gpt2"])


def hub_cache(home, model, name="somebody/tiny", blobs=False):
    """A cache as the hub client leaves it: refs, a snapshot by commit, its large files links to blobs."""
    folder = home / "hub" / ("models--" + name.replace("/", "--"))
    snapshot = folder / "snapshots" / COMMIT
    shutil.copytree(model, snapshot)
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    if blobs:
        (folder / "blobs").mkdir()
        for file in snapshot.glob("*.safetensors"):
            blob = folder / "blobs" / file_hash(file)
            file.rename(blob)
            file.symlink_to(blob)
    return snapshot


def test_a_series_gives_its_last_step_unless_asked(model, tmp_path):
    for step in (0, 8, 100):
        shutil.copytree(model, tmp_path / "series" / f"step{step}")
    assert locate(str(tmp_path / "series"), None, Trust()).revision == "step100"
    assert locate(str(tmp_path / "series"), "8", Trust()).revision == "step8"
    assert locate(str(tmp_path / "series"), "step0", Trust()).path == tmp_path / "series" / "step0"
    with pytest.raises(UserError, match="step0, step8, step100"):
        locate(str(tmp_path / "series"), "step9", Trust())


def test_the_same_model_has_one_hash_wherever_it_lies(model, tmp_path):
    snapshot = hub_cache(tmp_path, model, blobs=True)
    here, cached = (ModelFolder(path, "m", "main") for path in (model, snapshot))
    assert model_hash(here, Trust()) == model_hash(cached, Trust())
    changed = save_folder(tmp_path / "changed", SUPPORTED["gpt2"], seed=1)
    assert model_hash(ModelFolder(changed, "m", "main"), Trust()) != model_hash(here, Trust())


@pytest.fixture
def unreachable(monkeypatch, tmp_path):
    """A hub that cannot be reached, and an empty cache; where the cache is."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the discard port: refuses at once
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    return tmp_path / "home"


def test_a_hub_id_is_read_from_the_cache_when_the_hub_cannot_be_reached(commands, model, unreachable, tmp_path):
    hub_cache(unreachable, model)
    corpus = tiny_corpus(tmp_path / "corpus.jsonl")
    asked = ("ingest", "--model", "somebody/tiny", "--corpus", corpus, "--tokens", 64, "--window", 32, "--json")
    ended = commands(*asked)
    assert ended.code == 0, ended.err
    (run,) = json.loads(ended.out)
    assert (run["model"], run["revision"]) == ("somebody/tiny", "main")
    assert run["run_id"].startswith("tiny-main-")


def test_no_hub_and_no_cache_ends_within_seconds_with_what_to_do(commands, unreachable, tmp_path):
    corpus = tiny_corpus(tmp_path / "corpus.jsonl")
    start = time.monotonic()
    ended = commands("ingest", "--model", "gpt2", "--corpus", corpus)
    assert ended.code == 2
    assert "gpt2" in ended.err
    assert "the hub cannot be reached" in ended.err
    assert "local model folder" in ended.err
    assert "Traceback" not in ended.err
    assert time.monotonic() - start < 60
    assert len(ended.err.strip().splitlines()) <= 3


def test_the_token_is_neither_stored_nor_said(commands, model, unreachable, tmp_path, monkeypatch):
    corpus = tiny_corpus(tmp_path / "corpus.jsonl")
    secret = "hf_neverToBeSeenAnywhere"
    monkeypatch.setenv("HF_TOKEN", secret)
    asked = ("ingest", "--model", model, "--corpus", corpus, "--tokens", 64, "--window", 32)
    ended = commands(*asked, "--verbose", "--log-file", "log.txt")
    assert ended.code == 0, ended.err
    written = b"".join(file.read_bytes() for file in commands.folder.rglob("*") if file.is_file())
    assert secret not in ended.out + ended.err
    assert secret.encode() not in written
