"""The front door: its commands, their output, their options, and what bad input is told."""

import json
import shutil

import numpy as np
import pytest

from rare_tokens import cli, warehouse
from rare_tokens.common.parts import parts_root
from tests.support.commands import exit_code, finish
from tests.support.tiny import SUPPORTED, save_folder, tiny_corpus, tiny_model, tiny_tokenizer
from tests.support.warehouses import empty, stored


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    save_folder(folder / "neox", SUPPORTED["gpt_neox"])
    tiny_corpus(folder / "corpus.jsonl", documents=400)
    return folder


@pytest.fixture
def published(commands):
    """A warehouse with one synthetic run, in the folder where commands run."""
    return stored(commands.folder / "rare_tokens.duckdb", "synthetic-main-00000000")


def small(inputs, **changes):
    options = {"--model": inputs / "neox", "--corpus": inputs / "corpus.jsonl", "--tokens": 640, "--window": 32}
    return [part for pair in (options | changes).items() for part in pair]


@pytest.fixture(scope="module")
def once(inputs, tmp_path_factory):
    """A warehouse with what `small` asks for, to be copied."""
    path = tmp_path_factory.mktemp("once") / "rare_tokens.duckdb"
    assert exit_code("ingest", *small(inputs), "--quiet", "--warehouse", path) == 0
    return path


@pytest.fixture
def ingested(commands, once):
    shutil.copy(once, commands.folder)


def test_ingest_publishes_and_says_so_as_json(commands, inputs):
    ended = commands("ingest", *small(inputs), "--quiet", "--json")
    assert ended.code == 0, ended.err
    (run,) = json.loads(ended.out)
    assert (run["status"], run["positions"], run["neurons"]) == ("published", 640, 80)
    assert not list(parts_root(commands.folder / "rare_tokens.duckdb").glob("neox-*")), "parts go once published"
    with warehouse.open(commands.folder / "rare_tokens.duckdb") as opened:
        assert opened.fct_effect().height == 640 * 80
        assert opened.influence(run["run_id"]).height in (80, 160)


def test_asked_again_it_is_found_done(commands, inputs, ingested):
    again = commands("ingest", *small(inputs))
    assert again.code == 0
    assert "already published" in again.err


def test_more_effects_extend_a_run_and_a_tighter_tolerance_recomputes_it(commands, inputs, ingested):
    more = commands("ingest", *small(inputs, **{"--effects": "loss,entropy", "--tolerance": "5e-7"}), "--json")
    assert more.code == 0, more.err
    (run,) = json.loads(more.out)
    assert run["tolerance"] == 5e-7
    with warehouse.open(commands.folder / "rare_tokens.duckdb") as opened:
        facts = opened.fct_effect()
    assert (facts["delta_entropy"].count(), facts["delta_kl"].count()) == (640 * 80, 0)


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(commands, inputs):
    ended = commands("ingest", *small(inputs), "--dry-run", "--json")
    (row,) = json.loads(ended.out)
    assert row["fact_rows"] == 640 * 80
    assert row["minutes"] > 0
    assert row["minutes"] * 60 == pytest.approx(sum(row["stage_seconds"].values()), abs=0.01)
    assert row["minutes_source"] == "measured"
    assert "measured on a few positions" in ended.err
    assert not any(commands.folder.iterdir())


def test_a_dry_run_tells_the_dense_path_and_what_it_reruns(commands, inputs):
    cost = {}
    for layer in (-1, 0):
        ended = commands("ingest", *small(inputs, **{"--layer": layer}), "--dry-run", "--json")
        (cost[layer],) = json.loads(ended.out)
        assert "cannot be told" not in ended.err
    assert (cost[-1]["path"], cost[-1]["layer"], cost[-1]["rerun_positions"]) == ("moments", 1, 0)
    assert (cost[0]["path"], cost[0]["layer"], cost[0]["rerun_positions"]) == ("dense", 0, 640 * 80)
    assert cost[0]["minutes"] > 0
    assert cost[0]["run_id"] != cost[-1]["run_id"]


@pytest.fixture
def runs_only_with_values(monkeypatch):
    """A model that looks into values, and so does not run without weights."""
    from transformers import GPTNeoXModel

    real = GPTNeoXModel.forward

    def forward(self, input_ids=None, **given):
        if input_ids.device.type == "meta":
            raise NotImplementedError("values are looked into, and there are none")
        return real(self, input_ids, **given)

    monkeypatch.setattr(GPTNeoXModel, "forward", forward)


@pytest.mark.usefixtures("runs_only_with_values")
def test_a_dry_run_that_cannot_tell_the_path_says_so_and_shows_the_most(commands, inputs, monkeypatch):
    monkeypatch.setattr("rare_tokens.ingest.run.resources.available_bytes", lambda _device: 1_000)
    ended = commands("ingest", *small(inputs), "--dry-run", "--json")
    assert ended.code == 0, ended.err
    (unknown,) = json.loads(ended.out)
    assert (unknown["path"], unknown["rerun_positions"]) == ("unknown", 640 * 80)
    assert (unknown["minutes_source"], unknown["minutes_why"]) == ("reckoned", "it does not fit into the memory")
    assert "whether the dense path is needed cannot be told without the weights" in ended.err


@pytest.mark.usefixtures("runs_only_with_values")
def test_a_dry_run_that_has_the_weights_tells_the_path(commands, inputs):
    ended = commands("ingest", *small(inputs), "--dry-run", "--json")
    (told,) = json.loads(ended.out)
    assert (told["path"], told["rerun_positions"], told["minutes_source"]) == ("moments", 0, "measured")
    assert "cannot be told" not in ended.err


BAD_DRY_RUNS = ["corpus too short", "no such model folder", "corpus missing", "count file missing"]


@pytest.mark.parametrize("case", BAD_DRY_RUNS)
def test_a_dry_run_refuses_what_the_ingest_would_in_the_same_words(commands, inputs, case):
    changes, _ = BAD_OPTIONS[case]
    ended = [commands("ingest", *small(inputs, **changes), *more) for more in (["--dry-run"], [])]
    assert [one.code for one in ended] == [2, 2]
    assert ended[0].err == ended[1].err
    assert "Traceback" not in ended[0].err


BAD_OPTIONS = {
    "no such model folder": ({"--model": "./nowhere"}, "does not exist"),
    "revision of a plain folder": ({"--revision": "step7"}, "has no folders of checkpoints"),
    "corpus missing": ({"--corpus": "nothing.txt"}, "nothing.txt"),
    "corpus too short": ({"--tokens": 3200000}, "tokens"),
    "count file missing": ({"--frequencies": "counts.npy"}, "no such file"),
    "no tokens": ({"--tokens": 0}, "--tokens 0"),
    "tokens no multiple of the window": ({"--tokens": 100}, "multiple of the window"),
    "window above the context": ({"--window": 128, "--tokens": 640}, "above the context"),
    "tolerance of zero": ({"--tolerance": 0}, "above 0"),
    "negative tolerance": ({"--tolerance": -1e-6}, "above 0"),
    "tolerance beyond float32": ({"--tolerance": 1e-12}, "float32"),
    "unknown effect": ({"--effects": "loss,colour"}, "colour"),
    "unknown device": ({"--device": "abacus"}, "not available"),
    "unknown dtype": ({"--dtype": "int4"}, "int4"),
    "layer above the last": ({"--layer": 2}, "--layer 2: the model has 2 layers. Use 0 to 1, or -1 (the last) to -2."),
    "layer below the first": ({"--layer": -3}, "--layer -3: the model has 2 layers"),
    "layer that is no number": ({"--layer": "last"}, "'last' is no number of a layer"),
    "unknown edit scope": ({"--edit-scope": "token"}, "'token' is not one of 'window', 'position'"),
    "group that is nowhere": ({"--group": "boost"}, "no such file, and run"),
    "file of groups missing": ({"--group": "boost.json"}, "--group boost.json: cannot be read"),
}


@pytest.mark.quick_cases(4)
@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_options_are_refused_and_nothing_is_half_written(commands, inputs, case):
    changes, says = BAD_OPTIONS[case]
    ended = commands("ingest", *small(inputs, **changes))
    assert ended.code == 2, ended.err
    assert says in ended.err
    assert "Traceback" not in ended.err
    assert not parts_root(commands.folder / "rare_tokens.duckdb").is_dir() or not list(
        parts_root(commands.folder / "rare_tokens.duckdb").glob("*/manifest.json")
    )
    assert commands.runs() == []


def test_a_count_file_of_the_wrong_length_is_refused_with_both_lengths(commands, inputs):
    np.save(commands.folder / "counts.npy", np.ones(17, np.int64))
    ended = commands("ingest", *small(inputs, **{"--frequencies": "counts.npy"}))
    assert ended.code == 2
    assert "17" in ended.err
    assert "300" in ended.err


def test_folders_without_weights_tokenizer_or_a_known_architecture_are_refused(commands, inputs):
    folder = commands.folder / "broken"
    tiny_tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt_neox"}), encoding="utf-8")
    assert "no weights" in commands("ingest", *small(inputs, **{"--model": folder})).err
    (folder / "pytorch_model.bin").write_bytes(b"x")
    assert "pickle" in commands("ingest", *small(inputs, **{"--model": folder})).err
    (folder / "model.safetensors").write_bytes(b"not safetensors")
    ended = commands("ingest", *small(inputs, **{"--model": folder, "--window": 32}))
    assert ended.code == 2
    (folder / "config.json").write_text(json.dumps({"model_type": "perpetuum"}), encoding="utf-8")
    assert "architecture" in commands("ingest", *small(inputs, **{"--model": folder})).err
    (folder / "tokenizer.json").unlink()
    assert "tokenizer" in commands("ingest", *small(inputs, **{"--model": folder})).err


def test_weights_that_are_not_finite_are_named(commands, inputs):
    model = tiny_model(SUPPORTED["gpt_neox"])
    model.gpt_neox.layers[1].mlp.dense_4h_to_h.weight.data[3, 5] = float("nan")
    model.save_pretrained(commands.folder / "nan")
    tiny_tokenizer().save_pretrained(commands.folder / "nan")
    ended = commands("ingest", *small(inputs, **{"--model": commands.folder / "nan"}))
    assert ended.code == 2
    assert "dense_4h_to_h" in ended.err


def test_a_forward_pass_that_overflows_is_named(commands, inputs):
    model = tiny_model(SUPPORTED["gpt_neox"])
    model.gpt_neox.layers[1].mlp.dense_4h_to_h.weight.data *= 1e38
    model.save_pretrained(commands.folder / "huge")
    tiny_tokenizer().save_pretrained(commands.folder / "huge")
    ended = commands("ingest", *small(inputs, **{"--model": commands.folder / "huge"}))
    assert ended.code == 2
    assert "NaN or infinity" in ended.err


def test_an_unsupported_architecture_is_refused_by_name(commands, inputs):
    from tests.support.tiny import UNSUPPORTED

    save_folder(commands.folder / "experts", UNSUPPORTED["mixtral"])
    ended = commands("ingest", *small(inputs, **{"--model": commands.folder / "experts"}))
    assert ended.code == 2
    assert "MixtralForCausalLM" in ended.err


def test_warehouse_paths_that_cannot_be_used(commands, inputs):
    assert commands("runs", "--warehouse", commands.folder).code == 2
    (commands.folder / "text.duckdb").write_text("this is no database", encoding="utf-8")
    ended = commands("ingest", *small(inputs), "--warehouse", "text.duckdb")
    assert ended.code == 2
    assert "text.duckdb" in ended.err


def test_a_locked_warehouse_ends_with_4_and_names_the_process(commands, published):
    hold = "import duckdb, time; c = duckdb.connect('rare_tokens.duckdb'); print('held', flush=True); time.sleep(60)"
    holder = commands.start(before=hold)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        ended = commands("runs")
        assert ended.code == 4
        assert str(holder.pid) in ended.err
    finally:
        holder.kill()
        finish(holder)


def test_reading_an_absent_warehouse_shows_an_empty_one_and_makes_none(commands):
    assert json.loads(commands("runs", "--json").out) == []
    assert json.loads(commands("sql", "select count(*) n from fct_effect", "--json").out) == [{"n": 0}]
    names = {row["name"] for row in json.loads(commands("tables", "--json").out)}
    assert {"dim_run", "fct_effect", "neuron_influence", "influence_at"} <= names
    ended = commands("report")
    assert ended.code == 2
    assert not any(commands.folder.iterdir())


@pytest.mark.parametrize("form", ["table", "json", "csv", "markdown"])
def test_sql_prints_rows_in_every_form(commands, published, form):
    ended = commands("sql", "select run_id, positions, null as nothing from dim_run", "--format", form)
    assert ended.code == 0
    assert published in ended.out


def test_sql_reads_files_and_refuses_what_does_not_parse(commands, published):
    (commands.folder / "q.sql").write_text("select 1 as one", encoding="utf-8")
    commented = "-- a comment = no option\nselect 1 as one"
    assert json.loads(commands("sql", commented, "--json").out) == [{"one": 1}]
    assert json.loads(commands("sql", "--format", "json", commented).out) == [{"one": 1}]
    assert json.loads(commands("sql", "q.sql", "--json").out) == [{"one": 1}]
    for query in ("selec 1", "absent.sql"):
        ended = commands("sql", query)
        assert ended.code == 2, query
        assert "Traceback" not in ended.err


def test_options_come_from_file_environment_and_flags_in_that_order(commands, monkeypatch):
    for name in ("file", "environment", "before", "after"):
        empty(commands.folder / f"{name}.duckdb")
    (commands.folder / "rare_tokens.toml").write_text('warehouse = "file.duckdb"\n', encoding="utf-8")
    assert "file.duckdb" in commands("runs").err
    monkeypatch.setenv("RARE_TOKENS_WAREHOUSE", "environment.duckdb")
    assert "environment.duckdb" in commands("runs").err
    assert "before.duckdb" in commands("--warehouse", "before.duckdb", "runs").err
    assert "after.duckdb" in commands("--warehouse", "before.duckdb", "runs", "--warehouse", "after.duckdb").err


def test_a_configuration_file_names_one_model_or_several(commands, inputs):
    corpus = f'corpus = "{inputs / "corpus.jsonl"}"\ntokens = 64\nwindow = 32\n'
    for model, count in ((f'"{inputs / "neox"}"', 1), (f'["{inputs / "neox"}", "./gone"]', 1)):
        (commands.folder / "rare_tokens.toml").write_text(f"[ingest]\nmodel = {model}\n{corpus}")
        ended = commands("ingest", "--dry-run", "--json")
        assert (len(json.loads(ended.out)), ended.code) == (count, 0 if "[" not in model else 2), ended.err


def test_config_and_version_may_stand_after_the_command(commands):
    empty(commands.folder / "other.duckdb")
    (commands.folder / "other.toml").write_text('warehouse = "other.duckdb"\n', encoding="utf-8")
    assert "other.duckdb" in commands("runs", "--config", "other.toml").err
    assert "other.duckdb" in commands("--config=other.toml", "runs").err
    assert commands("runs", "--config", "absent.toml").code == 2
    assert commands("runs", "--version").out.startswith("rare-tokens, version")


@pytest.mark.parametrize("text", ["warehouse = ", "wharehouse = 'x'", "[ingest]\nmodle = 'x'"])
def test_a_wrong_configuration_file_is_refused(commands, text):
    (commands.folder / "rare_tokens.toml").write_text(text, encoding="utf-8")
    ended = commands("runs")
    assert ended.code == 2
    assert "rare_tokens.toml" in ended.err


def test_delete_export_migrate_vacuum(commands, published):
    exported = commands("export", "out", "--json")
    assert exported.code == 0, exported.err
    assert {"relation": "fct_effect", "rows": 128 * 40} in json.loads(exported.out)
    assert commands("export", "out").code == 2
    assert commands("migrate").code == 0
    assert commands("delete", "synthetic").code == 0
    assert commands("vacuum").code == 0
    assert json.loads(commands("runs", "--json").out) == []
    assert commands("delete", "synthetic").code == 2


@pytest.mark.slow
def test_report_of_a_run_that_is_there_and_of_one_that_is_not(commands, published):
    ended = commands("report", "--out", "page")
    assert ended.code == 0, ended.err
    assert (commands.folder / "page" / "index.html").stat().st_size > 100_000
    assert commands("report", "another", "--out", "page2").code == 2
    assert not (commands.folder / "page2").exists()


def test_a_bug_gets_an_id_and_no_traceback_unless_asked(commands, monkeypatch):
    monkeypatch.setattr(warehouse, "runs", lambda *_a, **_k: 1 / 0)
    ended = commands("runs")
    assert ended.code == 1
    assert "report" in ended.err
    assert "Traceback" not in ended.err
    assert "Traceback" in commands("--debug", "runs").err


@pytest.mark.parametrize("name", cli.cli.commands)
def test_every_command_explains_itself_and_its_options(commands, name):
    ended = commands(name, "--help")
    assert ended.code == 0
    assert "--warehouse" in ended.out
    assert (cli.cli.commands[name].help or "").rstrip().endswith(".")
