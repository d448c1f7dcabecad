"""Column files: one word per line with its labels, as CoNLL-2000, CoNLL-U, the Parallel Meaning Bank or one's own."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from lib.corpora.sentences import CorpusError, Sentence
from lib.study import params
from lib.study.params import Corpus


def read_columns(file: Path, columns: dict[str, int], separator: str = "whitespace") -> Iterator[Sentence]:
    """The sentences of a file with one word per line, its labels in columns, and an empty line after each sentence.

    Reads CoNLL-2000, -2003 and -2012, CoNLL-U and the Parallel Meaning Bank as well as a user's own two columns.
    ``whitespace`` means blanks and tabs: any other space is part of a word.

    A text begins at a line ``-DOCSTART-``, ``# begin document`` or, where tabs separate, ``# newdoc``; it has the name
    that follows, or a number. In tab-separated files, lines that begin with ``# ``, or with ``#`` and have no tab, are
    comments, and CoNLL-U's word ranges and empty nodes are skipped.

    Raises
    ------
    CorpusError : no such file, not UTF-8, not the file itself (packed, a pointer), a line with too few columns or other
        columns than the first, an empty word or label, CoNLL-U to be read as white space; always with file:line.
    """
    tab = separator == "tab"
    word, need = columns["word"], max(columns.values()) + 1
    text, texts, rows, width = "", 0, [], None

    def sentence() -> Sentence:
        return Sentence(
            text, [r[word] for r in rows], {n: [r[c] for r in rows] for n, c in columns.items() if n != "word"}
        )

    for number, line in _lines(file):
        if not tab and CONLLU.match(line):
            raise CorpusError(f"{file}:{number}: this looks like CoNLL-U: give corpus.separator: tab")
        cells = [c.strip(" ") for c in line.split("\t")] if tab else re.split(r"[ \t]+", line.strip(" \t"))
        begun = _begun(line, cells, word)
        if begun is not None or not line.strip():
            if rows:
                yield sentence()
            rows = []
            if begun is not None:
                texts += 1
                text = begun or f"#{texts}"
            continue
        if (
            ENDS.fullmatch(line)
            or (not rows and not tab and REMARK.match(line))
            or (tab and (line.startswith("# ") or (line.startswith("#") and "\t" not in line)))
        ):
            continue
        if tab and word > 0 and re.fullmatch(r"\d+[-.]\d+", cells[0]):
            continue
        if len(cells) < need:
            raise CorpusError(
                f"{file}:{number}: {len(cells)} columns, but column {need - 1} (from 0) is asked for{_hint(line, tab)}"
            )
        if len(cells) != (width := width or len(cells)):
            raise CorpusError(
                f"{file}:{number}: {len(cells)} columns where the lines before have {width}{_hint(line, tab)}"
            )
        for name, column in columns.items():
            if not cells[column].strip():
                what = f"empty {name if name == 'word' else f'label for {name!r}'}"
                only = f" (nothing but {_codes(cells[column])})" if cells[column] else ""
                raise CorpusError(f"{file}:{number}: {what}{only}")
        rows.append(cells)
    if rows:
        yield sentence()


BEGINS = re.compile(r"#\s*(?:newdoc(?:\s+id)?(?:\s*=\s*|\s+|$)|begin document\b\s*)(.*)")
"""Where a text begins in CoNLL-U and in CoNLL-2012, and its name."""


ENDS = re.compile(r"#\s*end document\b.*")


COMMENT = r"#\s*(?:(?:sent_id|text|newdoc id|newpar id|global\.columns)\s*=|new(?:doc|par)\s*$)"


CONLLU = re.compile(COMMENT + r"|\d+(?:[-.]\d+)?(?:\t[^\t]*){9}$")
"""What only CoNLL-U has: its comments, and lines of ten columns of which the first is a number."""


REMARK = re.compile(r"#+\s*[a-z_]\w*\s*=|#+\s+id\b|</?\w+(\s+\w+=\S+)*\s*/?>\s*$")
"""What may stand before a sentence where white space separates, and is no word: ``# id 7``, ``# id = 7``, ``<s>``."""

PACKED = b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ"


def _begun(line: str, cells: list[str], word: int) -> str | None:
    """The name of the text that begins at a line, '' if it has none; None where no text begins."""
    if "-DOCSTART-" in (cells[0].split(" ")[0], *cells[word : word + 1]):
        return ""
    found = BEGINS.fullmatch(line.strip())
    return found[1] if found else None


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    if not file.is_file():
        raise CorpusError(f"there is no corpus file {file}")
    with file.open("rb") as stream:
        for number, raw in enumerate(stream, 1):
            line = raw.rstrip(b"\r\n")
            if number == 1 and line.startswith(b"version https://git-lfs"):
                raise CorpusError(f"{file}:1: a Git LFS pointer, not the corpus: fetch it with 'git lfs pull'")
            if number == 1 and line.startswith(PACKED):
                raise CorpusError(f"{file}:1: a packed file: unpack it")
            if b"\0" in line:
                raise CorpusError(f"{file}:{number}: not UTF-8 (zero bytes, as in UTF-16); convert the file")
            if b"\r" in line:
                raise CorpusError(f"{file}:{number}: a carriage return within the line; convert the line ends to \\n")
            try:
                yield number, line.decode("utf-8-sig")  # in every line: files that were joined keep their marks
            except UnicodeDecodeError as error:
                raise CorpusError(f"{file}:{number}: not UTF-8 ({error.reason}); convert the file") from error


def _hint(line: str, tab: bool) -> str:
    """What may be wrong with a line that has too few or too many columns."""
    if odd := [c for c in line if c.isspace() and c not in " \t"]:
        return f"; only blanks and tabs separate columns, {_codes(odd)} does not"
    if tab and "\t" not in line:
        return "; there is no tab: if white space separates the columns, give corpus.separator: whitespace"
    return "; if tabs separate the columns, give corpus.separator: tab" if "\t" in line and not tab else ""


def _codes(characters: Iterable[str]) -> str:
    return ", ".join(f"U+{ord(c):04X}" for c in dict.fromkeys(characters))


def _file_splits(corpus: Corpus) -> dict[str, list[Sentence]]:
    splits = {
        split: list(read_columns(params.ROOT / name, corpus.columns, corpus.separator))
        for split, name in corpus.files.items()
    }
    for split, sentences in splits.items():
        _refuse_withheld(sentences, params.ROOT / corpus.files[split])
    if "dev" not in splits:
        train = splits["train"]
        splits |= {"dev": train[9::10], "train": [s for i, s in enumerate(train) if i % 10 != 9]}
    return splits


def _refuse_withheld(sentences: list[Sentence], file: Path) -> None:
    """A treebank whose text may not be passed on has one word, mostly ``_``, in place of all or in some texts."""
    masked = [[re.sub("^_+$", "_", word) for word in s.words] for s in sentences]  # or one _ for each letter
    counts = Counter(word for words in masked for word in words)
    blank = sum(len(words) for words in masked if len(words) > 1 and set(words) == {"_"})
    word, most = ("_", counts["_"]) if blank else next(iter(counts.most_common(1)), ("", 0))
    if blank > 0.05 * counts.total() or (most > 0.5 * counts.total() and counts.total() >= 20):
        raise CorpusError(
            f"{file}: {most} of {counts.total()} words are '{word}': the text is withheld. Put it in first (the "
            "treebank's README says how), or leave out the sentences that have none"
        )
