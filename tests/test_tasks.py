"""Every task has three disjoint splits of texts and labels; the registry tasks differ in the label only."""

import bz2
import gzip
import json
import lzma
import os
from collections import Counter
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib import tables, tasks
from lib.study import inputs, loading, params
from lib.study.runs import Run
from lib.study.variants import Variant
from lib.tasks import TaskError, corrupt

# GLUE ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def glue(shared: Path):
    """``glue(variant, **overrides)``: the data of a task of the mirror, whole."""

    def load(variant: str, **overrides):
        whole = {f"task_data.{k}_examples": None for k in ("train", "dev", "test")}
        study = loading.load("minilm", "full", {**whole, "task_data.glue": str(shared / "glue"), **overrides})
        return tasks.load(study, Variant.parse(variant))

    return load


SIZES = {
    "sst2": (67_349, 872), "cola": (8_551, 1_043), "rte": (2_490, 277), "stsb": (5_749, 1_500), "mrpc": (3_668, 408),
    "qnli": (14_953, 5_463), "mnli": (74_569, 9_815), "qqp": (33_380, 40_430),
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_a_tenth_of_glues_training_split_is_dev_and_its_dev_split_is_test(glue, name: str) -> None:
    data = glue(f"{name}-s1")
    official, test = SIZES[name]
    assert len(data["train"]) + len(data["dev"]) == official
    assert len(data["dev"]) == -(-official // 10)
    assert len(data["test"]) == test
    described = tasks.GLUE[name]
    assert set(data["train"].column_names) == {"label", "text", *(["text_pair"] if len(described.columns) == 2 else [])}
    labels = {split: data[split]["label"][:] for split in data}
    if described.labels:
        assert set(labels["train"]) == set(labels["test"]) == set(range(len(described.labels)))
    else:
        assert all(isinstance(x, float) and 0 <= x <= 5 for x in labels["train"])
        assert len(set(labels["train"])) > 10


def test_the_test_split_is_the_official_dev_split_in_its_order(glue, shared: Path) -> None:
    official = pd.read_parquet(shared / "glue" / "rte" / "validation-00000-of-00001.parquet")
    data = glue("rte-s1")["test"]
    assert data["text"][:] == official["sentence1"].tolist()
    assert data["text_pair"][:] == official["sentence2"].tolist()
    assert data["label"][:] == official["label"].tolist()


def test_a_variant_takes_as_many_examples_as_it_names_and_the_sample_is_the_studys(glue) -> None:
    first, other = glue("rte-500-s1"), glue("rte-500-s2")
    assert len(first["train"]) == 500
    assert first["train"]["text"][:] == other["train"]["text"][:], "one sample for all fine-tuning seeds"
    assert first["train"]["text"][:] != glue("rte-500-s1", seed=7)["train"]["text"][:]
    assert len(glue("rte-1k-s1")["train"]) == 1000
    assert len(glue("rte-half-s1")["train"]) == len(glue("rte-s1")["train"]), "half the updates, not half the data"


def test_the_study_limits_the_examples(glue) -> None:
    data = glue(
        "rte-s1", **{"task_data.train_examples": 50, "task_data.dev_examples": 20, "task_data.test_examples": 30}
    )
    assert {k: len(v) for k, v in data.items()} == {"train": 50, "dev": 20, "test": 30}


def test_glue_that_cannot_be_read_is_one_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for place in (str(tmp_path / "empty"), "no-such-organisation/glue"):
        study = loading.load("minilm", overrides={"task_data.glue": place})
        with pytest.raises(TaskError, match=r"task 'rte' could not be read .* set task_data\.glue to the folder"):
            tasks.load(study, Variant.parse("rte-s1"))


@pytest.fixture
def copy(tmp_path: Path):
    """``copy(tables, variant)``: the data of a task of a copy of GLUE whose folder of the task has these files."""

    def load(files: dict[str, pa.Table], variant: str = "rte-s1") -> datasets.DatasetDict:
        for name, table in files.items():
            file = tmp_path / "copy" / variant.split("-")[0] / name
            file.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, file)
        study = loading.load("minilm", overrides={"task_data.glue": str(tmp_path / "copy")})
        return tasks.load(study, Variant.parse(variant))

    return load


def pairs(count: int, labels=(0, 1), **more) -> pa.Table:
    """Examples as those of RTE."""
    texts = {f"sentence{k}": [f"text {i} {k}" for i in range(count)] for k in (1, 2)}
    return pa.table(texts | {"label": [labels[i % len(labels)] for i in range(count)], **more})


TRAIN, TEST = "train-00000-of-00001.parquet", "validation-00000-of-00001.parquet"


@pytest.mark.parametrize(
    "train", [[TRAIN], ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"], ["train.parquet"],
              ["train/0000.parquet", "train/0001.parquet"], ["train-00000-of-00001-a09b74b3ef9c3b56.parquet"]],
)  # fmt: skip
def test_a_copy_of_glue_is_read_in_every_layout_that_the_hub_gives(copy, train: list[str]) -> None:
    whole = pairs(40)
    parts = {name: whole.slice(i * 40 // len(train), 40 // len(train)) for i, name in enumerate(train)}
    data = copy({**parts, TEST: pairs(10), "test-00000-of-00001.parquet": pairs(10, (-1,))})
    found = sorted([*data["train"]["text"], *data["dev"]["text"]])
    assert found == sorted(f"text {i} 1" for i in range(40))
    assert data["test"]["label"][:] == [0, 1] * 5


def test_a_copy_of_glue_is_read_anew_when_a_file_changes_and_its_time_does_not(copy, tmp_path: Path) -> None:
    found = []
    for labels in ((0, 1), (1, 0)):
        copy({TRAIN: pairs(20), TEST: pairs(4, labels)})
        os.utime(tmp_path / "copy" / "rte" / TEST, (10**9, 10**9))
        found.append(copy({})["test"]["label"][:])
    assert found == [[0, 1, 0, 1], [1, 0, 1, 0]]


def test_a_copy_of_glue_that_lacks_a_file_is_refused_with_what_is_there(copy) -> None:
    with pytest.raises(TaskError, match=r"there is no file rte/validation-\*\.parquet \(in rte/: train-0.*parquet\)"):
        copy({TRAIN: pairs(20)})
    with pytest.raises(TaskError, match=r"mrpc/ has 1 files of its train split, .* there are 2"):
        copy({"train-00001-of-00002.parquet": pairs(20), TEST: pairs(4)}, "mrpc-s1")


def test_a_damaged_file_of_glue_is_named_without_advice_about_the_hub(copy, tmp_path: Path) -> None:
    copy({TRAIN: pairs(20), TEST: pairs(4)})
    for content in (b"PAR1 cut short", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"):
        (tmp_path / "copy" / "rte" / TRAIN).write_bytes(content)
        with pytest.raises(TaskError, match=r"rte/train-0.*parquet (cannot be read as parquet|is a Git LFS)") as caught:
            copy({})
        assert "hub" not in str(caught.value)


def test_an_empty_text_of_glue_counts_as_it_is_but_a_missing_one_does_not(copy) -> None:
    empty = pairs(20).set_column(0, "sentence1", pa.array(["", *["a"] * 19]))
    assert "" in copy({TRAIN: pairs(20), TEST: empty})["test"]["text"][:]
    with pytest.raises(TaskError, match=r"'rte', validation, example 0: the text in 'sentence1' is missing"):
        copy({TEST: empty.set_column(0, "sentence1", pa.array([None, *["a"] * 19]))})


@pytest.mark.parametrize(("names", "expected"), [
    (["entailment", "not_entailment"], [0, 1]), (["not_entailment", "entailment"], [1, 0]), (["0", "1"], [0, 1]),
])  # fmt: skip
def test_glue_of_the_hub_is_asked_for_one_split_and_its_class_names_count(
    monkeypatch, tmp_path: Path, names, expected
) -> None:
    asked = []

    def from_hub(repository: str, revision: str, kind: str, files: tuple[str, ...]) -> Path:
        asked.append((repository, revision, kind, files))
        return tmp_path

    data = datasets.Dataset(datasets.table.InMemoryTable(pairs(20)))
    (tmp_path / "rte").mkdir()
    for file in (TRAIN, TEST):
        data.cast_column("label", datasets.ClassLabel(names=names)).to_parquet(tmp_path / "rte" / file)
    monkeypatch.setattr(tasks.hub, "folder", from_hub)
    study = loading.load("minilm", overrides={"task_data.glue": "some/glue", "task_data.glue_revision": "abc"})
    assert tasks.load(study, Variant.parse("rte-s1"))["test"]["label"][:] == expected * 10
    files = [(f"rte/{split}[.-]*parquet", f"rte/{split}/*.parquet") for split in ("train", "validation")]
    assert asked == [("some/glue", "abc", "dataset", of) for of in files]


def test_an_unknown_task_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(params.ParameterError, match=r"there is no task 'sentimant'; did you mean 'sentiment'\?"):
        tasks.load(loading.load("minilm"), Variant.parse("sentimant-s1"))


def test_a_model_depends_on_the_copy_of_its_own_task(tmp_path: Path) -> None:
    place = tmp_path / "glue" / "rte"
    place.mkdir(parents=True)
    (place / "train.csv").write_text("a")

    def keys(task: str) -> str:
        study = loading.load("minilm", overrides={"task_data.glue": str(tmp_path / "glue")})
        return Run(study, Variant.parse(f"{task}-s1")).key("finetune")

    before = {task: keys(task) for task in ("rte", "cola", "sentiment")}
    (place / "train.csv").write_text("other")
    assert {task for task, key in before.items() if keys(task) != key} == {"rte"}
    hub = Run(loading.load("minilm"), Variant.parse("sentiment-s1")).key("finetune")
    assert hub == before["sentiment"], "where GLUE is does not matter to it"
    assert set(inputs.SNIPPETS) == set(tasks.REGISTRY)


@pytest.mark.parametrize("name", ["sentiment", "rte"])
def test_an_own_task_under_a_known_name_is_refused(name: str) -> None:
    own = {name: {"format": "csv", "files": {"train": "a.csv", "test": "b.csv"}, "text": "text"}}
    with pytest.raises(params.ParameterError, match=f"'{name}' is a task of this package"):
        tasks.task(loading.load("minilm", overrides={"task_data.own": own}), name)


# Registry tasks --------------------------------------------------------------------------------------------------


@pytest.fixture
def snippets(source):
    """``snippets(task, **overrides)``: the data of a registry task, whole."""
    source("movie-snippets")

    def load(name: str, **overrides):
        whole = {f"task_data.{k}_examples": None for k in ("train", "dev", "test")}
        return tasks.load(loading.load("minilm", "full", {**whole, **overrides}), Variant.parse(f"{name}-s1"))

    return load


def test_the_three_tasks_have_the_same_words_in_the_same_splits(snippets) -> None:
    data = {name: snippets(name) for name in tasks.REGISTRY}
    for split in ("train", "dev", "test"):
        texts = {name: data[name][split]["text"][:] for name in data}
        assert len(texts["sentiment"]) > 500
        assert texts["sentiment"] == texts["shuffled"]
        bags = {name: [sorted(t.split()) for t in texts[name]] for name in texts}
        assert bags["sentiment"] == bags["acceptability"]
    assert data["sentiment"]["train"]["label"][:] != data["shuffled"]["train"]["label"][:]


def test_no_text_is_in_two_splits(snippets) -> None:
    data = snippets("sentiment")
    texts = [t for split in data.values() for t in split["text"][:]]
    assert len(texts) == len(set(texts))


def test_exactly_the_texts_labelled_unacceptable_are_corrupted(snippets) -> None:
    clean, tested = snippets("sentiment"), snippets("acceptability")
    for split in clean:
        for text, other, label in zip(clean[split]["text"], tested[split]["text"], tested[split]["label"], strict=True):
            assert (text == other) is (label == 1)


def test_the_labels_are_balanced(snippets) -> None:
    for name in tasks.REGISTRY:
        for split in snippets(name).values():
            assert 0.45 < np.mean(split["label"][:]) < 0.58, name


def test_shuffled_labels_say_nothing_about_the_sentiment(snippets) -> None:
    real, shuffled = (np.array(snippets(n)["train"]["label"][:]) for n in ("sentiment", "shuffled"))
    assert abs(np.corrcoef(real, shuffled)[0, 1]) < 4 / np.sqrt(len(real))


def test_the_tasks_are_drawn_by_the_seed(snippets) -> None:
    small = {"task_data.train_examples": 50}
    first, again, other = (snippets("acceptability", seed=s, **small)["train"].to_dict() for s in (42, 42, 43))
    assert first == again
    assert first != other


def test_a_snippet_without_three_columns_is_refused_with_its_line(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "movieReviewSnippets_GroundTruth.txt").write_text("1\t2.0\tof the film\n2\t2.0\n", encoding="latin-1")
    monkeypatch.setattr(tasks.sources, "fetch", lambda name: tmp_path)
    with pytest.raises(TaskError, match=r"GroundTruth\.txt:2: 2 columns"):
        tasks.read_snippets()


TEXT = "it is a splash even greater than the sum of many good parts and his humour in the end is not lost on us"


@pytest.mark.parametrize("seed", range(5))
def test_corruption_keeps_the_words_and_changes_their_order(seed: int) -> None:
    found = corrupt(TEXT, np.random.default_rng(seed))
    assert Counter(found.split()) == Counter(TEXT.split())
    assert found != TEXT
    moved = sum(a != b for a, b in zip(found.split(), TEXT.split(), strict=True))
    assert 2 <= moved <= 2 * (len(TEXT.split()) // 8), "one swap for every eight words at most"
    assert found == corrupt(TEXT, np.random.default_rng(seed))


def test_only_a_function_word_swaps_with_the_content_word_after_it() -> None:
    assert corrupt("the dog sleeps", np.random.default_rng(0)) == "dog the sleeps"
    assert tasks._places("of the The Dog a dog, a dog".split()) == [6]


# Own tasks -------------------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path):
    """``own(train, test, **description)``: the data of a task of two csv files."""

    def load(train: str, test: str, **description):
        (tmp_path / "train.csv").write_text(train, encoding="utf-8")
        (tmp_path / "test.csv").write_text(test, encoding="utf-8")
        files = {n: str(tmp_path / f"{n}.csv") for n in ("train", "test")}
        described = {"format": "csv", "files": files, "text": "text", "labels": ["no", "yes"], **description}
        described = {k: v for k, v in described.items() if v is not None}
        study = loading.load("minilm", overrides={"task_data.own": {"mine": described}})
        return tasks.load(study, Variant.parse("mine-s1")), tasks.task(study, "mine")

    return load


def rows(count: int, labels=("no", "yes")) -> str:
    return "text,label\n" + "".join(f"example {i},{labels[i % len(labels)]}\n" for i in range(count))


def test_an_own_task_is_read_and_cut(own) -> None:
    data, described = own(rows(40), rows(10))
    assert {k: len(v) for k, v in data.items()} == {"train": 36, "dev": 4, "test": 10}
    assert data["test"]["label"][:] == [0, 1] * 5
    assert data["test"]["text"][0] == "example 0"
    every = {*data["train"]["text"], *data["dev"]["text"]}
    assert every == {f"example {i}" for i in range(40)}
    assert (described.metric, described.labels) == ("accuracy", ("no", "yes"))


def test_an_own_task_may_have_other_columns_and_pairs(own) -> None:
    text = "id,a,b,gold\n" + "".join(f"{i},left {i},right {i},{'yes' if i % 2 else 'no'}\n" for i in range(20))
    data, _ = own(text, text, text="a", text_pair="b", label="gold")
    assert set(data["test"].column_names) == {"text", "text_pair", "label"}
    assert (data["test"]["text_pair"][3], data["test"]["label"][3]) == ("right 3", 1)


def test_an_own_task_without_labels_is_a_regression(own) -> None:
    data, described = own(rows(20, (0, 2.5)), rows(4, (1, 4)), labels=None)
    assert data["test"]["label"][:] == [1.0, 4.0, 1.0, 4.0]
    assert all(isinstance(x, float) for x in data["test"]["label"])
    assert (described.metric, described.labels) == ("pearson", ())


def test_class_numbers_may_stand_for_class_names(own) -> None:
    assert own(rows(20, (0, 1)), rows(4, (1, 0)))[0]["test"]["label"][:] == [1, 0, 1, 0]


def test_class_names_that_are_numbers_are_names(own) -> None:
    data, _ = own(rows(20, (1, 0)), rows(4, (1, 0)), labels=["1", "0"])
    assert data["test"]["label"][:] == [0, 1, 0, 1], "the class named 1 has the number 0"


@pytest.mark.parametrize(
    ("train", "test", "description", "reason"),
    [
        (
            rows(20),
            rows(4, ("no", "maybe")),
            {},
            r"'mine', test, example 1: label 'maybe' is not one of \['no', 'yes'\]",
        ),
        (rows(20, ("no", "")), rows(4), {}, "label '' is not one of"),
        (rows(20, (0, 2)), rows(4, (0, 1)), {}, "label '2' is not one of"),
        (rows(20), rows(4), {"labels": None}, "label 'no' is not one of the numbers"),
        (rows(20, (1.5, "")), rows(4, (1.5, 2)), {"labels": None}, "is not one of the numbers"),
        (rows(20), rows(4), {"text": "txt"}, r"no column \['txt'\]"),
        (rows(20), rows(4), {"label": "gold"}, r"no column \['gold'\]"),
        (rows(20), rows(4), {"text_pair": "other"}, r"no column \['other'\]"),
        ("text,label\n", rows(4), {}, "'mine'"),
        (rows(20), "text,label\n", {}, "'mine'"),
        ("", rows(4), {}, "'mine'"),
        (rows(1), rows(4), {}, "'mine'"),
        (rows(20), rows(4), {"files": {"train": "/none/a.csv", "test": "/none/b.csv"}}, "'mine'"),
        (rows(20), rows(4), {"format": "parquet"}, "'mine'"),
    ],
)
def test_an_own_task_that_cannot_be_used_is_one_error_with_its_name(own, train, test, description, reason) -> None:
    with pytest.raises(TaskError, match=reason):
        own(train, test, **description)


@pytest.fixture
def made(tmp_path: Path):
    """``made(content, name, **description)``: the data of a task of one file, for training and testing; the content is
    text, bytes, or an Arrow table."""

    def load(content: str | bytes | pa.Table, name: str = "a.csv", **description: Any) -> datasets.DatasetDict:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, pa.Table):
            pq.write_table(content, file)
        else:
            file.write_bytes(content.encode() if isinstance(content, str) else content)
        format = next(f for f in ("csv", "json", "parquet") if f".{f}" in name)
        described = {"format": format, "files": dict.fromkeys(("train", "test"), str(file)), "text": "text"}
        described |= {"labels": ["no", "yes"]} | description
        study = loading.load("minilm", overrides={"task_data.own": {"mine": described}})
        return tasks.load(study, Variant.parse("mine-s1"))

    return load


def listed(texts: list[Any], labels: list[Any]) -> list[dict[str, Any]]:
    return [{"text": t, "label": x} for t, x in zip(texts, labels, strict=True)]


def lines(texts: list[Any], labels: list[Any]) -> str:
    """JSON, one example a line."""
    return "".join(json.dumps(row) + "\n" for row in listed(texts, labels))


def arrow(texts: Any, labels: Any) -> pa.Table:
    return pa.table({"text": texts, "label": labels})


WORDS = [f"example {i}" for i in range(20)]
NO_YES = ["no", "yes"] * 10


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", rows(20)),
        ("a.csv", "\ufeff" + rows(20)),
        ("a.csv", rows(20).replace("\n", "\r\n")),
        ("a.csv", rows(20).replace("\n", "\n\n")),
        ("a.csv", rows(20).rstrip("\n")),
        ("a.csv.gz", gzip.compress(rows(20).encode())),
        ("a.csv.bz2", bz2.compress(rows(20).encode())),
        ("a.csv.xz", lzma.compress(rows(20).encode())),
        ("a.jsonl", lines(WORDS, NO_YES)),
        ("a.json", "\ufeff" + lines(WORDS, NO_YES).replace("\n", "\r\n")),
        ("a.json", json.dumps(listed(WORDS, NO_YES), indent=1)),
        ("a.json", "\n".join(json.dumps(row, indent=1) for row in listed(WORDS, NO_YES))),
        ("a.json.gz", gzip.compress(lines(WORDS, NO_YES).encode())),
        ("a.parquet", arrow(WORDS, NO_YES)),
        ("a.parquet", arrow(pa.array(WORDS, pa.large_string()), pa.array(NO_YES).dictionary_encode())),
        ("a.parquet", arrow(WORDS, pa.array([0, 1] * 10, pa.int8()))),
        ("a.parquet", arrow(WORDS, [0.0, 1.0] * 10)),
        ("a.json", lines(WORDS, [0.0, 1] * 10)),
        ("a.csv", rows(20, ("0.0", "1.0"))),
    ],
)  # fmt: skip
def test_a_table_is_read_alike_in_every_form(made, name: str, content) -> None:
    test = made(content, name)["test"]
    assert test["text"][:] == WORDS
    assert test["label"][:] == [0, 1] * 10
    assert test.features["label"].dtype == "int64"


@pytest.mark.parametrize("odd", ["null", "NA", "nan", "1900", "007", "1e5", "True", " a ", 'say "so"'])
def test_a_text_of_a_csv_file_is_a_text_whatever_it_resembles(made, odd: str) -> None:
    assert made(rows(20) + f"{odd},yes\n")["test"]["text"][20] == odd
    quoted = odd.replace('"', '""')
    assert made(rows(20) + f'"{quoted},\r\n""{quoted}""",yes\n')["test"]["text"][20] == f'{odd},\r\n"{odd}"'


def test_a_text_may_be_very_long(made) -> None:
    assert len(made(rows(20) + f"{'a' * 200_000},no\n")["test"]["text"][20]) == 200_000


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.json", lines([*WORDS[:19], 1984], NO_YES)), ("a.parquet", arrow([1984] * 20, NO_YES))],
)
def test_a_whole_number_as_a_text_is_the_text_that_it_is_written_as(made, name: str, content) -> None:
    assert made(content, name)["test"]["text"][19] == "1984"


def first(value: Any) -> list[Any]:
    return [value, *WORDS[1:]]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", rows(20) + ",yes\n", r"example 20: the text in 'text' is empty .*a\.csv:22\)"),
        ("a.csv", rows(20) + "\n\u3000 ,yes\n", r"example 20: .* is empty .*a\.csv:23\)"),
        ("a.json", lines(first(None), NO_YES), r"example 0: the text in 'text' is missing \(.*a\.json:1\)"),
        ("a.json", lines(first(float("nan")), NO_YES), "is missing"),
        ("a.json", lines(first(True), NO_YES), "True, no text"),
        ("a.json", lines(first(0.5), NO_YES), "0.5, no text"),
        ("a.json", lines(first(["a"]), NO_YES), r"\['a'\], no text"),
        ("a.json", lines(first("\ud800"), NO_YES), "surrogate"),
        ("a.json", lines(WORDS, NO_YES) + '{"label": "no"}\n', r"example 20: .* is missing \(.*a\.json:21\)"),
        (
            "a.json",
            '{"text": "a",\n"label": "no"}\n\n' + '{"label": "no"}',
            r"example 1: .* is missing \(.*a\.json:4\)",
        ),
        ("a.parquet", arrow(first(None), NO_YES), "example 0: the text in 'text' is missing"),
        ("a.parquet", arrow([1984.0] * 20, NO_YES), "1984.0, no text"),
        ("a.parquet", arrow([True] * 20, NO_YES), "True, no text"),
        ("a.parquet", arrow([["a"]] * 20, NO_YES), "column 'text' holds list<.*>, not one value"),
        ("a.parquet", arrow([{"en": "a"}] * 20, NO_YES), "column 'text' holds struct<.*>, not one value"),
        ("a.parquet", arrow([b"\xff"] * 20, NO_YES), "no text"),
        ("a.parquet", arrow(WORDS, [[0]] * 20), "column 'label' holds list<.*>, not one value"),
    ],
)
def test_what_is_no_text_is_refused_with_its_example_and_place(made, name: str, content, reason: str) -> None:
    with pytest.raises(TaskError, match=f"'mine', train, .*{reason}"):
        made(content, name)


@pytest.mark.parametrize(
    ("labels", "given", "expected"),
    [
        (["EU", "NA"], ["NA", "EU"], [1, 0]),
        (["None", "nan"], ["nan", "None"], [1, 0]),
        (["1", "0"], ["1", "0"], [0, 1]),
        (["2", "1"], ["1", "2"], [1, 0]),
        (["1", "0"], ["1.0", "0.0"], [0, 1]),
        (["0.5", "1.0"], ["1.0", "0.5"], [1, 0]),
        (["no", "yes"], ["1", "0.0"], [1, 0]),
    ],
)
def test_a_class_is_known_by_its_name_and_else_by_its_number(made, labels, given, expected) -> None:
    for name, content in (("a.csv", rows(20, given)), ("a.json", lines(WORDS, given * 10))):
        assert made(content, name, labels=labels)["test"]["label"][:2] == expected
    assert made(arrow(WORDS, given * 10), "a.parquet", labels=labels)["test"]["label"][:2] == expected


@pytest.mark.parametrize("labels", [["false", "true"], ["False", "True"]])
def test_truth_values_are_the_classes_true_and_false_and_no_others(made, labels: list[str]) -> None:
    for name, content in (
        ("a.json", lines(WORDS, [True, False] * 10)),
        ("a.parquet", arrow(WORDS, [True, False] * 10)),
    ):
        assert made(content, name, labels=labels)["test"]["label"][:2] == [1, 0]
        with pytest.raises(TaskError, match="label True is not one of"):
            made(content, name)


@pytest.mark.parametrize(
    ("labels", "given", "reason"),
    [
        (["2", "1"], [0, 1], r"example 0: label 0 is the number of a class, 1 of example 1 the name of one"),
        (["1", "2", "3"], [1, 2, 0], "is the number of a class"),
        (["no", "yes"], ["no", 1], "example 1: label 1 is the number of a class, 'no' of example 0 the name"),
        (["no", "yes"], [0, None], "label None is not one of"),
        (["no", "None"], ["no", None], "label None is not one of"),
        (["no", "nan"], ["no", float("nan")], "label nan is not one of"),
        (["no", "yes"], [0, 0.5], "label 0.5 is not one of"),
        (["no", "yes"], [0, -1], "label -1 is not one of"),
        (["no", "yes"], [1, 2], "label 2 is not one of"),
        (["no", "yes"], ["no", "Yes"], "label 'Yes' is not one of"),
        (["no", "yes"], ["no", " yes"], "label ' yes' is not one of"),
        (["no", "yes"], ["no", ["yes"]], r"label \['yes'\] is not one of"),
        (["no", "yes"], ["no", 10**400], "label .* is not one of"),
        (["no", "yes"], ["yes", "yes"], "all 18 training examples are of the class 'yes'"),
    ],
)
def test_what_is_no_class_is_refused_with_its_value(made, labels, given, reason: str) -> None:
    with pytest.raises(TaskError, match=reason):
        made(lines([*WORDS, "a"], (given * 21)[:21]), "a.json", labels=labels)


def named(names: list[str]) -> pa.Table:
    """A table whose schema names its classes, as ``datasets`` writes it; the labels are 0 and 1 in turn."""
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
    return datasets.Dataset.from_dict({"text": WORDS, "label": [0, 1] * 10}, features=features).data.table


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["no", "yes"], [0, 1]), (["yes", "no"], [1, 0]), (["yes", "no", "maybe"], [1, 0]), (["0", "1"], [0, 1]),
    ],
)  # fmt: skip
def test_the_names_in_a_files_own_schema_say_what_its_numbers_are(made, names, expected) -> None:
    assert made(named(names), "a.parquet")["test"]["label"][:2] == expected


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["bad", "good"], r"names its classes \['bad', 'good'\], and 'no' is not among them"),
        (["no", "maybe", "yes"], r"example 1: label 1 is not one of \['no', 'yes'\]"),
    ],
)
def test_a_schema_with_other_names_is_refused(made, names: list[str], reason: str) -> None:
    with pytest.raises(TaskError, match=reason):
        made(named(names), "a.parquet")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", rows(20, ("0.5", " 1e1"))),
        ("a.json", lines(WORDS, [0.5, 10] * 10)),
        ("a.parquet", arrow(WORDS, [Decimal("0.5"), Decimal("10.0")] * 10)),
        ("a.parquet", arrow(WORDS, pa.array([0.5, 10] * 10, pa.float32()))),
    ],
)
def test_a_regression_learns_any_finite_numbers(made, name: str, content) -> None:
    assert made(content, name, labels=None)["test"]["label"][:2] == [0.5, 10.0]


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -float("inf"), 1e39, None, True, "1_0", "1,5", [1], 10**400]
)
def test_what_is_no_finite_number_is_refused_by_a_regression(made, value: Any) -> None:
    with pytest.raises(TaskError, match=r"train, example 3: label .* is not one of the numbers .*\(.*a\.json:4\)"):
        made(lines(WORDS, [0.5, 1.5, 2.5, value] + [1.0] * 16), "a.json", labels=None)
    for word in ("NaN", "inf", ""):
        with pytest.raises(TaskError, match=rf"label '{word}' is not one of the numbers .*a\.csv:3\)"):
            made(rows(20, (1.5, word)), labels=None)


def test_a_regression_of_equal_labels_is_read(made) -> None:
    assert set(made(rows(20, (1,)), labels=None)["train"]["label"]) == {1.0}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", rows(20).encode() + "un café,no\n".encode("latin-1"), r"a\.csv:22: not UTF-8 \(byte 297, 0xe9\)"),
        ("a.csv", rows(20).encode("utf-16"), r"a\.csv:1: not UTF-8 \(byte 0, 0xff\)"),
        ("a.csv", rows(3) + '"an open one,no\n' + rows(20), r"a\.csv:5: a quotation mark .* is not closed$"),
        ("a.csv", rows(3) + '"an "odd" one,no\n' + rows(20), r"a\.csv:5: a quotation mark .* not written twice"),
        ("a.csv", rows(3) + "one, two,no\n" + rows(20), r"a\.csv:5: 3 cells, the header has 2"),
        ("a.csv", rows(3) + "one\n" + rows(20), r"a\.csv:5: 1 cells, the header has 2"),
        (
            "a.csv",
            rows(20).replace(",", ";"),
            r"no column \['label', 'text'\] \(there are \['text;label'\]\): col.* commas",
        ),
        ("a.csv", rows(20).replace(",", "\t"), r"columns are separated by commas"),
        ("a.csv", "text,label,text\n" + "a,no,b\n" * 20, "there are 2 columns named 'text'"),
        ("a.csv", " \n\n", r"a\.csv is empty"),
        ("a.csv", "version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "is a Git LFS pointer"),
        ("a.csv.gz", gzip.compress(rows(2000).encode())[:-20], r"a\.csv\.gz cannot be read as csv \(EOFError"),
        ("a.json", json.dumps({"version": 1, "data": listed(WORDS, NO_YES)}), r"one object with \['version', 'data'\]"),
        ("a.json", json.dumps({"text": WORDS, "label": NO_YES}), "one object with"),
        ("a.json", json.dumps(WORDS), "example 0: 'example 0' is no object"),
        ("a.json", lines(WORDS, NO_YES) + '{"text": "cut', r"a\.json:21: not valid JSON"),
        ("a.json", "[\n" + lines(WORDS, NO_YES) + "]", r"a\.json:3: not valid JSON"),
        ("a.json", "text,label\n", r"a\.json:1: not valid JSON .*: give one example a line"),
        ("a.json", "[" * 100_000, "cannot be read as json"),
        ("a.json", lines(WORDS, NO_YES).replace("label", "class"), r"no column \['label'\]"),
        ("a.parquet", rows(20), r"a\.parquet cannot be read as parquet \(ArrowInvalid"),
        ("a.parquet", b"PAR1" * 9, "cannot be read as parquet"),
        ("a.parquet", arrow(WORDS, NO_YES).rename_columns(["text", "text"]), r"no column \['label'\]"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_line_and_the_reason(
    made, name: str, content, reason: str
) -> None:
    with pytest.raises(TaskError, match=f"^task 'mine', train, .*{reason}") as caught:
        made(content, name)
    assert "GLUE" not in str(caught.value)


def test_a_column_that_no_one_asks_for_may_be_anything(made) -> None:
    assert len(made("x,x,text,label\n" + ",,a,no\n,,b,yes\n" * 10)["test"]) == 20
    table = arrow(WORDS, NO_YES).append_column("vector", pa.array([[0.5]] * 20))
    assert len(made(table, "a.parquet")["test"]) == 20


@pytest.mark.parametrize("name", ["a[1].csv", "a*.csv", "a?.csv", "$HOME.csv", "~.csv", "a::b.csv", "x[1]/a {b,c}.csv"])
def test_a_name_of_a_file_is_no_pattern(made, name: str) -> None:
    for other in ("a1.csv", "ab.csv", "x1/a b.csv"):
        made(rows(40), other)
    assert len(made(rows(20), name)["test"]) == 20


def test_a_file_that_changes_is_read_anew_though_its_time_does_not(made, tmp_path: Path) -> None:
    found = []
    for labels in (("no", "yes"), ("yes", "no")):
        (tmp_path / "a.csv").write_text(rows(20, labels))
        os.utime(tmp_path / "a.csv", (10**9, 10**9))
        found.append(made((tmp_path / "a.csv").read_bytes())["test"]["label"][:2])
    assert found == [[0, 1], [1, 0]]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=80)
    | st.text(st.sampled_from('a1", \t\r\n\u2028\0é'), max_size=60).map(lambda t: b"text,label\n" + t.encode())
    | st.text(st.sampled_from('[]{}":,textlabel1 \n'), max_size=60).map(str.encode),
    format=st.sampled_from(["csv", "json", "parquet"]),
)
def test_whatever_a_file_holds_is_read_or_refused_with_its_name(tmp_path: Path, content: bytes, format: str) -> None:
    file = tmp_path / "any"
    file.write_bytes(content)
    try:
        table = tables.read(file, format, ["text", "label"])
        texts, labels = tables.texts(table, "text"), tables.classes(table, "label", ["a", "b"])
    except tables.TableError as error:
        assert str(file) in str(error)
        return
    assert len(texts) == len(labels)
    assert all(text.strip() for text in texts.to_pylist())
    assert set(labels.to_pylist()) <= {0, 1}


def test_an_own_task_writes_nothing(made, monkeypatch) -> None:
    caches = Path(datasets.config.HF_DATASETS_CACHE)
    before = sorted(caches.rglob("*")) if caches.exists() else []
    made(rows(20))
    assert (sorted(caches.rglob("*")) if caches.exists() else []) == before


# Scores ----------------------------------------------------------------------------------------------------------


def score(described: tasks.Task, predictions, gold) -> dict[str, float]:
    given = SimpleNamespace(predictions=np.array(predictions, float), label_ids=np.array(gold))
    return tasks.scores(described)(given)


TWO = tasks.Task(("text",), ("no", "yes"), "accuracy")
REGRESSION = tasks.Task(("text",), (), "pearson")


def test_two_classes_are_scored_by_accuracy_f1_and_matthews() -> None:
    found = score(TWO, [[2, 1], [0, 1], [0, 1], [1, 0]], [0, 1, 0, 1])
    assert found == pytest.approx({"accuracy": 0.5, "f1": 0.5, "matthews": 0.0})
    assert score(TWO, [[1, 0], [0, 1]], [0, 1]) == {"accuracy": 1.0, "f1": 1.0, "matthews": 1.0}


def test_constant_predictions_have_no_correlation_but_a_score() -> None:
    assert score(TWO, [[1, 0]] * 4, [0, 0, 0, 1]) == {"accuracy": 0.75, "f1": 0.0, "matthews": 0.0}
    assert score(REGRESSION, [[0.3]] * 4, [1.0, 2.0, 3.0, 4.0]) == {"pearson": 0.0, "spearman": 0.0}
    assert score(REGRESSION, [[0.1], [0.2], [0.4]], [2.0, 2.0, 2.0]) == {"pearson": 0.0, "spearman": 0.0}


def test_three_classes_have_no_f1() -> None:
    three = tasks.Task(("text",), ("a", "b", "c"), "accuracy")
    assert set(score(three, np.eye(3), [0, 1, 2])) == {"accuracy", "matthews"}


def test_a_regression_is_scored_by_its_correlations() -> None:
    found = score(REGRESSION, [[1.0], [2.0], [3.0], [10.0]], [1.0, 2.0, 3.0, 4.0])
    assert found["spearman"] == pytest.approx(1.0)
    assert 0.8 < found["pearson"] < 0.95


def test_every_task_has_a_metric_that_is_computed() -> None:
    for described in (tasks.REGISTRY | tasks.GLUE).values():
        given = [[0.1], [0.5], [0.2]] if not described.labels else np.eye(3)[:, : len(described.labels)]
        gold = [0.0, 1.0, 2.0] if not described.labels else [0, 1, 0]
        assert described.metric in score(described, given, gold)
        assert set(score(described, given, gold)) <= set(tasks.SCORES)
