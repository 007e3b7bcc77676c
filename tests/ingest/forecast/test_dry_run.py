"""A dry run of weights that are here is measured, one of weights that are only on the hub reckoned; neither writes."""

import json
import shutil
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi, constants

from rare_tokens.commands.support import ingest_runs
from rare_tokens.ingest.forecast import forecast
from rare_tokens.ingest.forecast.extrapolation import EFFECTS, FORWARD, PUBLISH, REFERENCES, STAGES
from rare_tokens.ingest.forecast.measure import measured
from rare_tokens.ingest.model import locate as locating
from rare_tokens.ingest.model.files import file_hash
from rare_tokens.ingest.run import execution
from tests.support.tiny import DENSE, SUPPORTED, save_folder, tiny_corpus

SHAPE = ("--tokens", 512, "--window", 32, "--device", "cpu")

OF_THE_MEAN = tuple(name for name in STAGES if name != REFERENCES)  # which is known without a search


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_folder(tmp_path_factory.mktemp("models") / "tiny", SUPPORTED["gpt2"])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return tiny_corpus(tmp_path_factory.mktemp("text") / "corpus.jsonl", documents=200)


def dry(commands, model, corpus, *more):
    ended = commands("ingest", "--model", model, "--corpus", corpus, *SHAPE, "--dry-run", "--json", *more)
    assert ended.code == 0, ended.err
    row = json.loads(ended.out)[0]
    return row, ended


def everything(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*"))


@pytest.fixture
def hub(tmp_path, monkeypatch, model):
    """A hub with one model, of which a snapshot holds what was asked for; what was fetched is kept."""
    fetched = []

    def model_info(_api, name, **_given):
        siblings = [
            SimpleNamespace(
                rfilename=file.name,
                lfs=SimpleNamespace(sha256=file_hash(file)) if file.suffix == ".safetensors" else None,
            )
            for file in model.iterdir()
        ]
        return SimpleNamespace(siblings=siblings)

    def snapshot_download(_name, *, revision, allow_patterns):
        assert revision == "main"
        snapshot = tmp_path / "cache" / "snapshot"
        snapshot.mkdir(parents=True, exist_ok=True)
        for pattern in allow_patterns:
            for file in model.glob(pattern):
                fetched.append(file.name)
                shutil.copy(file, snapshot)
        return str(snapshot)

    monkeypatch.setattr(HfApi, "model_info", model_info)
    monkeypatch.setattr(locating, "snapshot_download", snapshot_download)
    return fetched


@pytest.mark.parametrize("more", [(), ("--layer", 0), ("--layer", 0, "--edit-scope", "position"), ("--attention",)])
def test_weights_that_are_here_are_tried(commands, model, corpus, more):
    before = everything(model)
    row, _ = dry(commands, model, corpus, *more)
    assert row["minutes_source"] == "measured"
    assert row["path"] == ("dense" if "--layer" in more else "moments")
    assert tuple(row["stage_seconds"]) == OF_THE_MEAN
    assert all(seconds >= 0 for seconds in row["stage_seconds"].values())
    assert row["minutes"] == pytest.approx(sum(row["stage_seconds"].values()) / 60 + row["attention_minutes"], abs=1e-3)
    assert not everything(commands.folder)
    assert everything(model) == before


def test_a_norm_after_the_mlp_is_seen_by_trying(commands, corpus, tmp_path_factory):
    folder = save_folder(tmp_path_factory.mktemp("models") / "gemma", DENSE["gemma2"])
    row, _ = dry(commands, folder, corpus)
    assert (row["path"], row["minutes_source"]) == ("dense", "measured")


def test_what_is_tried_has_the_options_of_the_run(commands, model, corpus, monkeypatch):
    from rare_tokens.ingest.ablation.ablation import Ablation

    tried = []
    real = Ablation.ablate_by

    def ablate_by(self, residual, activations, targets, references):
        tried.append((self.effects, self.tolerance, [float(one.abs().max()) for one in references]))
        return real(self, residual, activations, targets, references)

    monkeypatch.setattr(Ablation, "ablate_by", ablate_by)
    dry(commands, model, corpus, "--effects", "loss,kl", "--tolerance", "5e-7", "--ablation", "zero,mean")
    assert {(effects, tolerance) for effects, tolerance, _ in tried} == {(("loss", "kl"), 5e-7)}
    assert all(zero == 0 < mean for _, _, (zero, mean) in tried)


def test_more_positions_cost_more_of_what_is_paid_by_position(commands, model, corpus):
    few, _ = dry(commands, model, corpus)
    many, _ = dry(commands, model, corpus, "--tokens", 4096)
    assert many["stage_seconds"][FORWARD] > 2 * few["stage_seconds"][FORWARD]
    assert many["stage_seconds"][PUBLISH] > few["stage_seconds"][PUBLISH]


def test_weights_on_the_hub_stay_there_and_the_run_is_reckoned(commands, model, corpus, hub):
    row, ended = dry(commands, "somebody/tiny", corpus)
    assert not [name for name in hub if name.endswith(".safetensors")]
    assert (row["minutes_source"], row["minutes_why"]) == ("reckoned", "its weights are not here")
    assert "reckoned from rates of other runs, since its weights are not here" in ended.err
    assert row["minutes"] > 0
    assert row["stage_seconds"][EFFECTS] > 0
    assert row["run_id"] == ingested_as(commands, corpus)


def ingested_as(commands, corpus):
    """The id under which the same is published, weights fetched."""
    asked = ("ingest", "--model", "somebody/tiny", "--corpus", corpus, *SHAPE, "--json", "--quiet")
    (run,) = json.loads(commands(*asked).out)
    return run["run_id"]


def test_weights_in_the_cache_are_tried(commands, corpus, hub):
    ingested_as(commands, corpus)
    row, _ = dry(commands, "somebody/tiny", corpus)
    assert row["minutes_source"] == "measured"


def test_without_a_hub_what_the_cache_has_is_reckoned(commands, model, corpus, monkeypatch, tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "home" / "hub" / "models--somebody--tiny"
    snapshot = repository / "snapshots" / commit
    shutil.copytree(model, snapshot, ignore=shutil.ignore_patterns("*.safetensors"))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit, encoding="utf-8")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the discard port: refuses at once
    monkeypatch.setattr(locating, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    row, _ = dry(commands, "somebody/tiny", corpus)
    assert (row["minutes_source"], row["run_id"]) == ("reckoned", "tiny-main-unknown")
    ended = commands("ingest", "--model", "somebody/tiny", "--corpus", corpus, *SHAPE)
    assert ended.code == 2, "the ingest itself needs the weights"
    assert "no weights" in ended.err


def test_of_several_models_one_that_cannot_be_tried_does_not_stop_the_others(commands, model, corpus, tmp_path):
    broken = tmp_path / "elsewhere" / "broken"
    shutil.copytree(model, broken)
    (weights,) = broken.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-64])
    asked = ("ingest", "--model", broken, "--model", model, "--corpus", corpus, *SHAPE, "--dry-run", "--json")
    ended = commands(*asked)
    assert ended.code == 2
    assert [row["minutes_source"] for row in json.loads(ended.out)] == ["measured"]
    assert "Traceback" not in ended.err


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("worth", [0.0, 1e9])
def test_an_ingest_whose_progress_is_seen_begins_with_a_forecast(commands, model, corpus, monkeypatch, worth):
    given = {}
    real = execution.execute

    def execute(*arguments, expected, **named):
        given.update(expected)
        return real(*arguments, expected=expected, **named)

    monkeypatch.setattr(execution, "execute", execute)
    monkeypatch.setattr(ingest_runs, "is_shown", lambda *, quiet: not quiet)
    monkeypatch.setattr(forecast, "WORTH_MEASURING", worth)
    tried = []
    monkeypatch.setattr(forecast, "measured", lambda *one: tried.append(one) or measured(*one))
    asked = ("ingest", "--model", model, "--corpus", corpus, *SHAPE)
    assert commands(*asked, "--quiet").code == 0
    assert (given, tried) == ({}, []), "nobody looks"
    ended = commands(*asked, "--again")
    assert ended.code == 0, ended.err
    assert set(given) == set(OF_THE_MEAN) - {"find", "load", "text"}, "those that are still to come"
    assert len(tried) == (worth == 0)
    assert "minutes on this machine" in ended.err
