"""Probes find what is there, nothing where there is nothing, and train as the textbook says."""

import re
import tracemalloc
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, labelled_sentences, write_columns
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from lib import probes
from lib.encoders import activations
from lib.probes import layers, linear
from lib.probes.linear import ProbeSpec, Standardiser
from lib.study import loading, params, runs, variants

LAYERS, WIDTH = 3, 6


def setting(**changes) -> params.ProbeSettings:
    base = {"epochs": 3, "batch_size": 32, "learning_rate": 1e-2, "l1": 0.0, "l2": 0.0, "standardise": True}
    return params.ProbeSettings(**(base | changes))


def problem(words: int = 300, count: int = 4, layer: int = 1, noise: float = 0.5, seed: int = 0):
    """Vectors [layers, words, width] with labels planted in one layer, and the labels."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(count, size=words)
    vectors = rng.normal(size=(LAYERS, words, WIDTH))
    vectors[layer] = np.eye(count, WIDTH)[ids] * 3 + rng.normal(size=(words, WIDTH)) * noise
    return vectors.astype(np.float16), ids


# Gradient and optimum --------------------------------------------------------------------------------------------


def objective(block, weight, bias, counts, wanted, l1: float, l2: float, squared: bool) -> torch.Tensor:
    """The loss by its definition: per group and label set, mean cross-entropy + λ1·Σ|W| + λ2·‖W‖₂, or ‖W‖₂² if it is
    ``squared``; [groups, sets]."""
    ends, losses = np.cumsum(counts).tolist(), []
    for end, count, ids in zip(ends, counts, wanted, strict=True):
        own = weight[:, :, end - count : end]
        scores = block @ own + bias[:, :, end - count : end]
        picked = torch.log_softmax(scores, -1)[:, torch.arange(len(ids)), ids]
        size = own.square().sum((1, 2))
        losses.append(-picked.mean(1) + l1 * own.abs().sum((1, 2)) + l2 * (size if squared else size.sqrt()))
    return torch.stack(losses, 1)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6), l1=st.sampled_from([0.0, 0.01, 0.5]), l2=st.sampled_from([0.0, 0.03, 0.7]),
    counts=st.lists(st.integers(2, 4), min_size=1, max_size=3), words=st.integers(1, 9), squared=st.booleans(),
)  # fmt: skip
def test_the_gradient_is_that_of_the_loss(seed: int, l1: float, l2: float, counts, words: int, squared: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    block = torch.randn(LAYERS, words, WIDTH, generator=generator, dtype=torch.float64)
    weight = torch.randn(LAYERS, sum(counts), WIDTH, generator=generator, dtype=torch.float64).requires_grad_()
    bias = torch.randn(LAYERS, sum(counts), 1, generator=generator, dtype=torch.float64).requires_grad_()
    wanted = torch.stack([torch.randint(n, (words,), generator=generator) for n in counts])
    loss = objective(block, weight.mT, bias.mT, counts, wanted, l1, l2, squared).sum()
    expected = torch.autograd.grad(loss, (weight, bias))
    probe = probes.Probe(weight.detach(), bias.detach(), counts, "each layer", None)
    of_weight, of_bias = linear.gradient(probe, block, wanted)
    linear.penalise(of_weight, probe, l1, l2, squared)
    torch.testing.assert_close(of_weight, expected[0], rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(of_bias, expected[1], rtol=1e-9, atol=1e-11)


def test_a_spec_without_penalties_of_its_own_takes_those_of_the_settings() -> None:
    X, ids = problem()
    given_by_settings, given_by_spec, none = (
        probes.fit_specs(X, [ProbeSpec([(ids, 4)], "each layer", *own)], setting(l1=l1, l2=l1), seed=0)[0].weight
        for l1, own in ((0.1, (None, None)), (0.0, (0.1, 0.1)), (0.1, (0.0, 0.0)))
    )
    assert torch.equal(given_by_settings, given_by_spec)
    assert not torch.equal(given_by_settings, none)


def test_the_settings_say_whether_the_norm_is_squared() -> None:
    X, ids = problem()
    plain, squared, none = (
        probes.fit_specs(X, [ProbeSpec([(ids, 4)])], setting(l2=l2, squared=s), seed=0)[0].weight
        for l2, s in ((0.1, False), (0.1, True), (0.0, True))
    )
    assert not torch.equal(plain, squared)
    assert squared.norm() < none.norm()


def reference(x: np.ndarray, y: np.ndarray, count: int, l1: float, l2: float) -> float:
    """The minimum of the loss by proximal gradient descent: the exact proximal step of λ1·Σ|W| + λ2·‖W‖₂."""
    x = np.hstack([x, np.ones((len(x), 1))])
    step = 4 * len(x) / np.linalg.norm(x, 2) ** 2
    weight = previous = np.zeros((x.shape[1], count))
    for k in range(3000):
        at = weight + k / (k + 3) * (weight - previous)
        scores = x @ at
        chance = np.exp(scores - scores.max(1, keepdims=True))
        chance /= chance.sum(1, keepdims=True)
        at = at - step * x.T @ (chance - np.eye(count)[y]) / len(x)
        own = np.sign(at[:-1]) * np.maximum(np.abs(at[:-1]) - step * l1, 0)
        own *= max(0.0, 1 - step * l2 / max(np.linalg.norm(own), 1e-12))
        previous, weight = weight, np.vstack([own, at[-1:]])
    return total_loss(x[:, :-1], y, weight[:-1], weight[-1], l1, l2)


def total_loss(x, y, weight, bias, l1: float, l2: float) -> float:
    scores = x @ weight + bias
    log_chance = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    return -log_chance[np.arange(len(y)), y].mean() + l1 * np.abs(weight).sum() + l2 * np.linalg.norm(weight)


@pytest.mark.parametrize(("l1", "l2"), [(0.0, 0.0), (0.02, 0.0), (0.0, 0.1), (0.01, 0.05)])
def test_the_objective_at_convergence_is_that_of_a_reference_solver(l1: float, l2: float) -> None:
    X, ids = problem(words=200, noise=3.0)
    settled = setting(epochs=1500, batch_size=200, learning_rate=3e-3, l1=l1, l2=l2, order="corpus")
    (probe,) = probes.fit_specs(X, [ProbeSpec([(ids, 4)])], settled, seed=0)
    x = probes.read_block(X, slice(None), probe.standardiser, torch.device("cpu")).numpy().astype(np.float64)
    for layer in range(LAYERS):
        weight, bias = (t[layer].T.numpy().astype(np.float64) for t in (probe.weight, probe.bias))
        found = total_loss(x[layer], ids, weight, bias, l1, l2)
        best = reference(x[layer], ids, 4, l1, l2)
        assert best - 1e-6 <= found <= best + 2e-3
        start = total_loss(x[layer], ids, np.zeros_like(weight), np.zeros_like(bias), l1, l2)
        assert start > best + 5e-3, "there was something to minimise"


def test_a_probe_that_was_to_converge_and_has_not_says_so() -> None:
    X, ids = problem(words=200, noise=3.0)
    short, long = (setting(epochs=n, batch_size=200, learning_rate=3e-3, tolerance=0.01) for n in (10, 3000))
    with pytest.warns(UserWarning, match=r"probes: not converged after 10 epochs, .* raise probe.epochs"):
        probes.fit_specs(X, [ProbeSpec([(ids, 4)])], short, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        probes.fit_specs(X, [ProbeSpec([(ids, 4)])], long, seed=0)


def test_without_penalty_the_optimum_is_that_of_scikit_learn() -> None:
    X, ids = problem(words=200, noise=3.0)
    settled = setting(epochs=1500, batch_size=200, learning_rate=3e-3, order="corpus")
    (probe,) = probes.fit_specs(X, [ProbeSpec([(ids, 4)])], settled, seed=0)
    x = probes.read_block(X, slice(None), probe.standardiser, torch.device("cpu")).numpy().astype(np.float64)[1]
    solved = LogisticRegression(C=np.inf, max_iter=2000, tol=1e-8).fit(x, ids)
    scores = x @ probe.weight[1].T.numpy() + probe.bias[1].T.numpy()
    chance = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(chance, solved.predict_proba(x), atol=5e-3)


# What probes find ------------------------------------------------------------------------------------------------


def accuracy(probe: probes.Probe, X: np.ndarray, sets: list[np.ndarray]) -> np.ndarray:
    """[label sets, groups]"""
    return np.array([(found == ids).mean(1) for found, ids in zip(probe.predict(X), sets, strict=True)])


@pytest.mark.parametrize("layer", range(LAYERS))
def test_the_layer_in_which_labels_are_planted_wins(layer: int) -> None:
    X, ids = problem(layer=layer)
    held_out, unseen_ids = problem(layer=layer, seed=1)
    (probe,) = probes.fit_specs(X, [ProbeSpec([(ids, 4)])], setting(epochs=20), seed=0)
    (found,) = accuracy(probe, held_out, [unseen_ids])
    assert found.argmax() == layer
    assert found[layer] > 0.95
    assert np.delete(found, layer).max() < 0.4, "chance is a quarter"


def word_tables(sizes: dict[str, int], types: int, seed: int, distribution: list[float]) -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    names = [f"L{i}" for i in range(len(distribution))]
    return {
        split: pd.DataFrame(
            {"word": [f"w{i}" for i in rng.integers(types, size=n)], "tag": rng.choice(names, size=n, p=distribution)}
        )
        for split, n in sizes.items()
    }


def test_on_noise_the_real_and_the_control_accuracy_are_the_majority_rate() -> None:
    words = word_tables({"train": 3000, "dev": 10, "test": 3000}, 10**6, 0, [0.6, 0.3, 0.1])
    rng = np.random.default_rng(1)
    X = {s: rng.normal(size=(2, len(t), 4)).astype(np.float16) for s, t in words.items()}
    real = probes.label_set(words, "tag")
    drawn = probes.control(words, real, 0)
    spec = ProbeSpec([real.target, drawn.target])
    (probe,) = probes.fit_specs(X["train"], [spec], setting(learning_rate=3e-3, batch_size=256), seed=0)
    found = accuracy(probe, X["test"], [real.ids["test"], drawn.ids["test"]])
    majority = [(s.ids["test"] == np.bincount(s.ids["train"]).argmax()).mean() for s in (real, drawn)]
    error = np.sqrt(0.6 * 0.4 / 3000)
    assert np.abs(found - np.array(majority)[:, None]).max() < 4 * error
    assert found.max() < 0.6 + 5 * error


def test_with_one_fixed_vector_per_word_type_the_control_task_is_learnt_by_heart() -> None:
    words = word_tables({"train": 2000, "dev": 10, "test": 500}, 30, 0, [0.4, 0.3, 0.3])
    vectors = np.random.default_rng(1).normal(size=(30, 32))
    X = {s: vectors[t["word"].str[1:].astype(int)][None].astype(np.float16) for s, t in words.items()}
    real = probes.label_set(words, "tag")
    drawn = probes.control(words, real, 0)
    spec = ProbeSpec([real.target, drawn.target])
    (probe,) = probes.fit_specs(X["train"], [spec], setting(epochs=20), seed=0)
    (of_real,), (of_control,) = accuracy(probe, X["test"], [real.ids["test"], drawn.ids["test"]])
    assert of_control > 0.95
    assert of_real < 0.6, "these real labels have nothing to do with the words"


def test_an_unchanged_encoder_gives_identical_predictions() -> None:
    X, ids = problem(noise=2.0)
    twin = X.copy()
    first, second = (probes.fit_specs(v, [ProbeSpec([(ids, 4)])], setting(), seed=3)[0] for v in (X, twin))
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)
    assert np.array_equal(first.predict(X)[0], second.predict(twin)[0])


def test_vectors_that_a_device_holds_give_the_probes_that_mapped_ones_give() -> None:
    X, ids = problem(noise=2.0)
    X[1, :, 3] = 2  # a neuron that never varies
    specs = [ProbeSpec([(ids, 4)]), ProbeSpec([(ids, 4)], "all"), ProbeSpec([(ids, 4)], torch.tensor([3, 7]))]
    for chosen in (None, np.arange(0, len(ids), 2)):
        mapped, held = (
            probes.fit_specs(v, specs, setting(), seed=3, chosen=chosen) for v in (X, torch.from_numpy(X.copy()))
        )
        for one, other in zip(mapped, held, strict=True):
            assert torch.equal(one.weight, other.weight)
            assert np.array_equal(one.predict(X)[0], other.predict(torch.from_numpy(X.copy()))[0])
    assert probes.held(X, "cpu") is X


def test_the_order_of_the_words_depends_on_the_seed() -> None:
    X, ids = problem(noise=2.0)
    first, other = (probes.fit_specs(X, [ProbeSpec([(ids, 4)])], setting(), seed=s)[0].weight for s in (3, 4))
    assert not torch.equal(first, other)


def test_specs_and_label_sets_trained_together_equal_those_trained_alone() -> None:
    X, ids = problem(noise=2.0)
    other = np.random.default_rng(5).integers(3, size=len(ids))
    sets = [(ids, 4), (other, 3)]
    some, every = torch.tensor([2, 5, 11]), torch.arange(LAYERS * WIDTH)
    specs = [ProbeSpec(sets), ProbeSpec(sets[:1], some, 0.01, 0.02), ProbeSpec(sets, every), ProbeSpec(sets, "all")]
    together = probes.fit_specs(X, specs, setting(l1=1e-3, l2=1e-2), seed=0)
    for spec, probe in zip(specs, together, strict=True):
        for target, own in zip(spec.targets, probe.split(), strict=True):
            alone = replace(spec, targets=[target])
            (single,) = probes.fit_specs(X, [alone], setting(l1=1e-3, l2=1e-2), seed=0)
            torch.testing.assert_close(own.weight, single.weight, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(own.bias, single.bias, rtol=1e-4, atol=1e-6)
            assert np.array_equal(own.predict(X)[0], single.predict(X)[0])
    torch.testing.assert_close(together[2].weight, together[3].weight, rtol=1e-4, atol=1e-6)


def test_a_probe_of_one_layers_neurons_equals_that_layers_probe() -> None:
    X, ids = problem(noise=2.0)
    specs = [ProbeSpec([(ids, 4)], scope) for scope in ("each layer", torch.arange(WIDTH, 2 * WIDTH))]
    layers, chosen = probes.fit_specs(X, specs, setting(), seed=0)
    torch.testing.assert_close(chosen.weight[0], layers.weight[1], rtol=1e-4, atol=1e-6)
    assert np.array_equal(chosen.predict(X)[0][0], layers.predict(X)[0][1])


def test_a_probe_of_some_words_is_learnt_from_these_alone() -> None:
    X, ids = problem()
    some = np.flatnonzero(np.arange(300) % 3 > 0)
    spoilt, wrong = X.copy(), ids.copy()
    spoilt[:, np.arange(300) % 3 == 0], wrong[np.arange(300) % 3 == 0] = 9.0, 0
    settled = setting(standardise=False)
    first, second = (
        probes.fit_specs(v, [ProbeSpec([(i, 4)])], settled, 0, chosen=some)[0] for v, i in ((X, ids), (spoilt, wrong))
    )
    assert torch.equal(first.weight, second.weight)
    (alone,) = probes.fit_specs(X[:, some], [ProbeSpec([(ids[some], 4)])], settled, 0)
    assert torch.equal(first.weight, alone.weight)


def test_labels_that_do_not_match_the_words_are_refused() -> None:
    X, ids = problem()
    without = np.where(np.arange(300) == 7, -1, ids)
    for wrong in (ids[:-1], without):
        with pytest.raises(ValueError, match="299 labels do not match the 300 words"):
            probes.fit_specs(X, [ProbeSpec([(wrong, 4)])], setting(), seed=0)


def test_predictions_do_not_depend_on_the_block_in_which_a_word_is_read() -> None:
    X, ids = problem(words=5000, noise=2.0)
    (probe,) = probes.fit_specs(X, [ProbeSpec([(ids, 4)])], setting(epochs=1), seed=0)
    scores = (
        probes.read_block(X, slice(None), probe.standardiser, torch.device("cpu")) @ probe.weight.mT + probe.bias.mT
    )
    assert (probe.predict(X)[0] == scores.argmax(-1).numpy()).mean() > 0.9995


@pytest.mark.parametrize("order", ["shuffled", "corpus"])
def test_every_word_is_in_one_batch_of_every_epoch(order: str) -> None:
    steps = list(probes.batches(10, 4, order, 3, seed=0))
    assert len(steps) == 9
    epochs = [np.concatenate([np.arange(10)[rows] for rows in steps[i : i + 3]]) for i in (0, 3, 6)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(10))
    assert (epochs[0].tolist() == list(range(10))) is (order == "corpus")
    assert (epochs[0].tolist() == epochs[1].tolist()) is (order == "corpus")


# When training ends ---------------------------------------------------------------------------------------------


@pytest.fixture
def epochs_of(monkeypatch: pytest.MonkeyPatch):
    """``epochs_of(X, targets, **settings)``: after how many epochs of three steps the training ends, and the probe."""
    steps, real = [], linear.gradient
    monkeypatch.setattr(linear, "gradient", lambda *given: steps.append(1) or real(*given))

    def count(X: np.ndarray, targets: list, **settings) -> tuple[float, probes.Probe]:
        steps.clear()
        (probe,) = probes.fit_specs(X, [ProbeSpec(targets)], setting(batch_size=100, **settings), seed=0)
        return len(steps) / 3, probe

    return count


def test_training_ends_when_the_loss_stands_still_and_never_without_a_tolerance(epochs_of) -> None:
    X, ids = problem(noise=3.0)
    early, probe = epochs_of(X, [(ids, 4)], epochs=400, tolerance=0.01)
    assert 10 < early < 100
    stopped, same = epochs_of(X, [(ids, 4)], epochs=int(early))
    assert stopped == early and torch.equal(probe.weight, same.weight), "what it has learnt by then"
    longer, _ = epochs_of(X, [(ids, 4)], epochs=400, tolerance=0.001)
    assert early < longer < 400
    assert epochs_of(X, [(ids, 4)], epochs=120, tolerance=0.0)[0] == 120


def test_training_goes_on_while_any_layer_or_label_set_still_learns(epochs_of) -> None:
    X, ids = problem(words=300, noise=0.5)
    balanced = np.arange(300) % 4
    nothing = np.zeros_like(X[:1])
    raw = {"epochs": 60, "tolerance": 0.01, "standardise": False}
    alone, _ = epochs_of(nothing, [(balanced, 4)], **raw)
    assert alone == 5, "there is nothing to learn"
    assert epochs_of(X[1:2], [(ids, 4)], **raw)[0] == 60, "of an easy problem the loss falls on and on"
    assert epochs_of(np.concatenate([nothing, X[1:2]]), [(ids, 4)], **raw)[0] == 60
    assert epochs_of(X[1:2], [(balanced, 4), (ids, 4)], **raw)[0] == 60


# Standardiser --------------------------------------------------------------------------------------------------------


def test_the_scale_is_mean_and_deviation_over_more_words_than_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "BLOCK", 64)
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(2, 333, 5)) * [1, 0.01, 50, 3, 1] + [0, 5, 900, -7, 60]).astype(np.float16)
    vectors[1, :, 4] = 2.5
    scale = Standardiser.of(vectors)
    exact = vectors.astype(np.float64)
    np.testing.assert_allclose(scale.mean[:, 0].numpy(), exact.mean(1), rtol=1e-5)
    deviation = exact.std(1)
    assert deviation[1, 4] == 0
    assert np.isinf(scale.deviation[1, 0, 4])
    varied = deviation > 0
    np.testing.assert_allclose(scale.deviation[:, 0].numpy()[varied], deviation[varied], rtol=1e-5)


def test_standardised_neurons_have_mean_0_and_deviation_1_and_constant_ones_are_0() -> None:
    vectors = np.random.default_rng(0).normal(size=(2, 500, 4)) * 7 + 100
    vectors[0, :, 2] = 42.0
    X = vectors.astype(np.float16)
    block = probes.read_block(X, slice(None), Standardiser.of(X), torch.device("cpu"))
    assert torch.equal(block[0, :, 2], torch.zeros(500))
    varied = torch.cat([block[0, :, [0, 1, 3]], block[1]], 1)
    torch.testing.assert_close(varied.mean(0), torch.zeros(7), atol=1e-4, rtol=0)
    torch.testing.assert_close(varied.std(0, correction=0), torch.ones(7), atol=1e-4, rtol=0)


def test_a_raw_probe_reads_the_vectors_as_they_are() -> None:
    X, ids = problem(noise=2.0)
    (probe,) = probes.fit_specs(X, [ProbeSpec([(ids, 4)])], setting(standardise=False), seed=0)
    block = probes.read_block(X, slice(5, 9), probe.standardiser, torch.device("cpu"))
    assert torch.equal(block, torch.from_numpy(X[:, 5:9].astype(np.float32)))


def test_standardising_makes_the_probe_blind_to_the_scale_of_a_layer() -> None:
    X, ids = problem(noise=2.0)
    for standardise in (True, False):
        found = [
            probes.fit_specs(v, [ProbeSpec([(ids, 4)])], setting(standardise=standardise), 0)[0].predict(v)[0]
            for v in (X, X * np.float16(64))
        ]
        assert bool((found[0] == found[1]).mean() > 0.999) is standardise


def test_flattened_neurons_are_numbered_layer_times_width_plus_unit() -> None:
    block = torch.arange(2 * 3 * 4).reshape(2, 3, 4)
    every, some = probes.select(block, "all")[0], probes.select(block, torch.tensor([5, 2]))[0]
    for layer in range(2):
        for unit in range(4):
            assert torch.equal(every[:, layer * 4 + unit], block[layer, :, unit])
    assert torch.equal(some, every[:, [5, 2]])


def test_words_are_read_into_a_buffer_without_a_copy_for_the_whole_network() -> None:
    X, _ = problem()
    buffer = torch.full((20, LAYERS, WIDTH), torch.nan)
    block = probes.read_block(X, np.array([7, 3, 9]), None, torch.device("cpu"), buffer)
    assert torch.equal(block, torch.from_numpy(X[:, [7, 3, 9]].astype(np.float32)))
    for scope in ("each layer", "all"):
        assert probes.select(block, scope).data_ptr() == buffer.data_ptr()
    assert buffer[3:].isnan().all()


# Arrays of your own -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "tensor", "read-only map"])
def test_a_probe_is_fitted_on_plain_arrays_of_any_float_type(kind: str, tmp_path) -> None:
    X, ids = problem(layer=1)
    if kind == "read-only map":
        np.save(tmp_path / "X.npy", X)
        given = np.load(tmp_path / "X.npy", mmap_mode="r")
    else:
        given = torch.from_numpy(X) if kind == "tensor" else X.astype(kind)
    with warnings.catch_warnings(action="error"):
        probe = probes.fit(given, ids, seed=0, epochs=20, batch_size=32, learning_rate=1e-2)
    assert probe.weight.shape == (LAYERS, 4, WIDTH)
    assert probe.bias.shape == (LAYERS, 4)
    assert probe.predict(given).shape == (LAYERS, 300)
    assert probe.accuracy(given, ids).argmax() == 1
    np.testing.assert_array_equal(probe.accuracy(given, ids), (probe.predict(given) == ids).mean(1))


def test_without_groups_nothing_has_groups_and_the_probe_is_that_of_the_layer() -> None:
    X, ids = problem(noise=2.0)
    every, one = probes.fit(X, ids), probes.fit(X[1], ids)
    assert one.weight.shape == (4, WIDTH)
    assert one.bias.shape == (4,)
    np.testing.assert_allclose(one.weight, every.weight[1], rtol=1e-4, atol=1e-6)
    assert one.accuracy(X[1], ids) == pytest.approx(every.accuracy(X, ids)[1], abs=0.01)


@pytest.mark.parametrize(
    "names", [["D", "N", "V", "X"], [("D", 1), ("N", 2), ("N", 3), None], [0, 10, -5, 7], [True, 2.5, "x", frozenset()]]
)
def test_labels_may_be_of_any_hashable_type(names: list) -> None:
    X, ids = problem(layer=1)
    y = [names[i] for i in ids]
    probe = probes.fit(X[1], y, epochs=20, batch_size=32, learning_rate=1e-2)
    assert set(probe.labels) == set(names)
    assert probe.accuracy(X[1], y) > 0.95
    assert np.mean([a == b for a, b in zip(probe.predict(X[1]), y, strict=True)]) == probe.accuracy(X[1], y)
    assert probe.accuracy(X[1], ["never seen"] * 300) == 0


def test_settings_that_are_not_given_are_those_of_the_studies() -> None:
    X, ids = problem(noise=2.0)
    base = loading.read_yaml(params.ROOT / "params" / "base.yaml")["probe"]
    (expected,) = probes.fit_specs(X, [ProbeSpec([(ids, 4)])], params.ProbeSettings(**(base | {"l1": 0.01})), 3)
    found = probes.fit(X, [f"L{i}" for i in ids], seed=3, l1=0.01)
    order = [int(name[1:]) for name in found.labels]
    torch.testing.assert_close(torch.from_numpy(found.weight), expected.weight[:, order])
    with pytest.raises(ValueError, match="epoch"):
        probes.fit(X, ids, epoch=3)


def test_the_example_in_the_readme_does_what_it_says() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    (example,) = [block for block in blocks if "probes.fit(" in block]
    assert example.count("assert ") >= 2
    exec(example, {})


# Labels, groups, baselines ---------------------------------------------------------------------------------------


@pytest.fixture
def words() -> dict[str, pd.DataFrame]:
    def table(text: str) -> pd.DataFrame:
        return pd.DataFrame([t.split("/") for t in text.split()], columns=["word", "tag"])

    return {
        "train": table("the/D bank/N bank/V bank/N dog/N runs/V runs/N the/D cat/N"),
        "dev": table("the/D"),
        "test": table("the/D bank/V new/N dog/N oh/UH the/UH runs/V"),
    }


def test_labels_are_those_of_training_and_others_are_marked(words) -> None:
    real = probes.label_set(words, "tag")
    assert real.names == ["D", "N", "V"]
    assert real.ids["test"].tolist() == [0, 2, 1, 1, -1, -1, 2]
    assert real.unseen == {"train": 0, "dev": 0, "test": 2}


def test_labels_of_a_categorical_column_are_the_same(words) -> None:
    categorical = {
        s: t.assign(tag=pd.Categorical(t["tag"], categories=["UH", "V", "N", "D"])) for s, t in words.items()
    }
    plain, found = probes.label_set(words, "tag"), probes.label_set(categorical, "tag")
    assert found.names == plain.names
    assert all(np.array_equal(found.ids[s], plain.ids[s]) for s in words)


def test_a_property_with_one_training_label_is_refused(words) -> None:
    words["train"]["tag"] = "N"
    with pytest.raises(ValueError, match="property 'tag' has 1 label in the training words"):
        probes.label_set(words, "tag")


def test_words_are_grouped_by_what_training_says_of_their_type(words) -> None:
    groups = probes.word_groups(words, probes.label_set(words, "tag"), "test")
    assert tuple(groups) == probes.WORDS
    assert groups["all"].tolist() == [True] * 7
    assert groups["ambiguous"].tolist() == [False, True, False, False, False, False, True]
    assert groups["unseen"].tolist() == [False, False, True, False, True, False, False]


def test_the_baselines_know_training_frequencies_only(words) -> None:
    found = probes.baselines(words, probes.label_set(words, "tag"), "test")
    assert found["majority"].tolist() == [1] * 7
    assert found["lookup"].tolist() == [0, 1, 1, 1, 1, 0, 1], "a tie (runs) goes to the first label"


def test_the_control_task_gives_a_word_type_one_label_in_all_splits() -> None:
    words = word_tables({"train": 5000, "dev": 500, "test": 500}, 2000, 0, [0.7, 0.2, 0.1])
    real = probes.label_set(words, "tag")
    drawn = probes.control(words, real, 3)
    every = pd.concat([pd.DataFrame({"word": words[s]["word"], "id": drawn.ids[s]}) for s in words])
    per_type = every.groupby("word")["id"]
    assert per_type.nunique().max() == 1
    np.testing.assert_allclose(per_type.first().value_counts(normalize=True).sort_index(), [0.7, 0.2, 0.1], atol=0.05)
    assert drawn.control
    assert not real.control
    again, other = probes.control(words, real, 3), probes.control(words, real, 4)
    assert np.array_equal(drawn.ids["train"], again.ids["train"])
    assert not np.array_equal(drawn.ids["train"], other.ids["train"])


def test_control_labels_are_drawn_for_the_types_in_the_order_of_their_code_points() -> None:
    """Results recorded before depend on this order; it is that of NumPy's own strings."""
    odd = ["z", "Z", "ä", "a", "\u3000", "\U0001f600", "\uffff", "ab", "10\u00a0000", "a"]
    words = {
        s: pd.DataFrame({"word": odd[::step], "tag": list("AB" * 5)[::step]})
        for s, step in (("train", 1), ("test", -1))
    }
    found = probes.control(words, probes.label_set(words, "tag"), 5)
    drawn = np.random.default_rng(5).choice(2, size=9, p=[0.5, 0.5])
    expected = dict(zip(np.unique(np.array(odd)).tolist(), drawn.tolist(), strict=True))
    assert found.ids["train"].tolist() == [expected[word] for word in odd]
    assert found.ids["test"].tolist() == [expected[word] for word in odd[::-1]]


def test_one_long_word_takes_no_room_for_every_word() -> None:
    words = word_tables({"train": 2000, "dev": 2000, "test": 2000}, 500, 0, [0.5, 0.5])
    words["train"].loc[7, "word"] = "x" * 20_000
    tracemalloc.start()
    real = probes.label_set(words, "tag")
    probes.control(words, real, 1)
    groups, known = (f(words, real, "train") for f in (probes.word_groups, probes.baselines))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert known["lookup"][7] == real.ids["train"][7]
    assert not groups["ambiguous"][7]
    assert peak < 20e6


def test_texts_are_resampled_or_sentences_where_texts_are_unknown() -> None:
    words = pd.DataFrame({"text": ["a", "a", "b"], "sentence": [0, 1, 2]})
    assert probes.text_ids(words).tolist() == ["a", "a", "b"]
    assert probes.text_ids(words.assign(text="")).tolist() == ["0", "1", "2"]


# A run -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(make_study) -> runs.Run:
    return runs.Run(make_study(), variants.Variant("pretrained"))


def test_the_layer_table_counts_every_word_of_every_probe_and_baseline(run) -> None:
    table = probes.ensure_layer_counts(run)
    stores = activations.ensure(run)
    every = table[table["word_group"] == "all"].groupby(["split", "target", "layer"])[["correct", "total"]].sum()
    for split in ("dev", "test"):
        assert set(every.loc[split].index) == {
            *((kind, layer) for kind in ("real", "control") for layer in range(3)), ("majority", -1), ("lookup", -1),
        }  # fmt: skip
        assert (every.loc[split]["total"] == len(stores[split].words)).all()
    assert (table["correct"] <= table["total"]).all()
    tags = stores["test"].words["tag"].astype(str)
    majority = stores["train"].words["tag"].astype(str).mode()[0]
    assert every.loc[("test", "majority", -1), "correct"] == (tags == majority).sum()
    assert every.loc[("test", "real", 1), "correct"] > every.loc[("test", "majority", -1), "correct"]


def test_a_test_label_never_seen_in_training_counts_as_an_error(make_study, tmp_path) -> None:
    files = {s: tmp_path / f"{s}.txt" for s in ("train", "dev", "test")}
    for i, file in enumerate(files.values()):
        write_columns(file, labelled_sentences(20, i))
    write_columns(files["test"], [[("the", "NEW"), ("dog", "NEW")]])
    study = make_study(files={s: str(f) for s, f in files.items()})
    table = probes.ensure_layer_counts(runs.Run(study, variants.Variant("pretrained")))
    real = table[(table["split"] == "test") & (table["target"] == "real") & (table["word_group"] == "all")]
    assert real["total"].sum() == 3 * 2
    assert real["correct"].sum() == 0


def test_layers_are_not_probed_again_under_the_same_key(run, monkeypatch) -> None:
    first = probes.ensure_layer_counts(run)
    monkeypatch.setattr(layers, "fit_specs", lambda *a, **k: pytest.fail("probed again"))
    pd.testing.assert_frame_equal(probes.ensure_layer_counts(run), first)


PENALTIES = {"tag": [0.002, 0.05], "length": [0.05, 0.0]}


@pytest.fixture
def two(tmp_path) -> dict:
    """A corpus with the properties ``tag`` and ``length``, as parameters."""
    files = {}
    for i, (split, count) in enumerate({"train": 60, "dev": 20, "test": 20}.items()):
        rows = [[(w, tag, "long" if len(w) > 4 else "short") for w, tag in s] for s in labelled_sentences(count, i)]
        files[split] = str(write_columns(tmp_path / "two" / f"{split}.txt", rows))
    return {"name": "two", "format": "columns", "files": files, "columns": {"word": 0, "tag": 1, "length": 2}}


def test_penalties_of_an_architecture_and_property_do_what_studies_of_these_penalties_do(make_study, two) -> None:
    def counts(properties: list[str], **probe) -> pd.DataFrame:
        run = runs.Run(make_study(corpus=two, properties=properties, probe=probe), variants.Variant("pretrained"))
        return probes.ensure_layer_counts(run).sort_values(["property", "target"], kind="stable")

    common = {"epochs": 3, "learning_rate": 0.02, "l1": 1e-5, "l2": 1e-5}
    plain = counts([*PENALTIES], **common)
    together = counts([*PENALTIES], **common, penalties={"bert": PENALTIES, "roberta": {"tag": [9.0, 9.0]}})
    alone = [counts([name], **common | {"l1": l1, "l2": l2}) for name, (l1, l2) in PENALTIES.items()]
    expected = pd.concat(alone).sort_values(["property", "target"], kind="stable")
    pd.testing.assert_frame_equal(together.reset_index(drop=True), expected.reset_index(drop=True))
    for name in PENALTIES:
        assert not together[together["property"] == name]["correct"].equals(plain[plain["property"] == name]["correct"])
    other = counts([*PENALTIES], **common, penalties={"roberta": PENALTIES})
    pd.testing.assert_frame_equal(other.reset_index(drop=True), plain.reset_index(drop=True))


def test_label_sets_with_a_penalty_in_common_are_one_probe(make_study, two) -> None:
    same = {"bert": PENALTIES | {"length": PENALTIES["tag"]}}
    for penalties, sizes in (
        ({}, [4]),
        ({"bert": PENALTIES}, [2, 2]),
        (same, [4]),
        ({"bert": {"tag": [1.0, 0.0]}}, [2, 2]),
    ):
        study = make_study(corpus=two, properties=[*PENALTIES], probe__penalties=penalties)
        words = {split: pd.read_csv(file, sep=" ", names=["word", *PENALTIES]) for split, file in two["files"].items()}
        real = [probes.label_set(words, name) for name in PENALTIES]
        wanted = [*real, *(probes.control(words, labels, 0) for labels in real)]
        specs, sets = probes.by_penalty(runs.Run(study, variants.Variant("pretrained")), wanted)
        assert [len(spec.targets) for spec in specs] == sizes
        assert sorted(map(id, sets)) == sorted(map(id, wanted))
        own = penalties.get("bert", {})
        place = iter(sets)
        for spec in specs:
            for target in spec.targets:
                labels = next(place)
                assert target[0] is labels.ids["train"]
                assert [spec.l1, spec.l2] == own.get(labels.property, [study.probe.l1, study.probe.l2])
