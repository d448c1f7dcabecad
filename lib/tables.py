"""Table: the examples of one split as they stand in a file, and their values checked one by one.

A file is the one at its path, read anew each time: no pattern, no cache, no guess at what a value means.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lib.study.params import shown

csv.field_size_limit(2**31 - 1)  # a text may be longer than the module's own 131,072 characters


class TableError(ValueError):
    """A table that cannot be used; the message says where in which file, and what to do."""


@dataclass(frozen=True)
class Table:
    """The values of some columns, as the file gives them.

    ``source`` : the file. ``lines`` : where each example begins, of a file that has lines. ``classes`` : column → the
    names that the file itself gives to the numbers in it.
    """

    source: str
    columns: dict[str, list[Any]]
    lines: Sequence[int] = ()
    classes: dict[str, list[str]] = field(default_factory=dict)

    def refused(self, example: int, reason: str) -> TableError:
        """The error that an example (from 0) cannot be used."""
        place = f"{self.source}:{self.lines[example]}" if self.lines else self.source
        return TableError(f"example {example}: {reason} ({place})")


def reason(error: BaseException) -> str:
    """The innermost of a chain of errors, in one line."""
    while deeper := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = deeper
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]


# Files -----------------------------------------------------------------------------------------------------------


def read(file: Path, format: str, names: list[str]) -> Table:
    """These columns of a CSV, JSON or Parquet file. Raises TableError if it is not there, is no such file, or lacks a
    column."""
    try:
        with file.open("rb") as stream:
            if stream.read(30).startswith(b"version https://git-lfs"):
                raise TableError(f"{file} is a Git LFS pointer, not the file itself: get it with 'git lfs pull'")
        return {"csv": _csv, "json": _json, "parquet": _parquet}[format](file, names)
    except TableError:
        raise
    except FileNotFoundError as error:
        raise TableError(f"there is no file {file}") from error
    except Exception as error:  # decompressors and parsers raise some ten kinds
        raise TableError(f"{file} cannot be read as {format} ({reason(error)})") from error


def of_arrow(source: str, table: pa.Table, names: list[str]) -> Table:
    """These columns of an Arrow table, with the class names that ``datasets`` has written into its schema.

    Raises TableError if a column is not there or holds no single values.
    """
    _need(source, names, table.column_names)
    for name in names:
        if pa.types.is_nested(kind := table.schema.field(name).type):
            raise TableError(f"column '{name}' holds {kind}, not one value per example ({source})")
    info = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}")).get("info") or {}
    features = info.get("features") or {}
    classes = {name: features[name]["names"] for name in names if "names" in (features.get(name) or {})}
    return Table(source, {name: table.column(name).to_pylist() for name in names}, classes=classes)


def _need(source: str, names: list[str], columns: list[str], hint: str = "") -> None:
    if missing := sorted(set(names) - set(columns)):
        raise TableError(f"no column {missing} (there are {columns!s:.500}){hint} ({source})")
    if twice := [name for name in names if columns.count(name) > 1]:
        raise TableError(f"there are {columns.count(twice[0])} columns named '{twice[0]}' ({source})")


PACKED = {b"\x1f\x8b": gzip.decompress, b"BZh": bz2.decompress, b"\xfd7zXZ": lzma.decompress}


def _decoded(file: Path) -> str:
    content = file.read_bytes()
    unpack = next((unpack for magic, unpack in PACKED.items() if content.startswith(magic)), bytes)
    content = unpack(content)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise TableError(
            f"{file}:{line}: not UTF-8 (byte {error.start}, {content[error.start]:#04x}): save the file as UTF-8 text"
        ) from error
    if not text.strip():
        raise TableError(f"{file} is empty")
    return text


def _csv(file: Path, names: list[str]) -> Table:
    rows = _rows(file)
    _, header = next(rows, (1, []))
    alone = len(header) == 1 and re.search("[;\t|]", header[0])
    _need(str(file), names, header, ": columns are separated by commas" if alone else "")
    examples, lines = [], []
    for line, cells in rows:
        if len(cells) != len(header):
            raise TableError(
                f"{file}:{line}: {len(cells)} cells, the header has {len(header)} "
                "(a text with a comma, a line break or a quotation mark in it stands in quotation marks)"
            )
        examples.append(dict(zip(header, cells, strict=True)))
        lines.append(line)
    return Table(str(file), {name: [example[name] for example in examples] for name in names}, lines)


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file but for blank lines, each with the line that it begins in."""
    reader = csv.reader(io.StringIO(_decoded(file), newline=""), strict=True)
    line = 1
    try:
        for row in reader:
            if len(row) > 1 or "".join(row).strip():
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        fault = "is not closed"
        if "unexpected end" not in str(error):
            fault += f", or not written twice inside a text ('{error}' in line {reader.line_num})"
        raise TableError(f"{file}:{line}: a quotation mark in the row that begins here {fault}") from error


def _json(file: Path, names: list[str]) -> Table:
    """One list of examples, or one example after the other, as JSON lines have them."""
    text, advice = _decoded(file), "give one example a line, or one list of all"
    examples, lines = [], []
    line, begin, end = 1, 0, 0
    try:
        while value := re.compile(r"\S").search(text, end):
            line += text.count("\n", begin, value.start())
            begin = value.start()
            example, end = json.JSONDecoder().raw_decode(text, begin)
            examples.append(example)
            lines.append(line)
    except json.JSONDecodeError as error:
        raise TableError(f"{file}:{error.lineno}: not valid JSON ({error.msg}): {advice}") from error
    only = examples[0] if len(examples) == 1 else None
    if isinstance(only, list):
        examples, lines = only, []
    elif isinstance(only, dict) and any(isinstance(only.get(name, []), list | dict) for name in names):
        raise TableError(f"{file} holds one object with {shown([*only])}, no list of examples: {advice}")
    for i, example in enumerate(examples):
        if not isinstance(example, dict):
            raise Table(str(file), {}, lines).refused(
                i, f"{shown(example)} is no object of columns and values: {advice}"
            )
    _need(str(file), names, list(dict.fromkeys(column for example in examples for column in example)))
    return Table(str(file), {name: [example.get(name) for example in examples] for name in names}, lines)


def _parquet(file: Path, names: list[str]) -> Table:
    with pq.ParquetFile(file) as parquet:
        _need(str(file), names, parquet.schema_arrow.names)
        return of_arrow(str(file), parquet.read(columns=names), names)


# Values ----------------------------------------------------------------------------------------------------------


def texts(table: Table, column: str, may_be_empty: bool = False) -> pa.Array | pa.ChunkedArray:
    """A column of texts; whole numbers count as the text that they are written as.

    Raises TableError if one is missing, no text, or empty (white space alone, too).
    """
    values = [str(value) if type(value) is int else value for value in table.columns[column]]
    for i, value in enumerate(values):
        if not isinstance(value, str):
            fault = "missing" if value is None or value != value else f"{shown(value)}, no text: write it as one"
            raise table.refused(i, f"the text in '{column}' is {fault}")
        if not may_be_empty and not value.strip():
            raise table.refused(i, f"the text in '{column}' is empty ({shown(value)}): leave the example out")
        if re.search("[\ud800-\udfff]", value):
            raise table.refused(i, f"the text in '{column}' has half a character, a lone surrogate ({shown(value)})")
    return pa.array(values, pa.string())


def classes(table: Table, column: str, names: Sequence[str]) -> pa.Array:
    """A column of classes as their numbers: the places of their names in ``names``.

    A class is given by its name or by its number, in one way throughout; what is both is a name. Where the file names
    its classes, its numbers stand for those names.

    Raises
    ------
    TableError : a value that is no class, two ways in one column, or a class that the file's own names lack.
    """
    own = table.classes.get(column, [])
    numbered = [str(i) for i in range(len(own))]  # the file names its classes 0, 1 …, which says nothing
    if own != numbered and (lacking := [name for name in names if name not in own]):
        raise TableError(
            f"the file names its classes {own!s:.500}, and '{lacking[0]}' is not among them: give 'labels' these "
            f"names ({table.source})"
        )
    known: dict[str | bool, tuple[bool, int]] = {str(i): (False, i) for i in range(len(names))}
    known |= {name: (True, i) for i, name in enumerate(names)}
    if {name.lower() for name in names} == {"true", "false"}:
        known |= {name.lower() == "true": known[name] for name in names}
    values, found = table.columns[column], []
    for i, value in enumerate(values):
        label = own[value] if type(value) is int and 0 <= value < len(own) else value
        text = label if isinstance(label, bool) else str(label)
        if isinstance(text, str) and text not in known:
            text = re.sub(r"\A(0|[1-9][0-9]*)\.0*\Z", r"\1", text)  # 1.0 is the number 1
        if text not in known or label is None or label != label:
            raise table.refused(
                i, f"label {shown(value)} is not one of {list(names)!s:.500} (nor of their numbers, from 0)"
            )
        found.append(known[text])
    by_name = [named for named, _ in found]
    if len(set(by_name)) > 1:
        first, other = by_name.index(True), by_name.index(False)
        raise table.refused(
            other,
            f"label {shown(values[other])} is the number of a class, {shown(values[first])} of example {first} the "
            "name of one: write the names throughout",
        )
    return pa.array([number for _, number in found], pa.int64())


def numbers(table: Table, column: str) -> pa.Array:
    """A column of numbers. Raises TableError if one is missing, no number, or not finite in single precision."""
    numbers = []
    for i, value in enumerate(table.columns[column]):
        try:
            number = float(str(value))
        except ValueError:
            number = np.nan
        if not abs(number) <= float(np.finfo(np.float32).max) or "_" in str(value):  # Python alone reads 1_000
            raise table.refused(
                i, f"label {shown(value)} is not one of the numbers that a regression can learn (finite, in single "
                "precision); classes are named in 'labels'",
            )  # fmt: skip
        numbers.append(number)
    return pa.array(numbers, pa.float64())
