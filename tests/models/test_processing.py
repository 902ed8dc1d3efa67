"""Files and text become what a model reads; what it says becomes what a person reads."""

import numpy as np
import pytest
import torch
from PIL import Image
from tests.processors import ViTProcessor
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    BertConfig,
    GPT2Config,
    PreTrainedTokenizerFast,
    ViTConfig,
    WhisperConfig,
)
from transformers.modeling_outputs import (
    BaseModelOutput,
    CausalLMOutput,
    MaskedLMOutput,
    SequenceClassifierOutput,
)

from prism.errors import RequestError, UnsupportedModel
from prism.models import processing
from prism.models.inputs import check_inputs
from prism.models.load import describe

WORDS = ("[UNK]", "the", "cat", "sat", "down")


def saved(directory, config, architecture):
    config.architectures = [architecture]
    config.save_pretrained(directory)
    return directory


def vit(directory, processor=None, channels=3, **values):
    config = ViTConfig(image_size=32, patch_size=8, num_channels=channels, **values)
    saved(directory, config, "ViTForImageClassification")
    if processor:
        processor.save_pretrained(directory)
    return describe(str(directory))


def give_tokenizer(directory):
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(directory)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    directory = tmp_path_factory.mktemp("gpt2")
    saved(directory, GPT2Config(vocab_size=len(WORDS), n_positions=16), "GPT2LMHeadModel")
    give_tokenizer(directory)
    return describe(str(directory))


def noise(width=50, height=40, mode="RGB"):
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 4), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "CMYK", "1"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_image_becomes_the_pixels_the_model_takes(tmp_path, mode, channels):
    mean = [0.5] * channels
    processor = ViTProcessor(size={"height": 32, "width": 32}, image_mean=mean, image_std=mean)
    info = vit(tmp_path, processor, channels)
    inputs = processing.image_inputs(info, [noise(mode=mode), noise(mode=mode)])
    assert inputs["pixel_values"].dtype == torch.uint8
    assert check_inputs(info, inputs) == (2, 17)


def test_uint8_pixels_normalised_on_a_node_are_what_the_processor_would_have_made(tmp_path):
    settings = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    processor = ViTProcessor(size={"height": 32, "width": 32}, **settings)
    info = vit(tmp_path, processor)
    image = noise()
    made = info.normalisation.apply(processing.image_inputs(info, [image])["pixel_values"])
    expected = processor(images=[image], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=0)


def test_without_a_processor_or_with_one_of_another_size_images_get_the_models_size(tmp_path):
    for name, processor in {
        "none": None,
        "other": ViTProcessor(size={"height": 20, "width": 20}),
    }.items():
        info = vit(tmp_path / name, processor)
        image = noise()
        pixels = processing.image_inputs(info, [image])["pixel_values"][0]
        expected = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR))
        assert np.array_equal(pixels.permute(1, 2, 0).numpy(), expected)


def test_a_builtin_random_model_takes_images_without_asking_anybody_for_a_processor():
    info = describe("random:vit-tiny")
    assert check_inputs(info, processing.image_inputs(info, [noise()])) == (1, 197)


def test_a_photo_is_turned_as_its_camera_said(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # lay on its side
    noise(50, 40).save(tmp_path / "photo.jpg", exif=exif)
    assert processing.read_image(tmp_path / "photo.jpg").size == (40, 50)


def test_files_that_are_no_image_are_named(tmp_path):
    (tmp_path / "words.png").write_text("not an image")
    noise().save(tmp_path / "whole.png")
    cut = tmp_path / "cut.png"
    cut.write_bytes((tmp_path / "whole.png").read_bytes()[:200])
    for path, reason in {
        tmp_path / "words.png": "is not an image",
        cut: "cannot be read",
        tmp_path / "absent.png": "does not exist",
        tmp_path: "is not a file",
    }.items():
        with pytest.raises(RequestError, match=reason) as error:
            processing.read_image(path)
        assert str(path) in str(error.value)


def test_a_file_that_is_no_text_is_named(tmp_path):
    noise().save(tmp_path / "picture.png")
    with pytest.raises(RequestError, match=r"picture\.png is not UTF-8 text"):
        processing.read_text(tmp_path / "picture.png")


def test_images_of_odd_channels_and_no_images_are_refused(tmp_path):
    with pytest.raises(RequestError, match="4 channels"):
        processing.image_inputs(vit(tmp_path / "four", channels=4), [noise()])
    with pytest.raises(RequestError, match="no image"):
        processing.image_inputs(vit(tmp_path / "three"), [])


def test_texts_become_one_batch_padded_on_the_right(gpt2):
    inputs = processing.text_inputs(
        gpt2, processing.tokenizer_of(gpt2), ["the cat sat down", "the cat"]
    )
    assert set(inputs) == {"input_ids", "attention_mask"}
    assert inputs["input_ids"][0].tolist() == [1, 2, 3, 4]
    assert inputs["input_ids"][1, :2].tolist() == [1, 2]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert check_inputs(gpt2, inputs) == (2, 4)


@pytest.mark.parametrize("empty", ["", "  \n"])
def test_an_empty_text_is_named(gpt2, empty):
    tokenizer = processing.tokenizer_of(gpt2)
    with pytest.raises(RequestError, match="text 2 of 2 is empty"):
        processing.text_inputs(gpt2, tokenizer, ["the cat", empty])
    with pytest.raises(RequestError, match="no text"):
        processing.text_inputs(gpt2, tokenizer, [])


@pytest.mark.parametrize("config", [BertConfig(), GPT2Config()])
def test_a_model_without_tokenizer_files_is_not_given_an_empty_tokenizer(tmp_path, config):
    name = {"bert": "BertModel", "gpt2": "GPT2LMHeadModel"}[config.model_type]
    info = describe(str(saved(tmp_path, config, name)))
    with pytest.raises(RequestError, match=r"has no tokenizer; put tokenizer\.json beside"):
        processing.tokenizer_of(info)


def test_a_builtin_random_model_has_no_tokenizer():
    with pytest.raises(RequestError, match="random:gpt2 has no tokenizer"):
        processing.tokenizer_of(describe("random:gpt2"))


def test_a_model_of_sound_cannot_be_fed_from_files(tmp_path):
    info = describe(str(saved(tmp_path, WhisperConfig(), "WhisperEncoder")))
    with pytest.raises(UnsupportedModel, match="WhisperEncoder reads input_features"):
        processing.reads_images(info)


def test_a_classifier_names_its_classes_by_probability(tmp_path):
    info = vit(tmp_path, id2label={0: "ape", 1: "bee", 2: "cow"})
    output = SequenceClassifierOutput(logits=torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]]))
    first, second = processing.predictions(info, output, {}, 2)
    assert [each.label for each in first] == ["bee", "cow"]
    assert second[0].label == "ape" and len(second) == 2
    whole = processing.predictions(info, output, {}, 99)[0]
    assert [each.label for each in whole] == ["bee", "cow", "ape"]
    assert sum(each.probability for each in whole) == pytest.approx(1)


def test_labels_that_are_independent_get_independent_probabilities(tmp_path):
    info = vit(tmp_path, num_labels=2, problem_type="multi_label_classification")
    output = SequenceClassifierOutput(logits=torch.tensor([[8.0, 8.0]]))
    assert all(each.probability > 0.99 for each in processing.predictions(info, output, {}, 2)[0])


def test_a_regression_has_a_score_and_no_probability(tmp_path):
    info = vit(tmp_path, num_labels=1)
    output = SequenceClassifierOutput(logits=torch.tensor([[1.5]]))
    (only,) = processing.predictions(info, output, {}, 5)[0]
    assert (only.score, only.probability) == (1.5, None)


def test_the_next_token_follows_the_last_real_one(gpt2):
    tokenizer = processing.tokenizer_of(gpt2)
    inputs = processing.text_inputs(gpt2, tokenizer, ["the cat sat down", "the cat"])
    logits = torch.zeros(2, 4, len(WORDS))
    logits[0, 3, 2] = logits[1, 1, 3] = 5.0
    logits[1, 3, 4] = 9.0  # behind padding, means nothing
    said = processing.predictions(gpt2, CausalLMOutput(logits=logits), inputs, 1, tokenizer)
    assert [row[0].label for row in said] == ["cat", "sat"]


def test_the_next_token_is_found_in_logits_of_the_last_row_only(gpt2):
    inputs = {"attention_mask": torch.ones(1, 4, dtype=torch.long)}
    output = CausalLMOutput(logits=torch.tensor([[[0.0, 0.0, 0.0, 4.0, 0.0]]]))
    assert processing.predictions(gpt2, output, inputs, 1)[0][0].label == "3"


def test_other_outputs_are_described_by_their_shapes(tmp_path, gpt2):
    info = vit(tmp_path)
    hidden = BaseModelOutput(last_hidden_state=torch.zeros(2, 5, 8))
    assert processing.predictions(info, hidden, {}, 5) is None
    assert processing.predictions(info, MaskedLMOutput(logits=torch.zeros(1, 4, 9)), {}, 5) is None
    assert processing.output_shapes(hidden) == {"last_hidden_state": [2, 5, 8]}
