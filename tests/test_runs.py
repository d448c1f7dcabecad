"""A result is used under the key it was made with and redone under any other; what fails leaves nothing behind."""

import ast
import json
import multiprocessing
import shutil
import time
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import forget, write_result
from hypothesis import given
from hypothesis import strategies as st

from lib import certify, disk
from lib.study import inputs, params, runs
from lib.study.runs import Run
from lib.study.steps import STEPS
from lib.study.variants import Variant

# Variants --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("pretrained", {}), ("random", {"start": "random"}), ("sentiment-s1", {"task": "sentiment", "seed": 1}),
        ("rte-1k-s2", {"task": "rte", "examples": 1000, "seed": 2}),
        ("rte-500-s10", {"task": "rte", "examples": 500, "seed": 10}),
        ("sst2-half-s3", {"task": "sst2", "share": 0.5, "seed": 3}),
        ("my_task2-quarter-s0", {"task": "my_task2", "share": 0.25, "seed": 0}),
        ("sst2-droptop6-s1", {"task": "sst2", "dropped": ("top", 6), "seed": 1}),
        ("sst2-dropbottom10-s1", {"task": "sst2", "dropped": ("bottom", 10), "seed": 1}),
        ("sst2-lr2e-5-s1", {"task": "sst2", "rate": "2e-5", "seed": 1}),
        ("sst2-at100-s1", {"task": "sst2", "checkpoint": 100, "seed": 1}),
        ("sst2-droptop6-lr1.5e-4-1k-at100-s1", {"task": "sst2", "dropped": ("top", 6), "rate": "1.5e-4",
                                                "examples": 1000, "checkpoint": 100, "seed": 1}),
    ],
)  # fmt: skip
def test_the_name_of_a_variant_says_what_was_done(name: str, fields: dict) -> None:
    assert Variant.parse(name) == Variant(**fields)
    assert Variant(**fields).name == name


VARIANTS = st.builds(
    Variant,
    task=st.from_regex(r"[a-z0-9_]+", fullmatch=True),
    dropped=st.none() | st.tuples(st.sampled_from(["top", "bottom"]), st.integers(1, 99)),
    rate=st.just("") | st.from_regex(r"[1-9](\.[0-9]{1,2}[1-9])?e-[1-9]", fullmatch=True),
    checkpoint=st.none() | st.integers(1, 10**6),
    seed=st.integers(0, 2**32 - 1),
) | st.sampled_from([Variant("pretrained"), Variant("random")])
AMOUNTS = (
    st.just({})
    | st.integers(1, 10**6).map(lambda n: {"examples": n})
    | st.sampled_from([{"share": 0.5}, {"share": 0.25}])
)


@given(VARIANTS, AMOUNTS)
def test_every_variant_is_found_again_by_its_name_and_its_columns_say_what_its_fields_say(variant, amount) -> None:
    variant = replace(variant, **amount) if variant.task else variant
    assert Variant.parse(variant.name) == variant
    assert variant.seed is None or Variant.parse(variant.condition, variant.seed) == variant
    columns = variant.columns()
    assert columns["variant"] == variant.name
    assert columns["condition"] == (variant.name.rpartition("-s")[0] if variant.task else variant.name)
    assert [columns[name] for name in ("task", "amount", "rate", "dropped", "checkpoint", "seed")] == [
        variant.task or "", variant.amount, variant.rate, (variant.dropped or ("", 0))[0],
        -1 if variant.checkpoint is None else variant.checkpoint, -1 if variant.seed is None else variant.seed,
    ]  # fmt: skip


def test_one_learning_rate_has_one_name() -> None:
    assert Variant.parse("rte-lr2.50e-5-s1").name == "rte-lr2.5e-5-s1"
    assert Variant.parse("rte-lr2.0e-5-s1") == Variant.parse("rte-lr2e-5-s1")


@pytest.mark.parametrize(
    "name",
    ["", "sentiment", "sentiment-s", "sentiment-1", "Sentiment-s1", "sentiment-third-s1", "rte-1m-s1", "rte--s1",
     "../x-s1", "a/b-s1", "rte-s1 ", "rte-s-1", "sentiment-s1\n", "rte-1k-half-s1", "rte-half-1k-s1",
     "rte-droptop-s1", "rte-droptop0-s1", "rte-dropmiddle6-s1", "rte-1k-droptop6-s1", "rte-droptop6-dropbottom1-s1",
     "rte-lr-s1", "rte-lr2e5-s1", "rte-lr20e-5-s1", "rte-lr0.2e-5-s1", "rte-lr2E-5-s1", "rte-lr2e-55-s1",
     "rte-lr2e-0-s1", "random-droptop4-s1", "pretrained-s1",
     "rte-1k-lr2e-5-s1",
     "rte-at-s1", "rte-at0-s1", "rte-at1k-s1", "rte-at9-1k-s1", "pretrained-at9", "random-s1-droptop6",
     "rte-0-s1", "rte-0k-s1", "rte-s4294967296"],
)  # fmt: skip
def test_a_name_that_is_no_variant_is_refused_with_examples(name: str) -> None:
    with pytest.raises(params.ParameterError, match="is no variant: write pretrained, random, or task"):
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
        ({"task_data__sample": 1}, "finetune extract layers neurons"),
        ({"threads": 2}, "finetune extract layers neurons"), ({"device": "cuda:1"}, ""), ({"title": "other"}, ""),
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
    names = ["own-s1", "own-s2", "own-half-s1", "own-1k-s1", "own-droptop1-s1", "own-dropbottom1-s1", "own-droptop2-s1",
             "own-lr2e-4-s1", "own-lr1e-4-s1", "own-at1-s1", "own-at2-s1", "pretrained", "random"]  # fmt: skip
    found = [keys(name) for name in names]
    assert len({key["layers"] for key in found}) == len(names)
    assert len({key["finetune"] for key in found[:-2]}) == len(names) - 2


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
    with pytest.raises(RuntimeError, match="half-way"), disk.atomic_write(path) as part:
        fill(part, "new")
        raise RuntimeError("half-way")
    assert contents(path.parent) == []
    with disk.atomic_write(path) as part:
        fill(part, "old")
        assert not path.exists(), "not there before it is whole"
    assert contents(path.parent) == ["result"]
    with pytest.raises(KeyboardInterrupt), disk.atomic_write(path) as part:
        fill(part, "new")
        raise KeyboardInterrupt
    assert text() == "old"
    with disk.atomic_write(path) as part:
        fill(part, "newer")
    assert text() == "newer"
    assert contents(path.parent) == ["result"]


def test_a_part_left_by_a_killed_process_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / ".result.part").mkdir()
    (tmp_path / ".result.part" / "rest").write_text("rest")
    with disk.atomic_write(tmp_path / "result") as part:
        part.mkdir()
    assert contents(tmp_path / "result") == []


def result(folder: Path, key: str = "key") -> Path:
    with disk.atomic_write(folder) as part:
        (part / "sub").mkdir(parents=True)
        (part / "table.csv").write_text("n\n1\n")
        (part / "sub" / "é.txt").write_text("é")
        disk.write_manifest(part, {"key": key, "words": ("a", "é"), "share": 0.1})
    return folder


def test_a_manifest_lists_every_file_and_gives_back_its_facts(tmp_path: Path) -> None:
    found = disk.read_manifest(result(tmp_path / "r"))
    assert (found["key"], found["words"], found["share"]) == ("key", ["a", "é"], 0.1)
    assert {name: len(digest) for name, digest in found["files"].items()} == {"table.csv": 64, "sub/é.txt": 64}


def test_a_folder_without_its_manifest_is_unfinished(tmp_path: Path) -> None:
    assert disk.read_manifest(tmp_path) == {}
    folder = result(tmp_path / "r")
    for content in ("", "[]", "{}", '{"key": "key", "files": {}}'):
        (folder / disk.MANIFEST).write_text(content)
        assert disk.read_manifest(folder) == {}


def test_no_changed_byte_of_a_result_passes(tmp_path: Path) -> None:
    folder = result(tmp_path / "r")
    whole = disk.read_manifest(folder)
    for file in [p for p in folder.rglob("*") if p.is_file()]:
        content = file.read_bytes()
        for at in range(len(content)):
            file.write_bytes(content[:at] + bytes([content[at] ^ 0x01]) + content[at + 1 :])
            disk._digest_of.cache_clear()  # a clock may be too coarse to tell two writes apart
            assert disk.read_manifest(folder) in ({}, whole), "white space between its values means nothing"
            file.write_bytes(content[:at])
            disk._digest_of.cache_clear()
            assert disk.read_manifest(folder) in ({}, whole)
        file.write_bytes(content)
    disk._digest_of.cache_clear()
    assert disk.read_manifest(folder) == whole


@pytest.mark.parametrize("file", ["table.csv", "sub/é.txt"])
def test_a_changed_or_lost_file_makes_a_result_unfinished(tmp_path: Path, file: str) -> None:
    folder = result(tmp_path / "r")
    (folder / file).write_text("other")
    assert disk.read_manifest(folder) == {}
    (folder / file).unlink()
    assert disk.read_manifest(folder) == {}


def stale(run: Run, step: str) -> str:
    with pytest.raises(disk.StaleResult) as caught:
        runs.manifest(run, step)
    assert str(run.result(step)) in str(caught.value)
    assert not runs.is_current(run, step)
    return str(caught.value)


def test_a_result_that_cannot_be_used_is_named_with_its_reason_and_the_command() -> None:
    run = runs.load("minilm", "pretrained")
    assert stale(run, "layers").endswith("is missing: run 'make reproduce SCALE=minilm'")
    write_result(run, "layers", key="other")
    assert stale(run, "layers").endswith(
        "was computed with other parameters or code: run 'make reproduce SCALE=minilm'"
    )
    write_result(run, "layers")
    assert runs.is_current(run, "layers")
    (run.result("layers") / "file").unlink()
    assert stale(run, "layers").endswith("is damaged or unfinished: run 'make reproduce SCALE=minilm'")
    assert stale(runs.load("minilm", "pretrained", "lesson"), "layers").endswith("run notebook 03_probe_layers")
    assert "is missing: run 'make record SCALE=minilm'" in stale(replace(run, recorded=True), "layers")


def fill(text: str) -> Callable[[Path], dict]:
    def compute(folder: Path) -> dict:
        (folder / "table.csv").write_text(text)
        return {"rows": len(text)}

    return compute


def test_a_result_is_computed_once_per_key_and_says_what_computed_it() -> None:
    run, other = (runs.load("minilm", "pretrained", "lesson", {"seed": seed}) for seed in (1, 2))
    contents = [(runs.ensure(r, "layers", fill(text)) / "table.csv").read_text()
                for r, text in ((run, "a"), (run, "b"), (other, "cc"))]  # fmt: skip
    assert contents == ["a", "a", "cc"]
    facts = runs.manifest(other, "layers")
    assert facts["rows"] == 2 and facts["seconds"] >= 0
    assert facts["provenance"]["torch"] == torch.__version__
    assert facts["provenance"]["threads"] == run.study.threads
    (other.result("layers") / "table.csv").write_text("damaged")
    assert (runs.ensure(other, "layers", fill("d")) / "table.csv").read_text() == "d"


def test_a_result_whose_input_changes_meanwhile_is_not_kept(make_study) -> None:
    run = Run(make_study(), Variant("pretrained"))

    def compute(folder: Path) -> None:
        with Path(run.study.corpus.files["train"]).open("a") as stream:
            stream.write("\nanother D\n")

    with pytest.raises(disk.StaleResult, match="an input or the code changed while it was computed"):
        runs.ensure(run, "layers", compute)
    assert not run.result("layers").exists()


def test_a_result_that_cannot_be_computed_keeps_the_old_one() -> None:
    run, other = (runs.load("minilm", "pretrained", "lesson", {"seed": seed}) for seed in (1, 2))
    runs.ensure(run, "layers", fill("a"))
    with pytest.raises(ZeroDivisionError):
        runs.ensure(other, "layers", lambda folder: 1 // 0)
    assert (run.result("layers") / "table.csv").read_text() == "a"
    assert runs.is_current(run, "layers")


def test_a_recorded_run_has_the_small_tables_and_is_never_computed(tmp_path: Path, monkeypatch) -> None:
    run = runs.load("minilm", "pretrained", overrides=runs.RECORDED)
    monkeypatch.setattr(runs, "recorded", lambda suite: tmp_path / suite)
    kept = replace(run, recorded=True)
    with pytest.raises(disk.StaleResult, match="is missing"):
        runs.record(run, "layers")
    other = runs.load("minilm", "pretrained", overrides={"probe.epochs": 1})
    write_result(other, "layers")
    with pytest.raises(params.ParameterError, match="only results of the study's own parameters are recorded"):
        runs.record(other, "layers")
    assert not kept.folder.exists()
    with runs.writing(run, "neurons", run.result("neurons")) as (part, _):
        for name in (*STEPS["neurons"].tables, "rankings.npz"):
            (part / name).write_text(name)
    runs.record(run, "neurons")
    kept_files = ["halves.parquet", "layers.parquet", disk.MANIFEST, "sets.parquet", "tests.parquet"]
    assert sorted(p.name for p in kept.result("neurons").iterdir()) == kept_files
    assert runs.manifest(kept, "neurons")["provenance"] == runs.manifest(run, "neurons")["provenance"]
    assert runs.ensure(kept, "neurons", lambda folder: pytest.fail("computed")) == kept.result("neurons")
    (kept.result("neurons") / "tests.parquet").write_text("damaged")
    with pytest.raises(disk.StaleResult, match="is damaged or unfinished: run 'make record SCALE=minilm'"):
        runs.ensure(kept, "neurons", lambda folder: pytest.fail("computed"))


def test_a_recorded_run_is_current_whatever_arithmetic_it_was_recorded_under(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(runs, "recorded", lambda suite: tmp_path / suite)
    run = runs.load("minilm", "pretrained", overrides=runs.RECORDED)
    with monkeypatch.context() as patch:
        patch.setenv("ISA", "native")
        for step in ("layers", "neurons"):
            with runs.writing(run, step, run.result(step)) as (part, _):
                for name in STEPS[step].tables:
                    (part / name).write_text(name)
            runs.record(run, step)
    assert not any(runs.is_current(run, step) for step in ("layers", "neurons")), "computed under another"
    kept = replace(run, recorded=True)
    assert all(runs.is_current(kept, step) for step in ("layers", "neurons"))
    file = kept.result("layers") / disk.MANIFEST
    content = disk.read_json(file) | {"provenance": {"isa": "avx2"}}
    file.write_text(json.dumps(content))
    assert not runs.is_current(kept, "layers"), "its key is not of what it says"


def test_recorded_runs_are_of_the_pinned_files_whatever_copy_is_here(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(params, "ROOT", shutil.copytree(params.ROOT / "params", tmp_path / "params").parent)
    shutil.copytree(inputs.LIB.parent / "models", tmp_path / "models")
    wanted = [("bert-mini-sst2", "sst2-s1", "finetune"), ("mpnet", "pretrained", "extract")]
    every = [(runs.load(study, variant, overrides=runs.RECORDED), step) for study, variant, step in wanted]
    keys = [run.key(step) for run, step in every]
    assert keys == [replace(run, recorded=True).key(step) for run, step in every], "without any copy"
    for name in inputs.unpackaged_pins():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("another copy")
    assert keys == [replace(run, recorded=True).key(step) for run, step in every]
    assert not {*keys} & {run.key(step) for run, step in every}
    run = runs.load("bert-mini-sst2", "sst2-s1", overrides=runs.RECORDED)
    monkeypatch.setattr(runs, "manifest", lambda run, step: {"key": run.key(step)})
    with pytest.raises(params.ParameterError, match=r"other files than those that lib/unpackaged\.yaml pins"):
        runs.record(run, "finetune")


def test_a_copy_of_glue_may_lie_anywhere(tmp_path: Path) -> None:
    (tmp_path / "rte").mkdir()
    (tmp_path / "rte" / "train.parquet").write_text("rows")
    study = runs.load("minilm", "rte-s1", overrides={"task_data.glue": str(tmp_path)}).study
    assert inputs.examples_of(study, "rte") == [["train.parquet", disk.file_digest(tmp_path / "rte/train.parquet")]]


def test_a_file_that_is_not_here_counts_by_its_pin(tmp_path: Path, monkeypatch) -> None:
    pinned = inputs.unpackaged_pins()
    assert {len(sha256) for sha256 in pinned.values()} == {64}
    monkeypatch.setattr(params, "ROOT", tmp_path)
    path = next(iter(pinned))
    assert inputs.file_digest(path) == pinned[path]
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text("another")
    assert inputs.file_digest(path) == disk.file_digest(path) != pinned[path]
    assert inputs.file_digest(path, recorded=True) == pinned[path], "what is recorded is read beside another copy"
    with pytest.raises(params.ParameterError, match="there is no file"):
        inputs.file_digest("data/mine.txt")


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


def _compute(run: Run, log: Path, start: float) -> None:
    time.sleep(max(0.0, start - time.time()))

    def compute(folder: Path) -> None:
        with log.open("a") as stream:
            stream.write("computed\n")
        time.sleep(0.3)

    runs.ensure(run, "layers", compute)


def test_two_processes_compute_a_result_once(tmp_path: Path) -> None:
    context, log, run = multiprocessing.get_context("fork"), tmp_path / "log", runs.load("minilm", "random", "lesson")
    started = time.time() + 0.2
    both = [context.Process(target=_compute, args=(run, log, started)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(30)
    assert [p.exitcode for p in both] == [0, 0]
    assert log.read_text() == "computed\n"


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
    certify.write({"step": "a"})
    recorded = step_key("X = 1\n")
    assert recorded == "version a" != first
    assert step_key("# a remark\nX = 1\n") == recorded
    assert step_key("X = 2 - 1\n") != recorded
    certify.write({})  # its results were the same
    assert step_key("X = 2 - 1\n") == recorded
    assert step_key("X = 1\n") != recorded


def test_a_change_that_gives_other_results_makes_a_new_version(step_key) -> None:
    step_key("X = 1\n")
    certify.write({"step": "a"})
    step_key("X = 2\n")
    certify.write({"step": "b"})
    assert step_key("X = 2\n") == "version b"


def test_a_change_that_computes_other_results_gets_their_digest_as_version(step_key, monkeypatch) -> None:
    step_key("X = 2\n")
    digests = iter([([], {"step": "old"}), (["step"], {"step": "new"})])
    monkeypatch.setattr(certify, "results_of", lambda tree: next(digests))
    monkeypatch.setattr(certify.subprocess, "run", lambda *_, **__: None)
    assert not certify.certify("HEAD")
    assert step_key("X = 2\n") == "version new"


def test_code_is_not_certified_by_code_that_is_not(step_key, monkeypatch) -> None:
    step_key("X = 2\n")
    monkeypatch.setattr(certify, "results_of", lambda tree: (["step"], {"step": "same"}))
    monkeypatch.setattr(certify.subprocess, "run", lambda *_, **__: None)
    with pytest.raises(params.ParameterError, match=r"the code of HEAD is not certified \(step\): name one that is"):
        certify.certify("HEAD")


@pytest.mark.parametrize(
    ("one", "other"),
    [('def f(x): "doc"; return x + 1\n', 'def f(x): "doc"; return x + 2\n'),
     ("class A(int): ...\n", "class B(float): ...\n"), ("X = 1\n", "X = 2\n")],
)  # fmt: skip
def test_code_beside_a_docstring_counts(step_key, one: str, other: str) -> None:
    assert step_key(one) != step_key(other)
    assert step_key(one) == step_key(f"# a remark\n\n{one}")


def test_every_step_is_compared() -> None:
    assert certify.COMPUTE.keys() == STEPS.keys()


def test_the_code_is_certified() -> None:
    assert certify.changed() == [], "run 'python -m lib certify' before the commit: do results stay the same?"
