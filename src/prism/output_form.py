"""In which form a caller wants a model's output; no torch.

    full                        the model's usual output, every field of it
    logits                      its logits only
    top_k, top_k:10             the 5, or 10, highest logits of every row
    pooled                      one vector per sample, pooled as the model's files say
    pooled:cls+mean:normalise   the same, pooled as the caller says

Nodes compute the form before they answer, so that no more travels than is wanted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from prism.errors import RequestError

Kind = Literal["full", "logits", "top_k", "pooled"]
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
"""Ways to make one vector of the rows of a sample's real tokens; the words are those of
sentence-transformers. Several may be joined with `+`; their vectors follow each other."""
POOLER = "pooler"
"""What the model's class itself pools: `image_embeds`, `text_embeds` or `pooler_output`."""
_NORMALISE = "normalise"
_GRAMMAR = (
    "use full, logits, top_k, top_k:10, pooled, or pooled:MODE[+MODE][:normalise] with MODE one of "
    f"{', '.join(MODES)}, or {POOLER} alone"
)


@dataclass(frozen=True, slots=True)
class OutputForm:
    """What of a model's output a caller wants.

    Attributes:
        kind: see the top of this file.
        k: logits per row, for `top_k`; a model with fewer gives all it has.
        modes: how rows are pooled, for `pooled`; empty = as the model's files say.
        normalise: whether pooled vectors are brought to length 1.

    Raises:
        RequestError: it is no form.
    """

    kind: Kind = "full"
    k: int = 5
    modes: tuple[str, ...] = ()
    normalise: bool = False

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise RequestError(f"unknown output {self.kind!r}; {_GRAMMAR}")
        if type(self.k) is not int or self.k < 1:
            raise RequestError(f"top_k needs a number of at least 1, not {self.k!r}")
        known = self.modes == (POOLER,) or set(self.modes) <= set(MODES)
        if not known or len(set(self.modes)) != len(self.modes):
            raise RequestError(f"{'+'.join(self.modes)!r} is no way to pool; {_GRAMMAR}")
        if self.kind != "pooled" and (self.modes or self.normalise):
            raise RequestError(f"modes and normalise belong to pooled, not to {self.kind}")

    def __str__(self) -> str:
        words: list[str] = [self.kind]
        if self.kind == "top_k":
            words.append(str(self.k))
        if self.modes:
            words.append("+".join(self.modes))
        if self.normalise:
            words.append(_NORMALISE)
        return ":".join(words)

    @classmethod
    def of(cls, named: OutputForm | str) -> OutputForm:
        """Return a form that is given as such, or as text; raises as `parse`."""
        return named if isinstance(named, OutputForm) else cls.parse(str(named))

    @classmethod
    def parse(cls, text: str) -> OutputForm:
        """Read the text form; it reads what `str` prints.

        Raises:
            RequestError: it is no form; says what is.
        """
        kind, *words = text.split(":")
        if kind == "top_k" and len(words) == 1 and words[0].isdecimal() and len(words[0]) < 10:
            return cls("top_k", k=int(words[0]))
        if kind == "pooled":
            normalise = words[-1:] == [_NORMALISE]
            words = words[: len(words) - normalise]
            if len(words) < 2:
                modes = tuple(words[0].split("+")) if words else ()
                return cls("pooled", modes=modes, normalise=normalise)
        if words or kind not in get_args(Kind):
            raise RequestError(f"unknown output {text!r}; {_GRAMMAR}")
        return cls(kind)  # type: ignore[arg-type]  # mypy does not narrow by `get_args`


FULL = OutputForm()


@dataclass(frozen=True, slots=True)
class NeededRows:
    """Which rows of the last block must come together at rank 0 of a sequence plan.

    Attributes:
        first: so many from the first; None = all.
        last: so many from the last; None = all. At most one of the two is given.
        parts: rows per sample that each rank sends in place of all of its own; 0 = none are made.
    """

    first: int | None = None
    last: int | None = None
    parts: int = 0
