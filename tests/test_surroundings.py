"""What runs here takes nothing from the shell, or from a launcher, that it does not name."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lib import __main__, disk, doctor, grid, surroundings
from lib.study import loading, params, runs
from lib.study.steps import STEPS

ROOT = Path(__file__).parents[1]

HOSTILE = {
    "ACCELERATE_MIXED_PRECISION": "bf16", "FSDP_VERSION": "2", "WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1",
    "MASTER_ADDR": "nowhere", "PMI_SIZE": "4", "OMPI_COMM_WORLD_SIZE": "4", "MPI_LOCALNRANKS": "4",
    "ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "SSE2", "DNNL_DEFAULT_FPMATH_MODE": "BF16",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1", "TORCHDYNAMO_DISABLE": "1", "PYTORCH_JIT": "0",
    "OPENBLAS_NUM_THREADS": "4", "OMP_DYNAMIC": "true", "NPY_DISABLE_CPU_FEATURES": "AVX2",
    "PYTHONSTARTUP": "start.py", "PYTHONWARNINGS": "error", "PYTHONOPTIMIZE": "2", "PYTHONINSPECT": "1",
    "PYTHONHOME": "/nowhere", "JUPYTER_PATH": "/nowhere",
    "PYTEST_ADDOPTS": "--collect-only", "PIP_TARGET": "/nowhere", "PIP_PYTHON": "/nowhere/python",
}  # fmt: skip
AT_START = {"MPLBACKEND": "Agg", "RUNS": "/nowhere", "DATA": "/nowhere"}
HARMLESS = {
    "HOME": "/home/of/a user", "CUDA_VISIBLE_DEVICES": "1", "HF_HOME": "/hub", "HF_TOKEN": "secret",
    "SLURM_NTASKS": "4", "HTTPS_PROXY": "http://proxy", "SSL_CERT_FILE": "/certificates", "TMPDIR": "/tmp",
    "LD_LIBRARY_PATH": "/cuda", "OMP_NUM_THREADS": "3", "OPENBLAS_CORETYPE": "Haswell", "KMP_DUPLICATE_LIB_OK": "TRUE",
    "TRANSFORMERS_OFFLINE": "1", "TQDM_DISABLE": "1", "PYTHONPATH": "/here", "PYTHONUTF8": "1", "PYTHON": "python",
    "PIP_INDEX_URL": "http://mirror", "PIP_FIND_LINKS": "/wheels", "PYTORCH_CUDA_ALLOC_CONF": "x",
    "TORCH_HOME": "/torch", "RANKING": "none",
}  # fmt: skip


COMPUTING = surroundings.arithmetic("avx2")
"""What a step sets, so that processors of one maker compute alike; nothing on other machines than x86-64."""


# The list --------------------------------------------------------------------------------------------------------


def test_what_changes_results_is_removed_and_named_and_what_is_the_users_stays() -> None:
    environ = HOSTILE | AT_START | HARMLESS
    assert surroundings.clean(environ) == sorted(HOSTILE)
    assert environ == AT_START | HARMLESS
    assert surroundings.clean(environ) == []


def test_each_exception_of_the_list_is_one() -> None:
    words = [*surroundings.REMOVED, *surroundings.KEPT, *surroundings.REMOVED_AT_START]
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]*%?", word) for word in words)
    assert len(set(words)) == len(words)
    for name in surroundings.KEPT:
        environ = {f"{name}x": ""}
        assert surroundings.clean(environ), f"{name} would stay without being named"


def test_what_is_left_to_the_user_and_matters_stands_beside_the_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    table = runs.provenance()
    assert table["OPENBLAS_CORETYPE"] == "Haswell"
    assert table["instructions"]
    assert "CUDA_VISIBLE_DEVICES" not in table
    assert surroundings.remaining(HARMLESS | HOSTILE).keys() == {
        "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "OPENBLAS_CORETYPE", "KMP_DUPLICATE_LIB_OK",
    }  # fmt: skip


# Where it is cleaned ---------------------------------------------------------------------------------------------

SHOW = "import json, os; print(json.dumps(dict(os.environ)))"


def shell() -> dict[str, str]:
    """The environment of a plain shell."""
    return {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")}


def python(*arguments: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=shell() | variables, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_a_step_begins_in_a_clean_environment_and_says_what_was_removed(tmp_path: Path) -> None:
    start = tmp_path / "start.py"
    start.write_text("print('started')")
    hostile = HOSTILE | AT_START | {"OMP_NUM_THREADS": "8", "PYTHONPATH": "/nowhere", "PYTHONSTARTUP": str(start)}
    said, seen = python("-I", "lib/surroundings.py", "IPYTHONDIR=/a b", "-c", SHOW, **hostile, PYTHONUTF8="1").split(
        "\n"
    )[:2]
    assert said == f"not used here, although set: {' '.join(sorted(HOSTILE | AT_START))}"
    found = json.loads(seen)
    assert not {*HOSTILE, *AT_START} & ({*found} - {*COMPUTING})
    assert found | surroundings.SET | COMPUTING == found
    assert (found["PYTHONPATH"], found["IPYTHONDIR"], found["PYTHONUTF8"]) == (str(ROOT), "/a b", "1")


def test_in_a_plain_shell_a_step_has_nothing_to_say() -> None:
    assert python("-I", "lib/surroundings.py", "-c", "print('alone')") == "alone\n"


def test_importing_the_library_cleans_too_but_for_what_a_kernel_and_tests_set() -> None:
    hostile = {k: v for k, v in HOSTILE.items() if not k.startswith("PYTHON")}
    found = json.loads(python("-c", f"import lib; {SHOW}", **hostile, **AT_START))
    assert not {*hostile} & ({*found} - {*COMPUTING})
    assert found | AT_START | COMPUTING == found


def test_importing_the_library_after_torch_is_too_late_to_choose_how_is_computed() -> None:
    show = "from lib import surroundings as s; import os; print(s.isa(), os.environ.get('MKL_CBWR'))"
    late = "avx2 None" if not COMPUTING else "native None"
    assert python("-c", f"import torch; {show}").split("\n")[0] == late
    assert python("-c", f"import torch; {show}", **COMPUTING).split("\n")[0] == f"avx2 {COMPUTING.get('MKL_CBWR')}"


def test_how_is_computed_is_a_selector_of_make_and_of_a_step_and_nothing_else_decides_it() -> None:
    for words, isa in (([], "avx2"), (["ISA=native"], "native"), (["EXACT=1"], "compatible")):
        found = json.loads(make(ROOT, "-s", "-f", "-", "show", PYTHON, *words, given=EXPORTED, MKL_CBWR="SSE2").stdout)
        wanted = surroundings.arithmetic(isa)
        assert found["ISA"] == isa
        assert {name: found.get(name) for name in COMPUTING} == {name: wanted.get(name) for name in COMPUTING}
        step = json.loads(python("-I", "lib/surroundings.py", f"ISA={isa}", "-c", SHOW, ISA="other").split("\n")[-2])
        assert step | wanted | {"ISA": isa} == step
    assert "write one of avx2 compatible native" in make(ROOT, "help", "ISA=avx512").stderr
    with pytest.raises(ValueError, match="write one of avx2, compatible, native"):
        surroundings.arithmetic("avx512")


def test_a_result_of_another_arithmetic_has_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs.load("bert-mini", "sentiment-s1")
    keys = {run.key(step) for step in STEPS}
    monkeypatch.setenv("ISA", "native")
    keys |= {run.key(step) for step in STEPS}
    monkeypatch.delenv("ISA")
    keys |= {runs.load("bert-mini", "sentiment-s1", "full", {"threads": 2}).key(step) for step in STEPS}
    assert len(keys) == 3 * len(STEPS)


def make(folder: Path, *words: str, given: str | None = None, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["make", *words], cwd=folder, env=shell() | variables, capture_output=True, text=True, input=given
    )


PYTHON = f"PYTHON={sys.executable}"
EXPORTED = f"include Makefile\nshow: ; @{sys.executable} -I -c '{SHOW}'\n"


def test_make_removes_what_a_step_removes() -> None:
    done = make(ROOT, "-s", "-f", "-", "show", PYTHON, given=EXPORTED, **HOSTILE, **AT_START, **HARMLESS)
    found = json.loads(done.stdout)
    own = {"PYTHONPATH": str(ROOT), "PYTHON": sys.executable, "IPYTHONDIR": f"{ROOT}/runs/.ipython"}
    assert not {*HOSTILE, *AT_START} & ({*found} - {*COMPUTING})
    assert found | HARMLESS | surroundings.SET | COMPUTING | own == found


def test_make_says_what_it_does_not_use_and_what_it_takes_from_the_shell() -> None:
    said = make(ROOT, "-n", "pretrain", PYTHON, WORLD_SIZE="2", RUNS="runs", SIZE="lesson", SEEDS="1 2").stdout
    assert "not used here, although set: RUNS WORLD_SIZE\n" in said
    assert 'taken from the shell: SEEDS="1 2" SIZE="lesson"\n' in said
    quiet = make(ROOT, "-n", "pretrain", PYTHON, "SIZE=lesson").stdout
    assert "not used" not in quiet and "taken from" not in quiet


def test_a_python_named_in_the_shell_alone_is_not_taken_and_one_given_to_make_is() -> None:
    show = EXPORTED.replace(sys.executable + " -I", "printf '%s\\n' \"$$PYTHON\"; true")
    from_shell = make(ROOT, "-s", "-f", "-", "show", given=show, PYTHON="/somebodys/python").stdout
    assert from_shell.splitlines() == [
        "PYTHON=/somebodys/python of the shell is not used here; if it is meant: make ... PYTHON=/somebodys/python",
        ".venv/bin/python",
    ]
    assert make(ROOT, "-s", "-f", "-", "show", "PYTHON=python3", given=show).stdout == "python3\n"


# The interpreter and its packages --------------------------------------------------------------------------------


def test_a_python_that_lacks_packages_is_named_with_what_it_lacks(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    (tmp_path / "requirements.lock").write_text("no-such-package==1.0\nnumpy==0.1\n")
    with pytest.raises(SystemExit) as refused:
        doctor.demand()
    told = str(refused.value)
    assert "\n" not in told
    for part in (
        sys.executable,
        "no-such-package missing (lock: 1.0)",
        "(lock: 0.1)",
        "pip install -r requirements.lock",
    ):
        assert part in told
    (tmp_path / "requirements.lock").write_text("")
    doctor.demand()


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """What Make needs of the repository, in a folder of its own."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "params").mkdir()
    for name in (
        "Makefile",
        "requirements.lock",
        "pyproject.toml",
        "lib/surroundings.mk",
        "params/base.yaml",
    ):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_the_environment_is_built_once_whatever_the_dates_and_again_if_the_lock_changed(bare: Path) -> None:
    lock, python = bare / "requirements.lock", bare / ".venv" / "bin" / "python"

    def builds() -> bool:
        return "building .venv" in make(bare, "-n", "env").stdout

    assert builds()
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    assert builds()
    (bare / ".venv" / "installed").write_text(lock.read_text() + (bare / "pyproject.toml").read_text())
    assert not builds()
    os.utime(lock, (2**32, 2**32))
    assert not builds()
    lock.write_text(lock.read_text() + "one-more==1.0\n")
    os.utime(lock, (1, 1))
    assert builds()


def test_before_there_is_an_environment_make_lists_its_targets_and_says_what_it_would_build(bare: Path) -> None:
    assert "reproduce" in make(bare, "help").stdout
    said = make(bare, "-n", "reproduce")
    assert said.returncode == 0 and "building .venv" in said.stdout and "-m lib" in said.stdout


def test_a_colon_in_the_path_is_refused_by_name(bare: Path, tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    shutil.copy(ROOT / "Makefile", tmp_path / "a:b")
    refused = make(tmp_path / "a:b", "help")
    assert refused.returncode != 0
    assert "has a colon" in refused.stderr and refused.stderr.count("\n") == 1


# Make's reading of the parameters --------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ``params/`` of the test's own."""
    monkeypatch.setattr(params, "ROOT", tmp_path)
    (tmp_path / "params").mkdir()
    return tmp_path / "params"


@pytest.mark.parametrize(
    "content",
    [
        b"scale: mine\ntasks: [rte, sst2-1k]\n", b"scale: mine\r\ntasks: [rte, sst2-1k]\r\n",
        b"\xef\xbb\xbfscale: mine\ntasks: [rte, sst2-1k]\n", "scale: mine\ntasks: [rte, sst2-1k]\n".encode("utf-16"),
        b"scale:   'mine'   # so\ntasks:   # both\n  - \"rte\"\n  - sst2-1k\n",
        b"{tasks: [rte,\n  sst2-1k], scale: mine}\n",
    ],
    ids=["plain", "windows", "mark", "utf16", "several lines", "braces"],
)  # fmt: skip
def test_a_parameter_file_is_found_as_yaml_reads_it(folder: Path, content: bytes) -> None:
    (folder / "größe.v2.yaml").write_bytes(content)
    (folder / "other.yaml").write_text("scale: others\ntasks: [cola]\n")
    (folder / "._größe.v2.yaml").write_bytes(b"\x00\x05\x16\x07")
    assert loading.studies() == {"größe.v2": "mine", "other": "others"}


def test_a_file_that_is_not_yaml_keeps_its_scale_so_that_its_error_is_told(folder: Path) -> None:
    (folder / "broken.yaml").write_text("scale: mine\ntitle: a: b\n")
    assert loading.studies() == {"broken": "mine"}
    (folder / "broken.yaml").write_text("[")
    (folder / "list.yaml").write_text("- scale: mine\n")
    assert not [*loading.problems("None")]
    assert [*loading.studies()] == ["broken", "list"]


@pytest.mark.parametrize(
    ("name", "fit"), [("my study.yaml", "my-study"), ("mine.yml", "mine"), ("mine.YAML", "mine"), ("a#1.yaml", "a-1")]
)
def test_a_name_that_make_cannot_take_is_refused_with_one_that_it_can(folder: Path, name: str, fit: str) -> None:
    (folder / name).write_text("scale: mine\n")
    (folder / "good.yaml").write_text("scale: others\n")
    assert [*loading.problems("mine")] == [f"params/{name} is no name for a study: rename it to params/{fit}.yaml"]
    assert not [*loading.problems("others")]
    assert [*loading.problems("neither")] == ["no file in params/ has 'scale: neither'; did you mean 'others'?"]


# Several users ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mask", "mode"), [(0o002, 0o664), (0o022, 0o644), (0o077, 0o600)])
def test_files_get_the_rights_that_the_umask_leaves_whatever_a_library_gave_them(tmp_path: Path, mask, mode) -> None:
    before = os.umask(mask)
    try:
        with disk.atomic_write(tmp_path / "model") as part:
            part.mkdir()
            (part / "model.safetensors").write_bytes(b"")
            (part / "model.safetensors").chmod(0o600)
            disk.write_manifest(part, {})
        with disk.atomic_write(tmp_path / "table") as part:
            part.touch(0o600)
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(files) == 3
    assert {p.stat().st_mode & 0o777 for p in files} == {mode}


@pytest.mark.parametrize("read", [disk.file_digest, disk.read_json, disk.read_manifest])
def test_a_result_of_another_user_that_cannot_be_read_is_named_with_its_owner(
    tmp_path: Path, monkeypatch, read
) -> None:
    file = tmp_path / disk.MANIFEST
    file.write_text("{}")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(file))

    for name in ("read_text", "read_bytes", "open", "is_file"):
        monkeypatch.setattr(Path, name, refuse)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(PermissionError, match=rf"^{file} belongs to another user \(.+\), .* ask for 'chmod"):
        read(tmp_path if read is disk.read_manifest else file)
    monkeypatch.setattr(os, "geteuid", lambda: owner)
    with pytest.raises(PermissionError, match=rf"^{file} cannot be read or written: give yourself"):
        read(tmp_path if read is disk.read_manifest else file)


def test_a_file_that_cannot_be_made_is_refused_by_its_folder(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match=rf"^{tmp_path} cannot"), disk.lock(tmp_path / "result"):
        raise PermissionError(13, "Permission denied", str(tmp_path / "not" / "there"))
    with pytest.raises(PermissionError, match="no file's"), disk.lock(tmp_path / "result"):
        raise PermissionError("no file's")


# Launchers -------------------------------------------------------------------------------------------------------


def test_each_step_can_have_a_launcher_and_a_misspelt_one_is_refused() -> None:
    steps = [f"LAUNCH_{name}" for name in (*(step.notebook for step in STEPS.values()), grid.FIGURES)]
    show = "include Makefile\nlaunchers:\n\t@echo $(OF_STEPS)\n"
    assert make(ROOT, "-s", "-f", "-", "launchers", given=show).stdout.split() == steps
    refused = make(ROOT, "help", "LAUNCH_finetune=srun")
    assert refused.returncode != 0
    assert "LAUNCH_finetune: there is no such step; write LAUNCH for all steps, or for one of them" in refused.stderr
    assert " ".join(steps) in refused.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["SEED=3"], "SEED: there is no such selector; there are SCALE STUDIES TASKS"),
        (["EXACT=0"], "EXACT=0: write EXACT=1, or leave it out"),
        (["KEEP=yes"], "KEEP=yes: write KEEP=1, or leave it out"),
        (["EXACT=1", "ISA=native"], "EXACT=1 and ISA=native: digits cannot be both"),
        (["HF_HUB_OFFLINE=1", "SEEDS=3", "EXACT=1"], ""),
    ],
)
def test_a_selector_that_would_be_ignored_is_refused(words: list[str], told: str) -> None:
    done = make(ROOT, "help", *words)
    assert (done.returncode != 0) == bool(told)
    assert told in done.stderr


@pytest.mark.parametrize(
    ("option", "told"), [("--seeds=1 b", "'b' is no whole number from 0 on"), ("--threads=-1", "from 1 on")]
)
def test_a_number_that_is_none_is_named_in_one_line(option: str, told: str, capsys) -> None:
    with pytest.raises(SystemExit):
        __main__.arguments().parse_args([option, "plan"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(option.partition("=")[0]) and line.endswith(told)


def test_launchers_of_the_shell_are_named_and_those_of_other_programs_left_alone() -> None:
    show = "include Makefile\nsaid:\n\t$(tell_surroundings)\n\t@env | grep ^LAUNCH_\n"
    shell = {"LAUNCH_02_extract": "srun -n1", "LAUNCH_EDITOR": "vi", "LAUNCH_05_figures": ""}
    said = make(ROOT, "-s", "-f", "-", "said", "LAUNCH_01_finetune=a b", given=show, **shell)
    assert said.returncode == 0, said.stderr
    first, second, *found = said.stdout.splitlines()
    assert first == "not used here, although set: LAUNCH_EDITOR"
    assert second == 'taken from the shell: LAUNCH_02_extract="srun -n1" LAUNCH_05_figures=""'
    assert sorted(found) == ["LAUNCH_01_finetune=a b", "LAUNCH_02_extract=srun -n1", "LAUNCH_05_figures="]
