"""What is left of a suite, and what it takes of disk and of time, on planted results."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from lib import forecast, grid, sources, unpackaged
from lib.encoders import checkpoints
from lib.study import inputs, loading, params, runs
from lib.study.runs import Run
from lib.study.steps import STEPS
from lib.study.variants import Variant


@pytest.fixture(autouse=True)
def _fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No checkpoint is read."""
    monkeypatch.setattr(inputs, "checkpoint_digest", lambda study: "digest")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("pretrained", "untrained"), ("random", "untrained"), ("rte-s1", "tasks"), ("sst2-2241-s1", "fewer examples"),
        ("sst2-half-s2", "fewer examples"), ("sst2-droptop6-s1", "pruned"), ("sst2-droptop6-2241-s1", "pruned"),
        ("sst2-lr1e-4-s1", "other"), ("sst2-at70-s1", "other"),
    ],
)  # fmt: skip
def test_a_run_is_of_one_kind(name: str, kind: str) -> None:
    assert forecast.kind(Variant.parse(name)) == kind


def finish(run: Run, seconds: float, *steps: str, threads: int = 1, **facts: object) -> None:
    """Write the manifest of a finished step of a run, with the seconds that it took."""
    for step in steps:
        folder = run.result(step) if step != "finetune" else run.model
        folder.mkdir(parents=True)
        told = {"key": run.key(step), "seconds": seconds, "provenance": {"threads": threads, "processor": "Planted"}}
        (folder / "manifest.json").write_text(json.dumps(told | facts))


def before() -> pd.DataFrame:
    return pd.DataFrame(forecast.timings(), columns=forecast.Timing._fields)


@pytest.fixture(autouse=True)
def _nothing_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "recorded", lambda suite: tmp_path / "results" / suite)


def load(variant: str, **overrides: object) -> Run:
    return runs.load("mpnet", variant, overrides=overrides)


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``planted(shape)``: every encoder has this shape."""
    return lambda shape: monkeypatch.setattr(forecast, "shape", lambda study: shape)


def test_a_step_takes_the_median_of_what_the_same_work_took_on_all_its_threads() -> None:
    for seed, seconds in ((1, 100.0), (2, 300.0), (3, 1000.0)):
        finish(load(f"rte-s{seed}"), seconds, "layers", threads=2)
    new = load("mrpc-2241-s1")
    assert forecast.hours(new, "layers", before()) == pytest.approx(2 * 300 / 3600)
    assert forecast.hours(load("pretrained"), "layers", before()) is None, "it has control tasks too"
    assert forecast.hours(new, "neurons", before()) is None
    assert forecast.hours(load("rte-s1", probe={"epochs": 20}), "layers", before()) is None
    assert forecast.hours(load("rte-s1", **{"corpus.train_words": 999}), "layers", before()) is None
    assert forecast.hours(load("rte-droptop6-s1"), "layers", before()) is None
    assert forecast.hours(runs.load("minilm", "rte-s1"), "layers", before()) is None


def test_a_ranking_is_timed_whatever_sizes_and_half_samples_it_tests() -> None:
    finish(load("rte-s1"), 3600.0, "neurons")
    assert forecast.hours(load("rte-s2", ranking={"half_samples": 0, "sizes": [1.0]}), "neurons", before()) == 1
    assert forecast.hours(load("rte-s2", ranking={"top": 0.2}), "neurons", before()) is None


def test_a_training_takes_as_long_as_its_updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(load("rte-s1"), 213.0, "finetune", updates=213)
    load("rte-s1").folder.mkdir(parents=True)
    monkeypatch.setattr(unpackaged.Unpackaged, "place", lambda self, file: tmp_path / "nothing")
    again, half, other = load("rte-s2"), load("rte-half-s1"), load("sst2-2241-s1")
    assert forecast.hours(again, "finetune", before()) == pytest.approx(213 / 3600)
    # of 2,241 examples: ⌈⌈2,241 / 32⌉ × 3 / 2⌉
    assert forecast.hours(half, "finetune", before()) == pytest.approx(107 / 3600)
    assert forecast.hours(other, "finetune", before()) == pytest.approx(213 / 3600)
    assert forecast.hours(load("mnli-400k-s1"), "finetune", before()) == pytest.approx(33_135 / 3600)  # of 392,702 rows
    assert forecast.hours(load("rte-at70-s1"), "finetune", before()) == pytest.approx(70 / 3600)
    assert forecast.hours(load("sentiment-s1"), "finetune", before()) is None, "its examples are not known"
    for changed in ({"finetune.batch_size": 8}, {"precision": "bfloat16"}):
        assert forecast.hours(load("rte-s2", **changed), "finetune", before()) is None


def test_the_rows_of_a_copy_of_glue_count_where_it_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(load("rte-s1"), 213.0, "finetune", updates=213)
    load("rte-s1").folder.mkdir(parents=True)
    file = tmp_path / "train.parquet"
    pd.DataFrame({"label": range(1000)}).to_parquet(file)
    monkeypatch.setattr(unpackaged.Unpackaged, "place", lambda self, name: file)
    assert forecast.hours(load("mnli-5k-s1"), "finetune", before()) == pytest.approx(87 / 3600)  # ⌈⌈900 / 32⌉ × 3⌉


def test_recorded_runs_are_timed_too(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "mpnet" / "mpnet" / "rte-s1" / "layers"
    folder.mkdir(parents=True)
    by = {"threads": 1, "processor": "Recorded"}
    recorded = runs.load("mpnet", "rte-s1", overrides=runs.RECORDED)
    told = {"key": recorded.key("layers"), "seconds": 7200.0, "provenance": by}
    (folder / "manifest.json").write_text(json.dumps(told))
    again = runs.load("mpnet", "rte-s2", overrides=runs.RECORDED)
    assert forecast.hours(again, "layers", before()) == 2
    assert forecast.hours(load("rte-s2"), "layers", before()) is None, "recorded is bfloat16"


def test_what_lies_there_of_other_parameters_is_no_timing_of_these() -> None:
    finish(load("rte-s1", size="lesson"), 12.0, "layers")
    assert forecast.timings() == []


def test_where_the_work_was_not_done_before_it_takes_as_on_an_encoder_of_the_same_shape(planted) -> None:
    planted((13, 768, 100_000_000))
    done = load("rte-s1")
    finish(done, 426.0, "finetune", updates=213)
    finish(done, 3600.0, "layers", threads=2)
    other = load("rte-s1", precision="bfloat16", **{"corpus.train_words": 60_000})
    more = forecast.words(other.study) / forecast.words(done.study)
    assert more > 1.4
    assert [forecast.hours(other, step, before()) for step in ("finetune", "layers")] == [None, None]
    assert forecast.hours(other, "layers", before(), "alike") == pytest.approx(2 * more)
    assert forecast.hours(other, "finetune", before(), "alike") == pytest.approx(213 * 2 / 3600)
    assert forecast.hours(other, "neurons", before(), "alike") is None
    planted(None)
    assert forecast.hours(other, "layers", before(), "alike") is None


def test_alike_are_steps_on_encoders_of_one_shape_with_one_probe(planted) -> None:
    planted((13, 768, 100_000_000))
    every, sem = ("finetune", "extract", "layers", "neurons"), {"properties": ["sem"]}
    bert, paper, ours = (runs.load(n, "rte-s1", overrides=sem) for n in ("bert-base-cased", "mpnet-paper", "mpnet"))
    assert [forecast.alike(bert, step) for step in every] == [forecast.alike(paper, step) for step in every]
    same = [step for step in every if forecast.alike(ours, step) == forecast.alike(bert, step)]
    assert same == ["finetune", "extract"], "with another probe"
    own = forecast.alike(ours, "finetune")
    assert forecast.alike(load("rte-droptop6-s1", **sem), "finetune") != own
    planted((25, 1024, 300_000_000))
    assert forecast.alike(ours, "finetune") != own


def test_the_shapes_of_encoders_that_are_not_here_are_those_of_their_configs() -> None:
    import torch
    from transformers import AutoModel, BertConfig, RobertaConfig, XLNetConfig

    configs = {
        "google-bert/bert-base-cased": BertConfig(vocab_size=28996),
        "FacebookAI/roberta-base": RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1),
        "xlnet/xlnet-base-cased": XLNetConfig(vocab_size=32000, d_model=768, n_layer=12, n_head=12, d_inner=3072),
    }
    for name, config in configs.items():
        with torch.device("meta"):
            parameters = AutoModel.from_config(config).num_parameters()
        assert forecast.SHAPES[name] == (config.num_hidden_layers + 1, config.hidden_size, parameters)
    assert {*forecast.SHAPES} <= {*loading.hub_pins(), *sources.SOURCES}


# Disk --------------------------------------------------------------------------------------------------------------


def words(**overrides: object) -> int:
    return forecast.words(load("pretrained", **overrides).study)


def test_the_words_are_those_that_a_study_asks_for_or_that_its_corpora_have() -> None:
    asked = {"corpus.train_words": 150_000, "corpus.dev_words": 50_000, "corpus.test_words": 50_000}
    assert words(**asked, properties=["sem"]) == 50_408 + 7_368 + 6_821
    assert words(**asked, properties=["chunk"]) == 150_000 + 21_172 + 47_377
    assert words(properties=["pos"]) == 30_000 + 5_000 + 20_000
    assert forecast.words(runs.load("minilm", "pretrained").study) == 30_000 + 5_000 + 20_000


def test_the_disk_at_peak_has_the_models_and_what_the_largest_runs_have_beside(planted) -> None:
    planted((13, 768, 100_000_000))
    wanted = [load(name, properties=["pos"]) for name in ("pretrained", "random", "rte-s1", "rte-s2")]
    doing = [(run, [s for s in STEPS.values() if s.applies(run)]) for run in wanted]
    store, checkpoints_ = 2 * 55_000 * 13 * 768, 2 * 3 * 400e6
    assert checkpoints_ > store
    assert forecast.peak(doing, 1, keep=False) == (800e6, checkpoints_)
    assert forecast.peak(doing, 3, keep=False) == (800e6, 2 * checkpoints_ + store)
    assert forecast.peak(doing[:2], 4, keep=False) == (0, 2 * store)
    assert forecast.peak(doing, 1, keep=True) == (800e6 + 4 * store, checkpoints_)
    assert forecast.peak([(wanted[2], [STEPS["layers"]])], 2, keep=False) == (0, 0)


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlnet"])
def test_the_shape_of_an_encoder_is_read_without_its_weights(make_study, kind: str, tmp_path: Path) -> None:
    study = make_study(kind)
    assert forecast.shape(study) == (*checkpoints.shape(study), checkpoints.pretrained(study).num_parameters())
    gone = make_study(encoder={"checkpoint": "someone/nothing"})
    assert forecast.shape(gone) is None


# The page ----------------------------------------------------------------------------------------------------------


def test_the_plan_counts_runs_and_needs_no_data(tmp_path: Path, planted, monkeypatch, capsys) -> None:
    planted(None)
    tasks = ["sst2", "rte", "sst2-2241", "sst2-droptop6"]
    wanted = grid.selected("mpnet", ["mpnet", "mpnet-paper"], tasks, [1, 2, 3], {})
    monkeypatch.setattr(params, "ROOT", tmp_path)
    monkeypatch.setattr(grid, "figures_key", lambda _: "key")
    monkeypatch.setattr(forecast, "timings", lambda: [])
    grid.print_plan(wanted, "mpnet", 2, keep=False)
    told = capsys.readouterr().out
    assert (
        "mpnet, mpnet-paper: 2 × (2 untrained + 2 tasks × 3 seeds + 1 fewer examples × 3 seeds + 1 pruned × 3 seeds)"
        in told
    )
    row = next(line.split() for line in told.splitlines() if line.startswith("      mpnet ")).copy()
    assert row[:6] == ["mpnet", "0/2", "0/6", "0/3", "0/3", "53"]
    assert "no estimate" in told
    assert "not known before the encoders of mpnet, mpnet-paper are here (make data SCALE=mpnet)" in told
    listed = [line for line in told.splitlines() if line.startswith("  mpnet")]
    assert len(listed) == grid.LISTED - 1
    assert "... of 107 steps" in told


def test_the_plan_of_what_is_half_done(planted, monkeypatch, capsys) -> None:
    planted((13, 768, 100_000_000))
    wanted = [load(name, properties=["sem"]) for name in ("pretrained", "random", "rte-s1")]
    monkeypatch.setattr(grid, "to_do", lambda run: [STEPS["layers"]] if run.variant.task else [])
    rows = [forecast.Timing(forecast.work(wanted[2], "layers"), 5400.0, "results/x", "Planted")]
    monkeypatch.setattr(forecast, "timings", lambda: rows)
    grid.print_plan(wanted, "mpnet", 2, keep=False)
    told = capsys.readouterr().out
    assert next(line.split() for line in told.splitlines() if line.startswith("mpnet ")) == [
        "mpnet", "2/2", "0/1", "1", "1.5",
    ]  # fmt: skip
    assert "disk at peak: 0.0 GB" in told
    assert "as 1 steps in results/x took (Planted)" in told
    assert "to run:\n  mpnet/rte-s1/03_probe_layers\n" in told
    assert "GPU-hours" not in told
    rows.append(rows[0]._replace(core_seconds=1800.0, device="NVIDIA"))
    grid.print_plan(wanted, "mpnet", 2, keep=False)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("mpnet "))
    assert line.split()[4:] == ["1.5", "0.5", "(1", "steps)"], "a GPU's hours are not a core's"


def test_what_a_gpu_took_is_told_by_its_name(tmp_path: Path) -> None:
    finish(load("rte-s1"), 100.0, "layers", threads=2, provenance={"threads": 2, "processor": "P", "device": "NVIDIA"})
    (row,) = before().itertuples()
    assert (row.core_seconds, row.device) == (100.0, "NVIDIA")
    run = load("rte-s1")
    run.notebook("extract").write_text(
        json.dumps({"metadata": {"papermill": {"duration": 7.0}, "lib": {"key": run.key("extract")}}})
    )
    assert {row.device for row in before().itertuples()} == {"NVIDIA"}, "an extraction is of the device that probed it"
