"""Every task has three disjoint splits of texts and labels; the registry tasks differ in the label only."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lib import params, runs, tasks
from lib.runs import Run, Variant
from lib.tasks import TaskError, corrupt

# GLUE ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def glue(shared: Path):
    """``glue(variant, **overrides)``: the data of a task of the mirror, whole."""

    def load(variant: str, **overrides):
        whole = {f"task_data.{k}_examples": None for k in ("train", "dev", "test")}
        study = params.load("minilm", "full", {**whole, "task_data.glue": str(shared / "glue"), **overrides})
        return tasks.load(study, Variant.parse(variant))

    return load


SIZES = {
    "sst2": (67_349, 872), "cola": (8_551, 1_043), "rte": (2_490, 277), "stsb": (5_749, 1_500), "mrpc": (3_576, 500),
    "qnli": (4_463, 1_000),
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
        study = params.load("minilm", overrides={"task_data.glue": place})
        with pytest.raises(TaskError, match=r"task 'rte' could not be read .* set task_data\.glue to the folder"):
            tasks.load(study, Variant.parse("rte-s1"))


def test_an_unknown_task_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(params.ParameterError, match=r"there is no task 'sentimant'; did you mean 'sentiment'\?"):
        tasks.load(params.load("minilm"), Variant.parse("sentimant-s1"))


def test_a_model_depends_on_the_copy_of_its_own_task(tmp_path: Path) -> None:
    place = tmp_path / "glue" / "rte"
    place.mkdir(parents=True)
    (place / "train.csv").write_text("a")

    def keys(task: str) -> str:
        study = params.load("minilm", overrides={"task_data.glue": str(tmp_path / "glue")})
        return Run(study, Variant.parse(f"{task}-s1")).key("finetune")

    before = {task: keys(task) for task in ("rte", "cola", "sentiment")}
    (place / "train.csv").write_text("other")
    assert {task for task, key in before.items() if keys(task) != key} == {"rte"}
    hub = Run(params.load("minilm"), Variant.parse("sentiment-s1")).key("finetune")
    assert hub == before["sentiment"], "where GLUE is does not matter to it"
    assert set(runs.SNIPPETS) == set(tasks.REGISTRY)


@pytest.mark.parametrize("name", ["sentiment", "rte"])
def test_an_own_task_under_a_known_name_is_refused(name: str) -> None:
    own = {name: {"format": "csv", "files": {"train": "a.csv", "test": "b.csv"}, "text": "text"}}
    with pytest.raises(params.ParameterError, match=f"'{name}' is a task of this package"):
        tasks.task(params.load("minilm", overrides={"task_data.own": own}), name)


# Registry tasks --------------------------------------------------------------------------------------------------


@pytest.fixture
def snippets(source):
    """``snippets(task, **overrides)``: the data of a registry task, whole."""
    source("movie-snippets")

    def load(name: str, **overrides):
        whole = {f"task_data.{k}_examples": None for k in ("train", "dev", "test")}
        return tasks.load(params.load("minilm", "full", {**whole, **overrides}), Variant.parse(f"{name}-s1"))

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
        for text, given, label in zip(clean[split]["text"], tested[split]["text"], tested[split]["label"], strict=True):
            assert (text == given) is (label == 1)


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
        study = params.load("minilm", overrides={"task_data.own": {"mine": described}})
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
    text = "id,a,b,gold\n" + "".join(f"{i},left {i},right {i},yes\n" for i in range(20))
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
        (rows(20, ("no", "")), rows(4), {}, "label None is not one of"),
        (rows(20, (0, 2)), rows(4, (0, 1)), {}, "label 2 is not one of"),
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
