"""What is raised for a parameter that cannot be used, and how names and values are told in it."""

import difflib
import reprlib
from typing import Any


class ParameterError(ValueError):
    """A parameter file or an override that cannot be used; the message says what, where and what to do."""


def nearest(name: str, known: Any) -> str:
    """``; did you mean '…'?`` with the nearest known name, or nothing."""
    close = difflib.get_close_matches(str(name), [str(k) for k in known], n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def shown(value: Any) -> str:
    """A value as Python writes it, cut where it is long: a few aliases of YAML can stand for billions of words."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 200
    try:
        return short.repr(value)[:1000]
    except ValueError:  # Python refuses to write out an integer of thousands of digits
        return "a huge number"
