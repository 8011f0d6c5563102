"""The body of a request as examples: raw bytes, a form with files, or JSON. Nothing is decoded here.

What becomes of an example is the workload's to say (live_models); tensors are of the Open Inference Protocol
(inference_protocol).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import reprlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from leptonflow.data.ingest import array_files
from leptonflow.workloads.base import Examined
from schemas.serving import Serving
from schemas.text import printable
from serving.live_models import Live
from serving.problems import told

if TYPE_CHECKING:
    from numpy.typing import NDArray

Look = Callable[[Live], Examined]
RAW = ("application/octet-stream", "application/x-www-form-urlencoded")  # the second is what `curl --data-binary` says
RAW_FAMILIES = ("image/", "audio/", "text/")
FORMS = "multipart/form-data"
TYPES = f"application/json, {FORMS}, application/octet-stream, or image/..., audio/..., text/..."
KEYS = ("base64", "text", "array")
MOST_MARKS = 1_000_000  # of a JSON document, one or two a value: while they are read, every other request waits
MARKS = (b",", b":", b"[", b"{")
SECONDS = 30.0  # for a body whose route has no limit of its own
INLINE = 8_192  # bytes: what is larger is decoded beside the queue's thread, which decodes what is smaller itself


class Example(NamedTuple):
    """What a request holds of one example. size: its bytes, None of what is decoded at once."""

    name: str
    look: Look
    size: int | None = None

    @property
    def large(self) -> bool:
        """Whether it is decoded before it is queued."""
        return self.size is not None and self.size > INLINE


async def read(request: Request, most: int, seconds: float = SECONDS, hint: str | None = None) -> bytes:
    """The whole body. Raises Problem: 408 where it does not come in time, 415 for a packed one, and 413 with the hint
    for more than `most` bytes, which are not read.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise told(
            415, "a packed body is not unpacked", expected="no Content-Encoding", received=printable(encoding[:50]),
            hint="Send the bytes as they are", close=True,
        )  # fmt: skip
    declared = request.headers.get("content-length", "0")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > most:
        raise _too_large(most, f"{declared[:20]} bytes", hint)
    chunks, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size > most:
                    raise _too_large(most, f"more than {most} bytes", hint)
                chunks.append(chunk)
    except ClientDisconnect:
        raise told(400, "the client ended before its request did", close=True) from None
    except TimeoutError:
        raise told(
            408, "the body did not come in time", expected=f"all of it within {seconds:g} seconds", close=True
        ) from None
    return b"".join(chunks)


def _too_large(most: int, received: str, hint: str | None) -> Exception:
    return told(
        413, "the body is too large", expected=f"at most {most} bytes", received=received, hint=hint, close=True
    )


async def examples(request: Request, body: bytes, limits: Serving, typed: bool) -> list[Example]:
    """The examples of a body, by its content type. typed: a string in JSON or a form is a text, else base64.

    Raises Problem: 400 for what does not hold together, 413 for more examples than one request may have, 415.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        found = _of_json(body, limits, typed)
    elif kind == FORMS:
        found = await _of_form(request, body, limits)
    elif not kind or kind in RAW or kind.startswith(RAW_FAMILIES):
        return [of_bytes("body", body)]
    else:
        raise told(415, "a body of this type holds no example", expected=TYPES, received=printable(kind[:100]))
    if not found:
        raise told(400, "the request holds no example", expected="at least one", received="none")
    return found


def of_bytes(name: str, data: bytes) -> Example:
    """A file's bytes."""
    return Example(name, lambda live: live.workload.examine(data, live.served.manifest.input), len(data))


def of_text(name: str, text: str) -> Example:
    """A text that was typed."""

    def look(live: Live) -> Examined:
        if live.workload.typed is None:
            return Examined(None, "the model takes no texts: send a file, or its bytes as base64")
        return live.workload.typed(text, live.served.manifest.input)

    return Example(name, look, len(text))


def of_array(name: str, pair: array_files.Pair, number: int) -> Example:
    """A row of an array, with the scale of the whole."""

    def look(live: Live) -> Examined:
        if live.workload.examine_array is None:
            return Examined(None, "the model takes no arrays")
        return live.workload.examine_array(pair.row(number), live.served.manifest.input, pair.scale)

    return Example(name, look)


def of_failure(name: str, rule: str | None, reason: str) -> Example:
    """An example that is known to be none."""
    return Example(name, lambda live: Examined(rule, reason))


def too_many(count: int, limits: Serving) -> Exception:
    """More examples than one request may have."""
    hint = "Send them in several requests; `serving: {examples: N}` in the pipeline's YAML is the limit"
    return told(
        413, "too many examples in one request", expected=f"at most {limits.examples}", received=str(count), hint=hint
    )


def document(body: bytes) -> Any:
    """The JSON of a body. Raises Problem 400, and 413 for more values than are read."""
    if len(body) > MOST_MARKS and (marks := sum(map(body.count, MARKS))) > MOST_MARKS:
        raise told(
            413, "the JSON has too many values", expected=f"at most {MOST_MARKS} commas, colons and opening brackets",
            received=str(marks), hint="Send images as files, in base64 or in a form",
        )  # fmt: skip
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        words = "too deep" if isinstance(error, RecursionError) else printable(str(error)[:200])
        raise told(400, "the body is no JSON", expected="a JSON document in UTF-8", received=words) from None


def _of_json(body: bytes, limits: Serving, typed: bool) -> list[Example]:
    given = document(body)
    several = given.get("examples") if isinstance(given, dict) and set(given) == {"examples"} else given
    if isinstance(several, dict | str):
        several = [several]
    if not isinstance(several, list):
        raise told(
            400, "the JSON holds no examples", received=printable(reprlib.repr(given)[:100]),
            expected=f'{{"examples": [...]}}, each a string or an object with one of {", ".join(KEYS)}',
        )  # fmt: skip
    if len(several) > limits.examples:
        raise too_many(len(several), limits)
    return [_of_value(f"examples[{number}]", each, typed) for number, each in enumerate(several)]


def _of_value(name: str, given: Any, typed: bool) -> Example:
    if isinstance(given, str):
        given = {"text" if typed else "base64": given}
    kind = next(iter(given), None) if isinstance(given, dict) and len(given) == 1 else None
    value = given[kind] if kind in KEYS else None
    if kind == "array" and isinstance(value, list):
        return _of_nested(name, value)
    if kind == "text" and isinstance(value, str):
        return of_text(name, value)
    if kind == "base64" and isinstance(value, str):
        return of_base64(name, value)
    received = printable(reprlib.repr(given)[:60])
    return of_failure(name, None, f"expected a string, or an object with one of {', '.join(KEYS)}; received {received}")


def of_base64(name: str, value: str) -> Example:
    """A file's bytes as base64."""
    try:
        return of_bytes(name, base64.b64decode(value, validate=True))
    except (binascii.Error, ValueError):
        return of_failure(name, "unreadable", "this is no base64")


def _of_nested(name: str, value: list[Any]) -> Example:
    import numpy as np

    try:
        array: NDArray[Any] = np.asarray(value)[None]
    except (ValueError, OverflowError, TypeError, MemoryError):
        return of_failure(name, "wrong-rank", "the lists are not all of one length")
    return array_examples([name], array)[0]


def array_examples(names: list[str], array: NDArray[Any]) -> list[Example]:
    """A row of the array under each name; one scale for the whole."""
    pair = array_files.unlabelled(array)
    if pair.values is None:
        rule, reason = pair.rules[0] or (None, "it cannot be read")
        return [of_failure(name, rule, reason) for name in names]
    return [of_array(name, pair, number) for number, name in enumerate(names)]


async def _of_form(request: Request, body: bytes, limits: Serving) -> list[Example]:
    """Each part of a form: a file by its name, or a text field."""

    async def whole() -> Any:
        yield body

    parser = MultiPartParser(
        request.headers, whole(), max_files=limits.examples, max_fields=limits.examples, max_part_size=len(body)
    )
    parser.spool_max_size = len(body) + 1  # the body is in memory already: no part goes to a disk
    found = []
    try:
        form = await parser.parse()
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                found.append(of_bytes(printable(value.filename or name)[:255], await value.read()))
            else:
                found.append(of_text(printable(name)[:255], value))
        await form.close()
    except MultiPartException as error:
        if error.message.startswith("Too many"):
            raise too_many(limits.examples + 1, limits) from None
        raise told(400, "the form cannot be read", received=printable(error.message[:200])) from None
    except (KeyError, ValueError, AttributeError) as error:
        received = printable(f"{type(error).__name__}: {error}"[:200])
        raise told(400, "the form cannot be read", expected="a boundary in Content-Type", received=received) from None
    if len(found) > limits.examples:
        raise too_many(len(found), limits)
    return found
