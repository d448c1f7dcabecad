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
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lib.study.params import shown

csv.field_size_limit(2**31 - 1)  # a text may be longer than the module's own 131,072 characters

LARGEST = float(np.finfo(np.float32).max)
"""The largest label of a regression: it is learnt in single precision."""


class TableError(ValueError):
    """A table that cannot be used; the message says where in which file, and what to do."""


@dataclass(frozen=True)
class Table:
    """The values of some columns, as the file gives them.

    ``source`` : the file. ``lines`` : where each example begins, of a file that has lines. ``classes`` : column → the
    names that the file itself gives to the numbers in it.
    """

    source: str
    columns: dict[str, list[Any] | pa.ChunkedArray]
    lines: Sequence[int] = ()
    classes: dict[str, list[str]] = field(default_factory=dict)

    def values(self, column: str) -> list[Any]:
        """One column as a new list of Python values."""
        values = self.columns[column]
        return [*values] if isinstance(values, list) else values.to_pylist()

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
    except (OSError, ValueError, EOFError, RecursionError, zlib.error, lzma.LZMAError, pa.ArrowException) as error:
        raise TableError(f"{file} cannot be read as {format} ({reason(error)})") from error


def of_arrow(source: str, table: pa.Table, names: list[str]) -> Table:
    """These columns of an Arrow table. Raises TableError if one is not there or holds no single values."""
    classes, columns = _schema(source, table.schema, names), {c: table.column(c) for c in names}
    for column in columns.values():
        column.validate(full=True)  # a string that is not UTF-8
    return Table(source, columns, classes=classes)


def _need(source: str | Path, names: list[str], columns: list[str], hint: str = "") -> None:
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
    _need(file, names, header, ": columns are separated by commas" if alone else "")
    lines, cells = [], []
    for line, row in rows:
        if len(row) != len(header):
            raise TableError(
                f"{file}:{line}: {len(row)} cells, the header has {len(header)} "
                "(a text with a comma, a line break or a quotation mark in it stands in quotation marks)"
            )
        lines.append(line)
        cells.append([row[header.index(name)] for name in names])
    columns = [[*column] for column in zip(*cells, strict=True)] or [[] for _ in names]
    return Table(str(file), dict(zip(names, columns, strict=True)), lines)


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file but for blank lines, each with the line that it begins in."""
    reader = csv.reader(io.StringIO(_decoded(file), newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fault = "is not closed"
            if "unexpected end" not in str(error):
                fault = f"is not closed, or not written twice inside a text ('{error}' in line {reader.line_num})"
            raise TableError(f"{file}:{line}: a quotation mark in the row that begins here {fault}") from error
        if len(row) > 1 or "".join(row).strip():
            yield line, row


def _json(file: Path, names: list[str]) -> Table:
    text, lines = _decoded(file), []
    advice = "give one example a line, or one list of all"
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data" or text.lstrip().startswith("["):
            raise TableError(f"{file}:{error.lineno}: not valid JSON ({error.msg}): {advice}") from error
        rows = []
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                try:
                    rows.append(json.loads(line))
                except json.JSONDecodeError as wrong:
                    raise TableError(f"{file}:{number}: not valid JSON ({wrong.msg}): {advice}") from wrong
                lines.append(number)
    if isinstance(rows, dict) and not any(isinstance(rows.get(c, []), list | dict) for c in names):
        rows = [rows]  # one line, and so one example
    if not isinstance(rows, list):
        kind = f"one object with {shown([*rows])}" if isinstance(rows, dict) else shown(rows)
        raise TableError(f"{file} holds {kind}, no list of examples: {advice}")
    table = Table(str(file), {}, lines)
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            raise table.refused(i, f"{shown(row)} is no object of columns and values")
    if rows:
        _need(file, names, list(dict.fromkeys(c for row in rows for c in row)))
    return Table(str(file), {c: [row.get(c) for row in rows] for c in names}, lines)


def _parquet(file: Path, names: list[str]) -> Table:
    with file.open("rb") as stream:
        parquet = pq.ParquetFile(stream)
        _schema(str(file), parquet.schema_arrow, names)
        return of_arrow(str(file), parquet.read(columns=names), names)


def _schema(source: str, schema: pa.Schema, names: list[str]) -> dict[str, list[str]]:
    """Check the columns of an Arrow schema; the class names that ``datasets`` has written into it."""
    _need(source, names, schema.names)
    for column in names:
        if pa.types.is_nested(schema.field(column).type):
            raise TableError(
                f"column '{column}' holds {schema.field(column).type}, not one value per example ({source})"
            )
    info = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info") or {}
    features = {c: (info.get("features") or {}).get(c) for c in names}
    return {c: f["names"] for c, f in features.items() if isinstance(f, dict) and f.get("names")}


# Values ----------------------------------------------------------------------------------------------------------


def texts(table: Table, column: str, may_be_empty: bool = False) -> pa.Array | pa.ChunkedArray:
    """A column of texts; whole numbers count as the text that they are written as.

    Raises TableError if one is missing, no text, or empty (white space alone, too).
    """
    values = table.values(column)
    for i, value in enumerate(values):
        if type(value) is int:
            values[i] = str(value)
        elif not isinstance(value, str):
            fault = "missing" if value is None or value != value else f"{shown(value)}, no text: write it as one"
            raise table.refused(i, f"the text in '{column}' is {fault}")
        elif not may_be_empty and not value.strip():
            raise table.refused(i, f"the text in '{column}' is empty ({shown(value)}): leave the example out")
        elif re.search("[\ud800-\udfff]", value):
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
    unnamed = own == [str(i) for i in range(len(own))]
    if not unnamed and (lacking := [n for n in names if n not in own]):
        raise TableError(
            f"the file names its classes {own!s:.500}, and '{lacking[0]}' is not among them: give 'labels' these "
            f"names ({table.source})"
        )
    known = {n: i for i, n in enumerate(names)}
    numbers, ways = np.empty(len(table.columns[column]), np.int64), {}
    for i, value in enumerate(table.values(column)):
        by_name, number = _class(own[value] if type(value) is int and 0 <= value < len(own) else value, known)
        if number is None:
            raise table.refused(
                i, f"label {shown(value)} is not one of {list(names)!s:.500} (nor of their numbers, from 0)"
            )
        ways.setdefault(by_name, (i, value))
        numbers[i] = number
    if len(ways) > 1:
        (first, label), (other, number) = ways[True], ways[False]
        raise table.refused(
            other,
            f"label {shown(number)} is the number of a class, {shown(label)} of example {first} the name of one: "
            "write the names throughout",
        )
    return pa.array(numbers)


def _class(value: Any, known: dict[str, int]) -> tuple[bool, int | None]:
    """Whether a class is given by its name, and its number (None if it is none)."""
    if isinstance(value, bool):
        folded = {name.lower(): number for name, number in known.items()}
        return True, folded[str(value).lower()] if set(folded) == {"true", "false"} else None
    if not isinstance(value, str | int | float | Decimal) or value != value:
        return False, None
    text = str(value)
    if text in known:
        return True, known[text]
    digits = re.fullmatch(r"(0|[1-9][0-9]{0,8})(\.0*)?", text)
    if not digits:
        return False, None
    if digits[1] in known:
        return True, known[digits[1]]
    return False, int(digits[1]) if int(digits[1]) < len(known) else None


def numbers(table: Table, column: str) -> pa.Array:
    """A column of numbers. Raises TableError if one is missing, no number, or not finite in single precision."""
    values = table.values(column)
    for i, value in enumerate(values):
        number = _number(value)
        if not abs(number) <= LARGEST:
            raise table.refused(
                i, f"label {shown(value)} is not one of the numbers that a regression can learn (finite, in single "
                "precision); classes are named in 'labels'",
            )  # fmt: skip
        values[i] = number
    return pa.array(values, pa.float64())


def _number(value: Any) -> float:
    """A number as such, NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal) or "_" in str(value):
        return np.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return np.nan
