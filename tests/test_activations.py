"""The store holds, row for row, what one forward pass per sentence gives."""

import os
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import KINDS, build_encoder, forget, labelled_sentences, write_columns

from lib import corpora, disk, encoders, neurons, results
from lib.encoders import activations
from lib.results import verify
from lib.study import params
from lib.study.runs import Run
from lib.study.variants import Variant

PRETRAINED = Variant("pretrained")


def expected(study, tok, model, words: list[str]) -> np.ndarray:
    """Word vectors of one sentence in a forward pass of its own: [layers, words, width]."""
    encoding = tok([words], is_split_into_words=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(encoding["input_ids"], output_hidden_states=True).hidden_states
    ids = np.array([-1 if i is None else i for i in encoding.word_ids(0)])
    layers = torch.stack(hidden)[:, 0].numpy()
    pool = {"last": lambda at: at[-1:], "first": lambda at: at[:1], "average": lambda at: at}[study.encoder.pooling]
    return np.stack([layers[:, pool(np.flatnonzero(ids == n))].mean(1) for n in range(len(words))], 1)


@pytest.mark.parametrize("pooling", ["last", "first", "average"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_store_equals_a_forward_pass_per_sentence_in_corpus_order(make_study, kind: str, pooling: str) -> None:
    study = make_study(kind, encoder__pooling=pooling, encoder__batch_subwords=100)
    tables = corpora.load(study)
    stores = activations.ensure(Run(study, PRETRAINED))
    tok, model = encoders.tokenizer(study), encoders.pretrained(study)
    for split in ("dev", "test"):
        store = stores[split]
        assert store.vectors.dtype == np.float16
        assert store.vectors.shape == (3, len(tables[split]), 16) == (store.layers, len(store.words), store.width)
        pd.testing.assert_frame_equal(store.words, tables[split])
        assert store.dropped.empty
        sentences = [g["word"].tolist() for _, g in store.words.groupby("sentence", sort=False)]
        assert len({len(s) for s in sentences}) > 3, "sentences of many lengths, batched by length"
        exact = np.concatenate([expected(study, tok, model, s) for s in sentences], 1)
        np.testing.assert_allclose(store.vectors.astype(np.float32), exact, rtol=2e-3, atol=4e-3)
        nearest = [np.abs(store.vectors[1].astype(np.float32) - row).sum(1).argmin() for row in exact[1]]
        assert np.allclose(exact[1][nearest], exact[1]), "each vector lies in the row of its own word"


def test_layer_0_is_the_embedding_output(make_study) -> None:
    study = make_study()
    store = activations.ensure(Run(study, PRETRAINED))["test"]
    tok, model = encoders.tokenizer(study), encoders.pretrained(study)
    words = store.words[store.words["sentence"] == 0]["word"].tolist()
    (window,) = encoders.align(tok, [words], 64)[0].windows
    with torch.inference_mode():
        embedded = model.embeddings(torch.from_numpy(window.ids)[None])[0].numpy()
    np.testing.assert_allclose(store.vectors[0, : len(words)], embedded[window.spans[:, 1]], rtol=2e-3, atol=2e-3)


def test_the_layers_differ_and_the_variants_differ(make_study) -> None:
    study = make_study()
    released, fresh = (activations.ensure(Run(study, Variant(v)))["test"].vectors for v in ("pretrained", "random"))
    assert released.shape == fresh.shape
    assert not np.allclose(released, fresh, atol=0.1)
    for layer in range(2):
        assert not np.allclose(released[layer], released[layer + 1], atol=0.1)


def test_the_size_of_a_batch_does_not_matter(make_study) -> None:
    stores = []
    for pieces in (1, 10_000):
        run = Run(make_study(encoder__batch_subwords=pieces), PRETRAINED)
        stores.append(np.array(activations.ensure(run)["test"].vectors, np.float32))
        shutil.rmtree(run.folder)
    np.testing.assert_allclose(stores[0], stores[1], rtol=2e-3, atol=4e-3)


@pytest.fixture
def awkward(make_study, tmp_path: Path):
    """A corpus with a very long sentence and with words that vanish or do not fit."""
    long = [("the", "O"), ("dog", "N"), ("sings", "V")] * 40
    odd = [("the", "O"), ("日本", "N"), ("dog", "N"), ("\u200b", "O"), ("sings", "V")]
    giant = [("a", "O"), ("unbelievable" * 40, "N"), ("dog", "N")]
    files = {s: tmp_path / f"{s}.txt" for s in ("train", "dev", "test")}
    for i, file in enumerate(files.values()):
        write_columns(file, [*labelled_sentences(10, i), odd, long, giant])
    return make_study("plain", files={s: str(f) for s, f in files.items()}, encoder__max_subwords=20)


def test_words_without_a_vector_are_listed_and_their_neighbours_keep_their_rows(awkward) -> None:
    store = activations.ensure(Run(awkward, PRETRAINED))["test"]
    reasons = store.dropped["reason"].str.replace(r"^\d+", "N", regex=True)
    found = store.dropped.assign(reason=reasons)[["sentence", "position", "word", "reason"]]
    assert [*found.itertuples(index=False, name=None)] == [
        (10, 1, "日本", "no sub-word"), (10, 3, "\u200b", "no sub-word"),
        (12, 1, "unbelievable" * 40, "N sub-words, more than the 20 that fit"),
    ]  # fmt: skip
    odd = store.words[store.words["sentence"] == 10]
    assert odd["word"].tolist() == ["the", "dog", "sings"]
    assert odd["position"].tolist() == [0, 2, 4]
    assert odd["tag"].astype(str).tolist() == ["O", "N", "V"]
    tok, model = encoders.tokenizer(awkward), encoders.pretrained(awkward)
    alone = expected(awkward, tok, model, ["the", "dog", "sings"])
    np.testing.assert_allclose(store.vectors[:, odd.index].astype(np.float32), alone, rtol=2e-3, atol=4e-3)


def test_a_sentence_longer_than_the_encoder_allows_loses_no_word(awkward) -> None:
    store = activations.ensure(Run(awkward, PRETRAINED))["test"]
    long = store.words[store.words["sentence"] == 11]
    assert long["position"].tolist() == list(range(120))
    vectors = store.vectors[2, long.index].astype(np.float32)
    assert (np.abs(vectors).sum(1) > 0).all()
    assert disk.read_manifest(Run(awkward, PRETRAINED).activations("test"))["windows"] > 13


# Several corpora -------------------------------------------------------------------------------------------------


def short_or_long(count: int, seed: int) -> list[list[tuple[str, str]]]:
    """Sentences whose words are labelled by their length."""
    return [[(w, "long" if len(w) > 4 else "short") for w, _ in s] for s in labelled_sentences(count, seed)]


@pytest.fixture
def second(tmp_path: Path) -> dict:
    """A smaller corpus with the property ``length``, as parameters."""
    amounts = {"train": (40, 4), "dev": (10, 5), "test": (12, 6)}
    files = {
        split: str(write_columns(tmp_path / "second" / f"{split}.txt", short_or_long(n, seed)))
        for split, (n, seed) in amounts.items()
    }
    return {"name": "second", "format": "columns", "files": files, "columns": {"word": 0, "length": 1}}


def test_properties_of_two_corpora_give_in_one_study_what_each_gives_alone(make_study, second, monkeypatch) -> None:
    both = Run(make_study(properties=["tag", "length"], corpora={"length": second}), PRETRAINED)
    alone = {"tag": make_study(), "length": make_study(corpus=second, properties=["length"])}
    loaded: list[params.Study] = []
    real = encoders.pretrained
    monkeypatch.setattr(encoders, "pretrained", lambda study: loaded.append(study) or real(study))
    stores = {name: activations.ensure(both, name) for name in ("own", "second")}
    assert len(loaded) == 1, "the encoder is loaded once for all corpora"
    sizes = {(n, split): len(s.words) for n, splits in stores.items() for split, s in splits.items()}
    assert sizes == {(n, s): len(t) for n in stores for s, t in corpora.load(both.study, n).items()}
    assert sizes["own", "train"] > sizes["second", "train"]
    layers, tests = results.layers([both]), results.neuron_tests([both])
    assert layers.groupby("property")["source"].unique().map(list).to_dict() == {"tag": ["gold"], "length": ["silver"]}
    ranks = neurons.ensure_rankings(both)
    shutil.rmtree(both.folder)
    for name, study in alone.items():
        run = Run(study, PRETRAINED)
        shutil.rmtree(run.folder, ignore_errors=True)
        own = results.layers([run]), results.neuron_tests([run])
        accuracies = results.accuracies(layers), results.accuracies(own[0])
        for table, expected_rows in ((layers, own[0]), (tests, own[1]), accuracies):
            rows = results.pick(table, property=name).reset_index(drop=True)
            rows = rows.apply(
                lambda column: column.cat.remove_unused_categories() if column.dtype == "category" else column
            )
            pd.testing.assert_frame_equal(rows, expected_rows.reset_index(drop=True), check_exact=True)
        assert np.array_equal(ranks[name].order, neurons.ensure_rankings(run)[name].order)
        best = results.pick(accuracies[1], word_group="all").groupby("target")["accuracy"].max()
        assert best["real"] > best["majority"]


def test_a_study_of_several_corpora_depends_on_the_files_of_each(make_study, second) -> None:
    study = make_study(properties=["tag", "length"], corpora={"length": second})
    before = Run(study, PRETRAINED).key("extract")
    write_columns(Path(second["files"]["test"]), short_or_long(5, 9))
    forget()
    assert Run(study, PRETRAINED).key("extract") != before
    found = verify.exact([Run(study, PRETRAINED)])
    assert {"minilm: own: test: tag: labels", "minilm: second: test: length: labels"} < set(found)


# The store's life ------------------------------------------------------------------------------------------------


@pytest.fixture
def run(make_study) -> Run:
    return Run(make_study(), PRETRAINED)


@pytest.fixture
def extractions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The title of every extraction that takes place."""
    titles: list[str] = []
    real = activations.extract

    def counted(*given, **named):
        titles.append(given[5])
        return real(*given, **named)

    monkeypatch.setattr(activations, "extract", counted)
    return titles


def test_a_finished_store_is_not_extracted_again(run, extractions) -> None:
    activations.ensure(run)
    assert extractions == ["extract train", "extract dev", "extract test"]
    activations.ensure(run)
    assert len(extractions) == 3


@pytest.mark.parametrize("damage", ["no manifest.json", "truncated", "no array", "other key", "no folder"])
def test_a_store_that_is_not_whole_is_redone_alone(run, extractions, damage: str) -> None:
    before = np.array(activations.ensure(run)["dev"].vectors)
    folder = run.activations("dev")
    if damage == "no manifest.json":
        (folder / "manifest.json").unlink()
    elif damage == "truncated":
        os.truncate(folder / "activations.npy", (folder / "activations.npy").stat().st_size - 2)
    elif damage == "no array":
        (folder / "activations.npy").unlink()
    elif damage == "other key":
        disk.write_manifest(folder, disk.read_manifest(folder) | {"key": "other"})
    else:
        shutil.rmtree(folder)
    if damage in ("no manifest.json", "truncated", "no array", "no folder"):
        with pytest.raises(disk.StaleResult, match="is not a finished store"):
            activations.read(folder)
    extractions.clear()
    assert np.array_equal(activations.ensure(run)["dev"].vectors, before)
    assert extractions == ["extract dev"]


def test_other_parameters_redo_all_splits(make_study, extractions) -> None:
    activations.ensure(Run(make_study(), PRETRAINED))
    activations.ensure(Run(make_study(encoder__pooling="first"), PRETRAINED))
    assert len(extractions) == 6


def test_an_extraction_that_fails_leaves_no_store(run, monkeypatch) -> None:
    monkeypatch.setattr(activations, "_forward", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        activations.ensure(run)
    assert not [p for p in run.folder.rglob("*") if p.is_file() and p.suffix != ".lock"]


@pytest.mark.parametrize(
    ("factor", "told"), [(1e6, "and the store holds 65504 at most"), (float("nan"), "layer 0 .* not numbers")]
)
def test_values_that_a_store_cannot_hold_are_refused_with_the_reason(run, monkeypatch, factor, told) -> None:
    real = activations._forward
    monkeypatch.setattr(activations, "_forward", lambda *a: real(*a) * factor)
    with pytest.raises(FloatingPointError, match=f"pretrained, train: .*{told}"):
        activations.ensure(run)
    assert not run.activations("train").exists()


def test_the_disk_is_checked_before_anything_is_extracted(run, extractions, monkeypatch) -> None:
    usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda place: usage(0, 0, 1000))
    with pytest.raises(OSError, match=r"needs .* GB and its disk has 0\.00 GB free"):
        activations.ensure(run)
    assert extractions == []


def test_three_lines_of_numpy_read_a_store(run) -> None:
    store = activations.ensure(run)["test"]
    vectors = np.load(run.activations("test") / "activations.npy", mmap_mode="r")
    assert np.array_equal(vectors, store.vectors)
    assert vectors.flags["C_CONTIGUOUS"], "one layer is contiguous"
    assert len(pd.read_parquet(run.activations("test") / "words.parquet")) == vectors.shape[1]


def test_norms_are_the_lengths_of_the_word_vectors(run) -> None:
    store = activations.ensure(run)["test"]
    length = np.linalg.norm(store.vectors.astype(np.float64), axis=2)
    np.testing.assert_allclose(activations.norms(store)["median"], np.median(length, 1), rtol=1e-5)


def anonymous() -> int:
    """Bytes of this process's own memory; mapped files do not count."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    pytest.skip("this system does not tell anonymous memory apart")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_does_not_grow_with_the_corpus(make_study, tmp_path: Path, monkeypatch) -> None:
    folder = build_encoder(tmp_path / "wide", "bert", width=768, layers=2)
    words = "the old dog sleeps under a green tree and the bird sings in the light".split()
    rng = np.random.default_rng(0)
    seen: list[int] = []

    def watched(model, windows, pad_id, pooling) -> torch.Tensor:  # what is computed does not matter here
        found = torch.rand(3, sum(len(w.words) for w in windows), 768)
        seen.append(anonymous())
        return found

    monkeypatch.setattr(activations, "_forward", watched)
    grown, stored = {}, {}
    for name, count in (("warm", 100), ("small", 100), ("large", 800)):
        files = {s: tmp_path / name / f"{s}.txt" for s in ("train", "dev", "test")}
        for split, file in files.items():
            n = count if split == "train" else 2
            write_columns(
                file, [[(str(w), "A" if i % 2 else "B") for i, w in enumerate(rng.choice(words, 20))] for _ in range(n)]
            )
        study = make_study(
            files={s: str(f) for s, f in files.items()}, encoder__checkpoint=str(folder), encoder__batch_subwords=512,
            corpus__train_words=10**6,
        )  # fmt: skip
        run = Run(study, PRETRAINED)
        seen.clear()
        stored[name] = activations.ensure(run)["train"].vectors.nbytes
        grown[name] = max(seen) - seen[0]
    assert stored["large"] > 7 * stored["small"] > 6 * 10**7
    assert grown["large"] - grown["small"] < 0.3 * (stored["large"] - stored["small"]), grown


def test_bfloat16_is_another_key_and_nearly_the_same_vectors(make_study) -> None:
    usual, half = (Run(make_study(precision=p), Variant("pretrained")) for p in ("float32", "bfloat16"))
    assert usual.key("extract") == Run(make_study(), Variant("pretrained")).key("extract") != half.key("extract")
    model, tok = encoders.pretrained(usual.study), encoders.tokenizer(usual.study)
    alignments = encoders.align(tok, [["a", "small", "sentence"]], 32)
    exact, rounded = (
        next(activations.extract(model, alignments, tok.pad_token_id, precision=run.study.precision))[1]
        for run in (usual, half)
    )
    apart = np.linalg.norm(rounded - exact, axis=2) / np.linalg.norm(exact, axis=2)
    assert 0 < apart[1:].max() < 0.05


def test_bfloat16_is_refused_where_the_processor_may_not_multiply_it(make_study) -> None:
    with pytest.raises(encoders.EncoderError, match="bfloat16 gains nothing on this CPU"):
        encoders.check(make_study(precision="bfloat16"))  # under ISA=avx2
