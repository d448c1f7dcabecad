"""The same digits on other processors, as README promises them: small studies here and under emulated processors.

An emulator stands in for processors that are not at hand. It takes forty minutes; ``tests/test_digits.py`` has a
short case.
"""

import json
from functools import partial

import pytest
from conftest import emulated, native

STUDIES = ("bert-mini", "roberta-mini", "xlnet-mini")


@pytest.fixture(scope="module")
def digests(tmp_path_factory: pytest.TempPathFactory):
    """The digests of a study's steps under an ``ISA``, on a processor (None: the one at hand), computed once."""
    known: dict[tuple, dict[str, str]] = {}

    def of(study: str, isa: str, processor: str | None = None) -> dict[str, str]:
        if (study, isa, processor) not in known:
            command, runs = ["tests/exact/small_study.py", study], str(tmp_path_factory.mktemp("runs"))
            start = partial(emulated, processor) if processor else native
            known[study, isa, processor] = json.loads(start(isa, *command, RUNS=runs).splitlines()[-1])
        return known[study, isa, processor]

    return of


@pytest.mark.parametrize("study", STUDIES)
def test_processors_of_one_maker_compute_the_same_digits(digests, study: str, sibling: str) -> None:
    assert digests(study, "avx2") == digests(study, "avx2", sibling)


@pytest.mark.parametrize("study", STUDIES)
def test_all_processors_compute_the_same_digits_under_exact(digests, study: str, sibling: str, stranger: str) -> None:
    here = digests(study, "compatible")
    assert here == digests(study, "compatible", sibling) == digests(study, "compatible", stranger)


def test_where_equal_digits_are_not_promised_they_differ(digests, stranger: str) -> None:
    study = STUDIES[0]
    here, there = digests(study, "avx2"), digests(study, "avx2", stranger)
    assert {step for step in here if here[step] != there[step]} >= {f"{study}: finetune", f"{study}: neurons"}
    assert digests(study, "compatible") != here
