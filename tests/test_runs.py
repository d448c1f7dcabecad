"""A result is used under the key it was made with and redone under any other; what fails leaves nothing behind."""

import ast
import multiprocessing
import shutil
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import forget

from lib import certify, disk
from lib.study import inputs, params, runs
from lib.study.runs import Run
from lib.study.steps import STEPS
from lib.study.variants import Variant

# Variants --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "task", "examples", "share", "seed"),
    [
        ("pretrained", None, None, 1.0, None), ("random", None, None, 1.0, None),
        ("sentiment-s1", "sentiment", None, 1.0, 1), ("rte-1k-s2", "rte", 1000, 1.0, 2),
        ("rte-500-s10", "rte", 500, 1.0, 10), ("sst2-half-s3", "sst2", None, 0.5, 3),
        ("my_task2-quarter-s0", "my_task2", None, 0.25, 0),
    ],
)  # fmt: skip
def test_the_name_of_a_variant_says_task_amount_and_seed(name, task, examples, share, seed) -> None:
    variant = Variant.parse(name)
    assert (variant.name, variant.task, variant.examples, variant.share, variant.seed) == (
        name, task, examples, share, seed,
    )  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["", "sentiment", "sentiment-s", "sentiment-1", "Sentiment-s1", "sentiment-third-s1", "rte-1m-s1", "rte--s1",
     "../x-s1", "a/b-s1", "rte-s1 ", "rte-s-1", "sentiment-s1\n", "rte-1k-half-s1"],
)  # fmt: skip
def test_a_name_that_is_no_variant_is_refused_with_examples(name: str) -> None:
    with pytest.raises(params.ParameterError, match="is no variant: write pretrained, random, or task"):
        Variant.parse(name)


@pytest.mark.parametrize("name", ["rte-0-s1", "rte-0k-s1", "rte-s4294967296"])
def test_no_examples_and_a_seed_beyond_32_bits_are_refused(name: str) -> None:
    with pytest.raises(params.ParameterError):
        Variant.parse(name)


# Keys ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def keys(make_study, tmp_path: Path):
    """``keys(variant, **overrides)``: step → key."""
    for name in ("train", "test"):
        (tmp_path / f"{name}.csv").write_text("text,label\nx,a\ny,b\n")
    own = {
        "format": "csv", "text": "text", "labels": ["a", "b"],
        "files": {n: str(tmp_path / f"{n}.csv") for n in ("train", "test")},
    }  # fmt: skip

    def of(variant: str = "own-s1", kind: str = "bert", **overrides) -> dict[str, str]:
        forget()
        run = Run(make_study(kind, task_data__own={"own": own}, **overrides), Variant.parse(variant))
        return {step: run.key(step) for step in STEPS if run.variant.task or step != "finetune"}

    return of


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ({"probe__epochs": 9}, "layers neurons"), ({"probe__l1": 0.5}, "layers neurons"),
        ({"ranking__top": 0.2}, "neurons"), ({"encoder__pooling": "first"}, "extract layers neurons"),
        ({"finetune__learning_rate": 0.5}, "finetune extract layers neurons"),
        ({"task_data__train_examples": 7}, "finetune extract layers neurons"),
        ({"corpus__test_words": 17}, "extract layers neurons"), ({"corpus__gold": []}, "extract layers neurons"),
        ({"encoder__max_subwords": 32}, "finetune extract layers neurons"),
        ({"seed": 7}, "finetune extract layers neurons"), ({"kind": "plain"}, "finetune extract layers neurons"),
        ({"device": "cuda:1"}, ""), ({"threads": 2}, ""), ({"title": "other"}, ""),
        ({"task_data__glue": "elsewhere"}, ""),
    ],
)  # fmt: skip
def test_a_change_of_parameters_changes_the_keys_of_what_depends_on_it(keys, override: dict, changed: str) -> None:
    before, after = keys(), keys(**override)
    assert {step for step in STEPS if before[step] != after[step]} == set(changed.split())


@pytest.mark.parametrize("variant", ["pretrained", "random"])
def test_what_is_not_fine_tuned_does_not_depend_on_fine_tuning(keys, variant: str) -> None:
    assert keys(variant) == keys(variant, finetune__learning_rate=0.5, task_data__train_examples=7)
    assert keys(variant) != keys(variant, probe__epochs=9)


def test_every_variant_has_keys_of_its_own(keys) -> None:
    names = ["own-s1", "own-s2", "own-half-s1", "own-1k-s1", "pretrained", "random"]
    assert len({keys(n)["layers"] for n in names}) == len(names)


def test_every_step_has_a_key_of_its_own(keys) -> None:
    assert len(set(keys().values())) == len(STEPS)


def test_an_edited_task_file_changes_the_keys_of_its_task_only(keys, tmp_path: Path) -> None:
    before, pretrained = keys(), keys("pretrained")
    (tmp_path / "train.csv").write_text("text,label\nx,b\ny,b\n")
    assert {s for s in STEPS if keys()[s] != before[s]} == set(STEPS)
    assert keys("pretrained") == pretrained


def test_an_edited_corpus_file_changes_the_keys_of_the_probes(keys, tmp_path: Path) -> None:
    before = keys()
    files = {s: str(tmp_path / "corpus" / f"{s}.txt") for s in ("train", "dev", "test")}
    (tmp_path / "corpus" / "dev.txt").write_text("more N\n")
    after = keys(files=files)
    assert {s for s in STEPS if before[s] != after[s]} == {"extract", "layers", "neurons"}


def test_other_weights_in_the_same_folder_change_all_keys(keys, encoder_folder, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(encoder_folder("bert"), tmp_path / "encoder"))
    before = keys(encoder={"checkpoint": str(folder)})
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(weights))
    after = keys(encoder={"checkpoint": str(folder)})
    assert all(before[s] != after[s] for s in STEPS)


def test_a_corpus_file_that_is_not_there_is_named(make_study) -> None:
    study = make_study(files={"train": "/none/train.txt", "test": "/none/test.txt"})
    with pytest.raises(params.ParameterError, match="there is no file /none/train"):
        Run(study, Variant("pretrained")).key("extract")


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """``code(text)``: the digest of a module of this text."""
    monkeypatch.setattr(inputs, "LIB", tmp_path)

    def of(text: str) -> str:
        (tmp_path / "module.py").write_text(text)
        forget()
        return inputs.code_digest("module")

    return of


PLAIN = 'X = 1\ndef f(a):\n    return a + 1\nclass C:\n    y = "s"\n'


@pytest.mark.parametrize(
    "text",
    [
        '"""About."""\nX = 1\n"""What X is."""\n\n\ndef f(a):  # why\n    """Doc."""\n    return a + 1\n'
        'class C:\n    """Doc."""\n    y = "s"\n    """What y is."""\n',
        PLAIN + "# end\n",
    ],
)
def test_comments_docstrings_and_empty_lines_do_not_change_the_code(code, text: str) -> None:
    ast.parse(text)
    assert code(text) == code(PLAIN)


@pytest.mark.parametrize(("old", "new"), [("a + 1", "a + 2"), ("X = 1", "X = 2"), ('"s"', '"t"'), ("f(a)", "f(b)")])
def test_a_change_of_code_changes_its_digest(code, old: str, new: str) -> None:
    assert code(PLAIN.replace(old, new)) != code(PLAIN)


def test_a_statement_that_leaves_its_block_changes_the_code(code) -> None:
    assert code("if X:\n    a()\n    b()\n") != code("if X:\n    a()\nb()\n")


def test_the_modules_that_a_step_depends_on_exist() -> None:
    for step in STEPS.values():
        assert inputs.code_digest(*step.code)


# Files -----------------------------------------------------------------------------------------------------------


def test_a_run_lies_in_the_folder_of_its_study_and_size(make_study, monkeypatch, tmp_path: Path) -> None:
    full, lesson = runs.load("minilm", "sentiment-s1"), runs.load("minilm", "sentiment-s1", "lesson")
    assert full.folder == tmp_path / "runs" / "minilm" / "sentiment-s1"
    assert lesson.folder == tmp_path / "runs" / "lesson" / "minilm" / "sentiment-s1"
    monkeypatch.setenv("RUNS", "elsewhere")  # from the repository, whatever folder a notebook runs in
    assert runs.home() == params.ROOT / "elsewhere"
    monkeypatch.delenv("RUNS")
    assert runs.home() == params.ROOT / "runs"


def contents(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("folder", [False, True])
def test_what_fails_leaves_nothing_behind_and_keeps_the_old_result(tmp_path: Path, folder: bool) -> None:
    def fill(part: Path, text: str) -> None:
        if folder:
            part.mkdir()
            (part / "f").write_text(text)
        else:
            part.write_text(text)

    def text() -> str:
        return (path / "f" if folder else path).read_text()

    path = tmp_path / "sub" / "result"
    with pytest.raises(RuntimeError, match="half-way"), disk.being_made(path) as part:
        fill(part, "new")
        raise RuntimeError("half-way")
    assert contents(path.parent) == []
    with disk.being_made(path) as part:
        fill(part, "old")
        assert not path.exists(), "not there before it is whole"
    assert contents(path.parent) == ["result"]
    with pytest.raises(KeyboardInterrupt), disk.being_made(path) as part:
        fill(part, "new")
        raise KeyboardInterrupt
    assert text() == "old"
    with disk.being_made(path) as part:
        fill(part, "newer")
    assert text() == "newer"
    assert contents(path.parent) == ["result"]


def test_a_part_left_by_a_killed_process_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / ".result.part").mkdir()
    (tmp_path / ".result.part" / "rest").write_text("rest")
    with disk.being_made(tmp_path / "result") as part:
        part.mkdir()
    assert contents(tmp_path / "result") == []


def test_a_folder_without_whole_meta_data_is_unfinished(tmp_path: Path) -> None:
    assert disk.read_meta(tmp_path) == {}
    disk.write_meta(tmp_path, {"a": "é"})
    assert disk.read_meta(tmp_path) == {"a": "é"}
    file = tmp_path / "meta.json"
    file.write_bytes(file.read_bytes()[:-3])
    assert disk.read_meta(tmp_path) == {}


TABLE = pd.DataFrame({"n": [1, 2], "word": ["a", "é"], "kind": pd.Categorical(["x", "y"])})


def test_a_table_is_read_back_as_written(tmp_path: Path) -> None:
    disk.write_table(tmp_path / "t.parquet", TABLE, "key")
    pd.testing.assert_frame_equal(disk.read_table(tmp_path / "t.parquet", "key"), TABLE)


def stale(path: Path, key: str = "key") -> str:
    with pytest.raises(disk.StaleResult) as caught:
        disk.read_table(path, key)
    assert str(path) in str(caught.value)
    assert "make reproduce" in str(caught.value)
    return str(caught.value)


def test_a_missing_table_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    assert "is missing" in stale(tmp_path / "t.parquet")


def test_a_table_of_another_key_is_named_with_the_command_that_redoes_it(tmp_path: Path) -> None:
    disk.write_table(tmp_path / "t.parquet", TABLE, "key")
    assert "other parameters" in stale(tmp_path / "t.parquet", "other")


def test_a_table_without_a_key_is_of_another_key(tmp_path: Path) -> None:
    TABLE.to_parquet(tmp_path / "t.parquet")
    assert "other parameters" in stale(tmp_path / "t.parquet")


@pytest.mark.parametrize("kept", [0, 3, 100, -1])
def test_a_truncated_table_is_named_with_the_command_that_redoes_it(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "t.parquet"
    disk.write_table(path, TABLE, "key")
    path.write_bytes(path.read_bytes()[:kept])
    assert "is damaged" in stale(path)


def test_a_table_is_made_once_per_key(tmp_path: Path) -> None:
    made: list[str] = []

    def make(value: str):
        return lambda: (made.append(value), pd.DataFrame({"value": [value]}))[1]

    path = tmp_path / "sub" / "t.parquet"
    found = [disk.table(path, key, make(value))["value"][0] for key, value in [("k1", "a"), ("k1", "b"), ("k2", "c")]]
    assert found == ["a", "a", "c"]
    assert made == ["a", "c"]
    path.write_bytes(b"damaged")
    assert disk.table(path, "k2", make("d"))["value"][0] == "d"


def test_a_table_that_cannot_be_made_keeps_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    disk.write_table(path, TABLE, "old")
    with pytest.raises(ZeroDivisionError):
        disk.table(path, "new", lambda: 1 // 0)
    pd.testing.assert_frame_equal(disk.read_table(path, "old"), TABLE)


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(("free", "fits"), [(1.0e9, False), (1.09e9, False), (1.11e9, True)])
def test_a_disk_that_is_too_small_is_reported_with_both_sizes(tmp_path, monkeypatch, free: float, fits: bool) -> None:
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda place: Usage(0, 0, int(free)))
    place = tmp_path / "new"
    if fits:
        disk.need_space(place, 1.0e9)
    else:
        message = rf"new needs 1\.00 GB and its disk has {free / 1e9:.2f} GB free: free some space, or make it a link"
        with pytest.raises(OSError, match=message):
            disk.need_space(place, 1.0e9)


def _compute(path: Path, log: Path, start: float) -> None:
    time.sleep(max(0.0, start - time.time()))

    def make() -> pd.DataFrame:
        with log.open("a") as stream:
            stream.write("made\n")
        time.sleep(0.3)
        return TABLE

    assert len(disk.table(path, "key", make)) == 2


def test_two_processes_compute_a_table_once(tmp_path: Path) -> None:
    context, log = multiprocessing.get_context("fork"), tmp_path / "log"
    started = time.time() + 0.2
    both = [context.Process(target=_compute, args=(tmp_path / "t.parquet", log, started)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(30)
    assert [p.exitcode for p in both] == [0, 0]
    assert log.read_text() == "made\n"


@pytest.mark.parametrize("way", ["cut", "flipped"])
def test_a_damaged_archive_is_never_an_error_or_another_key(tmp_path: Path, way: str) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, key="k", x=np.arange(3))
    content = path.read_bytes()
    assert disk.archive_key(path) == "k"
    found = set()
    for at in range(len(content)):
        path.write_bytes(
            content[:at] if way == "cut" else content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]
        )
        found.add(disk.archive_key(path))
    assert found <= {None, "k"}, "some bytes, as those of the date, mean nothing"
    assert way == "flipped" or found == {None}


# Certified code --------------------------------------------------------------------------------------------------


@pytest.fixture
def step_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """``step_key(code)``: what counts in the key of a step of one module with this code."""
    monkeypatch.setattr(inputs, "LIB", tmp_path)
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "certified.yaml").write_text("{}\n")

    def key(text: str) -> str:
        (tmp_path / "module.py").write_text(text)
        inputs.code_digest.cache_clear()
        return inputs.code_key("step", ("module",))

    monkeypatch.setattr(certify, "CODE", {"step": ("module",)})
    return key


def test_a_change_makes_results_stale_until_it_is_certified_to_change_none(step_key) -> None:
    first = step_key("X = 1\n")
    certify.write(["step"])
    recorded = step_key("X = 1\n")
    assert recorded == "version 1" != first
    assert step_key("# a remark\nX = 1\n") == recorded
    assert step_key("X = 2 - 1\n") != recorded
    certify.write([])  # its results were the same
    assert step_key("X = 2 - 1\n") == recorded
    assert step_key("X = 1\n") != recorded


def test_a_change_that_gives_other_results_makes_a_new_version(step_key) -> None:
    step_key("X = 1\n")
    certify.write(["step"])
    step_key("X = 2\n")
    certify.write(["step"])
    assert step_key("X = 2\n") == "version 2"


def test_the_code_is_certified() -> None:
    assert certify.changed() == [], "run 'python -m lib certify' before the commit: do results stay the same?"
