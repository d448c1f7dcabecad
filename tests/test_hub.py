"""The way through the model hub, on a double of it with tiny encoders: what is fetched, and what is refused.

``tests/hub`` goes the same way at full width.
"""

import errno
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import ROOT, forget, labelled_sentences
from hub.double import BERT, GLUE, REVISIONS, ROBERTA, WEIGHTS, XLNET, Fault, Hub, make, pins
from huggingface_hub.utils._shared_blobs import publish_blob_to_shared_store
from safetensors.torch import load_file

from lib import encoders, grid, sources, tasks
from lib.encoders import EncoderError
from lib.sources import SourceError
from lib.study import loading, params
from lib.study.runs import Run
from lib.study.variants import Variant
from lib.tasks import TaskError

STUDIES = {BERT: "bert-base-cased", ROBERTA: "roberta-base", XLNET: "xlnet-base-cased"}
PAIRS = {
    "sentence1": [f"the dog sleeps {i}" for i in range(20)],
    "sentence2": [f"a bird sings {i}" for i in range(20)],
    "label": [i % 2 for i in range(20)],
}


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny encoders under the real names, and a GLUE of one task."""
    place = tmp_path_factory.mktemp("hub")
    text = [" ".join(word for word, _ in sentence) for sentence in labelled_sentences(60, 0)]
    made = make(place, text, tiny=True, vocabulary=400)
    for split in ("train", "validation", "test"):
        file = place / GLUE / "rte" / f"{split}-00000-of-00001.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(PAIRS | {"idx": [f"{split} {i}" for i in range(20)]}), file)
    return made | {GLUE: place / GLUE}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def served(repositories: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The double, with its own pins; nothing is cached, and nobody waits."""
    digests = pins(repositories)
    monkeypatch.setattr(loading, "hub_pins", lambda: digests)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Hub(repositories) as double:
        for name, value in {
            "ENDPOINT": double.endpoint, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": False,
            "HUGGINGFACE_CO_URL_TEMPLATE": double.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
            "AGENT_HARNESSES_PATH": str(cache.with_name("agents")),
        }.items():  # fmt: skip
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        yield double
        huggingface_hub.close_session()


def study(name: str, **overrides: object) -> params.Study:
    return loading.load(STUDIES[name], overrides={"device": "cpu", **overrides})


def rte(**overrides: object) -> dict[str, list]:
    return {split: data[:] for split, data in tasks.load(study(BERT, **overrides), Variant.parse("rte-s1")).items()}


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    forget()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


# What is fetched -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "files"), [
    (BERT, {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"}),
    (ROBERTA, {"config.json", "merges.txt", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
               "vocab.json"}),
    (XLNET, {"config.json", "pytorch_model.bin", "spiece.model", "tokenizer.json"}),
])  # fmt: skip
def test_an_encoder_comes_at_its_revision_with_the_files_that_are_needed(served, repositories, name, files) -> None:
    of = study(name)
    folder = Path(encoders.locate(of))
    assert {path.name for path in folder.iterdir()} == files
    assert folder.name == REVISIONS[name] == of.encoder.revision
    file = repositories[name] / WEIGHTS[name]
    planted = torch.load(file, weights_only=True) if file.suffix == ".bin" else load_file(file)
    names = {BERT: "bert.encoder.layer.1.output.dense.weight", ROBERTA: "roberta.encoder.layer.1.output.dense.weight",
             XLNET: "transformer.layer.1.rel_attn.q"}  # fmt: skip
    loaded = encoders.pretrained(of).state_dict()
    assert torch.equal(loaded[names[name].partition(".")[2]], planted[names[name]])
    encoders.check(of)


def test_the_older_names_in_berts_weights_are_understood(served, repositories) -> None:
    planted = load_file(repositories[BERT] / "model.safetensors")
    loaded = encoders.pretrained(study(BERT)).state_dict()
    assert torch.equal(loaded["embeddings.LayerNorm.weight"], planted["bert.embeddings.LayerNorm.gamma"])


def test_glue_comes_by_task_and_split(served, cache: Path) -> None:
    data = rte()
    assert data["test"]["text_pair"] == PAIRS["sentence2"]
    assert data["test"]["label"] == PAIRS["label"]
    assert len(data["train"]["text"]) + len(data["dev"]["text"]) == 20
    fetched = {path.name for path in (cache / "datasets--nyu-mll--glue").rglob("*.parquet")}
    assert fetched == {f"{split}-00000-of-00001.parquet" for split in ("train", "validation")}, (
        "GLUE's test is not used"
    )


def test_what_is_cached_asks_nobody(served, monkeypatch: pytest.MonkeyPatch) -> None:
    def use() -> None:
        forget()
        for name in STUDIES:
            encoders.tokenizer(study(name))
            encoders.pretrained(study(name))
        rte()

    use()
    assert served.requests
    served.requests.clear()
    use()
    assert served.requests == []
    offline(monkeypatch)
    use()
    assert served.requests == []


def test_a_cache_of_unknown_extent_is_completed(served, cache: Path) -> None:
    """As other programs leave it: some files, and no listing of the revision."""
    huggingface_hub.hf_hub_download(BERT, "config.json", revision=REVISIONS[BERT])
    assert not [*cache.rglob("trees")]
    encoders.tokenizer(study(BERT))
    assert (Path(encoders.locate(study(BERT))) / "model.safetensors").exists()


def test_a_pinned_file_that_a_cache_of_unknown_extent_lacks_is_one_line(served, monkeypatch) -> None:
    for file in ("config.json", "tokenizer.json"):
        huggingface_hub.hf_hub_download(XLNET, file, revision=REVISIONS[XLNET])
    offline(monkeypatch)
    with pytest.raises(SourceError, match=r"HF_HUB_OFFLINE=1 forbids asking, and .* lacks pytorch_model\.bin"):
        encoders.locate(study(XLNET))


# Faults ----------------------------------------------------------------------------------------------------------


def test_a_connection_that_is_cut_is_resumed_where_it_was_cut(served, repositories, monkeypatch) -> None:
    file = repositories[BERT] / "model.safetensors"
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    served.faults.append(Fault("model.safetensors", times=1))
    folder = Path(encoders.locate(study(BERT)))
    asked = [part for method, path, part in served.requests if method == "GET" and path.endswith("model.safetensors")]
    assert asked == ["", f"bytes={file.stat().st_size // 2 // 1000 * 1000}-"]
    assert (folder / "model.safetensors").read_bytes() == file.read_bytes()


@pytest.mark.parametrize(("fault", "code", "told"), [
    (401, "RepoNotFound", r"does not open it to you \(401\).*HF_TOKEN"),
    (403, "GatedRepo", r"does not open it to you \(403\).*hf auth login"),
    (404, "RepoNotFound", r"does not have it \(404\)"),
    (404, "RevisionNotFound", r"no such revision \(404\).*lib/hub\.yaml"),
    (429, "", r"too many requests from here \(429\).*what has been fetched is kept"),
    (503, "", r"out of order \(503\).*what has been fetched is kept"),
])  # fmt: skip
@pytest.mark.parametrize(("method", "where"), [("GET", "/tree/"), ("HEAD", "config.json"), ("GET", "/resolve/")])
def test_what_the_hub_refuses_is_one_line_with_what_to_do(served, fault, code, told, method, where) -> None:
    served.faults.append(Fault(where, fault, method=method, code=code))
    with pytest.raises(SourceError, match=told) as caught:
        encoders.locate(study(BERT))
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith(
        f"'{BERT}' is no folder here, and from the model hub it did not come (revision "
    )


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("method", "where"), [("GET", "/tree/"), ("HEAD", "config.json"), ("GET", "model.safetensors")]
)
def test_what_passes_is_tried_again(served, status: int, method: str, where: str) -> None:
    served.faults.append(Fault(where, status, times=2, method=method))
    encoders.pretrained(study(BERT))
    assert served.faults[0].times == 0


def test_a_hub_that_is_not_there_is_one_line(served, monkeypatch: pytest.MonkeyPatch) -> None:
    served.__exit__()
    asked, ask = [], huggingface_hub.snapshot_download
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda **of: asked.append(of["repo_id"]) or ask(**of))
    for name in (BERT, ROBERTA):
        with pytest.raises(SourceError, match=r"cannot be reached \(.+\), and .+cache lacks it\. Connect") as caught:
            encoders.locate(study(name))
        assert len(str(caught.value).splitlines()) == 1
        assert str(caught.value).startswith(f"'{name}' ")
    assert asked == [BERT], "it is not asked a second time"


@pytest.mark.parametrize("file", ["model.safetensors", "vocab.txt", "rte/validation-00000-of-00001.parquet"])
def test_a_file_that_changed_on_its_way_is_refused_and_fetched_anew_once_deleted(served, repositories, file) -> None:
    use, name = (rte, GLUE) if file.startswith("rte") else (lambda: encoders.locate(study(BERT)), BERT)
    served.faults.append(Fault(file, wrong=True, times=1))
    for _ in range(2):
        with pytest.raises((TaskError, SourceError), match=rf"{Path(file).name} .*expected .*Delete (\S+) ") as caught:
            use()
        forget()
    wrong = Path(str(caught.value).partition("Delete ")[2].split()[0])
    assert wrong.read_bytes() != (repositories[name] / file).read_bytes()
    wrong.unlink()
    use()
    assert wrong.read_bytes() == (repositories[name] / file).read_bytes()


def test_a_file_that_the_cache_shares_among_repositories_is_held_to_its_digest(served, cache: Path) -> None:
    file = Path(encoders.locate(study(ROBERTA))) / "merges.txt"
    glue = tasks.hub.folder(GLUE, REVISIONS[GLUE], "dataset", ("rte/*",))
    table = glue / "rte" / "validation-00000-of-00001.parquet"
    for kept, xet in ((file.resolve(), "ab" * 32), (table.resolve(), "cd" * 32)):
        size = kept.stat().st_size
        assert publish_blob_to_shared_store(blob_path=kept, xet_hash=xet, cache_dir=cache, expected_size=size)
        assert kept.is_symlink() and kept.resolve().name == xet
    forget()
    assert encoders.locate(study(ROBERTA)) == str(file.parent) and len(rte()["train"])
    shared = table.resolve()
    shared.chmod(0o600)
    shared.write_bytes(shared.read_bytes()[:-1])
    forget()
    with pytest.raises(TaskError, match=rf"expected {table.readlink().name}.*Delete {shared} "):
        rte()
    shared.unlink()
    rte()


class Trap:
    """What runs code when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return Path.touch, (self.file,)


def test_under_the_real_pins_the_doubles_encoders_are_refused_and_nothing_is_unpickled(
    served, repositories, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loading.read_yaml(ROOT / "lib" / "hub.yaml")
    monkeypatch.setattr(loading, "hub_pins", lambda: real)
    served.repositories = repositories | {XLNET: shutil.copytree(repositories[XLNET], tmp_path / "copy")}
    (tmp_path / "copy" / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    for name in STUDIES:
        with pytest.raises(SourceError, match=rf"{WEIGHTS[name]} .*{real[name]['files'][WEIGHTS[name]]}\. Delete"):
            encoders.pretrained(study(name))
    assert not (tmp_path / "sprung").exists()


def test_pickled_weights_that_nothing_pins_are_not_even_fetched(served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "hub_pins", dict)
    with pytest.raises(EncoderError, match=r"holds no weights.*only if encoder\.weights_sha256 pins them"):
        encoders.pretrained(study(XLNET, **{"encoder.revision": REVISIONS[XLNET]}))
    assert not [path for _, path, _ in served.requests if path.endswith(".bin")]


def test_pickled_weights_that_the_study_pins_are_read(served, repositories, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256((repositories[XLNET] / "pytorch_model.bin").read_bytes()).hexdigest()
    monkeypatch.setattr(loading, "hub_pins", dict)
    encoders.pretrained(study(XLNET, **{"encoder.revision": REVISIONS[XLNET], "encoder.weights_sha256": digest}))
    forget()
    wrong = {"encoder.revision": REVISIONS[XLNET], "encoder.weights_sha256": "0" * 64}
    with pytest.raises(SourceError, match=rf"pytorch_model\.bin .*SHA-256 is {digest}"):
        encoders.pretrained(study(XLNET, **wrong))


def test_a_branch_that_moves_on_changes_nothing_that_is_pinned(served) -> None:
    served.main[BERT] = "f" * 40
    served.revisions[BERT].append("f" * 40)
    assert Path(encoders.locate(study(BERT))).name == REVISIONS[BERT]


@pytest.mark.parametrize("revision", [None, "main"])
def test_an_encoder_without_a_commit_is_refused_and_told_which_it_is(served, monkeypatch, revision) -> None:
    pins = loading.hub_pins()
    monkeypatch.setattr(loading, "hub_pins", lambda: {name: pin for name, pin in pins.items() if name != BERT})
    told = f"'{BERT}' is on the model hub may change.*'revision: {REVISIONS[BERT]}' is what is here"
    with pytest.raises(SourceError, match=told):
        grid.fetch([Run(study(BERT, **{"encoder.revision": revision}), Variant.parse("pretrained"))])
    try:
        grid.fetch([Run(study(BERT, **{"encoder.revision": REVISIONS[BERT]}), Variant.parse("pretrained"))])
    except SourceError as others:  # the corpora, where they are not here
        assert "may change" not in str(others)


def test_a_pinned_revision_that_is_gone_is_refused_unless_it_is_cached(served, cache: Path) -> None:
    encoders.locate(study(ROBERTA))
    for name in (BERT, ROBERTA):
        served.revisions[name] = ["f" * 40]
    forget()
    assert Path(encoders.locate(study(ROBERTA))).name == REVISIONS[ROBERTA]
    with pytest.raises(SourceError, match=r"no such revision \(404\).*lib/hub\.yaml"):
        encoders.locate(study(BERT))


READ = """
import json, sys
from lib import hub
from lib.study import loading
name, revision, pins = sys.argv[1:]
loading.hub_pins = lambda: json.loads(pins)
print(hub.folder(name, revision, "model", ("config.json", "*.safetensors")))
"""


def read_only(cache: Path, double: Hub, name: str) -> subprocess.CompletedProcess[str]:
    """Read an encoder through a cache whose folders cannot be written, as a user whom this binds (it does not root)."""
    folders = [cache, *(path for path in cache.rglob("*") if path.is_dir() and not path.is_symlink())]
    for folder in folders:
        folder.chmod(0o555)
    command = [sys.executable, "-c", READ, name, REVISIONS[name], json.dumps(loading.hub_pins())]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    own = {"HF_ENDPOINT": double.endpoint, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "", "PYTHONPATH": str(ROOT)}
    try:
        return subprocess.run(command, env=os.environ | own, capture_output=True, text=True)
    finally:
        for folder in folders:
            folder.chmod(0o755)


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root writes everywhere")
def test_a_cache_on_a_read_only_disk_is_read_and_what_it_lacks_is_one_line(served, cache: Path) -> None:
    folder = encoders.locate(study(BERT))
    served.requests.clear()
    assert read_only(cache, served, BERT).stdout.strip() == folder
    assert served.requests == []
    lacking = read_only(cache, served, ROBERTA).stderr.splitlines()[-1]
    assert f"'{ROBERTA}' is no folder here" in lacking
    assert "cannot be written" in lacking
    assert "Set HF_HOME" in lacking


def test_a_full_disk_is_told_from_a_hub_that_is_not_there(served, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(SourceError, match=r"cache cannot be written \(.*No space left on device\)\. Set HF_HOME"):
        encoders.locate(study(BERT))


# The paper's grid ------------------------------------------------------------------------------------------------


def paper(tasks_: list[str] | None = None, seeds: tuple[int, ...] = (1, 2, 3)) -> list[Run]:
    return grid.selected("paper", [], tasks_ or [], list(seeds), {"device": "cpu"})


def test_the_papers_grid_is_three_encoders_with_its_tasks_controls_and_pruned_variants() -> None:
    six, large = {"sst2", "mnli", "qnli", "rte", "mrpc", "stsb"}, {"sst2", "mnli", "qnli"}
    controls = {f"{name}-2241" for name in six - {"rte"}}
    pruned = {f"{name}-drop{end}6" for name in large for end in ("top", "bottom")}
    runs_ = paper()
    assert {run.study.name for run in runs_} == {*STUDIES.values()}
    for name in STUDIES.values():
        mine = [run.variant for run in runs_ if run.study.name == name]
        assert {v.condition for v in mine} == {"pretrained", "random"} | six | controls | pruned
        assert len(mine) == 2 + 3 * (len(six) + len(controls) + len(pruned))
    for run in runs_:
        settings = run.study.finetune
        assert (settings.epochs, settings.batch_size, settings.learning_rate, settings.warmup) == (3, 32, 2e-5, 0)
        assert settings.max_subwords == 128
        assert run.study.task_data.train_examples is None
        assert run.study.encoder.pooling == "last"


def test_the_probe_of_the_papers_grid_is_that_of_its_table_8() -> None:
    printed = {"bert-base-cased": (1e-3, 1e-2), "roberta-base": (1e-3, 1e-3), "xlnet-base-cased": (1e-3, 1e-2)}
    for name, penalty in printed.items():
        probe = loading.load(name).probe
        assert probe.penalty(name.partition("-")[0], "pos") == penalty
        assert not probe.standardise


def test_every_repository_that_a_study_names_is_pinned() -> None:
    real = loading.read_yaml(ROOT / "lib" / "hub.yaml")
    for name in loading.studies():
        of = loading.load(name)
        checkpoint = of.encoder.checkpoint
        if checkpoint not in sources.SOURCES and not (ROOT / checkpoint).is_dir():
            assert of.encoder.revision == real[checkpoint]["revision"], name
            assert real[checkpoint]["files"], name
    assert all(len(pin["revision"]) == 40 for pin in real.values())


def test_results_under_other_pins_are_others(served, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(study(BERT), Variant.parse("rte-s1"))
    double = run.key("finetune")
    real = loading.read_yaml(ROOT / "lib" / "hub.yaml")
    monkeypatch.setattr(loading, "hub_pins", lambda: real)
    assert Run(study(BERT), Variant.parse("rte-s1")).key("finetune") != double


def test_what_is_missing_of_the_grid_is_one_error_before_any_work(served, cache: Path, monkeypatch) -> None:
    encoders.locate(study(BERT))
    (Path(encoders.locate(study(BERT))) / "vocab.txt").unlink()
    encoders.locate(study(XLNET))
    offline(monkeypatch)
    with pytest.raises(SourceError) as caught:
        grid.fetch(paper(seeds=(1,)))
    told = str(caught.value)
    for name in ("sst2", "mnli", "qnli", "rte", "mrpc", "stsb"):
        assert told.count(f"task '{name}' could not be read from nyu-mll/glue") == 1
    assert told.count(f"'{BERT}' is no folder here") == told.count(f"'{ROBERTA}' is no folder here") == 1
    assert f"{cache} lacks vocab.txt." in told
    assert f"{cache} lacks it." in told
    assert XLNET not in told, "it is here"
    assert told.count("HF_HUB_OFFLINE=1 forbids asking") == 3, "once for all tasks"
    assert told.endswith("Nothing was started. Fix it, then type the same command again.")
    assert served.requests == [r for r in served.requests if GLUE not in r[1]]


def test_a_copy_of_glue_that_the_studies_do_not_read_is_told_with_what_to_write(
    served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline(monkeypatch)
    monkeypatch.setattr(sources, "needed", list)
    for copies in ("none", "copies/glue"):
        (tmp_path / copies).mkdir(parents=True)
    told = []
    for mirror in ("none", "copies"):
        with pytest.raises(SourceError) as caught:
            grid.get_data(paper(["rte"], (1,)), "paper", str(tmp_path / mirror))
        told.append(str(caught.value))
    line = "these studies read it from the model hub: bert-base-cased, roberta-base, xlnet-base-cased. To read the copy"
    assert [line in text for text in told] == [False, True]


def test_more_examples_than_there_are_are_refused_before_any_work(served, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match="rte-19-s1 asks for 19 of 18 examples"):
        grid.fetch(paper(["rte-19", "rte-4", "rte"], (1,)))


def test_a_trial_has_fewer_words_and_keys_of_its_own() -> None:
    full, trial = (loading.load("bert-base-cased", overrides=given) for given in ({}, {"size": "lesson"}))
    assert {c.train_words for c in full.corpora.values()} == {150_000}
    assert {c.train_words for c in trial.corpora.values()} == {4_000}
    assert trial.preset == "full", "it lies where the study does"
    assert trial.finetune == full.finetune
    with pytest.raises(params.ParameterError, match="there is no preset 'leson'; did you mean 'lesson'"):
        loading.load("bert-base-cased", overrides={"size": "leson"})


def test_a_trial_is_not_recorded() -> None:
    with pytest.raises(params.ParameterError, match="make record takes no SIZE"):
        grid.print_rules([], "paper", {"size": "lesson"}, False, True, True)


def test_the_snippets_that_a_training_shows_are_fetched_before_it(own_data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(SourceError, match="source 'movie-snippets' could not be fetched"):
        grid.fetch(paper(["rte"], (1,)))
