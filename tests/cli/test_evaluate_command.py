"""`prism evaluate`: tables on data of one's own, stopped and continued, and what is refused."""

import json
import signal
import time

import numpy as np
import pytest
from tests.cli.commands import call, spawn
from tests.fidelity.models import saved, text

import prism
from prism.cli.counting import counted
from prism.fidelity.accuracy import accuracy_of
from prism.models.processor import has_bfloat16
from prism.perfmap import PerformanceMap
from prism.perfmap.schema import MapLink, Measurement, NodeInfo, Stat

PLANS = "seq:2:L2:f16,seq:3:C1"
SHARED = "seq:2:L2:f16:shares=3/1"


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Return a directory with tiny models, and data for them."""
    root = tmp_path_factory.mktemp("evaluate")
    for name, case in (
        ("vit", "ViTForImageClassification"),
        ("bert", "BertModel"),
        ("gpt2", "GPT2LMHeadModel"),
        ("llama", "LlamaForCausalLM"),
    ):
        saved(root / name, case)
    pixels = np.random.default_rng(3).normal(size=(30, 3, 16, 16)).astype(np.float32)
    np.savez(root / "pixels.npz", pixel_values=pixels)
    np.savez(root / "labelled.npz", pixel_values=pixels, labels=np.arange(30) % 2)
    (root / "text.txt").write_text(text(300))
    (root / "empty").mkdir()
    return root


@pytest.fixture(scope="module")
def cluster():
    """The nodes that the commands of this file would start, started once."""
    with prism.local_cluster(nodes=2, threads=1, energy="none") as cluster:
        yield cluster


@pytest.fixture
def evaluate(places, monkeypatch, capsys):
    """Return a function that runs the command on names below `places`."""

    def run(model, data, *options):
        return call(
            *(monkeypatch, capsys, "evaluate", places / model, places / data),
            *("--threads", 1, *options),
        )

    yield run
    for table in places.glob("*/accuracy.json*"):
        table.unlink()


def test_a_table_beside_the_model_names_its_metric_and_its_data(places, evaluate):
    result = evaluate("vit", "labelled.npz", "--plans", PLANS, "--json")
    assert result.code == 0, result.err
    document = json.loads(result.out)
    assert [each["plan"] for each in document["plans"]] == ["local", *PLANS.split(",")]
    assert (document["metric"], document["samples"], document["length"]) == ("accuracy", 30, 17)
    assert document["plans"][0]["bytes_per_block"] == 0
    assert document["plans"][1]["bytes_per_block"] == 2 * 32 * 2  # 2 means, 32 wide, float16

    table = json.loads((places / "vit" / "accuracy.json").read_text())
    assert (table["version"], table["metric"], table["samples"]) == (2, "accuracy", 30)
    assert table["dataset"] == "labelled.npz" and "prism evaluate" in table["command"]
    assert set(table["software"]) == {"prism", "torch", "transformers"}
    entries = accuracy_of(str(places / "vit"), table["model_hash"])
    assert [entry.plan for entry in entries] == ["local", *PLANS.split(",")]
    for entry, row in zip(entries, document["plans"], strict=True):
        assert entry.drop == pytest.approx(row["drop"], abs=1e-6)
        assert entry.drop_low <= entry.drop <= entry.drop_high
    assert not list(places.glob("vit/*.partial"))


def test_plans_join_the_table_and_each_says_on_what_it_was_measured(places, evaluate):
    for plans in ("seq:2:L2:f16", "seq:3:C1"):
        assert evaluate("vit", "pixels.npz", "--plans", plans, "--limit", 4).code == 0
    table = places / "vit" / "accuracy.json"
    assert set(json.loads(table.read_text())["plans"]) == {"local", *PLANS.split(",")}
    assert evaluate("vit", "pixels.npz", "--plans", "seq:3:C1", "--limit", 8).code == 0
    assert evaluate("vit", "labelled.npz", "--plans", "seq:4:C1").code == 0
    rows = json.loads(table.read_text())["plans"]
    assert {plan: (row["dataset"], row["count"], row["metric"]) for plan, row in rows.items()} == {
        "local": ("labelled.npz", 30, "accuracy"),
        "seq:2:L2:f16": ("pixels.npz", 4, "agreement"),
        "seq:3:C1": ("pixels.npz", 8, "agreement"),
        "seq:4:C1": ("labelled.npz", 30, "accuracy"),
    }
    assert {row["longest"] for row in rows.values()} == {17}


def test_labels_may_be_left_out(places, evaluate):
    wrong = places / "wrong.npz"
    np.savez(wrong, **{**np.load(places / "labelled.npz"), "labels": np.full(30, 7)})
    result = evaluate("vit", "wrong.npz", "--plans", "seq:3:C1")
    assert result.code == 2 and "no class of the model" in result.err
    assert "--no-labels" in result.err
    result = evaluate("vit", "wrong.npz", "--plans", "seq:3:C1", "--no-labels", "--json")
    assert result.code == 0 and json.loads(result.out)["metric"] == "agreement"


def test_people_read_a_table_and_a_note(places, evaluate):
    result = evaluate("gpt2", "text.txt", "--length", 20, "--plans", "seq:2:L2", "--limit", 9)
    assert result.code == 0, result.err
    assert "same next token %" in result.out and "perplexity" in result.out
    assert "9 samples of text.txt; drop: next tokens" in result.out
    result = evaluate("bert", "text.txt", "--length", 20)
    assert result.code == 0, result.err
    assert "lowest" in result.out
    for plan in ("seq:2:C1:f16", "seq:2:C2:f16", "seq:2:L1:f16", "seq:2:L2:f16"):  # CR 10 and 5
        assert plan in result.out
    assert "local:int8" in result.out and "seq:2:C2:f16:int8" in result.out
    assert ("local:half" in result.out) == has_bfloat16()
    assert has_bfloat16() or "prism: local:half left out: half needs bfloat16" in result.err


def test_precisions_are_measured_alone_and_together_with_means(places, evaluate):
    plans = "batch:2:int8,local@node1:int8,seq:2:L2:f16:int8,seq:2:full:int8"
    result = evaluate("vit", "labelled.npz", "--plans", plans, "--json")
    assert result.code == 0, result.err
    document = json.loads(result.out)
    shapes = ["local", "local:int8", "seq:2:L2:f16:int8", "seq:2:full:int8"]
    assert [each["plan"] for each in document["plans"]] == shapes
    assert document["left_out"] == {}
    exchanged = [each["bytes_per_block"] for each in document["plans"]]
    assert exchanged == [0, 0, 2 * 32 * 2, 9 * 32 * 4]
    table = json.loads((places / "vit" / "accuracy.json").read_text())
    assert list(table["plans"]) == shapes
    assert table["plans"]["local:int8"]["drop_high"] > 0


def test_precisions_that_cannot_be_had_end_the_command_only_where_they_were_named(places, evaluate):
    stored = ("bert", "text.txt", "--length", 20, "--dtype", "bfloat16")
    result = evaluate(*stored, "--plans", "seq:2:L2,local:int8")
    assert result.code == 2 and result.err.count("\n") == 1
    assert "int8 is made of float32 weights" in result.err
    assert not (places / "bert" / "accuracy.json").exists()
    result = evaluate(*stored, "--json")
    assert result.code == 0, result.err
    document = json.loads(result.out)
    assert list(document["left_out"]) == ["local:half", "local:int8", "seq:2:C2:f16:int8"]
    assert "prism: local:int8, seq:2:C2:f16:int8 left out: int8 is made" in result.err
    assert [each["plan"] for each in document["plans"]][1:] == [
        *("seq:2:C1:f16", "seq:2:C2:f16", "seq:2:L1:f16", "seq:2:L2:f16")
    ]


def test_a_map_says_which_compressions_to_measure(places, evaluate, tmp_path):
    assert evaluate("vit", "pixels.npz", "--plans", "seq:2:L2").code == 0
    fingerprint = json.loads((places / "vit" / "accuracy.json").read_text())["model_hash"]
    path = tmp_path / "map.json"

    def save(shapes, model_hash=fingerprint):
        PerformanceMap(
            model_hash=model_hash,
            model=PerformanceMap.paper().model,
            nodes=(NodeInfo("node0", "board", "2.6", "5.0", "float32"),),
            link=MapLink(1e8),
            measurements=tuple(Measurement(each, 1, 17, 1, Stat(0.1)) for each in shapes),
        ).save(path)

    save(["local", "seq:2:full", SHARED, "seq:2:L2:f16"])
    result = evaluate("vit", "pixels.npz", "--map", path, "--json")
    assert result.code == 0, result.err
    plans = [each["plan"] for each in json.loads(result.out)["plans"]]
    assert plans == ["local", SHARED, "seq:2:L2:f16"]
    told = PerformanceMap.load(path)  # `prism plan` has nothing but the map
    assert [each.plan for each in told.accuracy] == plans
    assert {each.longest for each in told.accuracy} == {17}
    assert len(told.measurements) == 4

    save(["local", "local:int8", "seq:2:full"])
    assert evaluate("vit", "pixels.npz", "--map", path).code == 0
    told = PerformanceMap.load(path)
    assert [each.plan for each in told.accuracy] == ["local", "local:int8", "seq:2:full:int8"]
    save(["local", "seq:2:full"])
    result = evaluate("vit", "pixels.npz", "--map", path)
    assert result.code == 2 and "holds exact plans only" in result.err
    save([SHARED], model_hash="0" * 64)
    result = evaluate("vit", "pixels.npz", "--map", path)
    assert result.code == 2 and "measured on other weights" in result.err


def test_a_plot_is_drawn(evaluate, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "drop.svg"
    assert evaluate("vit", "pixels.npz", "--plans", PLANS, "--plot", path).code == 0
    drawn = path.read_text()
    assert "<svg" in drawn


@pytest.mark.parametrize("model, data", [("vit", "pixels.npz"), ("gpt2", "text.txt")])
def test_node_processes_answer_as_the_measurement_assumed(evaluate, started, model, data):
    length = ("--length", 20) if model == "gpt2" else ()
    plans = "local:int8,seq:2:L2:f16,seq:2:full,seq:2:L2:shares=3/1,seq:2:L2:int8:shares=3/1"
    result = evaluate(*(model, data, *length, "--plans", plans, "--check-distributed", 2, "--json"))
    assert result.code == 0, result.err
    assert started.pop() == {"nodes": 2, "threads": 1, "link": "none", "energy": "auto"}
    compared = json.loads(result.out)["distributed"]
    assert [each["plan"] for each in compared] == plans.split(",")
    for each in compared:
        assert each["agrees"] and each["samples"] == each["equal"] == 2
        if "int8" not in each["plan"]:  # there values may be rounded the other way by more
            # Rounding to float16 on the wire may go the other way.
            assert each["largest"] < (1e-2 if each["plan"].endswith("f16") else 1e-4)


def test_nodes_that_answer_otherwise_leave_no_table(places, evaluate, started, monkeypatch):
    # A tolerance that nothing meets stands for nodes that compute something else.
    monkeypatch.setattr("prism.fidelity.distributed._tolerance", lambda loaded, plan: -1.0)
    options = ("--plans", "seq:2:L2", "--check-distributed", 1)
    result = evaluate("vit", "pixels.npz", *options)
    assert result.code == 1
    assert result.out == "" and "DIFFERS" in result.err and "answer otherwise" in result.err
    assert not (places / "vit" / "accuracy.json").exists()
    assert len(list(places.glob("vit/accuracy.json.*.partial"))) == 1


def test_ctrl_c_loses_nothing(monkeypatch, capsys, tmp_path):
    out = tmp_path / "accuracy.json"
    plans = "seq:2:L4,seq:2:L8,seq:3:L4,seq:4:L4,seq:4:L8"
    arguments = ("evaluate", "digits", "digits", "--plans", plans, "--out", out, "--threads", 1)
    process = spawn(*arguments, "--batch", 1, "--limit", 200)
    deadline_s = time.monotonic() + 60
    while (
        not (partials := list(tmp_path.glob("*.partial")))
        and process.poll() is None
        and time.monotonic() < deadline_s
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    printed, err = process.communicate(timeout=60)
    assert (process.returncode, printed) == (130, "")
    assert err.startswith("prism: interrupted") and "the same command goes on" in err
    assert not out.exists()
    (partial,) = partials
    before = partial.read_bytes()
    assert 0 < len(json.loads(before)["rows"]["seq:2:L4"]) < 200

    others = ("evaluate", "digits", "digits", "--plans", "seq:2:L4", "--out", out, "--limit", 3)
    assert call(monkeypatch, capsys, *others).code == 0  # other samples, in between
    assert partial.read_bytes() == before
    assert list(tmp_path.glob("*.partial")) == [partial]


BAD = {
    "no data": (["vit", "absent"], "absent does not exist"),
    "empty folder": (["vit", "empty"], "neither images nor text"),
    "wrong kind": (["vit", "text.txt"], "reads images"),
    "no plan": (["vit", "pixels.npz", "--plans", " , "], "--plans names no plan"),
    "bad plan": (["vit", "pixels.npz", "--plans", "seq:2:X"], "'seq:2:X'"),
    "undefined plan": (
        ["llama", "text.txt", "--plans", "seq:2:L2:lag1"],
        "seq:2:L2:lag1: llama keeps positions in its keys",
    ),
    "too many nodes": (["vit", "pixels.npz", "--plans", "seq:18:L1"], "needs at least 18 tokens"),
    "plans and map": (
        ["vit", "pixels.npz", "--plans", "seq:2:L2", "--map", "m.json"],
        "both say what to measure",
    ),
    "short length": (["bert", "text.txt", "--length", "2"], "beside 2 special tokens"),
    "no map": (["vit", "pixels.npz", "--map", "absent.json"], "absent.json does not exist"),
    "out is a folder": (["vit", "pixels.npz", "--out", "{places}"], "is a directory"),
    "out is nowhere": (["vit", "pixels.npz", "--out", "{places}/no/a.json"], "is no directory"),
    "no rows": (["vit", "pixels.npz", "--limit", "0"], "--limit must be at least 1"),
    "no batch": (["vit", "pixels.npz", "--batch", "0"], "--batch must be at least 1"),
    "bad dtype": (["vit", "pixels.npz", "--dtype", "int3"], "unknown dtype 'int3'"),
    "bad plot": (["vit", "pixels.npz", "--plot", "a.txt"], "must end in"),
    "bad length": (["vit", "pixels.npz", "--length", "9"], "is for texts"),
}


@pytest.mark.parametrize("arguments, sentence", BAD.values(), ids=BAD)
def test_bad_input_is_one_sentence_and_exit_code_2(places, evaluate, arguments, sentence):
    model, data, *options = arguments
    before = sorted(places.rglob("*"))
    result = evaluate(model, data, *(each.format(places=places) for each in options), "--json")
    assert (result.code, result.out) == (2, "")
    assert sentence in result.err
    assert result.err.startswith("prism: ") and result.err.count("\n") == 1
    assert sorted(places.rglob("*")) == before


def test_a_model_without_a_directory_needs_a_place_for_the_table(monkeypatch, capsys):
    for model in ("digits", "random:vit-tiny"):
        result = call(monkeypatch, capsys, "evaluate", model, "digits")
        assert result.code == 2 and "--out FILE" in result.err


def test_a_table_of_other_weights_is_refused_and_named(places, evaluate, tmp_path):
    out = tmp_path / "a.json"
    assert evaluate("vit", "pixels.npz", "--plans", "seq:2:L2", "--out", out).code == 0
    before = out.read_bytes()
    result = evaluate("bert", "text.txt", "--length", 20, "--out", out)
    assert result.code == 2 and f"{out} is a table of other weights" in result.err
    out.write_text("torn")
    result = evaluate("vit", "pixels.npz", "--plans", "seq:2:L2", "--out", out)
    assert result.code == 2 and "is no accuracy table" in result.err
    assert out.read_text() == "torn"
    assert evaluate("vit", "pixels.npz", "--plans", "seq:2:L2", "--out", out, "--force").code == 0
    assert json.loads(out.read_text())["plans"] == json.loads(before)["plans"]


def test_without_a_terminal_progress_is_a_line_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr("prism.cli.counting._LINE_EVERY_S", 0.0)
    with counted("samples", 2) as advance:
        advance()
        advance()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[1] == "samples: 2 of 2, 0 s left"
