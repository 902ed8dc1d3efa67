"""Two corpora as plain text: the Brown corpus without its tags, and e-mails without their headers.

Each is one JSON object a line: `text` and `label`, and for Brown the `file` it comes from.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from email import message_from_string, policy
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

GENRES = {
    "a": "press: reportage",
    "b": "press: editorial",
    "c": "press: reviews",
    "d": "religion",
    "e": "skill and hobbies",
    "f": "popular lore",
    "g": "belles-lettres",
    "h": "government and house organs",
    "j": "learned",
    "k": "fiction: general",
    "l": "fiction: mystery",
    "m": "fiction: science",
    "n": "fiction: adventure",
    "p": "fiction: romance",
    "r": "humor",
}
_BROWN_FILE = re.compile(r"c[a-r]\d\d")
# The corpus writes these twice where they end a sentence.
_DOUBLED = {";", "?", "!", ":"}
_NO_SPACE_BEFORE = {",", ".", ";", ":", "?", "!", ")", "]", "''", "%"}
_NO_SPACE_AFTER = {"(", "[", "``"}
_QUOTES = {"``": '"', "''": '"'}


def read_brown(archive: Path) -> Iterator[dict[str, str]]:
    """Give `file`, `label` (the genre) and `text` of each of the 500 files of the corpus."""
    with tarfile.open(archive) as packed:
        for member in sorted(packed.getmembers(), key=lambda member: member.name):
            name = Path(member.name).name
            file = packed.extractfile(member)
            if file is not None and _BROWN_FILE.fullmatch(name):
                text = strip_tags(file.read().decode("ascii"))
                yield {"file": name, "label": GENRES[name[1]], "text": text}


def strip_tags(tagged: str) -> str:
    """Return a tagged text of the Brown corpus as a person would write it, a line per paragraph."""
    paragraphs = re.split(r"\n\s*\n", tagged)
    texts = [join_words(list(_words(paragraph))) for paragraph in paragraphs]
    return "\n".join(text for text in texts if text)


def _words(tagged: str) -> Iterator[str]:
    before = ""
    for token in tagged.split():
        word, _, _ = token.rpartition("/")
        # `**zg` and its like stand for marks that the corpus could not write.
        if not word or word.startswith("**") or (word == before and word in _DOUBLED):
            continue
        before = word
        yield word


def join_words(words: Sequence[str]) -> str:
    """Return the words as a line, with spaces and quotes where print has them."""
    line = ""
    glued = True
    for word in words:
        line += ("" if glued or word in _NO_SPACE_BEFORE else " ") + _QUOTES.get(word, word)
        glued = word in _NO_SPACE_AFTER
    return line


def read_spam(archive: Path) -> Iterator[dict[str, str]]:
    """Give `label` (`ham` or `spam`) and `text` of each e-mail that has any text.

    Of the headers only the subject is kept: the others tell by which way a mail came, not what it
    says.
    """
    with tarfile.open(archive) as packed:
        for member in sorted(packed.getmembers(), key=lambda member: member.name):
            if not re.search(r"/data/[a-z]+-[a-z0-9-]+/[^/]+\.json$", member.name):
                continue
            file = packed.extractfile(member)
            assert file is not None
            mail = json.load(file)
            text = mail_text(mail["text"])
            if text:
                yield {"label": "spam" if mail["group"].startswith("spam") else "ham", "text": text}


def mail_text(raw: str) -> str:
    """Return the subject and the words of an e-mail, HTML without its tags, in one line."""
    raw = re.sub(r"\AFrom .*\n", "", raw)  # the mail box's own line, no header
    mail = message_from_string(raw, policy=policy.compat32)
    words = [str(mail.get("Subject") or "")]
    for part in mail.walk():
        kind = part.get_content_type()
        if kind in ("text/plain", "text/html"):
            body = _decoded(part)
            words.append(strip_html(body) if kind == "text/html" else body)
    return " ".join(" ".join(words).split())


def _decoded(part: Any) -> str:
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return ""
    try:
        return payload.decode(part.get_content_charset() or "latin-1", errors="replace")
    except LookupError:  # a character set that nobody knows
        return payload.decode("latin-1")


class _Text(HTMLParser):
    """Collects what a browser would show."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = max(0, self._hidden - (tag in ("script", "style")))

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.found.append(data)


def strip_html(text: str) -> str:
    """Return what a browser would show of `text`."""
    parser = _Text()
    parser.feed(text)
    parser.close()
    return " ".join(parser.found)


def write_lines(path: Path, entries: Iterable[Mapping[str, str]]) -> int:
    """Write JSON objects, one a line, and return how many; a file is there whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    count = 0
    with partial.open("w", encoding="utf-8") as file:
        for entry in entries:
            # In ASCII: some readers take characters beyond it for ends of lines.
            file.write(json.dumps(dict(entry)) + "\n")
            count += 1
    partial.replace(path)
    return count


def read_lines(path: Path) -> list[dict[str, str]]:
    """Read what `write_lines` wrote."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
