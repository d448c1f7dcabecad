"""What no package registry has is copied from a mirror, fetched, or named with all that is needed to get it."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT, environment

from lib import grid, sources, unpackaged
from lib.sources import SourceError
from lib.study import loading, params, runs
from lib.unpackaged import UNPACKAGED, Unpackaged

TRAIN, TEST = "the D\ndog N\n\nit P\nruns V\n\nit P\nruns V\n", "a D\ncat N\n"


def entry(**fields: object) -> Unpackaged:
    files = {
        name: {"sha256": hashlib.sha256(text.encode()).hexdigest(), "counts": counts}
        for name, text, counts in (
            ("train.txt", TRAIN, {"sentences": 3, "different sentences": 2, "words": 6, "tag": 4}),
            ("test.txt", TEST, {"sentences": 1, "words": 2}),
        )
    }
    given = {"title": "Own", "version": "1", "licence": "free", "home": "https://own.example", "folder": "data/own",
             "mirror": "corpora/own", "files": files, "columns": {"word": 0, "tag": 1}}  # fmt: skip
    return Unpackaged(**given | fields)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """``own(**fields)``: the table has one entry, of two small files; returns the root below which they must lie."""

    def plant(**fields: object) -> Path:
        monkeypatch.setattr(params, "ROOT", tmp_path / "root")
        monkeypatch.setattr(unpackaged, "UNPACKAGED", {"own": entry(**fields)})
        return tmp_path / "root"

    return plant


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    folder = tmp_path / "mirror"
    write(folder / "corpora/own", TRAIN, TEST)
    return folder


def write(folder: Path, train: str, test: str) -> None:
    folder.mkdir(parents=True)
    (folder / "train.txt").write_text(train)
    (folder / "test.txt").write_text(test)


NEEDS = {"own": ["train.txt", "test.txt"]}


def test_what_is_missing_is_copied_from_a_mirror_and_nothing_else_is(own, mirror: Path, capsys) -> None:
    root = own()
    (root / "data/own").mkdir(parents=True)
    (root / "data/own/test.txt").write_text(TEST)
    (mirror / "corpora/own/test.txt").write_text("not read")
    assert unpackaged.provide(NEEDS, "mine", mirror) == []
    assert (root / "data/own/train.txt").read_text() == TRAIN
    assert (root / "data/own/test.txt").read_text() == TEST
    assert capsys.readouterr().out == f"OK own {root / 'data/own'}\n"


def test_another_file_with_the_same_counts_is_used_and_told(own, mirror: Path, capsys) -> None:
    root = own()
    (mirror / "corpora/own/test.txt").write_text("the D\ndog N\n")
    assert unpackaged.provide(NEEDS, "mine", mirror) == []
    assert (root / "data/own/test.txt").exists()
    assert "test.txt is another file than the recorded one, with the same counts" in capsys.readouterr().out
    assert unpackaged.wrong(NEEDS) == []
    assert "test.txt is another file" in capsys.readouterr().out, "it is also said before anything is computed"


@pytest.mark.parametrize(
    ("train", "told"),
    [
        (TRAIN + "\none X\n", "has 4 sentences, not 3"), (TRAIN.replace("runs V", "ran V", 1), "has 3 different"),
        (TRAIN.replace("dog N", "dog V"), "has 3 tag, not 4"), ("the\n", "cannot be read: "),
    ],
)  # fmt: skip
def test_a_file_with_other_counts_is_refused_with_what_differs(own, mirror: Path, train: str, told: str) -> None:
    root = own()
    (mirror / "corpora/own/train.txt").write_text(train)
    (problem,) = unpackaged.provide(NEEDS, "mine", mirror)
    assert told in problem
    assert not (root / "data").exists(), "nothing of it is laid"
    write(root / "data/own", train, TEST)
    (problem,) = unpackaged.provide(NEEDS, "mine", None)
    assert told in problem
    assert "Take it away" in problem


def test_the_counts_of_a_file_that_users_write_for_themselves_are_told_only(own, mirror: Path, capsys) -> None:
    own(files={"train.txt": {"counts": {"different sentences": 9}}, "test.txt": {}})
    assert unpackaged.provide(NEEDS, "mine", mirror) == []
    assert "train.txt has 2 different sentences, not 9 as the paper" in capsys.readouterr().out


def test_what_is_missing_is_named_with_all_that_is_needed_to_get_it(own) -> None:
    own(get="write it as columns")
    (text,) = unpackaged.provide(NEEDS, "mine", None)
    for part in (
        "Own, 1 (free)", "https://own.example", "data/own/", "train.txt: 3 sentences, 2 different sentences, 6 words",
        "write it as columns", "make data SCALE=mine MIRROR=folder, with the files in folder/corpora/own/",
    ):  # fmt: skip
        assert part in text
    assert "fetches it" not in text


# Fetching ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on loopback: its address, and the folder that it serves."""
    folder = tmp_path / "web"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder))) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}", folder
        http.shutdown()


def test_what_has_an_address_is_fetched(own, server) -> None:
    address, folder = server
    write(folder / "there", TRAIN, TEST)
    root = own(web=f"{address}/there/{{file}}")
    assert "fetches it" in unpackaged.told(NEEDS, "mine")[0]
    assert unpackaged.provide(NEEDS, "mine", None) == []
    assert (root / "data/own/train.txt").read_text() == TRAIN


def test_what_an_archive_holds_is_fetched(own, server) -> None:
    address, folder = server
    with zipfile.ZipFile(folder / "own.zip", "w") as bundle:
        bundle.writestr("own/train.txt", TRAIN)
        bundle.writestr("own/test.txt", TEST)
        bundle.writestr("README", "no")
    root = own(web=f"{address}/own.zip", keep="own")
    assert unpackaged.provide(NEEDS, "mine", None) == []
    assert sorted(p.name for p in (root / "data/own").iterdir()) == ["test.txt", "train.txt"]


def test_a_mirror_comes_first_and_the_rest_is_fetched(own, server, mirror: Path) -> None:
    address, folder = server
    (folder / "test.txt").write_text(TEST)
    (mirror / "corpora/own/test.txt").unlink()
    own(web=f"{address}/{{file}}")
    assert unpackaged.provide(NEEDS, "mine", mirror) == []


@pytest.mark.parametrize("keep", ["", "own"])
def test_what_cannot_be_fetched_is_told_with_the_reason(own, server, keep: str) -> None:
    root = own(web=f"{server[0]}/{{file}}", keep=keep)
    (text,) = unpackaged.provide(NEEDS, "mine", None)
    assert "it could not be fetched: HTTPError: HTTP Error 404" in text
    assert not (root / "data").exists()


def test_what_comes_from_the_web_with_other_counts_is_refused(own, server) -> None:
    write(server[1] / "there", TRAIN + "\none X\n", TEST)
    root = own(web=f"{server[0]}/there/{{file}}")
    (problem,) = unpackaged.provide(NEEDS, "mine", None)
    assert "has 4 sentences, not 3" in problem
    assert not (root / "data").exists()


REVISION = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    """A double of the model hub on loopback that has one data set of two files; its address."""
    files = {}
    for split, rows in (("train", 5), ("validation", 2)):
        file = tmp_path / f"{split}.parquet"
        pd.DataFrame({"sentence": ["a"] * rows, "label": [0] * rows}).to_parquet(file)
        files[f"rte/{split}-00000-of-00001.parquet"] = file.read_bytes()

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            listed = [{"type": "file", "path": n, "size": len(c), "oid": "1" * 40} for n, c in files.items()]
            info = {"id": "nyu-mll/glue", "sha": REVISION, "siblings": [{"rfilename": name} for name in files]}
            kind = re.match(rf"/api/datasets/nyu-mll/glue/(tree|revision)/{REVISION}", self.path)
            name = self.path.partition(f"/datasets/nyu-mll/glue/resolve/{REVISION}/")[2]
            content = json.dumps(listed if kind and kind[1] == "tree" else info).encode() if kind else files.get(name)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.send_header("ETag", f'"{hashlib.sha1(content or b"").hexdigest()}"')
            self.send_header("X-Repo-Commit", REVISION)
            self.end_headers()
            if body:
                self.wfile.write(content or b"")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_glue_is_fetched_from_the_hub_at_its_pinned_revision(hub: str, tmp_path: Path) -> None:
    code = (
        "import sys; from dataclasses import replace; from pathlib import Path\n"
        "from lib import unpackaged; from lib.study import params\n"
        "params.ROOT = Path(sys.argv[1])\n"
        "files = {f'rte/{s}-00000-of-00001.parquet': {'sha256': 'x', 'counts': {'rows': n}}\n"
        "         for s, n in (('train', [9, 5]), ('validation', 2))}\n"
        "unpackaged.UNPACKAGED = {'glue': replace(unpackaged.UNPACKAGED['glue'], files=files)}\n"
        "print(unpackaged.provide({'glue': [*files]}, 'mine', None))\n"
    )
    environ = environment() | {
        "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code, tmp_path], env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
    assert "is a sample, 5 of 9 rows" in done.stdout
    other = re.findall(r"(train|validation)-\S+ is another file than the recorded one(.*)", done.stdout)
    assert other == [("train", ""), ("validation", ", with the same counts")], "a sample has fewer"
    assert sorted(p.name for p in (tmp_path / "data/glue/rte").iterdir()) == [
        "train-00000-of-00001.parquet", "validation-00000-of-00001.parquet",
    ]  # fmt: skip


# What a study needs ------------------------------------------------------------------------------------------------


def test_a_study_needs_the_files_of_its_corpora_and_tasks_and_no_others() -> None:
    study = loading.load("mpnet", overrides={"properties": ["sem", "chunk"]})
    assert unpackaged.needed(study) == {
        "conll2000": ["train.txt", "test.txt"], "pmb4": ["train.conll", "dev.conll", "test.conll"],
    }  # fmt: skip
    assert unpackaged.trained_on(study, "rte") == {
        "glue": ["rte/train-00000-of-00001.parquet", "rte/validation-00000-of-00001.parquet"],
    }  # fmt: skip
    assert unpackaged.trained_on(study, "sentiment") == {}
    hub = loading.load("mpnet", overrides={"task_data.glue": "nyu-mll/glue"})
    assert unpackaged.trained_on(hub, "rte") == {}
    assert unpackaged.needed(loading.load("minilm")) == {}


def test_every_named_corpus_is_in_the_table() -> None:
    collections = loading.read_yaml(params.ROOT / "params" / "base.yaml")["collections"]
    entries = [c for of in collections.values() for listed in of.values()
               for c in (listed if isinstance(listed, list) else [listed])]  # fmt: skip
    assert len(entries) >= 8
    for corpus in entries:
        ((name, files),) = unpackaged.of({*corpus["files"].values()}).items()
        one = UNPACKAGED[name]
        assert len(files) == len(corpus["files"]) == len(one.files)
        assert {*corpus["columns"].values()} <= {*one.columns.values()}


def test_a_run_without_its_data_is_one_error_that_names_all_of_it(tmp_path: Path, monkeypatch) -> None:
    wanted = [runs.load("mpnet", variant) for variant in ("pretrained", "rte-s1", "sst2-2241-s1")]
    monkeypatch.setattr(params, "ROOT", tmp_path)
    monkeypatch.setattr(sources, "fetch", lambda name: tmp_path)
    with pytest.raises(SourceError) as caught:
        grid.fetch(wanted)
    told = str(caught.value)
    for one in ("UD English-EWT", "CoNLL-2000", "Parallel Meaning Bank", "GLUE"):
        assert told.count(f"{one}, ") >= 1
    assert "sst2/train-00000-of-00001.parquet: 67,349 rows" in told
    assert told.count("make data SCALE=mpnet MIRROR=folder") == 4
    assert "model hub" not in told, "a folder that is not here is not asked of the hub"
    assert "Nothing was started" in told


def test_the_mirror_is_what_the_table_says(shared: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(params, "ROOT", tmp_path)
    free = {name: [*one.files] for name, one in UNPACKAGED.items() if name not in ("ptb", "ccgbank")}
    assert unpackaged.provide(free, "mpnet", shared) == []
    told = capsys.readouterr().out
    assert [line.split()[1] for line in told.splitlines() if line.startswith("OK")] == [*free]
    assert re.findall(r"/(\w+)/train-\S+ is a sample, ([\d,]+) of ([\d,]+) rows", told) == [
        ("qnli", "14,953", "104,743"), ("qqp", "33,380", "363,846"), ("mnli", "74,569", "392,702"),
    ]  # fmt: skip
    assert "another file" not in told
    for name in ("ud_ewt", "conll2000", "pmb4"):  # by their counts too
        one = UNPACKAGED[name]
        for file, held in one.files.items():
            found = unpackaged.counted(one, one.place(file))
            assert {what: found[what] for what in held["counts"]} == held["counts"]


def test_the_licensed_corpora_are_told_where_a_study_wishes_them(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sources, "fetch", lambda name: tmp_path)
    monkeypatch.setattr(unpackaged, "provide", lambda *_: [])
    monkeypatch.setattr(loading, "wished", lambda study: {"data/ptb/train.txt"})
    grid.get_data([runs.load("mpnet", "pretrained")], "mpnet", "")
    told = capsys.readouterr().out
    assert "what the paper has; where you have the licence:\nPenn Treebank, Wall Street Journal, LDC99T42" in told
    assert "train.txt: 36,557 different sentences, 44 pos" in told


@pytest.mark.parametrize("has", [True, False])
def test_what_a_study_wishes_is_taken_from_a_mirror_that_has_all_of_it(own, mirror, monkeypatch, capsys, has) -> None:
    run = runs.load("mpnet", "pretrained")
    monkeypatch.setattr(sources, "fetch", lambda name: mirror)
    monkeypatch.setattr(grid, "_needs", lambda *_: {})
    monkeypatch.setattr(grid, "_got", lambda *_: [])
    own()
    monkeypatch.setitem(unpackaged.UNPACKAGED, "glue", entry())
    monkeypatch.setattr(loading, "wished", lambda study: {"data/own/train.txt", "data/own/test.txt"})
    if not has:
        (mirror / "corpora/own/test.txt").unlink()
    grid.get_data([run], "mpnet", str(mirror))
    assert [unpackaged.UNPACKAGED["own"].has(file) for file in ("train.txt", "test.txt")] == [has, has]
    assert ("Not needed, but what the paper has" in capsys.readouterr().out) == (not has)


def test_a_source_that_cannot_be_fetched_hides_nothing_else_that_is_missing(tmp_path, monkeypatch) -> None:
    def fetch(name: str) -> None:
        raise sources.SourceError(f"{name} cannot be fetched")

    run = runs.load("mpnet", "pretrained")
    monkeypatch.setattr(params, "ROOT", shutil.copytree(params.ROOT / "params", tmp_path / "params").parent)
    monkeypatch.setattr(sources, "fetch", fetch)
    monkeypatch.setattr(unpackaged, "_get", lambda *_: ([], "no network"))
    with pytest.raises(sources.SourceError) as error:
        grid.get_data([run], "mpnet", "")
    told = str(error.value)
    assert [name for name in [*sources.needed(), "all-mpnet-base-v2"] if f"{name} cannot be fetched" not in told] == []
    assert all(UNPACKAGED[name].title in told for name in ("ud_ewt", "pmb4", "conll2000"))


def test_a_file_that_was_cut_short_is_refused_before_anything_is_computed(own, mirror: Path) -> None:
    own()
    assert unpackaged.provide(NEEDS, "mine", mirror) == unpackaged.wrong(NEEDS) == []
    place = unpackaged.UNPACKAGED["own"].place("train.txt")
    place.write_text(place.read_text()[:4])
    (problem,) = unpackaged.wrong(NEEDS)
    assert str(place) in problem and "Take it away" in problem


def test_a_mirror_that_is_not_there_is_refused() -> None:
    with pytest.raises(params.ParameterError, match="MIRROR=nowhere: there is no folder"):
        grid.get_data([], "mpnet", "nowhere")
