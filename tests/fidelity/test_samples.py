"""DATA arguments: what becomes a sample, what is skipped, what is refused in one sentence."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tests.fidelity.models import text

from prism.demo.digits import held_out
from prism.errors import RequestError
from prism.fidelity import text_samples
from prism.fidelity.samples import open_samples
from prism.models.load import load

VIT = "ViTForImageClassification"
BERT = "BertForSequenceClassification"
GPT2 = "GPT2LMHeadModel"
NAMED = {"id2label": {0: "ape", 1: "honey bee", 2: "cow"}}


def picture(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def refused(source, loaded, **options):
    with pytest.raises(RequestError) as caught:
        open_samples(str(source), loaded, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_digits_of_the_package_are_the_pixels_that_the_demo_shows():
    samples = open_samples("digits", load("digits"))
    pixels, labels = held_out()
    assert np.array_equal(samples.batch(range(400))["pixel_values"].numpy(), pixels)
    assert samples.labels.tolist() == labels.tolist() and samples.kind == "images"


def test_class_folders_are_labels_and_broken_files_are_counted(model, tmp_path):
    for place in ("cow/1.png", "ape/2.png", "Honey_Bee/deep/3.jpg"):
        picture(tmp_path / place)
    (tmp_path / "ape" / "torn.png").write_bytes(b"no image")
    (tmp_path / "ape" / "notes.txt").write_text("ignored")
    picture(tmp_path / ".hidden" / "4.png")
    samples = open_samples(str(tmp_path), model(VIT, **NAMED))
    assert (len(samples), samples.skipped) == (3, 1)
    assert samples.labels.tolist() == [1, 0, 2]  # Honey_Bee, ape, cow
    assert samples.batch([2, 0])["pixel_values"].shape == (2, 3, 16, 16)


def test_folders_in_order_are_the_classes_of_a_model_that_names_none(model, tmp_path):
    for place in ("zebra/1.png", "ant/2.png"):
        picture(tmp_path / place)
    assert open_samples(str(tmp_path), model(VIT)).labels.tolist() == [0, 1]
    picture(tmp_path / "moose" / "3.png")
    assert "has the label 'ant', which is no class" in refused(tmp_path, model(VIT))


def test_a_flat_folder_has_no_labels_and_a_model_without_classes_needs_none(model, tmp_path):
    picture(tmp_path / "a.png")
    assert open_samples(str(tmp_path), model(VIT)).labels is None
    picture(tmp_path / "sub" / "b.png")
    assert "a.png in none" in refused(tmp_path, model(VIT))
    assert open_samples(str(tmp_path), model("ViTModel")).labels is None


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_a_table_gives_texts_and_labels(model, tmp_path, suffix):
    rows = [("w5 w6", "cow"), ("w7, w8", "1"), ("  ", "ape")]
    path = tmp_path / f"data.{suffix}"
    if suffix == "jsonl":
        lines = [json.dumps({"sentence": text, "label": label}) for text, label in rows]
        path.write_text("\n".join([*lines, '{"sentence": ', "[]"]))
    elif suffix == "tsv":
        path.write_text("\n".join(["label\ttext", *(f"{b}\t{a}" for a, b in rows)]))
    else:
        path.write_text("\ufefftext,label\n" + "\n".join(f'"{a}",{b}' for a, b in rows))
    samples = open_samples(str(path), model(BERT, **NAMED))
    assert samples.labels.tolist() == [2, 1] and samples.kind == "text"
    assert samples.skipped == (3 if suffix == "jsonl" else 1)
    inputs = samples.batch([0, 1])
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape == (2, 5)
    assert inputs["input_ids"][0].tolist() == [1, 5, 6, 2, 0]
    assert inputs["attention_mask"].sum(1).tolist() == [4, 5]  # the comma is a word of its own


def test_a_row_ends_where_its_line_does(model, tmp_path):
    rows = tmp_path / "a.jsonl"
    rows.write_text(
        '{"text": "w5\u2028w6", "label": 1.0}\r\n\n{"text": "w7\u0085", "label": 0}\n'
        '{"text": "\\ud800", "label": 0}\n' + "[" * 100_000 + "\n"
    )
    table = tmp_path / "a.csv"
    table.write_text('text,label\n"w5\n\nw6",1\nw7\u2028,0\n')
    for path in (rows, table):
        samples = open_samples(str(path), model(BERT))
        assert samples.labels.tolist() == [1, 0]
        assert samples.batch([0, 1])["attention_mask"].sum(1).tolist() == [4, 3]


def test_a_long_text_is_cut_at_the_length_asked_for(model, tmp_path):
    path = tmp_path / "data.csv"
    path.write_text(f"text\n{text(100)}\nw3 w4\n")
    inputs = open_samples(str(path), model(BERT), length=20).batch([0, 1])
    assert inputs["attention_mask"].sum(1).tolist() == [20, 4]


def test_paragraphs_or_lines_are_the_samples_of_an_encoder(model, tmp_path):
    lines, paragraphs = tmp_path / "lines.txt", tmp_path / "paragraphs.md"
    lines.write_text("w3 w4\nw5\n")
    paragraphs.write_text("w3\nw4\n\n\nw5 w6\n")
    assert open_samples(str(lines), model(BERT)).batch([0, 1])["attention_mask"].sum(1)[1] == 3
    assert len(open_samples(str(paragraphs), model(BERT))) == 2
    assert len(open_samples(str(tmp_path), model(BERT))) == 4  # of both files


def test_a_causal_model_reads_windows_across_documents(model, tmp_path):
    (tmp_path / "a.txt").write_text("w3 w4 w5")
    (tmp_path / "b.txt").write_text("w6 w7 w8")
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe\x00")
    samples = open_samples(str(tmp_path), model(GPT2), length=4)
    assert (len(samples), samples.skipped, samples.kind) == (2, 1, "tokens")
    # A document ends with the end token, 49; what makes no whole window is left out.
    assert samples.batch([0, 1])["input_ids"].tolist() == [[3, 4, 5, 49], [6, 7, 8, 49]]
    assert open_samples(str(tmp_path), model(GPT2), length=3).batch([1])["input_ids"].tolist() == [
        [49, 6, 7]
    ]


def test_windows_of_an_encoder_are_framed_as_its_texts_are(model, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(text(100))
    inputs = open_samples(str(path), model(BERT), length=12).batch(range(10))
    ids = inputs["input_ids"]
    assert ids.shape == (10, 12) and bool(inputs["attention_mask"].all())
    assert set(ids[:, 0].tolist()) == {1} and set(ids[:, -1].tolist()) == {2}
    assert ids[:, 1:-1].flatten().tolist() == [int(word[1:]) for word in text(100).split()]


def test_arrays_are_inputs_by_name(model, tmp_path):
    path = tmp_path / "data.npz"
    pixels = np.random.default_rng(0).random((5, 3, 16, 16), dtype=np.float32)
    np.savez(path, pixel_values=pixels, labels=np.array([0, 1, 1, 0, 1], dtype=np.uint16))
    samples = open_samples(str(path), model(VIT))
    assert samples.labels.tolist() == [0, 1, 1, 0, 1] and samples.kind == "arrays"
    assert torch.equal(samples.batch([3, 1])["pixel_values"], torch.from_numpy(pixels[[3, 1]]))


def test_numbers_of_the_other_byte_order_are_the_same_numbers(model, tmp_path):
    pixels = np.random.default_rng(0).random((2, 3, 16, 16), dtype=np.float32)
    path = tmp_path / "data.npz"
    np.savez(path, pixel_values=pixels.astype(">f4"), labels=np.array([0, 1], dtype=">i8"))
    samples = open_samples(str(path), model(VIT))
    assert torch.equal(samples.batch([0, 1])["pixel_values"], torch.from_numpy(pixels))
    assert samples.labels.tolist() == [0, 1]


def test_words_stand_for_the_same_classes_however_few_are_drawn(model, tmp_path):
    path = tmp_path / "a.csv"
    rows = [f"w{4 + at},{'zebra' if at < 10 else 'ant'}" for at in range(20)]
    path.write_text("\n".join(["text,label", *rows]))
    seen = {}
    for seed in range(12):
        sample = open_samples(str(path), model(BERT), limit=1, seed=seed)
        seen[int(sample.batch([0])["input_ids"][0, 1])] = sample.labels.tolist()
    assert all(labels == [int(word < 14)] for word, labels in seen.items())
    assert min(seen) < 14 <= max(seen)

    for name in ("zebra/1.png", "ant/1.png"):
        picture(tmp_path / "images" / name)
    source = str(tmp_path / "images")
    drawn = [open_samples(source, model(VIT), limit=1, seed=seed).labels for seed in range(12)]
    assert {tuple(labels.tolist()) for labels in drawn} == {(0,), (1,)}


def test_labels_are_not_looked_at_where_nobody_wants_them(model, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\nw5,horse\nw6,\n")
    assert "--no-labels" in refused(path, model(BERT, **NAMED))
    assert open_samples(str(path), model(BERT, **NAMED), labels=False).labels is None


def test_a_text_without_tokens_is_skipped_with_its_label(model, tmp_path):
    (tmp_path / "a.csv").write_text("text,label\n\u200b,0\nw5,1\n")
    assert len(open_samples(str(tmp_path / "a.csv"), model(BERT))) == 2  # framed: never empty
    loaded = model("GPT2LMHeadModel")
    made = text_samples._padded(
        loaded.info,
        tmp_path,
        [text_samples._Text("\n"), text_samples._Text("w5")],
        *(None, torch.tensor([0, 1]), 0),
    )
    assert (len(made), made.skipped, made.labels.tolist()) == (1, 1, [1])


def test_a_text_is_padded_only_as_far_as_a_plan_needs(model, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text\nw5\nw6 w7 w8 w9\nw10\n")
    samples = open_samples(str(path), model(BERT))
    assert list(samples.equal_batches(8)) == [[0, 2], [1]]
    assert list(samples.equal_batches(1)) == [[0], [2], [1]]
    assert samples.longest(model(BERT).info) == 6
    inputs = samples.batch([0, 2], 4)
    assert inputs["input_ids"].tolist() == [[1, 5, 2, 0], [1, 10, 2, 0]]
    assert inputs["attention_mask"].sum(1).tolist() == [3, 3]
    assert samples.batch([1], 4)["input_ids"].shape == (1, 6)


def test_a_limit_draws_the_same_samples_for_the_same_seed():
    digits = load("digits")
    whole, some, same, other = (
        open_samples("digits", digits, limit=limit, seed=seed)
        for limit, seed in ((None, 0), (30, 1), (30, 1), (30, 2))
    )
    assert len(some) == 30 and len(set(some.labels.tolist())) > 5
    assert some.digest == same.digest
    assert len({whole.digest, some.digest, other.digest}) == 3
    assert whole.digest == open_samples("digits", digits, limit=4000, seed=5).digest


def test_labels_are_part_of_what_data_is(model, tmp_path):
    digests = []
    for labels in ([0, 1], [1, 1], None):
        extra = {} if labels is None else {"labels": np.array(labels)}
        np.savez(
            tmp_path / "a.npz", pixel_values=np.zeros((2, 3, 16, 16), dtype=np.float32), **extra
        )
        digests.append(open_samples(str(tmp_path / "a.npz"), model(VIT)).digest)
    assert len(set(digests)) == 3


class TestRefused:
    def test_what_is_not_there_or_empty(self, model, tmp_path):
        assert "does not exist" in refused(tmp_path / "absent", model(VIT))
        assert "neither images nor text files" in refused(tmp_path, model(VIT))
        (tmp_path / "data.xyz").write_text("")
        assert "no kind of data that is known" in refused(tmp_path / "data.xyz", model(VIT))

    def test_a_folder_of_which_nothing_can_be_read(self, model, tmp_path):
        (tmp_path / "a.png").write_bytes(b"")
        (tmp_path / "b.jpg").write_bytes(b"no")
        assert "none of the 2 images" in refused(tmp_path, model(VIT))
        (tmp_path / "t").mkdir()
        (tmp_path / "t" / "a.txt").write_text("  \n")
        assert "none of the 1 texts" in refused(tmp_path / "t", model(BERT))

    def test_a_kind_of_data_that_the_model_does_not_read(self, model, tmp_path):
        (tmp_path / "a.txt").write_text("w3")
        (tmp_path / "a.csv").write_text("text\nw3\n")
        for source in (tmp_path, tmp_path / "a.txt", tmp_path / "a.csv"):
            assert "reads images" in refused(source, model(VIT)) and tmp_path
        picture(tmp_path / "i" / "a.png")
        for source in (tmp_path / "i", tmp_path / "i" / "a.png", "digits"):
            assert "reads text" in refused(source, model(BERT))
        assert "an .npz with input_features" in refused("digits", model("WhisperEncoder"))

    def test_labels_that_the_model_does_not_have(self, model, tmp_path):
        path = tmp_path / "a.csv"
        path.write_text("text,label\nw3,horse\n")
        assert "'horse', which is no class of the model (ape" in refused(path, model(BERT, **NAMED))
        path.write_text("text,label\nw3,3\n")
        assert "0..2" in refused(path, model(BERT, **NAMED))
        path.write_text("text,label\nw3,1\nw4,\n")
        assert "1 texts without a label beside 1" in refused(path, model(BERT))
        path.write_text("text,label\nw3,1\n")
        assert "does not choose one class" in refused(path, model(BERT, num_labels=1))

    def test_a_table_without_texts(self, model, tmp_path):
        path = tmp_path / "a.csv"
        path.write_text("words,label\nw3,1\n")
        assert "has no column named text, sentence or content" in refused(path, model(BERT))
        path.write_bytes(b"\xff\xfe")
        assert "not UTF-8" in refused(path, model(BERT))

    def test_a_table_with_a_field_beyond_all_measure(self, model, tmp_path):
        path = tmp_path / "a.csv"
        for content in (f"text,{'x' * 200_000}\nw3,1\n", f"text\n{'w3 ' * 70_000}\n"):
            path.write_text(content)
            assert "is no table that can be read: field larger" in refused(path, model(BERT))

    def test_a_length_that_makes_no_sense(self, model, tmp_path):
        path = tmp_path / "a.txt"
        path.write_text("w3 w4")
        assert "is for texts" in refused("digits", model(VIT), length=9)
        assert "more than the 1024 tokens" in refused(path, model(GPT2), length=2000)
        assert "less than one window of 512" in refused(path, model(GPT2))
        (tmp_path / "a.csv").write_text("text\nw3\n")
        for source in (path, tmp_path / "a.csv"):
            for length in (1, 2):
                message = refused(source, model(BERT), length=length)
                assert f"--length {length} leaves no room for text beside 2 special" in message

    def test_arrays_that_the_model_does_not_take(self, model, tmp_path):
        path = tmp_path / "a.npz"
        path.write_bytes(b"no zip")
        assert "no .npz file that can be read" in refused(path, model(VIT))
        np.savez_compressed(path, pixel_values=np.random.default_rng(0).random((2, 3, 16, 16)))
        whole = path.read_bytes()
        for at in range(50, len(whole), 997):
            path.write_bytes(whole[:at] + bytes(60) + whole[at + 60 :])
            assert "no .npz file that can be read" in refused(path, model(VIT))
        np.savez(path, pixel_values=np.zeros((2, 3, 16, 16), dtype=np.longdouble))
        assert "must be rows of numbers" in refused(path, model(VIT))
        np.savez(path, pixel_values=np.zeros((2, 3, 9, 9), dtype=np.float32))
        assert "must be (batch, 3, 16, 16)" in refused(path, model(VIT))
        np.savez(path, pixel_values=np.array(["a"]))
        assert "must be rows of numbers" in refused(path, model(VIT))
        np.savez(
            path, pixel_values=np.zeros((2, 3, 16, 16), dtype=np.float32), labels=np.zeros(3, int)
        )
        assert "labels must be 2 whole numbers" in refused(path, model(VIT))
