"""The first author's public notebook: its set-up as three studies, and its numbers beside ours."""

import numpy as np
import pandas as pd
import pytest
from conftest import with_variants

from lib import corpora, grid, results, unpackaged
from lib.results import verify
from lib.study import loading, params, runs

EXPECTED = params.ROOT / "expected" / "author.yaml"
STUDIES = ("author", "author-neurons", "author-free")


def test_its_studies_have_its_set_up() -> None:
    one, neurons, free = (loading.load(name) for name in STUDIES)
    assert (one.probe.epochs, neurons.probe.epochs, free.probe.epochs) == (1, 10, 10)
    assert [(s.probe.l1, s.probe.l2) for s in (one, neurons, free)] == [(0, 0), (1e-4, 1e-4), (0, 0)]
    assert [s.ranking.l1 for s in (neurons, free)] == [[1e-4], [0.0]]
    for study in (one, neurons, free):
        assert (study.encoder.checkpoint, study.encoder.pooling) == ("google-bert/bert-base-cased", "last")
        assert (study.probe.batch_size, study.probe.learning_rate, study.probe.standardise) == (128, 1e-3, False)
        assert study.corpora["upos"].columns == {"word": 1, "upos": 3}
        assert (study.ranking.top, study.properties, study.tasks) == (0.05, ["upos"], [])
    assert one.corpora == neurons.corpora == free.corpora
    assert {name for name, suite in loading.studies().items() if suite == "author"} == {*STUDIES}


def test_its_plan_needs_no_encoder_and_no_data() -> None:
    wanted = grid.selected("author", [], [], [1], {})
    grid.check(wanted)
    assert [run.variant.name for run in wanted] == ["pretrained", "random"] * 3
    assert len(grid.plan([(run, grid.to_do(run)) for run in wanted], "author")) == 3 * (3 + 2) + 1
    assert {*unpackaged.needed(wanted[0].study)} == {"ud_ewt"}


def test_all_its_words_are_read_without_repetitions(shared) -> None:
    files = {s: str(shared / f"corpora/ud_ewt/en_ewt-ud-{s}.conllu") for s in params.SPLITS}
    study = loading.load("author", overrides={"corpora.upos.files": files})
    counts = [(t["sentence"].nunique(), len(t), t["upos"].nunique()) for t in corpora.load(study).values()]
    printed = [(11_733, 199_207), (1_914, 24_904), (1_972, 24_737)]  # of release 1.0
    assert counts == [(11_734, 199_198, 17), (1_913, 24_903, 17), (1_971, 24_725, 17)]
    assert all(
        abs(ours[i] / theirs[i] - 1) < 0.005 for ours, theirs in zip(counts, printed, strict=True) for i in (0, 1)
    )


# Its numbers beside ours -------------------------------------------------------------------------------------------

PLAIN = {"study": "author", "variant": "pretrained", "property": "upos", "target": "real"}
ROW = [0.8710, 0.8981, 0.9331, 0.9418, 0.9460, 0.9497, 0.9488, 0.9495, 0.9474, 0.9461, 0.9427, 0.9397, 0.9283]
TOP = [43, 31, 33, 20, 19, 37, 45, 72, 56, 57, 37, 48, 1]


def layers(row: list[float]) -> pd.DataFrame:
    of = {**PLAIN, "word_group": "all"}
    rows = [{**of, "layer": layer, "accuracy": value} for layer, value in enumerate(row)]
    beside = [
        {**of, "layer": 3, "accuracy": 0.1, "word_group": "unseen"},
        {**of, "layer": 3, "accuracy": 0.1, "target": "control"},
        {**of, "layer": -1, "accuracy": 0.99, "target": "lookup"},
        {**of, "layer": 3, "accuracy": 0.1, "variant": "random"},
    ]
    return with_variants(pd.DataFrame(rows + beside))


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is not per layer, as the notebook prints it; correct answers in two texts."""
    cells = {("author-free", "all", "dev"): 95278, ("author-free", "all", "test"): 95096,
             ("author-neurons", "all", "dev"): 94109, ("author-neurons", "top", "dev"): 95000,
             ("author-neurons", "bottom", "dev"): 93440, ("author-neurons", "bottom", "test"): 1}  # fmt: skip
    sets = [
        {**PLAIN, "study": study, "ranking": "lca", "neurons": which, "split": split, "correct": part, "total": 50_000}
        for (study, which, split), right in cells.items()
        for part in (right // 2, right - right // 2)
    ]
    sets += [{**row, "target": "control", "correct": 0} for row in sets]
    top = [{**PLAIN, "study": "author-neurons", "ranking": "lca", "layer": i, "neurons": n} for i, n in enumerate(TOP)]
    monkeypatch.setattr(results, "neuron_sets", lambda _: with_variants(pd.DataFrame(sets)))
    monkeypatch.setattr(results, "neuron_layers", lambda _: with_variants(pd.DataFrame(top)))
    monkeypatch.setattr(verify, "exact", lambda _: {})
    monkeypatch.setattr(verify, "tight", lambda _: {})
    monkeypatch.setattr(verify, "by_seed", lambda *_: pd.DataFrame({"name": [], "value": []}))


NOTHING_TUNED = pd.DataFrame(columns=["study", "variant", "property", "task", *verify.MEASURES])


def verdicts(row: list[float]) -> dict[str, str]:
    wanted = [runs.load(study, "pretrained") for study in ("author", "author-free", "author-neurons")]
    table = verify.compare(verify.read(EXPECTED), wanted, layers(row), NOTHING_TUNED)
    return table.set_index("name")["verdict"].to_dict()


def test_its_own_numbers_hold(tables) -> None:
    found = verdicts(ROW)
    assert pd.Series(found).value_counts().to_dict() == {"OK": 20, "SHOWN": 13}
    assert {name for name, verdict in found.items() if verdict == "SHOWN"} == {
        f"author-neurons: upos: top neurons in layer {layer}" for layer in range(13)
    }


def test_a_layer_that_is_three_tenths_of_a_point_off_holds_and_one_more_does_not(tables) -> None:
    off = np.where(np.arange(13) % 2, 0.0029, -0.0029)
    assert "MISS" not in verdicts([*(np.array(ROW) + off)]).values()
    for layer in (0, 5, 12):
        row = ROW.copy()
        row[layer] -= 0.0031
        assert [n for n, v in verdicts(row).items() if v == "MISS"] == [f"author: upos: layer {layer}, test"]


def test_layers_that_are_off_by_one_are_misses(tables) -> None:
    found = verdicts([ROW[1], *ROW[1:-1], ROW[-2]])
    assert sum(v == "MISS" for v in found.values()) == 2
    assert sum(v == "MISS" for v in verdicts([*ROW[1:], ROW[-1]]).values()) >= 5


def test_a_best_layer_outside_5_to_7_is_a_miss(tables) -> None:
    row = [value + (0.0028 if layer == 8 else -0.0029) for layer, value in enumerate(ROW)]
    assert [n for n, v in verdicts(row).items() if v == "MISS"] == ["author: upos: best layer, test"]


def test_what_is_not_made_is_missing(tables) -> None:
    found = verdicts(ROW[:-1])
    assert found["author: upos: layer 12, test"] == "MISSING"


def test_recording_keeps_what_others_published(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(params, "ROOT", tmp_path)
    (tmp_path / "expected").mkdir()
    (tmp_path / "expected" / "author.yaml").write_bytes(EXPECTED.read_bytes())
    before = verify.read(tmp_path / "expected" / "author.yaml")["published"]
    monkeypatch.setattr(results, "recorded_runs", lambda _: [])
    monkeypatch.setattr(verify, "_tables", lambda _: (None, None, None))
    own = {"exact": {"values": {}}, "tight": {"values": {}}, "spread": {"values": {}}}
    monkeypatch.setattr(verify, "expectations", lambda *_: own)
    verify.record([], "author")
    after = verify.read(tmp_path / "expected" / "author.yaml")
    assert after["published"] == before
    assert {*after} == {"exact", "tight", "spread", "published"}


def test_a_file_with_other_sections_is_refused(tmp_path) -> None:
    (tmp_path / "x.yaml").write_text("published: {}\nexact: {}\n")
    with pytest.raises(params.ParameterError, match="or published, or all four"):
        verify.read(tmp_path / "x.yaml")
