"""Make runs what is to do and nothing else, in an order that the results ask for; a notebook is whole or not at all."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from conftest import examples, write_result

from lib import grid, notebook, results
from lib.sources import SourceError
from lib.study import inputs, loading, runs
from lib.study.params import ParameterError
from lib.study.runs import Run
from lib.study.steps import STEPS, Step

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No checkpoint is read."""
    monkeypatch.setattr(inputs, "checkpoint_digest", lambda study: "digest")


def keep(run: Run, *steps: str) -> None:
    """Write results of these steps, and their executed notebooks; the stores are gone when all is done."""
    write_result(run, *(step for step in steps if step != "extract"))
    for step in steps:
        run.notebook(step).touch()


def names(run: Run) -> list[str]:
    return [step.name for step in grid.to_do(run)]


def test_a_new_run_has_all_its_steps_and_an_untrained_encoder_no_training() -> None:
    assert names(runs.load("minilm", "sentiment-s1")) == ["finetune", "extract", "layers", "neurons"]
    assert names(runs.load("minilm", "pretrained")) == ["extract", "layers", "neurons"]
    assert names(runs.load("minilm", "random")) == ["extract", "layers"]


def test_a_changed_parameter_redoes_what_depends_on_it_and_nothing_else() -> None:
    keep(runs.load("minilm", "sentiment-s1"), *STEPS)

    def after(**overrides: object) -> list[str]:
        return names(runs.load("minilm", "sentiment-s1", overrides=overrides))

    assert after() == after(device="cpu") == []
    assert after(ranking={"top": 0.3}) == ["extract", "neurons"]
    assert after(probe={"epochs": 3}) == ["extract", "layers", "neurons"]
    assert after(finetune={"epochs": 9.0}) == ["finetune", "extract", "layers", "neurons"]


def test_a_result_that_is_gone_or_damaged_is_made_again() -> None:
    run = runs.load("minilm", "pretrained")
    keep(run, *STEPS)
    (run.result("layers") / "file").unlink()
    assert names(run) == ["extract", "layers"]
    (run.result("neurons") / "file").write_text("damaged")
    assert names(run) == ["extract", "layers", "neurons"]
    keep(run, *STEPS)
    run.notebook("neurons").unlink()
    assert names(run) == ["extract", "neurons"]


def test_models_of_two_settings_lie_side_by_side() -> None:
    slow, fast = (runs.load("minilm", "rte-s1", overrides={"finetune.learning_rate": rate}) for rate in (1e-5, 1e-4))
    assert slow.model != fast.model
    assert slow.model.parent == fast.model.parent
    probed = runs.load("minilm", "rte-s1", overrides={"finetune.learning_rate": 1e-5, "probe.epochs": 2})
    assert probed.model == slow.model


def test_the_rules_run_each_step_after_those_that_it_reads_and_beside_what_it_shows() -> None:
    wanted = [runs.load("minilm", v) for v in ("random", "sentiment-s1")]
    made = dict(line.split(": ", 1) for line in grid.rules(wanted, "minilm", {}, False).splitlines()
                if line.startswith("runs/"))  # fmt: skip
    place = "runs/minilm/sentiment-s1"
    assert made[f"{place}/02_extract.ipynb"] == f"{place}/01_finetune.ipynb"
    assert made[f"{place}/03_probe_layers.ipynb"].split() == [
        f"{place}/02_extract.ipynb", "runs/minilm/random/03_probe_layers.ipynb",
    ]  # fmt: skip
    assert made[f"{place}/extract"].split() == [f"{place}/03_probe_layers.ipynb", f"{place}/04_rank_neurons.ipynb"]
    assert "runs/minilm/random/03_probe_layers.ipynb" in made["runs/figures/minilm/05_figures.ipynb"].split()
    kept = grid.rules(wanted, "minilm", {}, True)
    assert "rm -rf" not in kept


def test_a_new_step_is_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Step("similarity", "06_similarity", ("neurons",), ("extract",), lambda run: [run.study.seed],
               tables=("cka.parquet",), beside=("pretrained",))  # fmt: skip
    monkeypatch.setitem(STEPS, row.name, row)
    wanted = [runs.load("minilm", v) for v in ("pretrained", "rte-s1")]
    keep(wanted[0], *(name for name in STEPS if name != "similarity"))
    names_of = grid.plan([(run, grid.to_do(run)) for run in wanted], "minilm")
    assert names_of[:2] == ["minilm/pretrained/02_extract", "minilm/pretrained/06_similarity"]
    assert "minilm/rte-s1/06_similarity" in names_of
    rules = grid.rules(wanted, "minilm", {}, False, recording=True)
    (command,) = (line for line in rules.splitlines() if "run minilm pretrained 06_similarity" in line)
    assert "--record similarity" in command
    assert (
        "runs/minilm/rte-s1/06_similarity.ipynb: runs/minilm/rte-s1/02_extract.ipynb runs/minilm/pretrained/06_sim"
        in rules
    )
    keep(wanted[0], "similarity")
    assert names(wanted[0]) == []
    other = runs.load("minilm", "pretrained", overrides={"seed": 7})
    assert other.key("similarity") != wanted[0].key("similarity")


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., subprocess.CompletedProcess]:
    """``engine(runs, **variables)``: Make on the rules of these runs, with a Python that writes down what it does."""
    monkeypatch.setattr(grid, "SEEN_WITHIN", 1)
    (tmp_path / "python").write_text(
        "#!/usr/bin/env bash\n"
        'if [ "$6" = run ]; then target=runs/$7/$8/$9; else target=runs/figures/$7/05_figures; fi\n'
        'mkdir -p "$(dirname "$target")"; echo "$target" >> order; touch "$target.ipynb"\n'
    )
    (tmp_path / "python").chmod(0o755)

    def make(wanted: list[Run], **variables: str) -> subprocess.CompletedProcess:
        (tmp_path / "rules").write_text(grid.rules(wanted, "minilm", {"device": "cpu"}, False))
        command = ["make", "-s", "-k", "-j2", "-f", "rules", "all", f"PYTHON={tmp_path}/python"]
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "LAUNCH"))}
        return subprocess.run(command, cwd=tmp_path, env=clean | variables, capture_output=True, text=True)

    return make


def test_make_executes_the_rules_in_their_order(engine, tmp_path: Path) -> None:
    wanted = [runs.load("minilm", v) for v in ("random", "rte-s1")]
    done = engine(wanted)
    assert done.returncode == 0, done.stderr
    order = (tmp_path / "order").read_text().split()
    assert len(order) == len(set(order)) == 2 + 4 + 1
    assert order[-1] == "runs/figures/minilm/05_figures"
    for run in wanted:
        mine = [name.rpartition("/")[2] for name in order if f"/{run.variant.name}/" in name]
        assert mine.index("02_extract") < min(map(mine.index, {*mine} & {"03_probe_layers", "04_rank_neurons"}))


def test_before_a_step_stands_its_own_launcher_or_else_that_of_all(engine, tmp_path: Path) -> None:
    for name in ("cpu", "gpu"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "$1 {name} ${{11}}" >> launched\nshift\nexec "$@"\n')
        (tmp_path / name).chmod(0o755)
    launchers = {"LAUNCH": "./cpu *", "LAUNCH_01_finetune": "./gpu --gpus=1", "LAUNCH_05_figures": ""}
    done = engine([runs.load("minilm", "rte-s1")], **launchers)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "launched").read_text().splitlines()[0] == "--gpus=1 gpu 01_finetune"
    assert sorted((tmp_path / "launched").read_text().splitlines()[1:]) == [
        "* cpu 02_extract", "* cpu 03_probe_layers", "* cpu 04_rank_neurons",
    ]  # fmt: skip
    assert (tmp_path / "order").read_text().split()[-1] == "runs/figures/minilm/05_figures"


def test_a_result_counts_whatever_its_launcher_returns(engine, tmp_path: Path) -> None:
    (tmp_path / "odd").write_text('#!/bin/sh\n"$@"\nexit 7\n')
    (tmp_path / "odd").chmod(0o755)
    assert engine([runs.load("minilm", "rte-s1")], LAUNCH="./odd").returncode == 0
    assert engine([runs.load("minilm", "rte-s2")], LAUNCH="false").returncode != 0


def test_a_device_is_not_looked_for_here_where_a_launcher_takes_the_work_elsewhere(monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(grid.encoders, "check", lambda study, elsewhere: seen.append(elsewhere))
    monkeypatch.setattr(grid, "_got", lambda *_: [])
    monkeypatch.setattr(grid.corpora, "check", lambda study: None)
    for name, value in (("LAUNCH", ""), ("LAUNCH", "srun"), ("LAUNCH_02_extract", "srun"), ("LAUNCHER", "x")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            grid.fetch([runs.load("minilm", "pretrained")])
    assert seen == [False, True, True, False]


def test_a_job_that_ends_well_without_its_result_has_failed(engine, tmp_path: Path) -> None:
    done = engine([runs.load("minilm", "rte-s1")], LAUNCH_03_probe_layers="true")
    assert done.returncode != 0
    assert "FAILED: runs/minilm/rte-s1/03_probe_layers.ipynb is not there, although its job has ended" in done.stdout
    order = [name.rpartition("/")[2] for name in (tmp_path / "order").read_text().split()]
    assert order == ["01_finetune", "02_extract", "04_rank_neurons"]


def test_what_an_earlier_run_left_is_not_taken_for_what_is_to_do(monkeypatch, capsys) -> None:
    run = runs.load("minilm", "pretrained")
    keep(run, *STEPS)
    write_result(run, "neurons", key="of other parameters")
    monkeypatch.setattr(grid, "fetch", lambda wanted: None)
    given = {"wanted": [run], "suite": "minilm", "overrides": {}, "keep": False, "record": False}
    grid.print_rules(**given, dry=True)
    assert run.notebook("neurons").exists()
    grid.print_rules(**given, dry=False)
    assert [run.notebook(step).exists() for step in ("extract", "layers", "neurons")] == [False, True, False]
    assert ": runs/minilm/pretrained/02_extract.ipynb" in capsys.readouterr().out


def test_figures_of_other_runs_or_without_their_tables_are_drawn_again() -> None:
    both = [runs.load("minilm", v) for v in ("pretrained", "random")]
    folder = results.figures_folder("minilm")
    folder.mkdir(parents=True)
    for name in ("summary.csv", "claims.csv"):
        (folder / name).touch()
    (folder / "05_figures.ipynb").write_text(json.dumps({"metadata": {"lib": {"key": grid.figures_key(both)}}}))
    assert grid.figures_are_current(both, "minilm")
    assert not grid.figures_are_current(both[:1], "minilm")
    (folder / "claims.csv").unlink()
    assert not grid.figures_are_current(both, "minilm")


def test_figures_are_drawn_again_once_the_same_encoder_under_another_probe_is_there() -> None:
    run, other = (runs.load(name, "pretrained") for name in ("bert-mini-paper", "bert-mini"))
    alone = grid.figures_key([run])
    write_result(other, "layers")
    beside = grid.figures_key([run])
    write_result(other, "layers", key="of other parameters")
    assert len({alone, beside, grid.figures_key([run])}) == 3


def test_the_selectors_name_runs() -> None:
    found = grid.selected("mini", ["bert-mini"], ["sst2-1k", "rte"], [1, 2], {})
    assert [run.variant.name for run in found] == [
        "pretrained", "random", "sst2-1k-s1", "sst2-1k-s2", "rte-s1", "rte-s2",
    ]  # fmt: skip
    every = grid.selected("mini", [], [], [1], {})
    assert {run.study.name for run in every} == {"bert-mini", "roberta-mini", "xlnet-mini"}
    assert {run.variant.task for run in every} == {None, *loading.load("bert-mini").tasks}
    with pytest.raises(ParameterError, match="STUDIES=mpnet: not of the suite mini; add SCALE=mpnet"):
        grid.selected("mini", ["mpnet"], [], [1], {})
    with pytest.raises(ParameterError, match="no file in params/ has 'scale: minni'"):
        grid.selected("minni", [], [], [1], {})
    with pytest.raises(ParameterError, match="no task 'sentimant'; did you mean 'sentiment'"):
        grid.check(grid.selected("mini", [], ["sentimant"], [1], {}))


def test_what_is_named_twice_is_one() -> None:
    found = grid.selected("mini", ["bert-mini", "bert-mini"], ["sst2-1k", "sst2-1000", "sst2-1k"], [1, 1], {})
    assert [run.variant.name for run in found] == ["pretrained", "random", "sst2-1k-s1"]


@pytest.mark.parametrize(("suite", "seeds"), [("mini", {1}), ("paper", {1, 2, 3})])
def test_a_study_says_how_many_seeds_it_is_run_with_and_a_command_may_say_otherwise(suite: str, seeds: set) -> None:
    def of(wanted: list[Run]) -> set[int]:
        return {run.variant.seed for run in wanted if run.variant.task}

    assert of(grid.selected(suite, [], [], [], {})) == seeds
    assert of(grid.selected(suite, [], [], [4], {})) == {4}


@pytest.mark.parametrize(("variant", "told"), [
    ("own-droptop99-s1", "bert has 2 layers: 99 of them cannot be dropped, at most 1"),
    ("own-dropbottom2-s1", "bert has 2 layers: 2 of them cannot be dropped, at most 1"), ("own-dropbottom1-s1", None),
    ("own-at31-s1", "own-at31-s1: the training has 30 updates, none numbered 31"), ("own-at30-s1", None),
])  # fmt: skip
def test_more_layers_or_updates_than_there_are_are_refused_before_any_work(
    run_of, variant: str, told: str | None
) -> None:
    run = run_of(examples(40, 0), examples(8, 1), variant)
    grid.check([run])
    if told is None:
        grid.fetch([run])
    else:
        with pytest.raises(SourceError, match=told):
            grid.fetch([run])
    assert not run.model.parent.exists()


# One notebook run ------------------------------------------------------------------------------------------------

FAKE = """
import os, pathlib, sys, time
attempts = pathlib.Path("attempts")
with attempts.open("a") as stream:
    stream.write(" ".join([*sys.argv[1:], os.environ["IPYTHONDIR"]]) + "\\n")
print("input:", sys.stdin.read())
part = next(pathlib.Path(a) for a in sys.argv if a.endswith(".part.ipynb"))
part.write_text("started")
time.sleep(float(os.environ.get("WAIT", 0)))
if len(attempts.read_text().splitlines()) <= int(os.environ.get("FAILURES", 0)):
    sys.exit(os.environ["MESSAGE"])
part.write_text('{"cells": [], "metadata": {}}')
"""
"""In place of papermill: it fails FAILURES times with MESSAGE, else it takes WAIT seconds."""

TARGET = "runs/a study/pretrained/02_extract.ipynb"


@pytest.fixture
def step(tmp_path: Path) -> Callable[..., subprocess.Popen]:
    """``step(**variables)``: one notebook run in a folder of its own, on a fake papermill."""
    (tmp_path / "papermill").mkdir()
    (tmp_path / "papermill" / "__init__.py").touch()
    (tmp_path / "papermill" / "__main__.py").write_text(FAKE)
    script = (
        "import pathlib, sys; from lib import notebook; notebook.ROOT = pathlib.Path.cwd(); "
        f"sys.exit(not notebook.execute(notebook.ROOT / {TARGET!r}, {{}}, 'key', {time.time()}, 1))"
    )
    paths = f"{tmp_path}{os.pathsep}{ROOT}"
    return lambda **variables: subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, env=os.environ | {"PYTHONPATH": paths} | variables,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def attempts(tmp_path: Path) -> int:
    return len((tmp_path / "attempts").read_text().splitlines())


@pytest.mark.parametrize(
    ("failures", "message", "good", "times"),
    [
        ("1", "nbclient.exceptions.DeadKernelError: Kernel died", True, 2),
        ("1", "zmq.error.ZMQError: Address already in use (addr='tcp://127.0.0.1:50061')", True, 2),
        ("1", "RuntimeError: Kernel didn't respond in 60 seconds", True, 2),
        ("2", "nbclient.exceptions.DeadKernelError: Kernel died", False, 2),
        ("1", "OSError: the disk is full", False, 1),
    ],
)
def test_a_lost_kernel_is_started_once_more_and_nothing_else_is(
    step, tmp_path: Path, failures: str, message: str, good: bool, times: int
) -> None:
    run = step(FAILURES=failures, MESSAGE=message)
    output = run.communicate("", timeout=20)[0]
    assert (run.returncode == 0) == good, output
    assert attempts(tmp_path) == times
    assert (tmp_path / TARGET).exists() == good
    assert good or (message in output and "FAILED: " in output and "02_extract.log" in output)


def test_of_two_makes_of_one_notebook_the_second_waits_and_uses_what_the_first_made(step, tmp_path: Path) -> None:
    both = [step(WAIT="1"), step(WAIT="1")]
    output = [run.communicate("", timeout=20)[0] for run in both]
    assert [run.returncode for run in both] == [0, 0], output
    assert attempts(tmp_path) == 1
    assert sorted("made by another make" in text for text in output) == [False, True]
    assert notebook.key_of(tmp_path / TARGET) == "key"


def test_a_notebook_whose_make_was_killed_is_not_waited_for(step, tmp_path: Path) -> None:
    killed = step(WAIT="30")
    killed.stdin.close()
    while not (tmp_path / "attempts").exists():
        assert killed.poll() is None
        time.sleep(0.05)
    for process in psutil.Process(killed.pid).children(recursive=True):
        process.kill()
    killed.kill()
    killed.wait()
    run = step()
    run.communicate("", timeout=20)
    assert run.returncode == 0
    assert attempts(tmp_path) == 2


def test_a_step_gets_neither_standard_input_nor_the_users_ipython_and_leaves_no_other_file(step, tmp_path) -> None:
    run = step()
    output = run.communicate("what follows in the caller's loop", timeout=20)[0]
    assert run.returncode == 0, output
    folder = (tmp_path / TARGET).parent
    assert (folder / "02_extract.log").read_text().splitlines()[0] == "input: "
    assert (tmp_path / "attempts").read_text().endswith(f"{folder}/.02_extract.ipython\n")
    assert sorted(p.name for p in folder.iterdir()) == [".02_extract.lock", "02_extract.ipynb", "02_extract.log"]
