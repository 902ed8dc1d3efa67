"""Forms with a file, `multipart/form-data`, read from a body that is there whole.

Nothing is written to disk, and a form that was cut off is told from one that is complete.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from prism.server.errors import BadRequest

MULTIPART = "multipart/form-data"
FILE = "file"
_MOST_PARTS = 32


@dataclass(frozen=True, slots=True)
class Form:
    """What a form holds.

    Attributes:
        texts: its fields by name.
        file: content of the file; None where there is none.
    """

    texts: dict[str, str]
    file: bytes | None


def is_form(content_type: str) -> bool:
    """Return whether a `Content-Type` says that the body is a form that can hold files."""
    return content_type.partition(";")[0].strip().lower() == MULTIPART


def read_form(content_type: str, body: bytes) -> Form:
    """Return the form that a body holds.

    Args:
        content_type: the header, which says what stands between the parts.
        body: the whole of it.

    Raises:
        BadRequest: it is no form, is cut off, has a field twice or too many, or a field that is no
            text, or a file under another name than `file`.
    """
    texts: dict[str, str] = {}
    file = None
    for part in _parts(content_type, body):
        name = _decoded(part.name)
        if name in texts or (name == FILE and file is not None):
            raise BadRequest(f"the form has {name[:50]!r} twice; send it once")
        if name == FILE:
            file = bytes(part.content)
        elif part.has_file:
            raise BadRequest(f"the file of a form must be named {FILE}, not {name[:50]!r}")
        else:
            texts[name] = _decoded(bytes(part.content))
    return Form(texts, file)


@dataclass(slots=True)
class _Part:
    name: bytes = b""
    has_file: bool = False
    content: bytearray = field(default_factory=bytearray)


def _parts(content_type: str, body: bytes) -> list[_Part]:
    """Return the parts of a form in their order."""
    try:
        boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
        if not boundary:
            raise BadRequest("the form's Content-Type names no boundary; let the client set it")
        collector = _Collector()
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": collector.begin_part,
                "on_part_data": collector.add_content,
                "on_header_field": collector.add_header_name,
                "on_header_value": collector.add_header_value,
                "on_header_end": collector.end_header,
                "on_headers_finished": collector.end_headers,
                "on_end": collector.end,
            },
        )
        parser.write(body)
    except FormParserError as error:
        raise BadRequest(f"the form cannot be read: {str(error)[:200]}") from None
    if not collector.complete:
        raise BadRequest("the form is cut off: its last boundary is missing; send all of it")
    return collector.parts


class _Collector:
    """Keeps what the parser finds, in its order."""

    def __init__(self) -> None:
        self.parts: list[_Part] = []
        self.complete = False
        self._header_name = bytearray()
        self._header_value = bytearray()

    def begin_part(self) -> None:
        if len(self.parts) == _MOST_PARTS:
            raise BadRequest(f"the form has more than {_MOST_PARTS} fields; send those that count")
        self.parts.append(_Part())

    def add_content(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].content += data[start:end]

    def add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def end_header(self) -> None:
        if bytes(self._header_name).lower() == b"content-disposition":
            _, options = parse_options_header(self._header_value.decode("latin-1"))
            self.parts[-1].name = options.get(b"name", b"")
            self.parts[-1].has_file = b"filename" in options
        self._header_name.clear()
        self._header_value.clear()

    def end_headers(self) -> None:
        if not self.parts[-1].name:
            raise BadRequest("a part of the form has no name; send fields with names")

    def end(self) -> None:
        self.complete = True


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise BadRequest("the form holds a field that is not UTF-8; send text in UTF-8") from None
