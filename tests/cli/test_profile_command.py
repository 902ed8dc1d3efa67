"""`prism profile` on real nodes: stopped, continued, and its map put to use by `prism run`."""

import json
import re
import signal
import time
from dataclasses import replace

import numpy as np
import psutil
import pytest
from PIL import Image
from tests.cli.commands import call, spawn
from transformers import T5Config, ViTConfig

import prism
from prism.perfmap import Measurement, PerformanceMap
from prism.plan import Plan
from prism.planner import CostModel
from prism.record import RunRecord

OLD = b"what was measured last year"
LINK = "50mbit,10ms"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return a directory with configurations and no weights: vit, deeper, t5."""
    root = tmp_path_factory.mktemp("models")
    for name, blocks in (("vit", 2), ("deeper", 3)):
        ViTConfig(
            hidden_size=32,
            num_hidden_layers=blocks,
            num_attention_heads=2,
            intermediate_size=64,
            image_size=32,
            patch_size=8,
            architectures=["ViTForImageClassification"],
        ).save_pretrained(root / name)
    T5Config(architectures=["T5ForConditionalGeneration"]).save_pretrained(root / "t5")
    pixels = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / "a.png")
    return root


@pytest.fixture(scope="module")
def cluster():
    """The nodes that the commands of this file would start, started once."""
    with prism.local_cluster(nodes=2, threads=1, link=LINK, energy="none") as cluster:
        yield cluster


RUNS = 2  # of each point, with the arguments below


def profile_arguments(models, out):
    return (
        *("profile", f"random:{models / 'vit'}", "--out", out, "--nodes", 2, "--threads", 1),
        *("--link", LINK, "--energy", "none", "--batch", 1, "--batch", 4, "--segments", 4),
        *("--precisions", "float32", "--passes", 60, "--json"),
    )


def interrupt_when_under_way(process, partial):
    """Send Ctrl-C once a few points have all their runs; return the node processes."""
    deadline_s = time.monotonic() + 120
    while time.monotonic() < deadline_s and process.poll() is None:
        noted = json.loads(partial.read_text())["records"] if partial.exists() else {}
        if sum(len(records) == RUNS for records in noted.values()) >= 3:
            nodes = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGINT)
            return nodes
        time.sleep(0.01)
    return []


@pytest.mark.timeout(300)  # two profiles, one of them in a process that first has to start
def test_a_profile_is_stopped_continued_and_used(models, started, tmp_path, monkeypatch, capsys):
    out = tmp_path / "map.json"
    partial = tmp_path / "map.json.partial"
    out.write_bytes(OLD)
    process = spawn(*profile_arguments(models, out))
    try:
        nodes = interrupt_when_under_way(process, partial)
        assert process.wait(60) == 130, process.stderr.read()
        assert len(nodes) == 2
        assert process.stdout.read() == ""
        assert "Traceback" not in process.stderr.read()
        assert psutil.wait_procs(nodes, timeout=10)[1] == []
    finally:
        process.kill()
        process.communicate()
    assert out.read_bytes() == OLD
    noted = json.loads(partial.read_text())["records"]

    result = call(monkeypatch, capsys, *profile_arguments(models, out))
    assert result.code == 0, result.err
    document = json.loads(result.out)
    perf = PerformanceMap.load(out)
    assert not partial.exists()
    assert started == [{"nodes": 2, "threads": 1, "link": LINK, "energy": "none"}]
    check_summary(document, perf)
    kept = [point for point, records in noted.items() if len(records) == RUNS]
    assert kept
    for point in kept:
        plan, batch, length = point.split()
        records = [RunRecord.from_dict(values) for values in noted[point]]
        assert perf.lookup(Plan.parse(plan), int(batch), int(length)) == Measurement.of(records)

    use(models, out, monkeypatch, capsys)


def test_a_younger_table_beside_the_model_is_what_a_run_goes_by(
    models, started, tmp_path, monkeypatch, capsys
):
    """The table of the model in the package, and a map that was made before there was one."""
    path = tmp_path / "map.json"
    result = call(
        *(monkeypatch, capsys, "profile", "digits", "--out", path, "--nodes", 2, "--threads", 1),
        *("--energy", "none", "--batch", 2, "--segments", 10, "--passes", 20),
    )
    assert result.code == 0, result.err
    perf = PerformanceMap.load(path)
    table = perf.accuracy_by_shape
    replace(perf, accuracy=()).save(path)
    result = call(
        *(monkeypatch, capsys, "run", "digits", "--input", models / "a.png", "--plan", "auto"),
        *("--map", path, "--max-accuracy-drop", 1, "--point-estimate", "--json"),
    )
    assert result.code == 0, result.err
    candidates = json.loads(result.out)["decision"]["candidates"]
    lossy = {each["plan"]: each for each in candidates if not Plan.parse(each["plan"]).exact}
    assert "seq:2:L10:f16" in lossy
    for plan, told in lossy.items():
        known = table.get(plan)
        assert told["accuracy_drop"] == (known.drop if known else None)
        assert told["allowed"] or known is None


def budgeted(models, out, monkeypatch, capsys, budget):
    return call(
        *(monkeypatch, capsys, "profile", f"random:{models / 'vit'}", "--out", out),
        *("--nodes", 2, "--threads", 1, "--link", LINK, "--energy", "none"),
        *("--budget", budget, "--json"),
    )


def test_a_budget_is_too_small_enough_for_some_and_enough_for_all(
    models, started, tmp_path, monkeypatch, capsys
):
    """How much fits depends on the machine; what does not is told, and predicted if possible."""
    out = tmp_path / "map.json"
    refused = budgeted(models, out, monkeypatch, capsys, "0.05s")
    assert (refused.code, refused.out) == (2, "")
    *_, sentence = refused.err.splitlines()
    assert "a budget of 0.05 s is too small for one point: with the link, local at" in sentence
    assert list(tmp_path.iterdir()) == []
    enough = re.search(r"give it (\d+) s or more", sentence)[1]

    result = budgeted(models, out, monkeypatch, capsys, f"{2 * int(enough)}s")
    assert result.code == 0, result.err
    some, perf = json.loads(result.out), PerformanceMap.load(out)
    assert some["budget_s"] == perf.budget_s == 2 * int(enough)
    keys = {(each["plan"], each["batch"], each["length"]) for each in some["left_out"]}
    assert len(keys) == len(perf.left_out)
    assert not keys & {entry.key for entry in perf.measurements}
    model = CostModel(perf)
    for point in perf.left_out:
        if point.predicted_s is not None:
            cost = model.predict(
                Plan.parse(point.plan), point.batch, point.length, perf.link.state()
            )
            assert point.predicted_s == pytest.approx(cost.total_s)
        else:
            assert point.plan not in perf.by_shape
    planned = call(monkeypatch, capsys, "plan", "--map", out, "--batch", 8, "--json")
    assert planned.code == 0, planned.err
    assert "local" in {each["plan"] for each in json.loads(planned.out)["candidates"]}

    result = budgeted(models, out, monkeypatch, capsys, "none")
    assert result.code == 0, result.err
    document = json.loads(result.out)
    assert (document["budget_s"], document["left_out"]) == (None, [])
    assert len(document["measurements"]) >= len(some["measurements"])


@pytest.mark.parametrize(
    ("length", "sentence"),
    [
        (16, "length 16 is not possible: every sample of this model has 17 positions"),
        (18, "length 18 is too long for this model, which takes up to 17 positions"),
    ],
)
def test_a_length_that_the_model_has_not_is_one_sentence(
    models, started, tmp_path, monkeypatch, capsys, length, sentence
):
    result = call(
        *(monkeypatch, capsys, "profile", f"random:{models / 'vit'}", "--length", length),
        *("--out", tmp_path / "map.json", "--nodes", 2, "--threads", 1, "--link", LINK),
    )
    assert result.code == 2
    assert f"prism: {sentence}" in result.err.splitlines()[-1]


def check_summary(document, perf):
    assert document["passes"] == perf.passes <= 80
    assert document["seconds"] == perf.seconds_spent > 0
    assert document["link"]["bandwidth_bps"] == pytest.approx(50e6, rel=0.3)
    assert len(document["held_out_errors"]) == len(perf.held_out) > 0
    assert len(document["measurements"]) == 14
    assert document["energy"] is None and perf.energy_scope == ""


def use(models, perf, monkeypatch, capsys):
    """Run with the map: on its model, on another one, and for what it does not know."""

    def run(model, *options):
        return call(
            *(monkeypatch, capsys, "run", f"random:{models / model}", "--input"),
            *(models / "a.png", models / "a.png", "--plan", "auto", "--map", perf, *options),
        )

    result = run("vit", "--max-accuracy-drop", "0.5", "--repeat", 2, "--json")
    assert result.code == 0, result.err
    document = json.loads(result.out)
    decision = document["decision"]
    chosen = Plan.parse(decision["choice"])
    assert document["record"]["plan"] == str(chosen.on(("node0", "node1")))
    assert document["nodes"] == ["node0", "node1"]
    assert {"local", "batch:2"} <= {each["plan"] for each in decision["candidates"]}
    for each in decision["candidates"]:
        # Nobody measured what random weights lose.
        assert each["allowed"] == Plan.parse(each["plan"]).exact, each

    result = run("vit")
    assert result.code == 0, result.err
    assert "chosen: " in result.out and "prism" not in result.out

    for result, sentence in (
        (run("deeper", "--json"), "performance map was measured on something else: model is"),
        (
            run("vit", "--dtype", "float16", "--json"),
            "node0: dtype is float16, the map has float32",
        ),
        (run("vit", "--objective", "energy", "--json"), "no energy of local"),
        (run("vit", "--objective", "edp", "--json"), "no energy of local"),
    ):
        assert (result.code, result.out) == (2, "")
        assert sentence in result.err and result.err.count("\n") == 1


BAD = {
    "no nodes": (["{vit}", "--nodes", "0"], "--nodes must be at least 1, not 0"),
    "no threads": (["{vit}", "--threads", "0"], "--threads must be at least 1, not 0"),
    "no passes": (["{vit}", "--passes", "0"], "--passes must be at least 1, not 0"),
    "no time": (["{vit}", "--budget", "0s"], "--budget '0s' is no time above 0; write 90s, 20m"),
    "no such time": (["{vit}", "--budget", "soon"], "--budget 'soon' is no time above 0"),
    "no positions": (["{vit}", "--length", "0"], "lengths must be distinct numbers of at least 1"),
    "no rows": (["{vit}", "--batch", "0"], "batches must be distinct numbers of at least 1"),
    "twice": (["{vit}", "--segments", "4", "--segments", "4"], "segments must be distinct"),
    "out is a folder": (["{vit}", "--out", "{models}"], "is a directory; name a file in it"),
    "out is nowhere": (["{vit}", "--out", "{models}/absent/map.json"], "absent is no directory"),
    "no precision": (["{vit}", "--precisions", ","], "--precisions ',' is not understood"),
    "no such precision": (
        ["{vit}", "--precisions", "float32,int4"],
        "--precisions 'float32,int4' is not understood; give some of float32, half, int8",
    ),
    "no model": (["/absent/model"], "/absent/model does not exist"),
    "unsupported": (["random:{models}/t5"], "t5 cannot be partitioned"),
    "no cluster file": (["{vit}", "--cluster", "{models}/absent.yaml"], "no cluster file at"),
    "bad link": (["{vit}", "--link", "5quux"], "'5quux' in link"),
}


@pytest.mark.parametrize("arguments, sentence", BAD.values(), ids=BAD)
def test_bad_input_is_one_sentence_and_exit_code_2_without_a_node(
    models, tmp_path, monkeypatch, capsys, arguments, sentence
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("prism.launch.opening.NodeProcess", refuse)
    places = {"models": models, "vit": f"random:{models / 'vit'}"}
    filled = [argument.format(**places) for argument in arguments]
    result = call(monkeypatch, capsys, "profile", *filled, "--json")
    assert (result.code, result.out) == (2, "")
    assert sentence in result.err
    assert result.err.startswith("prism: ") and result.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def refuse(*arguments, **options):
    raise AssertionError("nodes were started for a profile that cannot be made")
