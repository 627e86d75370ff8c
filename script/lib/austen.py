"""Jane Austen's six novels as plain text, one file per chapter, from Debian's r-cran-janeaustenr.

    austen.py RDB OUT_DIR

RDB is the package's data/Rdata.rdb, R's lazy-load database. It is a row of chunks, one per novel: the
number of bytes (big-endian int32) and then a zlib stream, which holds an R character vector in R's XDR
serialisation ("R Internals", 1.8), one string per printed line. Reading it here takes one page of Python;
installing R to do it would take 26 MB of download.

A paragraph becomes one line, an empty line stands between paragraphs, and the marks of the printed page
(_emphasis_, volume and chapter headings, notes of the edition, FINIS) go.
"""

import pathlib
import re
import struct
import sys
import zlib

STRING_VECTOR = 16
STRING = 9
HEADING = re.compile(r"(?i)chapter\s+([ivxlc]+|\d+)\.?$")
FURNITURE = re.compile(r"(?i)(volume|vol\.?)\s+[ivx]+\.?$|finis\.?$|the end\.?$|\*[\s*]*$")
NOTE = re.compile(r"\[(End volume|At this point)|\*Vide ")
MARKS = re.compile(r"_|\[\d+\]|\*")


def chunks(data):
    """The decompressed chunks of a lazy-load database."""
    while data:
        (length,) = struct.unpack(">i", data[:4])
        stream = zlib.decompressobj()
        chunk = stream.decompress(data[4:])
        if len(chunk) != length:
            raise ValueError(f"a chunk of Rdata.rdb has {len(chunk)} bytes, {length} announced")
        yield chunk
        data = stream.unused_data


def string_vector(chunk):
    """The strings of a serialised character vector: format 'X' (XDR), version 3."""
    if chunk[:2] != b"X\n" or struct.unpack(">i", chunk[2:6])[0] != 3:
        raise ValueError("not an R serialisation in XDR format, version 3")
    (encoding_bytes,) = struct.unpack(">i", chunk[14:18])
    at = 18 + encoding_bytes
    flags, count = struct.unpack(">ii", chunk[at : at + 8])
    if flags & 0xFF != STRING_VECTOR:
        raise ValueError(f"R object of type {flags & 0xFF}, expected a character vector ({STRING_VECTOR})")
    at += 8
    for _ in range(count):
        flags, length = struct.unpack(">ii", chunk[at : at + 8])
        if flags & 0xFF != STRING or length < 0:
            raise ValueError(f"element of type {flags & 0xFF} and length {length} in a character vector")
        yield chunk[at + 8 : at + 8 + length].decode("utf-8")
        at += 8 + length


def clean(paragraph):
    """The paragraph on one line, without marks of emphasis and footnotes; empty for a note of the edition."""
    text = " ".join(" ".join(paragraph).split())
    return "" if NOTE.match(text) else MARKS.sub("", text)


def chapters(lines):
    """Lists of paragraphs, one list per chapter; what stands before the first chapter is left out."""
    chapter, paragraph = None, []
    for line in [*lines, ""]:
        line = line.strip()
        if HEADING.match(line):
            if chapter:
                yield chapter
            chapter, paragraph = [], []
        elif not line or FURNITURE.match(line):
            text = clean(paragraph)
            if text and chapter is not None:
                chapter.append(text)
            paragraph = []
        else:
            paragraph.append(line)
    if chapter:
        yield chapter


def main():
    rdb, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    for chunk in chunks(rdb.read_bytes()):
        lines = list(string_vector(chunk))
        title = re.sub(r"\W+", "-", lines[0].strip().lower())
        for number, paragraphs in enumerate(chapters(lines), 1):
            (out / f"{title}-{number:02}.txt").write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
