"""Variant: what was done to an encoder before it is probed. Its name is written and read here, and nowhere else."""

import re
from dataclasses import dataclass
from typing import Any, Literal

from lib.study.params import ParameterError

SHARES = {"half": 0.5, "quarter": 0.25}

CONDITION = r"(?P<task>[a-z0-9_]+)(-(?P<share>half|quarter)|-(?P<examples>[1-9]\d*)(?P<thousands>k)?)?"


@dataclass(frozen=True)
class Variant:
    """``pretrained`` or ``random`` (the ``start``), or fine-tuned from the released weights.

    ``task`` : None if there was no fine-tuning. ``examples`` : how many it is trained on; None: all. ``share`` : of the
    updates. ``seed`` : None for a condition, which the runs of all seeds have in common.
    """

    start: Literal["pretrained", "random"] = "pretrained"
    task: str | None = None
    examples: int | None = None
    share: float = 1.0
    seed: int | None = None

    @classmethod
    def parse(cls, name: str, seed: int | None = None) -> "Variant":
        """The variant of this name: ``pretrained``, ``random``, or ``task[-amount]-sSEED``, e.g. ``sst2-1k-s2``.

        ``seed`` : for a name without one. Raises ParameterError for any other name.
        """
        if name in ("pretrained", "random"):
            return cls(name)
        parts = re.fullmatch(rf"{CONDITION}-s(?P<seed>\d+)", name if seed is None else f"{name}-s{seed}")
        if not parts or int(parts["seed"]) >= 2**32:
            raise ParameterError(
                f"'{name}' is no variant: write pretrained, random, or task[-amount]-sSEED, as in rte-s1, sst2-1k-s2"
            )
        examples = int(parts["examples"]) * (1000 if parts["thousands"] else 1) if parts["examples"] else None
        return cls("pretrained", parts["task"], examples, SHARES.get(parts["share"], 1.0), int(parts["seed"]))

    @property
    def amount(self) -> str:
        """What the name says of the amount of training: ``half``, ``quarter``, ``500``, ``1k``; empty if it is all."""
        if self.examples is None:
            return next((name for name, share in SHARES.items() if share == self.share), "")
        return str(self.examples) if self.examples % 1000 else f"{self.examples // 1000}k"

    @property
    def condition(self) -> str:
        """The name without the seed: ``pretrained``, ``random``, ``sst2``, ``sst2-1k``."""
        return "-".join(filter(None, [self.task or self.start, self.amount]))

    @property
    def name(self) -> str:
        return self.condition if self.seed is None else f"{self.condition}-s{self.seed}"

    def columns(self) -> dict[str, Any]:
        """What tables say of a variant, so that no table has to take its name apart."""
        return {"variant": self.name, "condition": self.condition, "task": self.task or "", "amount": self.amount,
                "seed": -1 if self.seed is None else self.seed}  # fmt: skip
