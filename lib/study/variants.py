"""Variant: what was done to an encoder before it is probed."""

import re
from dataclasses import dataclass

from lib.study.errors import ParameterError


@dataclass(frozen=True)
class Variant:
    """``pretrained``, ``random``, or a fine-tuned one named ``task[-size]-sSEED``, e.g. ``sst2-1k-s2``.

    ``size`` is ``half`` or ``quarter`` of the updates, or a number of training examples (``500``, ``1k``).
    """

    name: str
    task: str | None = None
    amount: str | None = None
    seed: int | None = None

    @classmethod
    def parse(cls, name: str) -> "Variant":
        if name in ("pretrained", "random"):
            return cls(name)
        found = re.fullmatch(r"([a-z0-9_]+)(?:-(half|quarter|\d+k?))?-s(\d+)", name)
        if not found or int(found[3]) >= 2**32 or re.fullmatch("0+k?", found[2] or ""):
            raise ParameterError(
                f"'{name}' is no variant: write pretrained, random, or task[-size]-sSEED, e.g. sentiment-s1, rte-1k-s2"
            )
        return cls(name, found[1], found[2], int(found[3]))

    @property
    def examples(self) -> int | None:
        """Training examples that the name asks for, if any."""
        if self.amount in (None, "half", "quarter"):
            return None
        return int(self.amount.rstrip("k")) * (1000 if self.amount.endswith("k") else 1)

    @property
    def share(self) -> float:
        """Share of the updates that the name asks for."""
        return {"half": 0.5, "quarter": 0.25}.get(self.amount or "", 1.0)
