"""Runs computed by several workers: a Ray of three nodes, of which one is killed, and parts that go through S3.

The quick tests need neither Ray nor S3. The others need the extra `cluster-test`, and say so where it is not there.
"""

import contextlib
import logging
import os
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from fsspec import filesystem
from transformers import GPTNeoXConfig

from rare_tokens import warehouse
from rare_tokens.common.errors import UserError
from rare_tokens.ingest.ablation.stages.parts import position_block
from rare_tokens.ingest.run.shared_storage import Place
from tests.conftest import REPOSITORY
from tests.ingest.run.test_resuming import MANY_UNITS, UNITS, contents
from tests.support.commands import finish
from tests.support.tiny import SUPPORTED, save_folder, tiny_corpus

# Many units, each long enough that a worker can be killed at it
SLOW_UNITS = f"{UNITS}; u.PAIRS_PER_PART = 262_144; c.POSITIONS_PER_BATCH = 512"
HEAVY = GPTNeoXConfig(
    vocab_size=300, hidden_size=64, intermediate_size=1_024, num_hidden_layers=2, num_attention_heads=4,
    max_position_embeddings=64, bos_token_id=0, eos_token_id=0,
)  # fmt: skip
BUCKET = "parts"
SECONDS = 400


def model_and_corpus(folder, config):
    return [
        "ingest", "--model", save_folder(folder / "neox", config), "--corpus",
        tiny_corpus(folder / "corpus.jsonl", documents=400), "--window", 64, "--device", "cpu", "--quiet",
    ]  # fmt: skip


def same(first, second):
    one, other = contents(first), contents(second)
    assert one.keys() == other.keys()
    assert one["fct_effect"].height > 0
    return [name for name, frame in one.items() if not frame.equals(other[name])]


# --- without Ray ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["path", "memory"])
def test_a_place_has_whole_files_and_goes_without_a_trace(tmp_path, kind):
    place = Place(tmp_path / "parts" if kind == "path" else "memory://parts") / "run"
    assert place.names() == set()
    (tmp_path / "one").write_text("1")
    (tmp_path / "two").write_text("2")
    place.put(tmp_path / "one", "effects/one")
    place.put(tmp_path / "two", "effects/one")
    place.put(tmp_path / "two", "two")
    assert place.names() == {"effects/one", "two"}
    place.get("effects/one", tmp_path / "back" / "one")
    assert (tmp_path / "back" / "one").read_text() == "2"
    if kind == "path":  # what a worker was killed at is no part
        Path(place.url, "half.partial").touch()
        assert place.names() == {"effects/one", "two"}
    with place.probed() as name:
        place.require(name)
    assert place.names() == {"effects/one", "two"}
    place.remove()
    assert place.names() == set()
    place.remove()


@pytest.mark.slow
def test_parts_elsewhere_make_the_same_run_and_are_gone(commands, tmp_path):
    asked = [*model_and_corpus(tmp_path, SUPPORTED["gpt_neox"]), "--tokens", 512]
    assert commands(*asked, "--warehouse", "here.duckdb").code == 0
    ended = commands(*asked, "--warehouse", "there.duckdb", "--parts", tmp_path / "elsewhere")
    assert ended.code == 0, ended.err
    assert same(tmp_path / "here.duckdb", tmp_path / "there.duckdb") == []
    assert not list((tmp_path / "elsewhere").rglob("*"))
    assert not list((tmp_path / "there.duckdb.parts").rglob("*"))


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--workers", "2"], "--workers 2 is about Ray's workers"),
        (["--ray-address", "a:1"], "--ray-address a:1 is about Ray's workers"),
        (["--executor", "ray"], "Ray is not installed"),
        (["--parts", "nosuch://bucket"], "--parts nosuch://bucket: cannot be used"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_computed(commands, tmp_path, monkeypatch, options, said):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    ended = commands(*model_and_corpus(tmp_path, SUPPORTED["gpt_neox"]), "--tokens", 512, *options)
    assert ended.code == 2
    assert said in ended.err
    assert ended.err.count(". ") <= 2
    assert warehouse.runs(tmp_path / "rare_tokens.duckdb").is_empty()


# --- Ray and S3 -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3():
    """A real S3 server with one bucket; its endpoint and credentials are in the environment."""
    server = pytest.importorskip("moto.server", reason="NOT TESTED: moto[server] is not installed, no S3 server")
    pytest.importorskip("s3fs", reason="NOT TESTED: s3fs is not installed, no parts on S3")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    host, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        filesystem("s3").mkdir(BUCKET)
        yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture(scope="module")
def cluster(s3):
    """Three nodes of one core each, processes of this machine; they see the same S3."""
    tools = pytest.importorskip("ray.cluster_utils", reason="NOT TESTED: ray is not installed, no cluster")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        settings = {"num_cpus": 1, "include_dashboard": False}
        running = tools.Cluster(initialize_head=True, head_node_args=settings)
        running.others = [running.add_node(num_cpus=1) for _ in range(2)]
        yield running
        running.shutdown()


def keys():
    files = filesystem("s3")
    files.invalidate_cache()
    return files.find(BUCKET)


@contextlib.contextmanager
def ended_after(process):
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def no_rights(server, after):
    """Have the server look at credentials after so many calls; ours are those of nobody."""
    kind = {"Content-Type": "text/plain"}
    request = urllib.request.Request(f"{server}/moto-api/reset-auth", data=after, headers=kind, method="POST")
    urllib.request.urlopen(request).close()


def worker_at_a_unit(nodes):
    """A node and the worker process on it that is computing a unit at this moment."""
    for node in nodes:
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        for child in raylet.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "ray::_Worker.run" in " ".join(child.cmdline()):
                    return node, child
    return None


@pytest.mark.slow
def test_three_nodes_of_which_one_dies_make_what_one_process_makes(commands, tmp_path, cluster):
    asked = [*model_and_corpus(tmp_path, HEAVY), "--tokens", 10_240]
    threads = {"OMP_NUM_THREADS": "1"}
    with ended_after(
        commands.start(*asked, "--warehouse", "alone.duckdb", before=SLOW_UNITS, environment=threads)
    ) as alone:
        assert finish(alone, SECONDS).code == 0
    spread = [*asked, "--warehouse", "spread.duckdb", "--executor", "ray", "--ray-address", cluster.address]
    spread += ["--parts", f"s3://{BUCKET}/deep/er"]
    with ended_after(commands.start(*spread, before=SLOW_UNITS, environment=threads)) as process:
        found, deadline = None, time.monotonic() + SECONDS
        while found is None and process.poll() is None and time.monotonic() < deadline:
            if any("fct_effect" in key for key in keys()):
                found = worker_at_a_unit(cluster.others)
            time.sleep(0.02)
        assert found, "no worker was met at a unit"
        node, worker = found
        left = 40 - sum("fct_effect" in key for key in keys())
        cluster.remove_node(node, allow_graceful=False)
        assert left > 3
        worker.wait(60)
        ended = finish(process, SECONDS)
    assert ended.code == 0, ended.err
    cluster.others.remove(node)
    assert same(tmp_path / "alone.duckdb", tmp_path / "spread.duckdb") == []
    assert keys() == []
    assert not list((tmp_path / "spread.duckdb.parts").rglob("*"))


@pytest.mark.slow
def test_a_ray_of_its_own_makes_the_same_run_beside_the_warehouse(commands, tmp_path):
    """Without an address and without a URL; workers compute the groups and the attention that are added to the run."""
    pytest.importorskip("ray", reason="NOT TESTED: ray is not installed")
    (tmp_path / "some.txt").write_text("3\n7\n")
    asked = [*model_and_corpus(tmp_path, SUPPORTED["gpt_neox"]), "--tokens", 2048]
    asked += ["--group", tmp_path / "some.txt", "--attention", "--head-ablation", "mean"]
    threads = {"OMP_NUM_THREADS": "1", "RAY_ADDRESS": ""}
    for name, options in (("alone", []), ("spread", ["--executor", "ray", "--workers", 2])):
        process = commands.start(*asked, *options, "--warehouse", f"{name}.duckdb", environment=threads)
        with ended_after(process):
            ended = finish(process, SECONDS)
        assert ended.code == 0, ended.err
    first, second = contents(tmp_path / "alone.duckdb"), contents(tmp_path / "spread.duckdb")
    key = ["neuron", "position_id"]
    effects = [one["fct_effect"].sort(key)["delta_loss"] for one in (first, second)]
    assert (effects[0] - effects[1]).abs().max() <= 1e-6
    added = [name for name in first if "attention" in name or "group_effect" in name]
    assert {"fct_group_effect", "fct_attention_effect", "agg_attention_activation"} <= {*added}
    assert [name for name in added if not first[name].equals(second[name])] == []
    assert not list((tmp_path / "spread.duckdb.parts").rglob("*"))


@pytest.mark.slow
def test_a_killed_ingest_goes_on_from_what_is_on_s3(commands, tmp_path, s3):
    asked = [*model_and_corpus(tmp_path, SUPPORTED["gpt_neox"]), "--tokens", 2048]
    away = [*asked, "--parts", f"s3://{BUCKET}"]
    assert finish(commands.start(*asked, "--warehouse", "alone.duckdb", before=MANY_UNITS)).code == 0
    with ended_after(commands.start(*away, "--warehouse", "killed.duckdb", before=MANY_UNITS)) as process:
        while process.poll() is None and sum("fct_effect" in key for key in keys()) < 3:
            time.sleep(0.002)
        process.kill()
        process.wait()
    done = {int(Path(key).stem) for key in keys() if "fct_effect" in key}
    assert len(done) >= 3
    # On another machine, say: nothing of it is beside this warehouse
    never_again = (
        f"{MANY_UNITS}\nreal = u.EffectUnits.run\n"
        f"def run(self, block):\n    assert block not in {done}, 'computed twice'\n    real(self, block)\n"
        "u.EffectUnits.run = run\n"
    )
    ended = finish(commands.start(*away, "--warehouse", "other.duckdb", before=f"exec({never_again!r})"))
    assert ended.code == 0, ended.err
    assert same(tmp_path / "alone.duckdb", tmp_path / "other.duckdb") == []
    assert keys() == []


@pytest.mark.slow
def test_a_bucket_that_is_not_there_or_not_ours_is_refused(commands, tmp_path, s3):
    asked = [*model_and_corpus(tmp_path, SUPPORTED["gpt_neox"]), "--tokens", 512]
    absent = commands(*asked, "--parts", "s3://nobody/has/it")
    assert (absent.code, "--parts s3://nobody/has/it: cannot be used" in absent.err) == (2, True), absent.err
    no_rights(s3, b"0")
    try:
        refused = commands(*asked, "--parts", f"s3://{BUCKET}/ours")
    finally:
        no_rights(s3, b"inf")
    assert (refused.code, "cannot be used" in refused.err) == (2, True), refused.err
    assert warehouse.runs(tmp_path / "rare_tokens.duckdb").is_empty()
    assert keys() == []


@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_refused_within_seconds(commands, tmp_path):
    pytest.importorskip("ray", reason="NOT TESTED: ray is not installed")
    asked = [*model_and_corpus(tmp_path, SUPPORTED["gpt_neox"]), "--tokens", 512, "--executor", "ray"]
    for address in ("127.0.0.1:9", "10.255.255.1:6379", "no.such.host.invalid:6379", "nonsense:x"):
        start = time.monotonic()
        ended = commands(*asked, "--ray-address", address)
        assert ended.code == 2, ended.err
        assert f"--ray-address {address}: " in ended.err
        assert "does not answer" in ended.err or address.startswith("10.")  # some networks answer for every host
        assert time.monotonic() - start < 60


@pytest.mark.slow
def test_workers_with_other_packages_are_refused(commands, tmp_path, cluster):
    """A node whose numpy says that it is another one; nothing of the run is begun."""
    other = tmp_path / "other" / "numpy-9.9.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 9.9.9\n")
    environment = {"PYTHONPATH": os.pathsep.join([str(other.parent), str(REPOSITORY)])}
    node = cluster.add_node(num_cpus=1, env_vars=environment)
    asked = [*model_and_corpus(tmp_path, SUPPORTED["gpt_neox"]), "--tokens", 512]
    try:
        ended = finish(commands.start(*asked, "--executor", "ray", "--ray-address", cluster.address), SECONDS)
    finally:
        cluster.remove_node(node, allow_graceful=False)
    assert ended.code == 2, ended.err
    assert "has numpy 9.9.9, this machine " in ended.err
    assert warehouse.runs(tmp_path / "rare_tokens.duckdb").is_empty()


def test_what_a_recipe_holds_is_small_and_loads_nothing(tmp_path):
    """A worker that has no such folder, or other weights in it, is told so before it computes."""
    from rare_tokens.ingest.run.request import Options, identify
    from rare_tokens.ingest.run.stages import Recipe
    from tests.support.corpora import draw_sample

    config, corpus = SUPPORTED["gpt_neox"], tiny_corpus(tmp_path / "corpus.jsonl", documents=40)
    model = save_folder(tmp_path / "neox", config)
    (request,) = identify(Options(model=str(model), corpus=(str(corpus),), tokens=128, window=64, device="cpu"))
    sample = draw_sample(request.corpus, request.tokenizer, positions=128, window=64, seed=0, begin_token=False)
    import numpy as np

    recipe = Recipe.of(request, sample, np.zeros(300, dtype=np.int64))
    assert recipe.find().model_hash == request.model_hash
    weights = next(model.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(UserError, match="other weights"):
        recipe.find()
    model.rename(tmp_path / "moved")
    with pytest.raises(UserError, match="no such folder"):
        recipe.find()


@pytest.mark.parametrize(("positions", "neurons"), [(25_088, 1_024), (25_088, 3_072), (1_024, 512), (640, 80)])
def test_several_workers_have_units_enough_and_one_has_large_parts(positions, neurons):
    alone = position_block(positions, neurons)
    shared = position_block(positions, neurons, 16)
    assert shared <= alone
    assert -(-positions // shared) >= min(12, -(-positions // 256))
    assert shared == positions or shared % 256 == 0
