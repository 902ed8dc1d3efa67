"""What the files of sentence-transformers say of pooling, and what they ask for in vain."""

import json

import pytest
from tests.models.sentence_files import FLAGS, model_with

from prism.errors import RequestError
from prism.models.pooling_files import TextSettings, pooling_of_files, text_settings_of_files
from prism.output_form import OutputForm


@pytest.mark.parametrize(
    ("kinds", "pooling", "form"),
    [
        (["Transformer", "Pooling", "Normalize"], FLAGS, "pooled:mean:normalise"),
        (["Transformer", "Pooling"], FLAGS, "pooled:mean"),
        # Vectors follow each other in an order of their own, whatever that of the flags.
        (["Transformer", "Pooling"], FLAGS | {"pooling_mode_cls_token": True}, "pooled:cls+mean"),
        (["Transformer", "Pooling"], {"pooling_mode_lasttoken": True}, "pooled:lasttoken"),
        (["Transformer", "Pooling"], {"word_embedding_dimension": 8}, "pooled:mean"),
        # As newer releases write it.
        (["Transformer", "Pooling"], {"pooling_mode": "weightedmean"}, "pooled:weightedmean"),
        (["Transformer", "Pooling"], {"pooling_mode": ["mean", "max"]}, "pooled:mean+max"),
    ],
)
def test_files_say_how_a_model_is_pooled(tmp_path, kinds, pooling, form):
    assert pooling_of_files(model_with(tmp_path, kinds, pooling)) == OutputForm.parse(form)


def test_packages_move_but_names_stay(tmp_path):
    modules = [
        {"path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
        {"path": "pool", "type": "sentence_transformers.modules.pooling.Pooling"},
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "config.json").write_text(json.dumps({"pooling_mode": "cls"}))
    assert pooling_of_files(str(tmp_path)) == OutputForm("pooled", modes=("cls",))


def test_a_model_without_such_files_says_nothing(tmp_path):
    assert pooling_of_files(str(tmp_path)) is None
    assert pooling_of_files("") is None


@pytest.mark.parametrize(
    ("kinds", "pooling", "sentence"),
    [
        (["Transformer", "Pooling", "Dense"], FLAGS, "Transformer, Pooling, Dense; only"),
        (["CLIPModel"], None, "asks for CLIPModel; only"),
        ([], None, "asks for nothing; only"),
        (["Transformer", "Normalize", "Pooling"], FLAGS, "in this order"),
        (["Transformer", "Pooling"], None, "lacks 1_Pooling/config.json"),
        (["Transformer", "Pooling"], {"pooling_mode": "attention"}, "by attention, which is not"),
        (["Transformer", "Pooling"], {"pooling_mode_new": True}, "by pooling_mode_new, which"),
        (["Transformer", "Pooling"], ["mean"], "lacks 1_Pooling/config.json"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(tmp_path, kinds, pooling, sentence):
    with pytest.raises(RequestError, match=sentence) as refused:
        pooling_of_files(model_with(tmp_path, kinds, pooling))
    assert "say how to pool, for example output='pooled:mean'" in str(refused.value)


@pytest.mark.parametrize("text", ["{}", "[1]", '[{"path": ""}]', "5", "[", "null"])
def test_broken_files_are_one_sentence(tmp_path, text):
    (tmp_path / "modules.json").write_text(text)
    if text == "null":
        assert pooling_of_files(str(tmp_path)) is None
        return
    with pytest.raises(RequestError, match="say how to pool") as refused:
        pooling_of_files(str(tmp_path))
    assert "\n" not in str(refused.value)


def test_a_model_that_cannot_be_looked_up_is_not_pooled_by_guess():
    with pytest.raises(RequestError, match="modules.json of .* cannot be read"):
        pooling_of_files("nobody/has-this-model")


@pytest.mark.parametrize(
    ("written", "settings"),
    [
        (None, TextSettings()),
        ({}, TextSettings()),
        ({"max_seq_length": 256, "do_lower_case": False}, TextSettings(256, False)),
        ({"max_seq_length": None, "do_lower_case": True}, TextSettings(None, True)),
    ],
)
def test_files_say_how_texts_are_read(tmp_path, written, settings):
    if written is not None:
        (tmp_path / "sentence_bert_config.json").write_text(json.dumps(written))
    assert text_settings_of_files(str(tmp_path)) == settings


@pytest.mark.parametrize("written", [[1], {"max_seq_length": 0}, {"max_seq_length": "256"}])
def test_text_settings_that_make_no_sense_are_refused(tmp_path, written):
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps(written))
    with pytest.raises(RequestError, match="sentence_bert_config.json"):
        text_settings_of_files(str(tmp_path))
