"""What the tests of the task routes share: models small enough, and a server of them."""

import json
import threading
from contextlib import contextmanager

import torch
import uvicorn
from tests.models.sentence_files import FLAGS, model_with
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedTokenizerFast,
)

from prism.server.app import create_app
from prism.server.batching import Batcher
from prism.server.metrics import Metrics
from prism.server.served import Models, Served
from prism.server.settings import Settings

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
WORDS = ("the", "cat", "sat", "down", "a", "dog", "ran", "up")
MOST_TOKENS = 16  # of the model; its sentence-transformers files say 12
MOST_SENTENCE = 12


def give_tokenizer(directory):
    words = {word: at for at, word in enumerate(SPECIAL + WORDS)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]"
    ).save_pretrained(directory)


def bert_config(**values):
    return BertConfig(
        vocab_size=len(SPECIAL + WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=MOST_TOKENS,
        **values,
    )


def sentence_model(directory):
    """Write a model as sentence-transformers would; its vectors are means of length 1."""
    torch.manual_seed(1)
    BertModel(bert_config()).save_pretrained(directory)
    give_tokenizer(directory)
    model_with(directory, ["Transformer", "Pooling", "Normalize"], FLAGS)
    settings = {"max_seq_length": MOST_SENTENCE, "do_lower_case": True}
    (directory / "sentence_bert_config.json").write_text(json.dumps(settings))
    return str(directory)


def text_classifier(directory):
    torch.manual_seed(2)
    names = {0: "calm", 1: "cross", 2: "glad"}
    config = bert_config(id2label=names, label2id={name: at for at, name in names.items()})
    BertForSequenceClassification(config).save_pretrained(directory)
    give_tokenizer(directory)
    return str(directory)


def app_of(**models):
    """Return a server's application over models on nodes, by name."""
    served = Models(Served.of(name, model) for name, model in models.items())
    metrics = Metrics()
    return create_app(
        served, {name: Batcher(served[name], metrics) for name in served}, metrics, Settings()
    )


@contextmanager
def listening(app):
    """Serve an app on a port of its own; give its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    started = threading.Event()
    startup = server.startup

    async def tell(*args, **kwargs):
        await startup(*args, **kwargs)
        started.set()

    server.startup = tell
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert started.wait(30)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
