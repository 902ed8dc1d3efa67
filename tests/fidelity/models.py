"""Tiny models on disk, with random weights, and words that their tokenizers know."""

import torch
from tests.families import BY_NAME
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from prism.models.load import LoadedModel, load

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *(f"w{number}" for number in range(4, 49)), "[END]"]


def tokenizer(framed: bool) -> PreTrainedTokenizerFast:
    """Return one that knows `w4` to `w48`; framed, it puts [CLS] and [SEP] around a text."""
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    if framed:
        words.post_processor = TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", eos_token="[END]"
    )


def saved(directory, name: str, **changes) -> LoadedModel:
    """Return the tiny model of a family, saved to a directory and loaded from there."""
    model = BY_NAME[name].model(**changes)
    model.save_pretrained(directory)
    if model.main_input_name == "input_ids":
        tokenizer(framed=not BY_NAME[name].layout.causal).save_pretrained(directory)
    return load(str(directory))


def text(count: int, seed: int = 0) -> str:
    """Return so many random words."""
    random = torch.Generator().manual_seed(seed)
    numbers = torch.randint(4, 49, (count,), generator=random).tolist()
    return " ".join(f"w{number}" for number in numbers)
