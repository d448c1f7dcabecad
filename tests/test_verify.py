"""What was recorded is found again, or the difference is named: perturbed, missing and swapped results are misses."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import with_variants

from lib import disk, grid, results
from lib.results import claims, paper, spread, verify
from lib.study import inputs, params, runs
from lib.study.runs import Run
from lib.study.steps import STEPS
from lib.study.variants import Variant

TASKS, SEEDS = ("sentiment", "acceptability"), (1, 2, 3)


def accuracy(shift: float = 0.0) -> pd.DataFrame:
    rng, tuned = np.random.default_rng(1), [f"{task}-s{seed}" for task in TASKS for seed in SEEDS]
    rows = [
        {"study": "s", "variant": variant, "property": name, "target": "real", "word_group": "all", "layer": layer,
         "accuracy": 0.7 + 0.02 * layer + 0.1 * (variant == "pretrained") + shift
         + (variant in tuned) * rng.normal(0, 0.01)}
        for variant in ("pretrained", "random", *tuned) for name in ("pos", "chunk") for layer in range(5)
    ]  # fmt: skip
    return with_variants(pd.DataFrame(rows))


def summary(seeds=SEEDS, shift: dict[str, float] | None = None) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for task in TASKS:
        for seed in SEEDS:
            for name in ("pos", "chunk"):
                values = {m: 0.5 + 0.1 * i + rng.normal(0, 0.01) for i, m in enumerate(verify.MEASURES)}
                values = {m: v + (shift or {}).get(m, 0) * (task == "sentiment") for m, v in values.items()}
                where = {"study": "s", "variant": f"{task}-s{seed}", "property": name}
                where |= {"source": "gold" if name == "pos" else "silver"}
                rows += [where | values] if seed in seeds else []
    before = {"study": "s", "variant": "pretrained", "property": "pos", "source": "gold"}
    return with_variants(pd.DataFrame([before, *rows]))


def judged(verdict: str = "reproduced") -> pd.DataFrame:
    return pd.DataFrame(
        [
            ("P1", "s", "S", "bert", "sst2 − rte", "pos", "above", 0.01, 0.01, verdict),
            ("P3", "s", "S", "bert", "", "", "", np.nan, np.nan, "not testable here"),
        ],
        columns="claim study encoder architecture compared property expected p holm verdict".split(),
    )


def wanted(seeds=SEEDS) -> list:
    study = SimpleNamespace(name="s", tasks=list(TASKS), device="cpu", precision="float32", threads=2)
    names = ["pretrained", "random", *(f"{task}-s{seed}" for task in TASKS for seed in seeds)]
    return [SimpleNamespace(study=study, variant=Variant.parse(name)) for name in names]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict:
    counts = {"s: checkpoint": "abc", "s: layers, width": [5, 16]}
    monkeypatch.setattr(verify, "exact", lambda wanted: dict(counts))
    return counts


@pytest.fixture
def expected(counted: dict) -> dict:
    found = verify.expectations(wanted(), accuracy(), summary())
    return yaml.safe_load(yaml.safe_dump(found))  # what a file gives back


def misses(table: pd.DataFrame) -> list[str]:
    return [f"{row.kind} {row.verdict}" for row in table.itertuples() if row.verdict != "OK"]


def test_the_run_that_was_recorded_is_found_again(expected: dict) -> None:
    table = verify.compare(expected, wanted(), accuracy(), summary())
    assert misses(table) == []
    assert table["kind"].value_counts().to_dict() == {"spread": 10 + 10, "tight": 12, "exact": 2}
    assert table["reason"].str.len().min() > 20


def test_a_run_with_one_seed_is_compared_with_the_mean_of_three(expected: dict) -> None:
    assert misses(verify.compare(expected, wanted((1,)), accuracy(), summary((1,)))) == []


def test_a_perturbed_probe_misses_on_either_side(expected: dict) -> None:
    for sign in (1, -1):
        inside = verify.compare(expected, wanted(), accuracy(sign * 0.9 * verify.TIGHT), summary())
        outside = verify.compare(expected, wanted(), accuracy(sign * 1.1 * verify.TIGHT), summary())
        assert misses(inside) == [] and misses(outside) == ["tight MISS"] * 12


def test_a_perturbed_fine_tuned_number_misses_and_only_it(expected: dict) -> None:
    for sign in (1, -1):
        found = summary(shift={"drop, top third": sign * 0.1})
        table = verify.compare(expected, wanted(), accuracy(), found)
        assert table[table["verdict"] != "OK"]["name"].tolist() == ["s: sentiment: drop, top third"]


def planted(deviation: float, seeds: int, seed: int = 0) -> pd.DataFrame:
    """Numbers of two encoders after two tasks, as ``verify.by_seed`` gives them."""
    rng = np.random.default_rng(seed)
    cells = [(m, f"{task}: {m}", f"{e}: {task}: {m}") for m in verify.MEASURES for task in TASKS for e in "st"]
    rows = [[*cell, rng.normal(1, deviation)] for cell in cells for _ in range(seeds)]
    return pd.DataFrame(rows, columns=["measure", "of task", "name", "value"])


def test_a_deviation_is_pooled_over_the_largest_pool_whose_cells_are_alike() -> None:
    values = planted(0.1, 8)
    table = spread.of_cells(values, verify.POOLS, ["name"])
    assert {*table["freedom"]} == {28}
    own = values.groupby(["measure", "name"])["value"].var().groupby("measure").mean() ** 0.5
    assert table.groupby("measure")["deviation"].first().to_dict() == pytest.approx(own.to_dict())
    for place, freedom in (("sentiment", 14), ("s: sentiment", 7)):
        other = values.assign(value=values["value"] * np.where(values["name"].str.contains(place), 100, 1))
        found = spread.of_cells(other, verify.POOLS, ["name"])
        assert {*found.loc[found["name"].str.contains(place), "freedom"]} == {freedom}
    alone = spread.of_cells(planted(0.1, 1), verify.POOLS, ["name"])
    assert alone["deviation"].isna().all() and {*alone["freedom"]} == {0}


def test_other_seeds_lie_within_reach_as_often_as_is_said() -> None:
    for count in (1, 3):
        inside = []
        for number in range(150):
            table = spread.of_cells(planted(0.1, 8, 2 * number), verify.POOLS, ["name"])
            other = planted(0.1, count, 2 * number + 1).groupby("name")["value"].mean()[table["name"]].to_numpy()
            inside += [*(np.abs(table["mean"] - other) <= spread.reach(table, count, 0.9))]
        assert np.mean(inside) == pytest.approx(0.9, abs=0.02)


def test_each_recorded_seed_would_have_held_beside_the_others(counted: dict) -> None:
    for left_out in SEEDS:
        others = [seed for seed in SEEDS if seed != left_out]
        found = verify.compare(
            {"spread": spread_of(summary(others))}, wanted((left_out,)), accuracy(), summary((left_out,))
        )
        assert misses(found) == []


def spread_of(table: pd.DataFrame) -> dict:
    values = spread.of_cells(verify.by_seed(accuracy(), table), verify.POOLS, ["name"]).set_index("name")
    numbers = values[["mean", "deviation", "freedom", "seeds"]].to_dict("index")
    return {"reason": verify.REASONS["spread"], "level": verify.LEVEL, "values": numbers}


def test_a_missing_number_is_a_miss(expected: dict) -> None:
    found = summary()
    found.loc[found["variant"].str.startswith("sentiment"), "drop, top third"] = np.nan  # it did not learn its task
    assert misses(verify.compare(expected, wanted(), accuracy(), found)) == ["spread MISSING"]
    gone = accuracy().query("variant != 'random'")
    assert misses(verify.compare(expected, wanted(), gone, summary())) == ["tight MISSING"] * 6


def test_a_loss_after_a_training_that_failed_is_no_miss_where_recorded_ones_failed_too(counted: dict) -> None:
    failed = summary()
    failed.loc[failed["variant"] == "sentiment-s3", "drop, top third"] = np.nan
    expected = verify.expectations(wanted(), accuracy(), failed)
    found = verify.compare(expected, wanted((3,)), accuracy(), failed[failed["variant"].str.contains("-s3|pretr")])
    assert misses(found) == ["spread NOT LEARNT"]
    assert found.loc[found["verdict"] == "NOT LEARNT", "name"].tolist() == ["s: sentiment: drop, top third"]


def test_what_was_not_asked_for_is_not_missed(expected: dict, counted: dict) -> None:
    counted["s: acceptability: examples"] = [1, 2]
    expected["exact"]["values"] |= counted | {"other study: checkpoint": "x"}
    part = [run for run in wanted() if run.variant.task != "acceptability"]
    del counted["s: acceptability: examples"]
    found = summary().query("task != 'acceptability'")
    table = verify.compare(expected, part, accuracy(), found)
    assert misses(table) == [] and not table["name"].str.contains("acceptability|other").any()
    assert "exact MISSING" in misses(verify.compare(expected, wanted(), accuracy(), summary()))


def test_a_swapped_encoder_is_a_miss(expected: dict, counted: dict) -> None:
    counted["s: checkpoint"] = "other"
    assert misses(verify.compare(expected, wanted(), accuracy(), summary())) == ["exact MISS"]


def test_only_the_studies_own_tasks_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "exact", lambda wanted: {run.variant.name: 1 for run in wanted})
    less = with_variants(summary().assign(variant=lambda t: t["variant"].str.replace("-s", "-quarter-s")))
    more = pd.concat([summary(), less])
    quarters = [SimpleNamespace(study=r.study, variant=Variant.parse(f"sentiment-quarter-s{s}"))
                for r in wanted()[:1] for s in SEEDS]  # fmt: skip
    found = verify.expectations([*wanted(), *quarters], accuracy(), more)
    assert not any("quarter" in name for name in found["spread"]["values"])
    assert list(found["exact"]["values"]) == [run.variant.name for run in wanted()]


def test_fewer_than_three_seeds_cannot_be_recorded(counted: dict) -> None:
    with pytest.raises(params.ParameterError, match="three seeds of every task"):
        verify.expectations(wanted((1, 2)), accuracy(), summary((1, 2)))


@pytest.fixture
def recording(counted: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """The finished runs of a study, in a repository of their own in which nothing is recorded."""
    found = None, accuracy(), summary()
    runs_of = [
        runs.load("minilm", v, overrides=runs.RECORDED)
        for v in ("random", "pretrained", "sentiment-s10", "sentiment-s2", "acceptability-s1", "rte-s1")
    ]
    for run in runs_of:
        write_tables(run)
    monkeypatch.setattr(params, "ROOT", Path(shutil.copytree(params.ROOT / "params", tmp_path / "params")).parent)
    monkeypatch.setattr(verify, "_tables", lambda wanted: found)
    monkeypatch.setattr(verify, "expectations", lambda wanted, *_: {"runs": [run.variant.name for run in wanted]})
    (tmp_path / "expected").mkdir()
    return runs_of


def write_tables(run: Run) -> None:
    for step in STEPS.values():
        if step.tables and step.applies(run):
            with runs.writing(run, step.name, run.result(step.name)) as (part, _):
                for name in step.tables:
                    (part / name).write_text(name)
            run.folder.mkdir(parents=True, exist_ok=True)
            run.notebook(step.name).touch()


def test_recording_keeps_the_small_tables_and_makes_all_recorded_runs_the_reference(recording: list[Run]) -> None:
    verify.record(recording[:3], "minilm")
    verify.record(recording[3:], "minilm")
    order = ["pretrained", "random", "sentiment-s2", "sentiment-s10", "acceptability-s1", "rte-s1"]
    assert yaml.safe_load((params.ROOT / "expected" / "minilm.yaml").read_text()) == {"runs": order}
    assert [run.variant.name for run in results.recorded_runs("minilm")] == order
    assert [run.variant.name for run in results.load({"minilm": order[:2]}, recorded=True)] == order[:2]
    took = results.times(results.recorded_runs("minilm"))
    assert took["step"].value_counts().to_dict() == {"03_probe_layers": 6, "04_rank_neurons": 5, "01_finetune": 4}


def test_what_is_recorded_is_not_copied_again_and_not_computed_again(recording: list[Run]) -> None:
    verify.record(recording, "minilm")
    files = {path: path.stat().st_mtime_ns for path in (params.ROOT / "results").rglob("*")}
    shutil.rmtree(runs.home())
    verify.record(recording, "minilm")
    assert files == {path: path.stat().st_mtime_ns for path in (params.ROOT / "results").rglob("*")}
    assert [step.name for run in recording for step in grid.to_do(run, recording=True)] == []
    untrained = {run.variant.name: [step.name for step in grid.to_do(run)] for run in recording if not run.variant.task}
    assert untrained == {"pretrained": ["extract", "layers", "neurons"], "random": ["extract", "layers"]}
    shutil.rmtree(replace(recording[2], recorded=True).result("neurons"))
    of_one_training = ["finetune", "extract", "layers", "neurons"]
    assert [step.name for step in grid.to_do(recording[2], recording=True)] == of_one_training


def test_a_run_that_is_recorded_in_part_is_recorded_anew_in_all_its_steps(recording: list[Run]) -> None:
    verify.record(recording, "minilm")
    recorded = replace(recording[2], recorded=True)
    shutil.rmtree(recorded.result("neurons"))
    with runs.writing(recording[2], "layers", recording[2].result("layers")) as (part, facts):
        (part / "counts.parquet").write_text("of another training")
        facts["computed"] = "again"
    assert "computed" not in runs.manifest(recorded, "layers")
    verify.record(recording, "minilm")
    assert runs.manifest(recorded, "layers")["computed"] == "again"
    assert (recorded.result("layers") / "counts.parquet").read_text() == "of another training"


def test_a_run_recorded_with_other_code_is_refused_and_is_to_do(recording: list[Run], monkeypatch) -> None:
    verify.record(recording, "minilm")
    code_key = inputs.code_key
    monkeypatch.setattr(inputs, "code_key", lambda step, code: "other" if step == "layers" else code_key(step, code))
    with pytest.raises(disk.StaleResult, match="with other parameters or code: run 'make record SCALE=minilm'"):
        results.recorded_runs("minilm")
    assert [step.name for step in grid.to_do(recording[0], recording=True)] == ["extract", "layers"]
    monkeypatch.undo()


def test_records_without_the_untrained_encoders_are_refused(recording: list[Run]) -> None:
    verify.record(recording, "minilm")
    shutil.rmtree(replace(recording[0], recorded=True).folder)
    with pytest.raises(disk.StaleResult, match="pretrained or random of minilm is not recorded in"):
        results.recorded_runs("minilm")


def test_other_properties_are_not_recorded() -> None:
    with pytest.raises(params.ParameterError, match="make record takes no PROPERTIES"):
        grid.print_rules([], "minilm", {"properties": ["pos"]}, False, True, True)


def test_other_properties_are_not_verified() -> None:
    with pytest.raises(params.ParameterError, match="make verify takes no PROPERTIES"):
        verify.check([], "mini", {"properties": ["pos"]})


def test_a_suite_without_trainings_has_no_number_that_depends_on_the_seed(counted: dict) -> None:
    alone = [run for run in wanted() if not run.variant.task]
    rows = summary()
    rows = rows[rows["variant"] == "pretrained"]
    recorded = verify.expectations(alone, accuracy(), rows)
    assert recorded["spread"]["values"] == {}
    assert set(verify.compare(recorded, alone, accuracy(), rows)["verdict"]) == {"OK"}


@pytest.mark.parametrize(("apart", "told"), [(0, ["s: easy-s1"]), (1, [])])
def test_short_texts_do_not_make_a_fine_tuned_encoder_look_unchanged(apart: int, told: list[str]) -> None:
    """One text of six words in eight is answered otherwise, in a sense of its own at each layer."""
    rows = pd.DataFrame({"text": np.tile(np.arange(400), 3), "layer": np.repeat(np.arange(3), 400), "total": 6})
    rows = rows.assign(study="s", property="pos", target="real", word_group="all", split="test", correct=4, dropped="")
    otherwise = apart * ((rows["text"] + rows["layer"]) % 8 == 0)
    after = rows.assign(variant="easy-s1", task="easy", correct=rows["correct"] + otherwise)
    assert verify.unchanged(pd.concat([rows.assign(variant="pretrained", task=""), after])) == told


def test_nothing_recorded_is_said_with_the_command() -> None:
    with pytest.raises(disk.StaleResult, match=r"nothing is recorded in .*results/no: run 'make record SCALE=no'"):
        results.recorded_runs("no")


def test_checking_writes_nothing(counted: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = None, accuracy(), summary()
    monkeypatch.setattr(params, "ROOT", tmp_path)
    monkeypatch.setattr(verify.results, "complete", lambda runs: None)
    monkeypatch.setattr(verify, "_tables", lambda wanted: found)
    monkeypatch.setattr(verify, "unchanged", lambda counts: [])
    monkeypatch.setattr(verify.digits, "compare", lambda wanted: ("digits: none are kept", False))
    (tmp_path / "expected").mkdir()
    (tmp_path / "expected" / "mini.yaml").write_text(yaml.safe_dump(verify.expectations(wanted(), *found[1:])))
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert verify.check(wanted(), "mini")
    monkeypatch.setattr(verify, "unchanged", lambda counts: ["s: sentiment-s1"])
    assert not verify.check(wanted(), "mini")
    monkeypatch.setattr(verify, "unchanged", lambda counts: [])
    counted["s: checkpoint"] = "other"
    assert not verify.check(wanted(), "mini")
    assert files == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_file_of_recorded_numbers_must_be_whole(tmp_path) -> None:
    with pytest.raises(params.ParameterError, match="nothing is recorded for this suite"):
        verify.read(tmp_path / "none.yaml")
    (tmp_path / "half.yaml").write_text("exact: {values: {}}\n")
    with pytest.raises(params.ParameterError, match="the sections must be exact, tight, spread"):
        verify.read(tmp_path / "half.yaml")


def test_the_overview_of_the_claims_takes_its_place_in_a_page() -> None:
    page = "before\n<!-- claims: mini -->\nold | table\n<!-- end -->\nafter\n"
    table = judged()
    found = verify.with_claims(page, "mini", table)
    told = "Decided: 1 of 1 comparisons, 1 of them also when p is corrected for all 1 that have one."
    assert found == page.replace("old | table", f"{claims.to_markdown(paper.overview(table))}\n\n{told}")
    assert verify.with_claims(found, "mini", table) == found
    assert verify.with_claims(page, "paper", table) == page


@pytest.mark.parametrize("suite", ["mini", "mpnet"])
def test_the_readme_shows_what_is_recorded(suite: str) -> None:
    page, folder = (params.ROOT / "README.md").read_text(encoding="utf-8"), results.figures_folder(suite, recorded=True)
    judged, lost = (results.from_csv(folder / f"{name}.csv") for name in ("claims", "losses"))
    assert f"<!-- claims: {suite} -->" in page
    assert verify.with_claims(page, suite, judged, lost) == page


def test_losses_stand_beside_those_that_the_paper_prints() -> None:
    cell = {"study": "ours", "measure": "top third", "seeds": 3, "low": 0.0, "high": 0.0}
    lost = pd.DataFrame([{**cell, "property": "pos", "task": task, "value": 2.0} for task in ("sst2", "sentiment")])
    table = paper.losses_beside(lost, {"ours": "Ours"})
    assert table.columns.tolist() == ["property", "task", "Ours", *(f"the paper's {model}" for model in paper.MODELS)]
    assert table[["property", "task", "Ours"]].to_numpy().tolist() == [["pos", "sst2", 2.0]]
    drop = results.pick(paper.drops(), study="XLNet", property="pos", task="sst2").sort_values("layer")["drop"]
    assert table["the paper's XLNet"].item() == pytest.approx(100 * drop.tail(4).mean())
    assert paper.losses_beside(lost[lost["task"] == "sentiment"], {"ours": "Ours"}).empty
