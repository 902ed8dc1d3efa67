import json

import pytest
import torch
from studies import method
from studies.corpora import read_lines, write_lines
from studies.method_data import draw_mails, split_by_file, write_data
from studies.method_measures import (
    EmbeddingMeasure,
    LanguageMeasure,
    nearest_other,
    retrieval_agreement,
    study_plans,
)
from studies.method_models import STUDIES
from studies.method_report import draw, page, table
from studies.method_results import Results
from studies.packages import StudyError
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.nn import functional
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from prism.models.load import load
from prism.plan import Plan

WORDS = [f"w{index}" for index in range(40)]


def brown():
    return [
        {"file": f"c{genre}{number:02}", "label": genre, "text": f"{genre} {number}"}
        for genre in "abc"
        for number in range(10)
    ]


def mails():
    return [
        {"label": label, "text": f"{label} {number % 50}"}
        for label in ("ham", "spam")
        for number in range(60)
    ]


def test_the_split_is_by_file_and_has_every_genre_in_both_parts():
    train, held_out = split_by_file(brown()[::-1])
    assert len(train) == 24 and len(held_out) == 6
    assert not {entry["file"] for entry in train} & {entry["file"] for entry in held_out}
    for part in (train, held_out):
        assert {entry["label"] for entry in part} == {"a", "b", "c"}


def test_mails_are_drawn_half_and_half_once_each_and_the_same_by_one_seed():
    probe, test = draw_mails(mails(), 40, 10, seed=1)
    texts = [entry["text"] for entry in (*probe, *test)]
    assert len(texts) == len(set(texts)) == 50
    for part, count in ((probe, 20), (test, 5)):
        assert sum(entry["label"] == "spam" for entry in part) == count
    assert draw_mails(mails(), 40, 10, seed=1) == (probe, test)
    assert draw_mails(mails(), 40, 10, seed=2) != (probe, test)


def test_the_data_is_written_as_the_command_reads_it(tmp_path):
    write_lines(tmp_path / "brown.jsonl", brown())
    write_lines(tmp_path / "spam.jsonl", mails())
    paths = tmp_path / "brown.jsonl", tmp_path / "spam.jsonl"
    for _ in range(2):  # again over what is there
        data = write_data(tmp_path / "data", *paths, 8, 4, seed=0)
    assert len(list(data.train.glob("*.txt"))) == 24
    assert (data.held_out / "ca00.txt").read_text() == "a 0\n"
    assert len(read_lines(data.probe_mails)) == 8 and len(read_lines(data.test_mails)) == 4


def test_plans_follow_from_the_length_and_the_rates():
    plans = list(map(str, study_plans(256, (10, 5), (10,), (0, 1))))
    assert plans[0] == "local" and len(plans) == len(set(plans)) == 37
    assert {"seq:2:C13:f16", "seq:3:L17:lag1:f16", "seq:4:C6:f16", "seq:4:L10:f16"} <= set(plans)
    assert not any(plan.lag for plan in STUDIES["smollm2"].plans)
    assert Plan.parse("seq:2:C32:f16") in STUDIES["smollm2"].plans


def test_retrieval_looks_at_the_nearest_other_sample():
    angles = torch.tensor([0.0, 0.1, 1.0, 1.15])
    exact = torch.stack([angles.cos(), angles.sin()], 1)
    assert nearest_other(exact).tolist() == [1, 0, 3, 2]
    moved = exact[[0, 2, 1, 3]]  # 1 and 2 change places
    assert retrieval_agreement(exact, exact) == 1.0
    assert retrieval_agreement(exact, moved) == 0.0
    near = functional.normalize(exact + 0.01 * torch.tensor([1.0, 0.0]), dim=-1)
    assert retrieval_agreement(exact, near) == 1.0


def tokenizer_for(directory, frame):
    vocabulary = {word: index for index, word in enumerate(["[P]", "[U]", "[C]", "[S]", *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[U]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if frame:
        backend.post_processor = processors.TemplateProcessing(
            single="[C] $A [S]", special_tokens=[("[C]", 2), ("[S]", 3)]
        )
    special = {"pad_token": "[P]", "unk_token": "[U]", "eos_token": "[S]"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(directory)


@pytest.fixture
def data(tmp_path):
    def words(number):
        return " ".join(WORDS[(number * step) % 40] for step in range(1, 21))

    write_lines(tmp_path / "brown.jsonl", [{**e, "text": words(i)} for i, e in enumerate(brown())])
    spam = [{**e, "text": f"{words(i)} {i}"} for i, e in enumerate(mails())]
    write_lines(tmp_path / "spam.jsonl", spam)
    paths = tmp_path / "brown.jsonl", tmp_path / "spam.jsonl"
    return write_data(tmp_path / "data", *paths, 16, 8, seed=0)


SIZES = {
    "vocab_size": 44,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}


def test_embeddings_lose_nothing_whole_and_something_with_few_means(tmp_path, data):
    torch.manual_seed(0)
    BertModel(BertConfig(**SIZES, initializer_range=0.3)).save_pretrained(tmp_path / "bert")
    tokenizer_for(tmp_path / "bert", frame=True)
    loaded = load(str(tmp_path / "bert"))
    measure = EmbeddingMeasure(loaded, data, samples=6, length=16, batch=4, seed=0)
    whole = measure(loaded, Plan())
    assert whole["cosine"] == pytest.approx(1.0, abs=1e-6) and whole["retrieval"] == 1.0
    lossy = measure(loaded, Plan.parse("seq:2:L1:f16"))
    assert lossy["cosine"] < 0.999
    assert all(0 <= value <= 1 for value in lossy.values())


def test_language_is_held_against_the_whole_original(tmp_path, data):
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SIZES, initializer_range=0.3)).save_pretrained(tmp_path / "m")
    tokenizer_for(tmp_path / "m", frame=False)
    loaded = load(str(tmp_path / "m"))
    measure = LanguageMeasure(loaded, data, samples=4, length=16, batch=3, seed=0)
    whole, exact, lossy = (
        measure(loaded, Plan.parse(text)) for text in ("local", "seq:2:full", "seq:4:L1")
    )
    assert whole["ratio"] == 1.0 and whole["agreement"] == 1.0
    assert exact["perplexity"] == pytest.approx(whole["perplexity"], rel=1e-4)
    assert lossy["agreement"] < 1.0
    assert lossy["ratio"] == pytest.approx(lossy["perplexity"] / whole["perplexity"], rel=1e-4)


SETTING = {"length": 256, "samples": 4}


def filled(path):
    results = Results(path, "minilm", SETTING)
    for stage, cosine in (("before", 0.93), ("after", 0.99)):
        results.begin(stage, stage, f"python -m studies.method minilm {stage}")
        for text, sent, value in (("local", 0, 1.0), ("seq:2:C10:f16", 7680, cosine)):
            row = {"bytes_per_block": sent, "cosine": value, "retrieval": 0.5, "spam": 0.75}
            results.add(stage, text, row)
    return results


def test_results_go_on_where_they_were_stopped(tmp_path):
    filled(tmp_path / "x.json")
    again = Results(tmp_path / "x.json", "minilm", SETTING)
    again.begin("before", "before", "another command")
    assert list(again.plans("before")) == ["local", "seq:2:C10:f16"]
    assert again.content["before"]["command"].endswith("minilm before")


def test_results_of_something_else_are_kept_unless_forced(tmp_path):
    path = tmp_path / "x.json"
    before = filled(path).path.read_text()
    other = {**SETTING, "samples": 5}
    with pytest.raises(StudyError, match="another setting.*--force"):
        Results(path, "minilm", other)
    with pytest.raises(StudyError, match="other weights.*--force"):
        Results(path, "minilm", SETTING).begin("after", "new", "command")
    assert path.read_text() == before
    Results(path, "minilm", other, force=True).begin("before", "new", "command")
    assert json.loads(path.read_text())["before"]["plans"] == {}


def test_the_page_has_a_line_per_plan_and_says_how_it_was_made(tmp_path):
    content = filled(tmp_path / "x.json").content
    layout = STUDIES["minilm"].layout
    lines = table(content, layout).splitlines()
    assert lines[0].startswith("| plan | bytes per block | cosine, before | cosine, after |")
    assert lines[3] == (
        "| `seq:2:C10:f16` | 7,680 | 0.9300 | 0.9900 | 0.500 | 0.500 | 0.750 | 0.750 |"
    )
    text = page(content, layout, "x.svg")
    assert "length 256, samples 4" in text and "(x.svg)" in text
    assert "`python -m studies.method minilm after`" in text and "torch " in text


def test_the_table_leaves_room_for_what_is_not_measured_yet(tmp_path):
    content = filled(tmp_path / "x.json").content
    del content["after"]["plans"]["seq:2:C10:f16"]
    assert "| 0.9300 |  | 0.500 |  |" in table(content, STUDIES["minilm"].layout)


def test_the_plot_is_the_same_each_time(tmp_path):
    pytest.importorskip("matplotlib")
    content = filled(tmp_path / "x.json").content
    for name in ("a.svg", "b.svg"):
        draw(tmp_path / name, content, STUDIES["minilm"].layout)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["minilm", "report"], "run before first"),
        (["minilm", "after"], "run finetune first"),
        (["smollm2", "before", "--mails", "4"], "leave --mails out"),
        (["minilm", "before", "--samples", "0"], "must be at least 1"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(tmp_path, capsys, arguments, message):
    places = ["--out", str(tmp_path), "--cache", str(tmp_path / "cache"), "--threads", "1"]
    with pytest.raises(SystemExit) as refused:
        method.main([*arguments, *places])
    assert refused.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
