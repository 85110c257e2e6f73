"""HDF5 as Keras writes it, read in Python: groups, float arrays and attributes of text. Nothing else of that format is understood.

    superblock 0 or 1 -> root group                      group / "child"                     a group, or None
    group:   object header 1 -> symbol table             for name in group                   the names below
             -> B-tree 1 -> symbol nodes, local heap     group.array("dense/kernel")         float32, from contiguous bytes
    dataset: object header 1 -> dataspace, type, layout  group.text("model_config")          an attribute: one string
    text:    fixed, or references to a global heap       group.texts("weight_names")         ... strings

Why not h5py: it is 4 MB of C that parses what somebody sent. A few changed bytes in a file of 40 KB made it take 22 s, and others 4.3 GB.
Here no value is larger than the bytes that the file has for it, every structure costs one of a number of steps, and nothing leads to
another file.
What is refused is refused as `ConfigurationError` that names file and place.

The layout of each structure: The HDF Group, HDF5 File Format Specification 3.0; sections are named at the functions.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from syftlite.errors import ConfigurationError

MAGIC = b"\x89HDF\r\n\x1a\n"
STEPS = 500_000
"""How many structures (messages, nodes, names, strings) one file may take: a model of 1,000 layers takes fewer than 100,000."""
EXPANSION = 4
"""All arrays and texts together have at most this many times the file's bytes: float16 becomes float32, and no two share bytes."""
FLOATS = {
    (16, 10, 5, 0, 10, 15): "f2",
    (32, 23, 8, 0, 23, 127): "f4",
    (64, 52, 11, 0, 52, 1023): "f8",
}
"""Precision, and place and size of exponent and mantissa, and the exponent's bias: what IEEE 754 has."""
DATASPACE, LINKS, DATATYPE, EXTERNAL, LAYOUT, FILTERS, ATTRIBUTE, CONTINUATION, SYMBOLS = 1, 2, 3, 7, 8, 11, 12, 16, 17
NOWHERE = (1 << 64) - 1
AGAIN = "Save the model again with Keras itself"

Array = np.ndarray[Any, np.dtype[np.float32]]


class Message(NamedTuple):
    """One message of an object header: its kind, and where its content is in the file."""

    kind: int
    start: int
    size: int


class Type(NamedTuple):
    """``kind`` "float", "text" or "heap text"; ``size`` bytes an element; ``dtype`` numpy's, of floats."""

    kind: str
    size: int
    dtype: str = ""


class File:
    """The bytes of a file, and what has been taken of its allowances."""

    def __init__(self, raw: bytes, name: str) -> None:
        self.raw, self.name = raw, name
        self.steps, self.room = STEPS, EXPANSION * len(raw) + (1 << 16)

    def refusal(self, what: str) -> ConfigurationError:
        """An error about this file."""
        return ConfigurationError(f"{self.name}: {what}")

    def damaged(self, what: str) -> ConfigurationError:
        """... that is not what HDF5 says."""
        return self.refusal(f"it is damaged: {what}. Save the model again")

    def spend(self, size: int) -> None:
        """``size`` bytes more of what is made of the file."""
        self.room -= size
        if self.room < 0:
            raise self.damaged("its arrays or texts share bytes")

    def step(self) -> None:
        """One more structure."""
        self.steps -= 1
        if self.steps < 0:
            raise self.damaged(f"it has more than {STEPS:,} parts, or parts that lead in circles")

    def take(self, start: int, size: int) -> bytes:
        """``size`` bytes from ``start``."""
        if start < 0 or size < 0 or start + size > len(self.raw):
            raise self.damaged(f"something is at {start:,}, of {size:,} bytes, and the file ends at {len(self.raw):,}")
        return self.raw[start : start + size]

    def numbers(self, form: str, start: int) -> tuple[int, ...]:
        """Little-endian numbers from ``start``, as `struct` describes them."""
        form = "<" + form
        return struct.unpack(form, self.take(start, struct.calcsize(form)))

    def signature(self, start: int, wanted: bytes) -> None:
        """Raise unless ``wanted`` is there."""
        if self.take(start, len(wanted)) != wanted:
            raise self.damaged(f"at {start:,} there is no {wanted.decode()}")

    def text(self, start: int, limit: int = 1 << 16) -> str:
        """A name: what is from ``start`` to the next zero byte."""
        self.step()
        end = self.raw.find(b"\0", start, start + limit) if 0 <= start < len(self.raw) else -1
        if end < 0:
            raise self.damaged(f"the name at {start:,} does not end")
        return self.decoded(self.raw[start:end])

    def decoded(self, raw: bytes) -> str:
        """UTF-8."""
        self.spend(len(raw))
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise self.damaged(f"{raw[:20]!r} is no text") from None

    def root(self) -> Group:
        """The root group (II.A: versions 0 and 1 of the superblock, which h5py writes unless told otherwise)."""
        if self.raw[:8] != MAGIC:
            raise self.refusal("it is no HDF5 file")
        (version,) = self.numbers("B", 8)
        if version > 1 or self.numbers("BB", 13) != (8, 8):
            raise self.refusal(f"it is HDF5 of another form (superblock {version}): Keras writes 0. {AGAIN}")
        entry = 24 + (4 if version else 0) + 32
        if self.numbers("Q", entry - 32) != (0,):
            raise self.damaged("its base address is not 0")
        return Group(self, "", self.numbers("QQ", entry)[1])

    def messages(self, start: int) -> list[Message]:
        """The messages of the object header at ``start`` (IV.A.1.a)."""
        version, _, count, _, size = self.numbers("BBHII", start)
        if version != 1:
            raise self.refusal(f"the header at {start:,} is of another form ({version}): Keras writes 1. {AGAIN}")
        found: list[Message] = []
        blocks = [(start + 16, size)]
        while blocks and len(found) < count:
            place, size = blocks.pop(0)
            end = place + size
            while place + 8 <= end and len(found) < count:
                self.step()
                kind, length, flags = self.numbers("HHB", place)
                if flags & 2:
                    raise self.refusal(f"the header at {start:,} has a shared message, which Keras does not write")
                found.append(Message(kind, place + 8, length))
                if kind == CONTINUATION:
                    at, more = self.numbers("QQ", place + 8)
                    blocks.append((at, more))
                place += 8 + length
        return found

    def shape(self, start: int) -> tuple[int, ...]:
        """A dataspace (IV.A.2.b)."""
        version, rank, _, kind = self.numbers("BBBB", start)
        if version not in (1, 2) or rank > 32 or (version == 2 and kind > 1):
            raise self.damaged(f"the shape at {start:,} is none")
        return self.numbers(f"{rank}Q", start + (8 if version == 1 else 4))

    def type(self, start: int) -> Type:
        """A datatype (IV.A.2.d): a float, a string of fixed length, or a reference to one of any length."""
        head, bits, size = *self.numbers("BB", start), *self.numbers("I", start + 4)
        if head & 15 == 1:
            form = FLOATS.get(self.numbers("HHBBBBI", start + 8)[1:])  # type: ignore[arg-type]
            if form is not None and size == int(form[1]) and not bits & 64:
                return Type("float", size, ("<", ">")[bits & 1] + form)
        if head & 15 == 3:
            return Type("text", size)
        if head & 15 == 9 and bits & 15 == 1 and size == 16:
            return Type("heap text", size)
        return Type("other", size)

    def heap_object(self, collection: int, index: int) -> bytes:
        """An object of the global heap collection at ``collection`` (III.E)."""
        self.signature(collection, b"GCOL")
        (size,) = self.numbers("Q", collection + 8)
        place, end = collection + 16, collection + size
        while place + 16 <= end:
            self.step()
            number, _, _, length = self.numbers("HHIQ", place)
            if number == 0:
                break
            if number == index:
                return self.take(place + 16, length)
            place += 16 + (length + 7) // 8 * 8
        raise self.damaged(f"a text is missing from the heap at {collection:,}")


class Group:
    """The group at ``path``, whose object header is at ``start``."""

    def __init__(self, file: File, path: str, start: int) -> None:
        self.file, self.path = file, path
        self._messages = file.messages(start)
        self._below: dict[str, int] | None = None

    def refusal(self, what: str) -> ConfigurationError:
        """An error about this place."""
        return self.file.refusal(f"at {self.path or '/'}: {what}")

    def _only(self, kind: int) -> Message | None:
        return next((message for message in self._messages if message.kind == kind), None)

    def _names(self) -> dict[str, int]:
        """Name -> where its object header is (III.A.1, III.B, III.D)."""
        if self._below is not None:
            return self._below
        file, table = self.file, self._only(SYMBOLS)
        if self._only(LINKS) is not None:
            raise self.refusal(f"it has links out of the file, or names beyond ASCII, and neither is read. {AGAIN}, with plain names")
        self._below = {}
        if table is None:
            return self._below
        tree, heap = file.numbers("QQ", table.start)
        file.signature(heap, b"HEAP")
        names = file.numbers("QQQ", heap + 8)[2]
        nodes = [tree]
        while nodes:
            file.step()
            node = nodes.pop()
            file.signature(node, b"TREE")
            kind, level, used = file.numbers("BBH", node + 4)
            if kind != 0:
                raise file.damaged(f"the node at {node:,} is not of a group")
            for i in range(used):
                file.step()
                (child,) = file.numbers("Q", node + 32 + 16 * i)
                if level:
                    nodes.append(child)
                else:
                    self._below |= self._symbols(child, names)
        return self._below

    def _symbols(self, node: int, names: int) -> dict[str, int]:
        file = self.file
        file.signature(node, b"SNOD")
        found: dict[str, int] = {}
        for i in range(file.numbers("H", node + 6)[0]):
            name_at, header, cached = file.numbers("QQI", node + 8 + 40 * i)
            name = file.text(names + name_at)
            if cached == 2 or header == NOWHERE:
                raise self.refusal(f"{name!r} is a link, which may lead anywhere: save the model again")
            found[name] = header
        return found

    def __iter__(self) -> Iterator[str]:
        """Names below this group."""
        return iter(sorted(self._names()))

    def __truediv__(self, name: str) -> Group | None:
        """What ``name`` leads to, below this group; None if there is nothing."""
        start = self._names().get(name)
        return None if start is None else Group(self.file, f"{self.path}/{name}", start)

    def array(self, path: str) -> Array:
        """The floats at ``path``, names with slashes between, as float32."""
        place: Group | None = self
        for part in filter(None, path.split("/")):
            place = None if place is None else place / part
        layout = None if place is None else place._only(LAYOUT)
        if place is None or layout is None:
            raise self.refusal(f"there is no array {path!r}")
        return place._content(layout)

    def _content(self, layout: Message) -> Array:
        """An array from the layout message (IV.A.2.i, version 3: in one piece, or in the header itself)."""
        file, space, kind = self.file, self._only(DATASPACE), self._only(DATATYPE)
        if space is None or kind is None:
            raise file.damaged(f"{self.path} has no shape or no type")
        shape, found = file.shape(space.start), file.type(kind.start)
        if found.kind != "float":
            raise self.refusal("it is no array of float16, float32 or float64, as weights are")
        if self._only(FILTERS) is not None or self._only(EXTERNAL) is not None or file.numbers("B", layout.start) != (3,):
            raise self.refusal(f"the array is packed, or kept in another file, which Keras does not do. {AGAIN}")
        size = found.size
        for n in shape:
            size *= n
        way = file.numbers("B", layout.start + 1)
        if way == (1,):
            at, held = file.numbers("QQ", layout.start + 2)
        elif way == (0,):
            at, held = layout.start + 4, file.numbers("H", layout.start + 2)[0]
        else:
            raise self.refusal(f"the array is in pieces, which Keras does not write. {AGAIN}")
        if size != held and size:
            raise file.damaged(f"{self.path} has shape {shape}, and {held:,} bytes")
        file.spend(size // found.size * 4)
        raw = file.take(at, size) if size else b""
        return np.frombuffer(raw, found.dtype).reshape(shape).astype(np.float32)

    # -- attributes

    def text(self, name: str) -> str | None:
        """The attribute ``name``, one string; None if there is none."""
        found = self._attributes().get(name)
        return None if found is None else next(iter(self._strings(name, found)), "")

    def texts(self, name: str) -> list[str] | None:
        """The attribute ``name``, strings; None if there is none. Keras cuts long ones into NAME0, NAME1, ..."""
        held = self._attributes()
        parts = [name] if name in held else []
        while not (parts and parts[0] == name) and f"{name}{len(parts)}" in held:
            parts.append(f"{name}{len(parts)}")
        return [text for part in parts for text in self._strings(part, held[part])] if parts else None

    def _attributes(self) -> dict[str, tuple[Type, tuple[int, ...], int]]:
        """Name -> type, shape, and where the values are (IV.A.2.m)."""
        file, found = self.file, {}
        for message in self._messages:
            if message.kind != ATTRIBUTE:
                continue
            version, flags, *sizes = file.numbers("BBHHH", message.start)
            if version not in (1, 2, 3) or (version > 1 and flags & 3):
                raise file.damaged(f"the attribute at {message.start:,} is of another form")
            padded = [(size + 7) // 8 * 8 if version == 1 else size for size in sizes]
            name_at = message.start + (9 if version == 3 else 8)
            type_at, space_at, values_at = name_at + padded[0], name_at + sum(padded[:2]), name_at + sum(padded)
            found[file.text(name_at)] = file.type(type_at), file.shape(space_at), values_at
        return found

    def _strings(self, name: str, held: tuple[Type, tuple[int, ...], int]) -> list[str]:
        kind, shape, start = held
        count = 1
        for n in shape:
            count *= n
        file = self.file
        file.take(start, count * kind.size)
        if count and kind.kind not in ("text", "heap text"):
            raise self.refusal(f"the attribute {name!r} is not text")
        found = []
        for place in range(start, start + count * kind.size, kind.size or 1):
            file.step()
            if kind.kind == "text":
                found.append(file.decoded(file.take(place, kind.size).rstrip(b"\0 ")))
            else:
                length, collection, index = file.numbers("IQI", place)
                found.append(file.decoded(file.heap_object(collection, index)[:length]) if length else "")
        return found


def open_file(raw: bytes, name: str) -> Group:
    """The root of the HDF5 file with content ``raw``, which errors call ``name``. Raises `ConfigurationError`."""
    return File(raw, name).root()
