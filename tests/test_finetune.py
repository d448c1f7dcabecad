"""Fine-tuning learns what can be learnt, goes on where it was killed, and leaves no pickle behind."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import examples, weights
from transformers import AutoTokenizer

from lib import disk, encoders, finetune, probes, results, tasks
from lib.encoders import checkpoints
from lib.study import params
from lib.study.runs import Run
from lib.study.variants import Variant


def files(folder: Path) -> set[str]:
    return {p.name for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")}


@pytest.mark.slow
def test_a_separable_task_is_learnt_and_kept(run_of, monkeypatch) -> None:
    run = run_of(examples(240, 0), examples(100, 1))
    found = finetune.ensure(run)
    assert found.meta["scores"]["accuracy"] > 0.9
    assert found.meta["majority"]["test"] == 0.5
    assert found.meta["examples"] == {"train": 216, "dev": 24, "test": 100}
    assert found.meta["updates"] == 10 * -(-216 // 16)
    assert found.meta["labels"] == ["bad", "good"]
    accuracy = (found.predictions["gold"] == found.predictions["predicted"]).mean()
    assert accuracy == found.meta["scores"]["accuracy"]
    assert found.predictions["gold"].value_counts().to_dict() == {0: 50, 1: 50}
    assert len(found.curve) >= 4
    assert found.curve["step"].is_monotonic_increasing
    assert found.curve["dev_accuracy"].iloc[-1] > 0.8
    assert found.curve["train_loss"].iloc[-1] < found.curve["train_loss"].iloc[0]
    left = files(run.model)
    assert "model.safetensors" in left
    assert not [name for name in left if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
    assert not list(run.model.parent.glob(".checkpoints*"))
    before, after = (weights(f) for f in (Path(run.study.encoder.checkpoint), run.model))
    encoder = encoders.finetuned(run.model).state_dict()
    assert torch.equal(
        encoder["encoder.layer.0.output.dense.weight"], after["bert.encoder.layer.0.output.dense.weight"]
    )
    assert not torch.equal(
        encoder["encoder.layer.0.output.dense.weight"], before["encoder.layer.0.output.dense.weight"]
    )
    monkeypatch.setattr(finetune.Trainer, "train", lambda *a, **k: pytest.fail("trained again"))
    assert finetune.ensure(run).meta == found.meta
    tok = checkpoints._load(AutoTokenizer, str(run.model))
    assert tok("the dog")["input_ids"] == encoders.tokenizer(run.study)("the dog")["input_ids"]


@pytest.mark.slow
def test_shuffled_labels_are_not_learnt(run_of) -> None:
    train, test = examples(240, 0), examples(200, 1)
    for table in (train, test):
        table["label"] = np.random.default_rng(5).permutation(table["label"])
    found = finetune.ensure(run_of(train, test))
    assert abs(found.meta["scores"]["accuracy"] - 0.5) < 0.15


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "saved_every", "killed"), [("own-s1", 600, 2 / 3), ("own-at50-s1", 600, 2 / 3), ("own-s1", 0, 1 / 5)]
)
def test_a_killed_training_goes_on_from_its_checkpoint_to_the_same_weights(
    run_of, monkeypatch, tmp_path, variant: str, saved_every: float, killed: float
) -> None:
    monkeypatch.setattr(finetune, "SAVE_EVERY", saved_every)  # seconds; else at the evaluations, the first after 1/3
    train, test = examples(120, 0), examples(20, 1)
    real, steps, killed_at = finetune.Trainer.training_step, [], 10**9

    def counted(self, *given, **named):
        if self.state.global_step == killed_at:
            raise KeyboardInterrupt
        steps.append(self.state.global_step)
        return real(self, *given, **named)

    monkeypatch.setattr(finetune.Trainer, "training_step", counted)
    whole = finetune.ensure(run_of(train, test, variant))
    updates = whole.meta["updates"]
    assert steps == list(range(updates))
    expected, curve = weights(whole.folder), whole.curve

    monkeypatch.setenv("RUNS", str(tmp_path / "other"))
    run = run_of(train, test, variant)
    steps.clear()
    killed_at = round(updates * killed)
    with pytest.raises(KeyboardInterrupt):
        finetune.ensure(run)
    assert not run.model.exists(), "an unfinished model must not pass for a finished one"
    steps.clear()
    killed_at = 10**9
    resumed = finetune.ensure(run)
    assert 0 < len(steps) < updates, "it did not begin again"
    assert steps[-1] == updates - 1
    found = weights(resumed.folder)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[k], expected[k]) for k in expected)
    pd.testing.assert_frame_equal(resumed.predictions, whole.predictions)
    pd.testing.assert_frame_equal(resumed.curve, curve)


@pytest.mark.slow
def test_a_checkpoint_that_was_not_written_to_its_end_is_passed_over(tmp_path: Path) -> None:
    assert finetune._last_checkpoint(tmp_path / "none") is None
    for number, whole in ((5, True), (10, True), (20, False)):
        place = tmp_path / f"checkpoint-{number}"
        place.mkdir()
        if whole:
            (place / "trainer_state.json").write_text("{}")
    assert finetune._last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


@pytest.mark.slow
def test_the_seed_of_the_variant_decides_the_weights(run_of) -> None:
    train, test = examples(60, 0), examples(10, 1)
    short = {"finetune__epochs": 0.5, "finetune__evaluations": 1}
    first, other = (finetune.ensure(run_of(train, test, v, **short)) for v in ("own-s1", "own-s2"))
    name = "classifier.weight"
    assert not torch.equal(weights(first.folder)[name], weights(other.folder)[name])


@pytest.mark.slow
def test_half_and_quarter_are_shares_of_the_updates(run_of) -> None:
    train, test = examples(90, 0), examples(10, 1)
    short = {"finetune__epochs": 2.0, "finetune__evaluations": 1}
    updates = {
        variant: finetune.ensure(run_of(train, test, variant, **short)).meta["updates"]
        for variant in ("own-s1", "own-half-s1", "own-quarter-s1")
    }
    assert updates == {"own-s1": 12, "own-half-s1": 6, "own-quarter-s1": 3}


SHORT = {"finetune__epochs": 3.0, "finetune__evaluations": 2}
"""Nine updates, on 40 examples of which 36 are for training."""


@pytest.mark.slow
def test_a_checkpoint_has_the_weights_that_the_whole_training_has_at_that_update(run_of, monkeypatch) -> None:
    train, test = examples(40, 0), examples(10, 1)
    real, seen = finetune.Trainer.training_step, {}

    def watched(self, model, *given, **named):
        seen[self.state.global_step] = {name: weight.clone() for name, weight in model.state_dict().items()}
        return real(self, model, *given, **named)

    monkeypatch.setattr(finetune.Trainer, "training_step", watched)
    whole = finetune.ensure(run_of(train, test, **SHORT))
    expected = dict(seen) | {9: weights(whole.folder)}
    assert whole.meta["updates"] == 9 and sorted(seen) == list(range(9))
    for update in (1, 4, 7, 9):
        found = finetune.ensure(run_of(train, test, f"own-at{update}-s1", **SHORT))
        assert found.meta["updates"] == found.curve["step"].iloc[-1] == update
        assert found.curve["train_loss"].notna().all()
        own = weights(found.folder)
        assert all(torch.equal(weight, expected[update][name]) for name, weight in own.items())
    assert not all(torch.equal(weight, expected[7][name]) for name, weight in own.items())


@pytest.mark.slow
def test_a_checkpoint_may_be_one_of_fewer_updates_or_examples(run_of) -> None:
    train, test = examples(40, 0), examples(10, 1)
    given = {"own-half-at4-s1": (4, 36), "own-16-at2-s1": (2, 16)}
    for variant, (updates, size) in given.items():
        meta = finetune.ensure(run_of(train, test, variant, **SHORT)).meta
        assert (meta["updates"], meta["examples"]["train"]) == (updates, size)


@pytest.mark.parametrize(("variant", "last"), [("own-at10-s1", 9), ("own-half-at6-s1", 5)])
def test_a_checkpoint_after_the_end_is_refused_before_training(run_of, monkeypatch, variant: str, last: int) -> None:
    monkeypatch.setattr(finetune.Trainer, "train", lambda *a, **k: pytest.fail("trained"))
    run = run_of(examples(40, 0), examples(10, 1), variant, **SHORT)
    with pytest.raises(params.ParameterError, match=f"{variant}: the training has {last} updates, none numbered"):
        finetune.ensure(run)
    assert not run.model.exists()


@pytest.mark.slow
def test_the_rate_of_a_variant_replaces_the_learning_rate_of_the_study(run_of) -> None:
    train, test = examples(40, 0), examples(10, 1)
    given = [("own-lr3e-3-s1", 1e-4), ("own-s1", 3e-3), ("own-s1", 1e-4)]
    named, meant, slow = (
        weights(finetune.ensure(run_of(train, test, v, finetune__learning_rate=rate, **SHORT)).folder)
        for v, rate in given
    )
    assert all(torch.equal(named[name], weight) for name, weight in meant.items())
    assert not torch.equal(named["classifier.weight"], slow["classifier.weight"])


@pytest.mark.slow
def test_an_encoder_without_layers_is_fine_tuned_from_the_weights_that_are_kept_and_probed(run_of, monkeypatch) -> None:
    train, test = examples(40, 0), examples(10, 1)
    started, real = {}, finetune.Trainer.train

    def watched(self, *given, **named):
        started.update({name: weight.clone() for name, weight in self.model.state_dict().items()})
        return real(self, *given, **named)

    monkeypatch.setattr(finetune.Trainer, "train", watched)
    for end, kept in (("top", 0), ("bottom", 1)):
        run = run_of(train, test, f"own-drop{end}1-s1", **SHORT)
        released = weights(Path(run.study.encoder.checkpoint))
        tuned = encoders.finetuned(finetune.ensure(run).folder)
        assert tuned.config.num_hidden_layers == 1
        place = "encoder.layer.{}.output.dense.weight"
        assert torch.equal(started[f"bert.{place.format(0)}"], released[place.format(kept)])
        assert not torch.equal(tuned.state_dict()[place.format(0)], released[place.format(kept)]), "it is trained"
        counts = probes.ensure_layer_counts(run)
        assert {*counts["layer"]} == {-1, 0, 1}
        lost = results.drops(results.layers([Run(run.study, Variant("pretrained")), run]))
        assert lost.empty, "its layers are not those of the whole encoder"


@pytest.mark.slow
def test_a_regression_is_scored_by_correlation(run_of) -> None:
    def graded(count: int, seed: int) -> pd.DataFrame:
        table = examples(count, seed)
        return table.assign(label=np.where(table["label"] == "good", 2.0, -1.5))

    found = finetune.ensure(run_of(graded(240, 0), graded(60, 1), regression=True))
    assert found.meta["metric"] == "pearson"
    assert found.meta["scores"]["pearson"] > 0.8
    assert found.meta["majority"] == {"dev": 0.0, "test": 0.0}
    assert found.predictions["gold"].isin([2.0, -1.5]).all()
    assert found.predictions["predicted"].nunique() > 10, "numbers, not classes"
    assert "dev_pearson" in found.curve


@pytest.mark.parametrize("variant", ["pretrained", "random"])
def test_a_variant_without_a_task_is_refused(make_study, variant: str) -> None:
    with pytest.raises(params.ParameterError, match=f"'{variant}' is not fine-tuned"):
        finetune.ensure(Run(make_study(), Variant(variant)))


def test_an_unknown_task_is_refused_before_anything_is_trained(make_study, monkeypatch) -> None:
    monkeypatch.setattr(finetune.Trainer, "train", lambda *a, **k: pytest.fail("trained"))
    with pytest.raises(params.ParameterError, match="there is no task 'sentimant'"):
        finetune.ensure(Run(make_study(), Variant.parse("sentimant-s1")))


def test_a_disk_too_small_for_the_checkpoints_is_refused_before_training(run_of, monkeypatch) -> None:
    monkeypatch.setattr(finetune.Trainer, "train", lambda *a, **k: pytest.fail("trained"))
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda place: type("U", (), {"free": 1000})())
    with pytest.raises(OSError, match=r"its disk has 0\.00 GB free"):
        finetune.ensure(run_of(examples(20, 0), examples(4, 1)))


def test_pickled_weights_are_not_fine_tuned(run_of, encoder_folder, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(encoder_folder("bert"), tmp_path / "encoder"))
    torch.save(weights(folder), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(encoders.EncoderError, match="not safetensors"):
        finetune.ensure(run_of(examples(20, 0), examples(4, 1), encoder={"checkpoint": str(folder)}))


@pytest.mark.slow
def test_the_curve_has_the_loss_of_the_last_updates(run_of) -> None:
    run = run_of(examples(40, 0), examples(10, 1), finetune__epochs=2.5, finetune__evaluations=3)
    curve = finetune.ensure(run).curve
    assert curve["step"].tolist() == [3, 6, 8]
    assert curve["train_loss"].notna().all()


@pytest.mark.slow
def test_the_warm_up_changes_the_weights(run_of) -> None:
    after = [
        weights(finetune.ensure(run_of(examples(40, 0), examples(10, 1), finetune__warmup=w)).folder) for w in (0, 1)
    ]
    assert not all(torch.equal(after[0][k], after[1][k]) for k in after[0])


def test_another_gpu_than_the_first_is_refused_for_fine_tuning(run_of, monkeypatch) -> None:
    monkeypatch.setattr(encoders, "device", lambda study: torch.device("cuda:1"))
    with pytest.raises(params.ParameterError, match="with cuda:1, set CUDA_VISIBLE_DEVICES=1"):
        finetune.ensure(run_of(examples(20, 0), examples(4, 1)))


def test_the_majority_is_the_best_constant_answer() -> None:
    gold = np.array([0, 0, 0, 1])
    assert finetune.majority_score(tasks.Task(("text",), ("a", "b"), "accuracy"), gold) == 0.75
    assert finetune.majority_score(tasks.Task(("text",), (), "pearson"), gold) == 0.0
    assert finetune.majority_score(tasks.Task(("text",), ("a", "b"), "matthews"), gold) == 0.0


@pytest.mark.slow
def test_a_truncated_model_is_trained_again(run_of) -> None:
    run = run_of(examples(40, 0), examples(10, 1), finetune__epochs=0.5, finetune__evaluations=1)
    before = weights(finetune.ensure(run).folder)
    file = run.model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-50])
    after = weights(finetune.ensure(run).folder)
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_a_training_that_diverges_ends_in_an_error_and_leaves_nothing(run_of) -> None:
    run = run_of(examples(64, 0), examples(20, 1), finetune__learning_rate=1e38, finetune__epochs=2.0)
    for _ in range(2):  # and again: no checkpoint of it is taken up
        with pytest.raises(
            finetune.Diverged, match=r"own-s1: the training diverged: .* is nan.*finetune.learning_rate"
        ):
            finetune.ensure(run)
        assert not run.model.exists()
        assert not list(run.model.parent.glob(".checkpoints*"))


def test_weights_that_overflow_at_the_last_update_are_not_kept(run_of, monkeypatch) -> None:
    run = run_of(examples(64, 0), examples(20, 1), finetune__epochs=1.0)
    real = finetune.Trainer.train

    def overflowing(self, *given, **named):
        real(self, *given, **named)
        with torch.no_grad():
            self.model.classifier.bias[0] = torch.inf

    monkeypatch.setattr(finetune.Trainer, "train", overflowing)
    with pytest.raises(finetune.Diverged, match=r"classifier\.bias is inf"):
        finetune.ensure(run)
    assert not run.model.exists()


def test_a_checkpoint_with_flags_and_head_of_another_task_is_fine_tuned(run_of, tmp_path, encoder_folder) -> None:
    folder = Path(shutil.copytree(encoder_folder("bert"), tmp_path / "encoder"))
    config = json.loads((folder / "config.json").read_text())
    flags = {"output_hidden_states": True, "output_attentions": True, "problem_type": "multi_label_classification"}
    (folder / "config.json").write_text(json.dumps(config | flags | {"id2label": {str(i): f"L{i}" for i in range(5)}}))
    data = {"train": examples(64, 0), "test": examples(20, 1), "finetune__epochs": 1.0}
    found = [
        finetune.ensure(run_of(**data, variant=variant, encoder={"checkpoint": str(place)})).predictions
        for variant, place in (("own-s1", folder), ("own-s1", encoder_folder("bert")))
    ]
    assert found[0].equals(found[1])


def test_a_training_takes_no_orders_from_variables_that_are_set_meanwhile(run_of, monkeypatch) -> None:
    found = []
    for orders in ({}, {"ACCELERATE_MIXED_PRECISION": "bf16", "WORLD_SIZE": "2", "RANK": "0", "PMI_SIZE": "2"}):
        for name, value in orders.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("RUNS", f"{os.environ['RUNS']}-{len(orders)}")
        found.append(weights(finetune.ensure(run_of(examples(64, 0), examples(20, 1), finetune__epochs=1.0)).folder))
    assert all(torch.equal(found[0][name], weight) for name, weight in found[1].items())
