"""CITATION.cff keeps to the format, version 1.2.0, that those read who offer to cite a repository."""

import datetime

import yaml

from lib.study.params import ROOT

REQUIRED = {"cff-version", "message", "title", "authors"}

ALLOWED = REQUIRED | {
    "abstract", "commit", "contact", "date-released", "doi", "identifiers", "keywords", "license", "license-url",
    "preferred-citation", "references", "repository", "repository-artifact", "repository-code", "type", "url",
    "version",
}  # fmt: skip

REFERENCE = {
    "type", "title", "authors", "collection-title", "conference", "year", "start", "end", "doi", "url", "identifiers",
    "pages", "publisher", "month", "volume", "issue", "journal", "editors",
}  # fmt: skip
"""Of the many fields of a reference those that a paper has."""

PERSON = {"given-names", "family-names", "name-particle", "name-suffix", "alias", "affiliation", "email", "orcid"}
ENTITY = {"name", "website", "email", "alias", "orcid", "address", "city", "country"}


def authors_fit(authors: list[dict]) -> bool:
    return bool(authors) and all(author and (set(author) <= PERSON or set(author) <= ENTITY) for author in authors)


def test_the_citation_file_is_valid() -> None:
    """Its fields are those of the schema, of the types that it asks for."""
    file = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert set(file) >= REQUIRED and set(file) <= ALLOWED
    assert file["cff-version"] == "1.2.0" and file["type"] in ("software", "dataset")
    assert isinstance(file["date-released"], datetime.date) and authors_fit(file["authors"])
    paper = file["preferred-citation"]
    assert {"type", "title", "authors"} <= set(paper) <= REFERENCE and authors_fit(paper["authors"])
    assert paper["type"] in ("article", "conference-paper", "proceedings") and isinstance(paper["year"], int)
    for identifier in paper.get("identifiers", []):
        assert set(identifier) <= {"type", "value", "description"}
        assert identifier["type"] in ("doi", "url", "swh", "other")


def test_the_citation_names_the_paper() -> None:
    """Authors, year and pages are those of the paper that is reproduced."""
    paper = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["preferred-citation"]
    assert [author["family-names"] for author in paper["authors"]] == ["Durrani", "Sajjad", "Dalvi"]
    assert (paper["year"], paper["start"], paper["end"]) == (2021, 4947, 4957)
