"""The performance map: the file, what it refuses, and which clusters it applies to."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.errors import MapError
from prism.perfmap import (
    Accuracy,
    ClusterIdentity,
    CodingTimes,
    HeldOut,
    LeftOutPoint,
    MapLink,
    Measurement,
    NodeInfo,
    PerformanceMap,
    Stat,
    load_example,
)
from prism.plan import ModelShape, Plan
from prism.record import RunRecord

MODEL = ModelShape("vit", 12, 768, 768, False, False, 197)
NODE = NodeInfo("nano1", "board", "2.13.0", "5.23.0", "float32", 4)


def make_map(**changes):
    values = {
        "model_hash": "abc",
        "model": MODEL,
        "nodes": (NODE, replace(NODE, name="nano2")),
        "link": MapLink(100e6, 0.001, 0.002, 9e-8, shared=True),
        "measurements": (
            Measurement("local", 1, 197, 5, Stat(0.08, 0.001), Stat(0.08, 0.001)),
            Measurement("seq:2:L10", 1, 197, 5, Stat(0.1), Stat(0.05), energy_j=Stat(1.5)),
        ),
        "accuracy": (Accuracy("seq:2:L10", 0.95, 0.02, 1000, "digits"),),
        "held_out": (HeldOut("local", 3, 197, 0.21, 0.2),),
        "left_out": (LeftOutPoint("local", 16, 197, 1.1), LeftOutPoint("seq:2:full", 1, 197)),
        "budget_s": 300.0,
        "coding": (CodingTimes("nano1", 9e-9, 5e-9),),
    }
    return PerformanceMap(**{**values, **changes})


def test_what_is_saved_is_loaded(tmp_path):
    path = tmp_path / "map.json"
    perf = make_map()
    perf.save(path)
    assert PerformanceMap.load(path) == perf
    assert [entry.name for entry in tmp_path.iterdir()] == ["map.json"]
    measurements = [line for line in path.read_text().splitlines() if '"seq:2:L10"' in line]
    assert any('"batch": 1' in line and '"total_s"' in line for line in measurements)


def test_lookup_is_exact_and_by_shape():
    perf = make_map()
    named = Plan.parse("seq:nano1+nano2:L10")
    assert perf.lookup(named, 1, 197).compute_s.median == 0.05
    assert perf.lookup(named, 2, 197) is None


def test_younger_accuracy_takes_the_place_of_older(tmp_path):
    younger = Accuracy("seq:2:L10", 0.96, 0.01, 2000, "digits", "accuracy", 0.005, 0.015)
    more = Accuracy("seq:2:C10:f16", 0.97, 0.0, 2000, "digits", "accuracy", -0.004, 0.004)
    perf = make_map().with_accuracy([younger, more])
    assert perf.accuracy == (younger, more) and perf.measurements == make_map().measurements
    assert make_map().with_accuracy([]) == make_map()
    perf.save(tmp_path / "map.json")
    assert PerformanceMap.load(tmp_path / "map.json") == perf


def test_the_most_that_may_be_lost_is_the_intervals_upper_end():
    plain = Accuracy("seq:2:L10", 0.95, 0.02)
    assert plain.drop_upper == 0.02
    assert replace(plain, drop_low=0.01, drop_high=0.03).drop_upper == 0.03
    # Ends that were rounded never make a loss smaller than what was measured.
    assert replace(plain, drop_high=0.0199).drop_upper == 0.02


def test_a_measurement_is_made_of_records():
    records = [
        RunRecord("nano1", Plan.parse("seq:a+b:L4"), 2, 65, total, comm_s=total / 10, bytes_sent=70)
        for total in (0.5, 0.1, 0.2, 0.3, 0.4)
    ]
    entry = Measurement.of(records)
    assert entry.key == ("seq:2:L4", 2, 65)
    assert (entry.total_s.median, entry.total_s.spread) == (0.3, pytest.approx(0.2))
    assert entry.comm_s.median == pytest.approx(0.03)
    assert (entry.runs, entry.bytes_sent, entry.energy_j) == (5, 70, None)
    assert Measurement.of(records, [1.0, 2.0, 3.0]).energy_j.median == 2.0


def test_a_map_from_before_there_were_budgets_left_nothing_out():
    document = make_map().to_dict()
    del document["left_out"], document["budget_s"]
    perf = PerformanceMap.from_dict(document)
    assert (perf.left_out, perf.budget_s) == ((), None)


def test_held_out_error_is_signed():
    assert HeldOut("local", 1, 1, 0.3, 0.2).error == pytest.approx(0.5)
    assert HeldOut("local", 1, 1, 0.1, 0.2).error == pytest.approx(-0.5)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "corrupt or truncated"),
        (b'{"format": "prism performance map", "version": 1, "mod', "corrupt or truncated"),
        (b"\xff\xfe\x00bad", "not a text file"),
        (b"[" * 100_000, "corrupt or truncated"),
        (b"[1, 2]", "no performance map"),
        (b'{"hello": "world"}', "no performance map"),
        (b'{"format": "prism performance map", "version": 2}', "version 2 is not 1"),
        (b'{"format": "prism performance map"}', "version None is not 1"),
        (b'{"format": NaN}', "NaN is no JSON number"),
    ],
)
def test_a_file_that_is_no_map_is_named_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "odd.json"
    path.write_bytes(content)
    with pytest.raises(MapError, match=reason) as caught:
        PerformanceMap.load(path)
    assert "odd.json" in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(MapError, match=r"none\.json does not exist"):
        PerformanceMap.load(tmp_path / "none.json")
    with pytest.raises(MapError, match="cannot be read"):
        PerformanceMap.load(tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("link", "bandwidth_bps"), -1, "bandwidth_bps"),
        (("link", "bandwidth_bps"), "fast", "bandwidth_bps"),
        (("link", "shared"), "yes", "shared"),
        (("left_out",), [{"plan": "x", "batch": 1, "length": 1}], "left-out plan"),
        (("left_out",), [{"plan": "local", "batch": 0, "length": 1}], "left-out batch"),
        (("budget_s",), -1, "budget_s"),
        (("link", "exchange"), "magic", "exchange"),
        (("model", "blocks"), 0, "blocks"),
        (("model", "causal"), 3, "causal"),
        (("model",), None, "ModelShape"),
        (("nodes",), [], "nodes is empty"),
        (("nodes",), {"a": 1}, "nodes must be a list"),
        (("nodes", 0, "threads"), 0, "threads"),
        (("nodes", 0, "backend"), 3, "backend"),
        (("payload", "input_bytes"), -4, "input_bytes"),
        (("measurements", 0, "plan"), "seq:2", "lacks its means"),
        (("measurements", 1, "plan"), "seq:nano1+nano2:L10", "plan's shape"),
        (("measurements", 0, "batch"), 1.5, "batch"),
        (("measurements", 0, "total_s"), {"median": -1}, "median"),
        (("measurements", 0, "total_s"), 3, "Stat"),
        (("measurements", 1, "total_s"), {"median": 0}, "total_s must be above 0"),
        (("measurements", 0), "local", "Measurement"),
        (("accuracy", 0, "accuracy"), 95.0, "accuracy"),
        (("accuracy", 0, "drop"), 2, "drop"),
        (("accuracy", 0, "drop_high"), "much", "interval of the accuracy drop"),
        (("accuracy", 0, "metric"), "taste", "unknown metric 'taste'"),
        (("held_out", 0, "measured_s"), 0, "measured_s"),
        (("coding", 0, "node"), "", "coding node"),
        (("coding", 0, "compress_per_byte_s"), -1, "coding compress_per_byte_s of nano1"),
        (("coding", 0, "decompress_per_byte_s"), "fast", "coding decompress_per_byte_s of nano1"),
        (("coding",), {"nano1": 1}, "coding must be a list"),
        (("seconds_spent",), "long", "seconds_spent"),
        (("passes",), True, "passes"),
        (("date",), 2026, "date"),
    ],
)
def test_a_wrong_value_is_named(tmp_path, path, value, reason):
    document = json.loads(json.dumps(make_map().to_dict()))
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file = tmp_path / "wrong.json"
    file.write_text(json.dumps(document))
    with pytest.raises(MapError, match=reason) as caught:
        PerformanceMap.load(file)
    assert "wrong.json" in str(caught.value)


@pytest.mark.parametrize("key", ["model_hash", "model", "nodes", "link"])
def test_a_missing_part_is_refused(key):
    document = make_map().to_dict()
    del document[key]
    with pytest.raises(MapError):
        PerformanceMap.from_dict(document)


@given(cut=st.integers(0, 2000))
def test_no_truncation_passes(cut, tmp_path_factory):
    path = tmp_path_factory.mktemp("cut") / "map.json"
    make_map().save(path)
    whole = path.read_bytes().rstrip()
    path.write_bytes(whole[: min(cut, len(whole) - 1)])
    with pytest.raises(MapError):
        PerformanceMap.load(path)


def test_an_unknown_field_is_ignored():
    document = make_map().to_dict()
    document["mood"] = "good"
    assert PerformanceMap.from_dict(document) == make_map()


def test_a_map_of_before_images_were_coded_still_loads():
    document = make_map().to_dict()
    del document["coding"]
    assert PerformanceMap.from_dict(document) == make_map(coding=())


@pytest.mark.parametrize("name", ["nodes", "measurements", "accuracy", "coding"])
def test_what_appears_twice_is_refused(name):
    entries = getattr(make_map(), name)
    with pytest.raises(MapError, match="appears twice"):
        make_map(**{name: (*entries, entries[0])})


def test_a_full_disk_leaves_the_old_map(tmp_path):
    """A process whose files may not exceed 1 kB: the kernel itself cuts the write off."""
    path = tmp_path / "map.json"
    make_map().save(path)
    old = path.read_bytes()
    script = (
        "import resource, sys\n"
        "from prism.errors import MapError\n"
        "from prism.perfmap import PerformanceMap\n"
        "perf = PerformanceMap.load(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    perf.save(sys.argv[1])\n"
        "except MapError as error:\n"
        "    print(error)\n"
        "else:\n"
        "    sys.exit('saved')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "cannot write" in done.stdout and "unchanged" in done.stdout
    assert len(old) > 1000 and path.read_bytes() == old
    assert [entry.name for entry in tmp_path.iterdir()] == ["map.json"]


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(MapError, match="cannot write"):
        make_map().save(tmp_path / "missing" / "map.json")


def test_the_same_cluster_passes_and_one_that_lacks_helpers():
    perf = make_map(nodes=(NODE, replace(NODE, name="nano2"), replace(NODE, name="nano3")))
    perf.check(ClusterIdentity("abc", perf.nodes))
    perf.check(ClusterIdentity("abc", (perf.nodes[0], perf.nodes[2], perf.nodes[1])))
    perf.check(ClusterIdentity("abc", (perf.nodes[0], perf.nodes[2])))
    perf.check(ClusterIdentity("abc", perf.nodes[:1]))


@pytest.mark.parametrize(
    ("model_hash", "nodes", "difference"),
    [
        ("xyz", ("nano1", "nano2"), "model is xyz, the map has abc"),
        ("abc", ("nano2",), "the cluster lacks nano1, the first node of the map"),
        ("abc", ("pi", "nano2"), "the map lacks pi; the cluster lacks nano1"),
        ("abc", ("nano1", "nano2", "pi"), "the map lacks pi"),
        ("abc", ("nano2", "nano1"), "the first node is nano2, the map has nano1"),
    ],
)
def test_another_model_or_node_set_is_refused(model_hash, nodes, difference):
    identity = ClusterIdentity(model_hash, tuple(replace(NODE, name=name) for name in nodes))
    with pytest.raises(MapError, match=difference):
        make_map().check(identity)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("torch", "2.6.0"), ("transformers", "5.0"), ("dtype", "float16"), ("threads", 1)),
        ("backend", "compile"),
    ],
)
def test_another_version_dtype_or_backend_is_refused(field, value):
    perf = make_map()
    changed = replace(perf.nodes[1], **{field: value})
    with pytest.raises(MapError, match=f"nano2: {field} is {value}"):
        perf.check(ClusterIdentity("abc", (perf.nodes[0], changed)))


def test_a_map_from_before_there_were_backends_is_one_of_eager_nodes():
    document = make_map().to_dict()
    for node in document["nodes"]:
        assert node.pop("backend") == "eager"
    perf = PerformanceMap.from_dict(document)
    assert perf == make_map()
    with pytest.raises(MapError, match="nano1: backend is compile, the map has eager"):
        perf.check(ClusterIdentity("abc", (replace(NODE, backend="compile"),)))


def test_examples_load_and_others_are_refused():
    assert PerformanceMap.paper() == load_example("paper")
    with pytest.raises(MapError, match="'pager'.*paper"):
        load_example("pager")


def test_the_paper_map_holds_the_published_table():
    perf = PerformanceMap.paper()
    entry = perf.lookup(Plan.parse("seq:2:L10"), 8, 197)
    parts = (entry.compute_s.median, entry.staging_s.median, entry.comm_s.median)
    assert parts == (0.272, 0.0523, 0.0904)
    assert entry.total_s.median == pytest.approx(sum(parts))
    assert perf.accuracy_by_shape["seq:2:L10"].drop == pytest.approx(0.0237)
    assert len(perf.measurements) == 18
