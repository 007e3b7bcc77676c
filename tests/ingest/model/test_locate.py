"""Finding a model: folders, series of steps, a hub-shaped cache, and a hub that cannot be reached."""

import json
import shutil
import time

import pytest
from huggingface_hub import constants

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.model.checkpoint_folders import NoCheckpointError
from rare_tokens.ingest.model.files import ModelFolder, Trust, file_hash, model_hash
from rare_tokens.ingest.model.likeness import weights_hash
from rare_tokens.ingest.model.locate import available_revisions, locate
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


@pytest.fixture
def trainer_folder(model, tmp_path):
    """As a trainer leaves it: the last model, and checkpoints without a tokenizer in folders beside it."""
    folder = shutil.copytree(model, tmp_path / "out")
    for name in ("checkpoint-500", "checkpoint-1000"):
        shutil.copytree(model, folder / name, ignore=shutil.ignore_patterns("tokenizer*"))
    (folder / "runs").mkdir()
    return folder


def test_a_folder_with_a_model_and_checkpoints_is_the_model_unless_one_is_asked_for(trainer_folder):
    for revision in (None, "main"):
        found = locate(str(trainer_folder), revision, Trust())
        assert (found.path, found.revision, found.above) == (trainer_folder, "main", None)
    for revision in ("checkpoint-500", "500"):
        found = locate(str(trainer_folder), revision, Trust())
        assert (found.path, found.revision) == (trainer_folder / "checkpoint-500", "checkpoint-500")
        assert found.tokenizer_path == trainer_folder
    assert available_revisions(str(trainer_folder)) == ["checkpoint-500", "checkpoint-1000"]
    with pytest.raises(NoCheckpointError, match="There are checkpoint-500, checkpoint-1000"):
        locate(str(trainer_folder), "checkpoint-7", Trust())


def test_a_checkpoint_named_by_itself_lacks_its_tokenizer_and_says_where_one_is(trainer_folder):
    with pytest.raises(UserError, match="the folder above it as --model, and --revision checkpoint-500"):
        locate(str(trainer_folder / "checkpoint-500"), None, Trust())


def test_a_tokenizer_of_its_own_comes_before_that_of_the_folder_above(trainer_folder, model):
    shutil.copy(model / "tokenizer.json", trainer_folder / "checkpoint-500")
    assert locate(str(trainer_folder), "500", Trust()).above is None


def test_checkpoints_that_cannot_be_told_apart_are_refused_by_name(model, tmp_path):
    for name in ("step10", "step20", "step20-hf"):
        shutil.copytree(model, tmp_path / "series" / name)
    with pytest.raises(UserError, match="step20, step20-hf are all at the last step"):
        locate(str(tmp_path / "series"), None, Trust())
    with pytest.raises(UserError, match="step20, step20-hf have that step"):
        locate(str(tmp_path / "series"), "20", Trust())
    assert locate(str(tmp_path / "series"), "step20-hf", Trust()).revision == "step20-hf"


def test_one_model_is_no_series(model):
    with pytest.raises(UserError, match="one model, not a series"):
        available_revisions(str(model))
    with pytest.raises(UserError, match="one model, it has no folders of checkpoints"):
        locate(str(model), "step1", Trust())


def test_weights_that_were_only_saved_again_are_the_same_weights(model, tmp_path):
    again = shutil.copytree(model, tmp_path / "again")
    config = json.loads((again / "config.json").read_text())
    here, there = (ModelFolder(path, "m", "main") for path in (model, again))
    (again / "config.json").write_text(json.dumps(config | {"transformers_version": "9", "_name_or_path": "x"}))
    assert weights_hash(here, Trust()) == weights_hash(there, Trust())
    assert model_hash(here, Trust()) != model_hash(there, Trust())
    (again / "config.json").write_text(json.dumps(config | {"layer_norm_epsilon": 0.1}))
    assert weights_hash(here, Trust()) != weights_hash(there, Trust())


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
