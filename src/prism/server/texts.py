"""Texts as clients send them, as token ids of a model."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch

from prism.models.load import ModelInfo
from prism.models.pooling_files import TextSettings
from prism.models.processing import tokenizer_of
from prism.server.errors import BadRequest

Ids = list[int]
# Longest words of natural languages are shorter; a text of more characters is too long in any case.
_MOST_CHARACTERS_PER_TOKEN = 64


class TextReader:
    """Reads texts for one model, with the tokenizer beside it.

    Its methods may be called from several threads; they take turns, since a tokenizer keeps the
    length at which it cuts.

    Args:
        info: a model that reads text.
        settings: what its files say of texts; the defaults where they do not count.

    Attributes:
        most_tokens: of one text, special ones included.
    """

    def __init__(self, info: ModelInfo, settings: TextSettings | None = None) -> None:
        self._info = info
        self._settings = settings or TextSettings()
        most = self._settings.most_tokens
        limit = info.shape.max_length
        self.most_tokens = limit if most is None else min(most, limit)
        self._turn = threading.Lock()
        self._tokenizer: Any = None

    def read(self, texts: Sequence[str], first: int, cut_at: int | None = None) -> list[Ids]:
        """Return the token ids of texts.

        Args:
            texts: one or more.
            first: number of the first one in its request, for errors.
            cut_at: tokens that are kept of each; None refuses a text that is too long.

        Raises:
            BadRequest: a text is empty, no text, or too long; or `cut_at` leaves no room.
            RequestError: the model has no tokenizer.
        """
        ready = [self._checked(text, first + at, cut_at) for at, text in enumerate(texts)]
        with self._turn:
            tokenizer = self._own_tokenizer()
            if cut_at is not None:
                self._check_room(tokenizer, cut_at)
            made: list[Ids] = tokenizer(
                ready, truncation=cut_at is not None, max_length=cut_at, verbose=False
            )["input_ids"]
        for number, ids in enumerate(made, start=first):
            self._check_length(len(ids), number)
        return made

    def take(self, ids: Sequence[int], number: int, cut_at: int | None = None) -> Ids:
        """Return token ids that a client made itself, checked, of the text with that number.

        Raises:
            BadRequest: there are none, too many, or some that the model does not have.
        """
        kept = list(ids if cut_at is None else ids[:cut_at])
        highest = int(self._info.config.vocab_size) - 1
        wrong = next((each for each in kept if not 0 <= each <= highest), None)
        if wrong is not None:
            raise BadRequest(
                f"input {number} holds token {str(wrong)[:20]}; the model has 0..{highest}: make "
                f"tokens with its own tokenizer, or send text"
            )
        self._check_length(len(kept), number)
        return kept

    def cut_at(self, asked: int | None) -> int:
        """Return where texts are cut: at `asked` tokens, or at what the model takes.

        Raises:
            BadRequest: the model does not take so many, or it is no length.
        """
        if asked is None or asked == -1:
            return self.most_tokens
        if not 1 <= asked <= self.most_tokens:
            raise BadRequest(
                f"texts can be cut at 1 to {self.most_tokens} tokens, or at -1 for the most, not "
                f"at {str(asked)[:20]}"
            )
        return asked

    def batch(self, rows: Sequence[Ids]) -> dict[str, torch.Tensor]:
        """Return `input_ids` and `attention_mask`, `(len(rows), longest)` of int64.

        Raises:
            RequestError: the model has no tokenizer, which knows how to pad.
        """
        with self._turn:
            tokenizer = self._own_tokenizer()
        padded = tokenizer.pad({"input_ids": list(rows)}, return_tensors="pt", verbose=False)
        return {name: padded[name] for name in ("input_ids", "attention_mask")}

    def _own_tokenizer(self) -> Any:
        if self._tokenizer is None:
            self._tokenizer = tokenizer_of(self._info)
        return self._tokenizer

    def _checked(self, text: str, number: int, cut_at: int | None) -> str:
        """Return a text that can be tokenised in bounded time."""
        if not text.strip():
            raise BadRequest(f"input {number} is empty; send some words")
        if not _encodable(text):
            raise BadRequest(f"input {number} holds half a surrogate pair; send UTF-8 text")
        most = self.most_tokens * _MOST_CHARACTERS_PER_TOKEN
        if len(text) > most:
            if cut_at is None:
                raise BadRequest(self._too_long(f"{len(text)} characters", number))
            text = text[:most]
        return text.lower() if self._settings.lower_case else text

    def _check_room(self, tokenizer: Any, cut_at: int) -> None:
        special = tokenizer.num_special_tokens_to_add()
        if cut_at <= special:
            raise BadRequest(
                f"texts cut at {cut_at} tokens leave no room for text beside {special} special "
                f"tokens; give more"
            )

    def _check_length(self, tokens: int, number: int) -> None:
        if tokens == 0:
            raise BadRequest(f"input {number} holds no token; send some words")
        if tokens > self.most_tokens:
            raise BadRequest(self._too_long(f"{tokens} tokens", number))

    def _too_long(self, length: str, number: int) -> str:
        return (
            f"input {number} has {length}, the model takes {self.most_tokens} tokens; shorten it, "
            f'or send "truncate": true'
        )


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
