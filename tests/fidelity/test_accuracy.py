"""What is known of the accuracy of plans: the table beside a model, read and written."""

import json
from dataclasses import replace

import pytest

from prism.errors import MapError, ModelError
from prism.fidelity.accuracy import FILE_NAME, Subject, accuracy_of, tell_map, write_table
from prism.fidelity.summary import Evaluated
from prism.models.load import load
from prism.models.source import DIGITS
from prism.perfmap import Accuracy, PerformanceMap

TABLE = {
    "model_hash": "abc",
    "dataset": "digits",
    "plans": {"seq:a+b:L10:f16": {"accuracy": 0.96, "drop": 0.02, "count": 400}},
}


def test_a_table_belongs_to_the_weights_it_was_measured_on(tmp_path):
    (tmp_path / FILE_NAME).write_text(json.dumps(TABLE))
    expected = Accuracy("seq:2:L10:f16", 0.96, 0.02, 400, "digits")
    assert accuracy_of(str(tmp_path), "abc") == (expected,)
    assert accuracy_of(str(tmp_path), "other weights") == ()
    assert accuracy_of(str(tmp_path / "absent"), "abc") == ()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", json.dumps({**TABLE, "plans": {"seq:2:L10:f16": {}}})]
)
def test_a_table_that_cannot_be_read_is_named(tmp_path, text):
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(ModelError, match=f"{FILE_NAME} is no accuracy table .*measure it again"):
        accuracy_of(str(tmp_path), "abc")


def test_the_table_of_the_package_has_intervals():
    digits = load(DIGITS)
    entries = {each.plan: each for each in accuracy_of(digits.info.files, digits.fingerprint)}
    assert entries["local"].count == 400 and "seq:2:L10:f16" in entries
    assert {each.metric for each in entries.values()} == {"accuracy"}
    assert all(each.drop_low <= each.drop <= each.drop_high for each in entries.values())


def test_a_table_of_version_1_is_read_without_intervals(tmp_path):
    row = {"correct": 97, "count": 100, "accuracy": 0.97, "low": 0.9, "high": 0.99, "drop": 0.01}
    table = {"version": 1, "model_hash": "abc", "dataset": "d", "plans": {"seq:2:L10": row}}
    (tmp_path / "accuracy.json").write_text(json.dumps(table))
    (entry,) = accuracy_of(str(tmp_path), "abc")
    assert (entry.plan, entry.drop, entry.count, entry.metric) == (
        "seq:2:L10",
        0.01,
        100,
        "accuracy",
    )
    assert entry.drop_high is None and entry.drop_upper == 0.01


SUBJECT = Subject("abc", "photos", "d1", 50, "images", None)


def entry(plan, drop=0.02, metric="agreement"):
    return Evaluated(
        *(plan, 1 - drop, drop, 50, "photos", metric, drop / 2, 2 * drop, 17),
        extras={"tokens": 99},
    )


def write(path, *plans, subject=SUBJECT, **options):
    write_table(path, subject, [entry(each) for each in plans], "prism evaluate x y", **options)


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / FILE_NAME
    write(path, "seq:2:L2:f16", "seq:2:C2:f16:shares=3/1")
    read = accuracy_of(str(tmp_path), "abc")
    assert [each.plan for each in read] == ["seq:2:L2:f16", "seq:2:C2:f16:shares=3/1"]
    assert read[0] == Accuracy(
        "seq:2:L2:f16", 0.98, 0.02, 50, "photos", "agreement", 0.01, 0.04, 17
    )
    table = json.loads(path.read_text())
    assert (table["format"], table["version"]) == ("prism accuracy table", 2)
    assert (table["data_digest"], table["samples"], table["length"]) == ("d1", 50, None)
    assert table["plans"]["seq:2:L2:f16"]["tokens"] == 99
    assert [each.name for each in tmp_path.iterdir()] == [FILE_NAME]


def test_entries_of_one_subject_are_kept_together_and_new_ones_win(tmp_path):
    path = tmp_path / FILE_NAME
    write(path, "seq:2:L2", "seq:3:L2")
    write_table(path, SUBJECT, [entry("seq:2:L2", 0.5), entry("seq:4:L2")], "again")
    assert {each.plan: each.drop for each in accuracy_of(str(tmp_path), "abc")} == {
        "seq:2:L2": 0.5,
        "seq:3:L2": 0.02,
        "seq:4:L2": 0.02,
    }


def test_every_entry_says_on_which_data_it_was_measured(tmp_path):
    path = tmp_path / FILE_NAME
    write(path, "local", "seq:2:L2")
    other = replace(SUBJECT, dataset="reviews.csv", digest="d2")
    write_table(path, other, [entry("local", metric="language")], "again")
    found = {each.plan: each for each in accuracy_of(str(tmp_path), "abc")}
    assert [(each.task, each.metric) for each in found.values()] == [
        ("reviews.csv", "language"),
        ("photos", "agreement"),
    ]
    rows = json.loads(path.read_text())["plans"]
    assert {plan: row["data_digest"] for plan, row in rows.items()} == {
        "local": "d2",
        "seq:2:L2": "d1",
    }
    assert all(row["date"] for row in rows.values())


@pytest.mark.parametrize("version", [1, 2])
def test_entries_of_an_older_table_keep_what_its_header_said(tmp_path, version):
    path = tmp_path / FILE_NAME
    ends = {"drop_low": 0.01, "drop_high": 0.04} if version == 2 else {}
    values = {"accuracy": 0.96, "drop": 0.02, "count": 400, **ends}
    header = {"version": version, "model_hash": "abc", "dataset": "digits", "date": "2026-01-02"}
    if version == 2:
        header |= {"metric": "accuracy", "data_digest": "d0"}
    path.write_text(json.dumps({**header, "plans": {"seq:2:L10": values}}))
    (before,) = accuracy_of(str(tmp_path), "abc")
    write(path, "local")
    found = {each.plan: each for each in accuracy_of(str(tmp_path), "abc")}
    assert found["seq:2:L10"] == before and before.longest is None
    assert json.loads(path.read_text())["plans"]["seq:2:L10"]["date"] == "2026-01-02"


def test_a_table_of_other_weights_is_replaced_by_force_only(tmp_path):
    path = tmp_path / FILE_NAME
    subject = replace(SUBJECT, model_hash="other")
    write(path, "seq:2:L2")
    before = path.read_bytes()
    reason = r"other weights \(abc, not other\)"
    with pytest.raises(ModelError, match=f"{FILE_NAME} is a table of {reason}.*--force"):
        write(path, "seq:3:L2", subject=subject)
    assert path.read_bytes() == before
    write(path, "seq:3:L2", subject=subject, force=True)
    assert [each.plan for each in accuracy_of(str(tmp_path), subject.model_hash)] == ["seq:3:L2"]


def test_a_torn_table_is_replaced_by_force_only(tmp_path):
    path = tmp_path / FILE_NAME
    for torn in ("", "[]", '{"model_hash": "abc", "plans": {"seq:2:L2": {}}}'):
        path.write_text(torn)
        with pytest.raises(ModelError, match="is no accuracy table"):
            write(path, "seq:3:L2")
        assert path.read_text() == torn
    write(path, "seq:3:L2", force=True)
    assert [each.plan for each in accuracy_of(str(tmp_path), "abc")] == ["seq:3:L2"]


def test_a_map_that_was_changed_meanwhile_keeps_its_changes(tmp_path):
    path, paper = tmp_path / "map.json", PerformanceMap.paper()
    shapes = list(paper.by_shape)
    replace(paper, date="a profile that went on").save(path)
    tell_map(path, paper.model_hash, [entry(shapes[-1])])
    told = PerformanceMap.load(path)
    assert told.date == "a profile that went on" and told.measurements == paper.measurements
    assert told.accuracy_by_shape[shapes[-1]] == entry(shapes[-1]).for_map()
    before = path.read_bytes()
    with pytest.raises(MapError, match="has become a map of other weights and stays"):
        tell_map(path, "other", [entry(shapes[-1])])
    assert path.read_bytes() == before
