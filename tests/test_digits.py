"""The same digits: what is kept for a maker's processors, what verify says of it, and a short case under emulation."""

import json
import re

import pytest
import yaml
from conftest import emulated, examples, native

from lib import disk, finetune, neurons, probes, results
from lib.results import digits
from lib.study import inputs, params, runs
from lib.study.steps import STEPS

# Emulated processors -----------------------------------------------------------------------------------------------


def test_processors_compute_the_same_digits_where_they_are_promised_and_only_there(sibling: str, stranger: str) -> None:
    command = "tests/exact/products.py"
    here, exact = (json.loads(native(isa, command)) for isa in ("avx2", "compatible"))
    assert here == json.loads(emulated(sibling, "avx2", command))
    assert exact == json.loads(emulated(stranger, "compatible", command))
    there = json.loads(emulated(stranger, "avx2", command))
    assert there["products"] != here["products"] and there["norms"] == here["norms"]


def test_nothing_that_is_trained_or_ranked_takes_a_root_that_depends_on_the_processor() -> None:
    modules = {module for step in STEPS.values() for module in step.code}
    root = re.compile(r"(?<!np)\.(sqrt_?|pow_?)\(|\*\* *(0?\.5)|np\.(exp|log)\(")
    assert not {name for name in modules if root.search((inputs.LIB / f"{name}.py").read_text(encoding="utf-8"))}
    assert root.search("x.sqrt()") and root.search("x ** 0.5") and not root.search("np.sqrt(x)")


# What is kept --------------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Digests that runs have, in a repository in which none are kept."""
    found = {"s: sentiment-s1: finetune": "a", "s: sentiment-s1: layers": "b", "s: pretrained: layers": "c"}
    monkeypatch.setattr(digits.params, "ROOT", tmp_path)
    monkeypatch.setattr(digits, "of_runs", lambda wanted: dict(found))
    monkeypatch.setattr(digits, "_computed_by", lambda wanted: wanted)
    (tmp_path / "expected").mkdir()
    return found


def wanted(**other: object) -> list:
    """A run, as the facts of what computed it."""
    return [{"machine": "x86_64, 2 cores", "device": "cpu", "threads": 1, "maker": "AuthenticAMD"} | other]


def test_equal_digits_are_said_to_be_equal_and_others_are_named_by_the_first(kept: dict) -> None:
    here = wanted()
    assert digits.compare(here) == (
        "digits: none are kept for AuthenticAMD processors in digits.yaml; the comparisons above count",
        False,
    )
    digits.keep(here)
    assert digits.compare(here) == (
        "digits: all 3 results are equal to the last digit to those kept for AuthenticAMD",
        True,
    )
    kept["s: sentiment-s1: layers"] = kept["s: pretrained: layers"] = "other"
    says, equal = digits.compare(here)
    assert not equal and "1 of 3 results" in says and says.endswith("the first that differs is s: sentiment-s1: layers")
    here = wanted(maker="GenuineIntel")
    assert "none are kept for GenuineIntel" in digits.compare(here)[0]
    digits.keep(here)
    kept |= {"s: shuffled-s1: layers": "d"}
    assert "all 3 results are equal" in digits.compare(here)[0] and digits.compare(here)[0].endswith(
        "1 more are not kept"
    )
    file = yaml.safe_load((params.ROOT / "expected" / "digits.yaml").read_text())
    assert [*file] == ["AuthenticAMD", "GenuineIntel"]


def test_under_exact_all_makers_have_one_set_of_digits(kept: dict, monkeypatch) -> None:
    monkeypatch.setenv("ISA", "compatible")
    digits.keep(wanted())
    assert digits.compare(wanted(maker="GenuineIntel"))[1]
    assert not (params.ROOT / "expected" / "digits.yaml").exists()


@pytest.mark.parametrize("how", ["isa", "threads", "device", "machine", "makers"])
def test_where_no_digits_are_promised_none_are_kept_or_compared(kept: dict, monkeypatch, how: str) -> None:
    other = {"threads": {"threads": 2}, "device": {"device": "NVIDIA H200"}, "machine": {"machine": "aarch64, 4 cores"}}
    here = wanted(**other.get(how, {})) + (wanted(maker="GenuineIntel") if how == "makers" else [])
    if how == "isa":
        monkeypatch.setenv("ISA", "native")
    says, equal = digits.compare(here)
    assert says.startswith("digits: none are promised") and not equal
    with pytest.raises(params.ParameterError, match="digits are promised, and kept"):
        digits.keep(here)


def test_a_digest_is_of_weights_tables_and_orders(run_of) -> None:
    run = run_of(examples(40, 0), examples(20, 1), finetune__epochs=1.0)
    finetune.ensure(run), probes.ensure_layer_counts(run), neurons.ensure_tests(run)
    assert {(by["device"], by["maker"]) for by in digits._computed_by([run])} == {("cpu", runs.maker())}
    assert results.devices([run]) == "float32 on cpu" and results.computed_by([run])["steps"].tolist() == [3]
    before = digits.of_runs([run])
    assert {*before} == {f"minilm: own-s1: {step}" for step in ("finetune", "layers", "neurons")}
    assert len({*before.values()}) == 3
    for step, name in (("finetune", "model.safetensors"), ("layers", "counts.parquet"), ("neurons", "sets.parquet")):
        folder = run.result(step)
        with (folder / name).open("ab") as stream:
            stream.write(b"more")
        facts = disk.read_json(folder / disk.MANIFEST)
        disk.remove(folder / disk.MANIFEST)
        disk.write_manifest(folder, {n: fact for n, fact in facts.items() if n not in ("files", "sha256")})
    assert not {*digits.of_runs([run]).values()} & {*before.values()}
