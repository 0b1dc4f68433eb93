"""Damages files: flipped bits, torn and repeated pieces, other numbers, pieces of other files, strangers' code."""

import gzip
import os
import pickle
import random
import re
from collections.abc import Callable, Sequence

# What readers have stumbled over: odd numbers, escapes, deep nesting, and words that a careless reader would run.
WORDS = (
    b"", b" ", b"\n", b"\t", b"\x00", b"\xff\xfe", b"\xc3", b"\\ud800", b"\\x00", b"'", b'"', b"`", b"#", b"%s", b"{}",
    b"[]", b"null", b"true", b"NaN", b"Infinity", b"-1", b"0", b"1e308", b"1e309", b"-0.0", b"9" * 400, b"9" * 5000,
    b"0x10", b"1_000",
    b"2147483648", b"18446744073709551616", b"[" * 2000, b"{" * 2000, b"(" * 200, b" " * 3000, b";" * 50, b"a" * 3000,
    b"!!python/object/apply:os.mkdir [ran]", b"&a [*a, *a]", b"<<: *a", b"../../ran", b"__class__", b"__import__('os')",
    b"<!DOCTYPE x [<!ENTITY a 'b'>]>", b"&a;", b"->", b"::", b"==", b"\xe2\x80\xa8",
)  # fmt: skip


class Stranger:
    """What a pickle of a stranger asks for: a folder, made by the reader."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, ("ran",)


STRANGER = pickle.dumps(Stranger(), protocol=2)


def mutate(content: bytes, others: Sequence[bytes], draw: random.Random) -> bytes:
    """Damages one file's content in one to four ways.

    Args:
        content: of the whole file.
        others: contents of other whole files of the same kind.
        draw: the source of chance; the same one gives the same damage.
    """
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        content = draw.choice(WAYS)(content, others, draw)
    return content


def _place(content: bytes, draw: random.Random) -> int:
    return draw.randint(0, len(content))


def _piece(content: bytes, draw: random.Random) -> tuple[int, int]:
    begin = _place(content, draw)
    return begin, min(len(content), begin + draw.choice((1, 2, 8, 64, 1000)))


def flip_bit(content: bytes, others: Sequence[bytes], draw: random.Random) -> bytes:
    """Flips one bit."""
    if not content:
        return content
    at = draw.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]


def tear(content: bytes, others: Sequence[bytes], draw: random.Random) -> bytes:
    """Leaves the file's begin, or its end."""
    at = _place(content, draw)
    return content[:at] if draw.random() < 0.7 else content[at:]


def cut_out(content: bytes, others: Sequence[bytes], draw: random.Random) -> bytes:
    """Takes a piece out."""
    begin, end = _piece(content, draw)
    return content[:begin] + content[end:]


def repeat(content: bytes, others: Sequence[bytes], draw: random.Random) -> bytes:
    """Repeats a piece."""
    begin, end = _piece(content, draw)
    return content[:end] + content[begin:end] * draw.choice((1, 2, 20)) + content[end:]


def insert_word(content: bytes, others: Sequence[bytes], draw: random.Random) -> bytes:
    """Puts a word in."""
    at = _place(content, draw)
    return content[:at] + draw.choice(WORDS) + content[at:]


def replace_token(content: bytes, others: Sequence[bytes], draw: random.Random) -> bytes:
    """Puts a word in a name's or a number's place."""
    tokens = list(re.finditer(rb"[A-Za-z_]\w*|-?\d+(?:\.\d+)?(?:e[+-]?\d+)?", content[:200_000]))
    if not tokens:
        return insert_word(content, others, draw)
    token = draw.choice(tokens)
    new = draw.choice((*WORDS, draw.choice(tokens)[0]))
    return content[: token.start()] + new + content[token.end() :]


def move_line(content: bytes, others: Sequence[bytes], draw: random.Random) -> bytes:
    """Drops, repeats or moves a line."""
    lines = content.split(b"\n")
    taken = lines.pop(draw.randrange(len(lines)))
    for _ in range(draw.choice((0, 1, 2))):
        lines.insert(draw.randint(0, len(lines)), taken)
    return b"\n".join(lines)


def graft(content: bytes, others: Sequence[bytes], draw: random.Random) -> bytes:
    """Begins as this file, and ends as another one."""
    other = draw.choice(others) if others else content
    return content[: _place(content, draw)] + other[_place(other, draw) :]


def overwrite(content: bytes, others: Sequence[bytes], draw: random.Random) -> bytes:
    """Overwrites some bytes by chance, by zeros or by ones."""
    begin, end = _piece(content, draw)
    new = draw.choice((draw.randbytes(end - begin), bytes(end - begin), b"\xff" * (end - begin)))
    return content[:begin] + new + content[end:]


def of_a_stranger(content: bytes, others: Sequence[bytes], draw: random.Random) -> bytes:
    """Asks the reader to run something: a pickle in the file's place, or inside."""
    at = _place(content, draw)
    return draw.choice((STRANGER, gzip.compress(STRANGER), content[:at] + STRANGER[2:-1] + content[at:]))


WAYS = (
    flip_bit, flip_bit, tear, cut_out, repeat, insert_word, replace_token, replace_token, move_line, graft, overwrite,
    of_a_stranger,
)  # fmt: skip
