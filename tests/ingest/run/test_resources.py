"""What an ingest takes, said before it starts, and models that do not fit the device."""

import json

import pytest
import torch
from transformers import LlamaConfig

from rare_tokens import warehouse
from rare_tokens.common.files import size_in_words
from rare_tokens.ingest.model.files import Trust
from rare_tokens.ingest.model.head import all_finite
from rare_tokens.ingest.model.locate import locate
from rare_tokens.ingest.run import resources
from rare_tokens.ingest.run.request import Options, identify
from tests.support.tiny import SUPPORTED, save_folder, tiny_corpus


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A model of three blocks in bfloat16, so that as float32 it is copied, and a corpus."""
    folder = tmp_path_factory.mktemp("inputs")
    for name, dtype in (("llama", torch.float32), ("half", torch.bfloat16)):
        config = LlamaConfig.from_dict(SUPPORTED["llama"].to_dict() | {"num_hidden_layers": 3})
        save_folder(folder / name, config, dtype=dtype)
    tiny_corpus(folder / "corpus.jsonl", documents=400)
    return folder


def asked(inputs, model="half", **changes):
    options = {"--model": inputs / model, "--corpus": inputs / "corpus.jsonl", "--tokens": 640, "--window": 32}
    return ["ingest", *(part for pair in (options | changes).items() for part in pair)]


def request_of(inputs, model="half", **changes):
    given = {"model": str(inputs / model), "corpus": (str(inputs / "corpus.jsonl"),), "tokens": 640, "window": 32}
    (request,) = identify(Options(**(given | changes)))
    return request


@pytest.mark.slow
def test_blocks_off_the_device_give_the_same_effects(commands, inputs):
    facts = {}
    for offload in ("never", "always"):
        path = commands.folder / f"{offload}.duckdb"
        ended = commands(*asked(inputs, **{"--offload": offload, "--warehouse": path}), "--verbose")
        assert ended.code == 0, ended.err
        assert ("wait off cpu" in ended.err) == (offload == "always")
        with warehouse.open(path) as opened:
            facts[offload] = opened.sql("from fct_effect order by neuron, position_id")
    assert facts["never"].equals(facts["always"]), "the run's id among them"


def test_a_run_that_does_not_fit_is_refused_before_its_model_is_loaded(commands, inputs, monkeypatch):
    monkeypatch.setattr(resources, "available_bytes", lambda _device: 300_000_000)
    said = json.loads(commands(*asked(inputs), "--dry-run", "--json").out)[0]
    monkeypatch.setattr("rare_tokens.ingest.run.loading.load_model", None)
    ended = commands(*asked(inputs))
    assert ended.code == 2
    assert f"needs about {size_in_words(said['memory_bytes'])} of memory on cpu and 300 MB are available" in ended.err
    assert said["memory_available"] == 300_000_000
    assert "--dtype bfloat16" in ended.err


@pytest.mark.parametrize("more", [("--layer", 0), ("--attention",)])
def test_what_runs_the_model_again_cannot_have_it_elsewhere(commands, inputs, more):
    ended = commands(*asked(inputs, **{"--offload": "always"}), *more)
    assert ended.code == 2
    assert "all of it must be on the device" in ended.err


def test_an_unknown_way_to_off_load_is_refused(commands, inputs):
    assert commands(*asked(inputs, **{"--offload": "sometimes"})).code == 2


def test_only_what_does_not_fit_waits(inputs, monkeypatch):
    """The analysed block, embeddings, norm and head stay; of the others as many as there is room for."""
    request = request_of(inputs)
    model = resources.empty_model("half", request.config, remote_code=False)
    monkeypatch.setattr(resources, "available_bytes", lambda _device: 10**12)
    whole = resources.plan(request, model, 2, "cpu")
    assert (whole.device_map, whole.offloaded) == (None, 0)
    block = 4 * sum(weight.numel() for weight in model.model.layers[0].parameters())
    passing = 4 * 32 * 80
    monkeypatch.setattr(resources, "available_bytes", lambda _device: whole.bytes - block + passing)
    held = resources.plan(request, model, 2, "cpu")
    places = held.device_map
    assert [places.pop(f"model.layers.{index}") for index in range(3)] == ["cpu", "disk", "cpu"]
    assert set(places) == {"lm_head", "model.embed_tokens", "model.norm", "model.rotary_emb"}
    assert set(places.values()) == {"cpu"}
    assert held.offloaded == block
    assert held.bytes == whole.bytes - block + passing


def test_weights_in_the_dtype_of_their_file_are_mapped_and_not_counted(inputs):
    model = resources.empty_model("half", request_of(inputs).config, remote_code=False)
    parameters = sum(weight.numel() for weight in model.parameters())
    for model, dtype, mapped in (("half", "bfloat16", 2), ("half", "float32", 0), ("llama", "float32", 4)):
        found = resources.mapped_bytes(locate(str(inputs / model), None, Trust()), dtype, Trust())
        assert found == mapped * parameters


@pytest.mark.parametrize("version", [1, 2])
def test_a_containers_limit_counts_and_its_file_pages_do_not(tmp_path, monkeypatch, version):
    names = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"), 2: ("memory.max", "memory.current", "")}
    most, used, total = names[version]
    (tmp_path / most).write_text("3000000000\n")
    (tmp_path / used).write_text("1500000000\n")
    (tmp_path / "memory.stat").write_text(f"{total}active_file 100000000\n{total}inactive_file 400000000\nanon 1000\n")
    monkeypatch.setattr(resources, "_groups", lambda: [tmp_path, tmp_path / "no such group"])
    assert resources.available_bytes("cpu") == 2_000_000_000
    if version == 2:
        (tmp_path / most).write_text("max\n")
        monkeypatch.setattr(resources.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 7}))
        assert resources.available_bytes("cpu") == 7


def test_finite_is_looked_at_block_by_block():
    values = torch.ones(5000, 1000)
    assert all_finite(values)
    assert all_finite(values * 3e38), "a sum that overflows is looked at again"
    values[4999, 999] = torch.nan
    assert not all_finite(values)
    assert not all_finite(values.T)
    assert all_finite(torch.empty(0, 3))
    assert not all_finite(torch.tensor(torch.inf))


def test_a_run_that_the_disk_does_not_hold_is_refused_with_what_the_dry_run_says(commands, inputs, monkeypatch):
    (said,) = json.loads(commands(*asked(inputs), "--dry-run", "--json").out)
    disk = type("Disk", (), {"free": said["disk_bytes"] - 1})
    monkeypatch.setattr("rare_tokens.ingest.run.resources.shutil.disk_usage", lambda _folder: disk)
    ended = commands(*asked(inputs))
    assert ended.code == 2
    assert f"{size_in_words(said['disk_bytes'])} of disk" in ended.err
    assert "--warehouse on a larger disk" in ended.err
