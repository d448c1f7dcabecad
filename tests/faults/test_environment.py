"""`make env` with settings of pip's that lead it elsewhere; it fetches one small package."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import copy_repository, environment

pytestmark = pytest.mark.slow


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A copy whose lock is as short as can be: what builds the package itself."""
    folder = copy_repository(tmp_path / "copy", but="models")
    lock = folder / "requirements.lock"
    (builder,) = re.findall(r"^setuptools==.*$", lock.read_text(), re.MULTILINE)
    lock.write_text(f"{builder}\n")
    return folder


def build(folder: Path, **variables: str) -> subprocess.CompletedProcess:
    clean = {k: v for k, v in environment().items() if k != "PYTHON"} | variables
    done = subprocess.run(["make", "env"], cwd=folder, env=clean, capture_output=True, text=True)
    if "No matching distribution" in done.stdout:
        pytest.skip("setuptools cannot be fetched")
    return done


def test_what_pip_is_told_by_variables_is_not_followed_and_the_environment_is_built_once(
    small: Path, tmp_path: Path
) -> None:
    led = {"PIP_PYTHON": sys.executable, "PIP_TARGET": str(tmp_path / "target"), "PIP_DRY_RUN": "1", "PIP_USER": "1"}
    built = build(small, **led)
    assert built.returncode == 0, built.stdout + built.stderr
    assert [*small.glob(".venv/lib/*/site-packages/finetuning_and_grammar-*")]
    assert not (tmp_path / "target").exists()
    assert "building" not in build(small, **led).stdout


@pytest.mark.parametrize("line", ["target = {}", "python = {}/bin/python", "prefix = {}"])
def test_a_file_of_pips_that_leads_elsewhere_is_refused_by_its_setting(small: Path, tmp_path: Path, line: str) -> None:
    other = tmp_path / "other"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", other], check=True)
    before = sorted(other.rglob("*"))
    (tmp_path / "pip.conf").write_text("[global]\n" + line.format(other))
    refused = build(small, PIP_CONFIG_FILE=str(tmp_path / "pip.conf"))
    assert refused.returncode != 0
    assert f"pip is told to install elsewhere, by global.{line.split()[0]}='{other}" in refused.stdout
    assert not (small / ".venv" / "installed").exists()
    assert sorted(p for p in other.rglob("*") if "__pycache__" not in p.parts) == before


def test_a_package_that_is_not_there_after_all_is_named_and_the_environment_not_taken_as_built(small: Path) -> None:
    with (small / "requirements.lock").open("a") as lock:
        lock.write('no-such-package==1.0 ; python_version < "3"\n')  # which pip leaves out without a word
    refused = build(small)
    assert refused.returncode != 0
    assert "no-such-package missing (lock: 1.0)" in refused.stderr
    assert not (small / ".venv" / "installed").exists()
