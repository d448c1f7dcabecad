"""Variant: what was done to an encoder before it is probed. Its name is written and read here, and nowhere else."""

import re
from dataclasses import dataclass
from typing import Any, Literal

from lib.study.errors import ParameterError

SHARES = {"half": 0.5, "quarter": 0.25}

CONDITION = (
    r"(?P<task>[a-z0-9_]+)"
    r"(-drop(?P<dropped>top|bottom)(?P<layers>[1-9]\d*))?"
    r"(-lr(?P<rate>[1-9](\.\d+)?e-[1-9]))?"
    r"(-(?P<share>half|quarter)|-(?P<examples>[1-9]\d*)(?P<thousands>k)?)?"
    r"(-at(?P<checkpoint>[1-9]\d*))?"
)
"""A task, and what its training has that the study's own has not, in this order."""


def written(rate: float) -> str:
    """A learning rate as names and tables write it: 2e-4, 2.5e-5."""
    mantissa, _, exponent = f"{rate:.6e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


@dataclass(frozen=True)
class Variant:
    """``pretrained`` or ``random`` (the ``start``), or fine-tuned from the released weights.

    ``task`` : None if there was no fine-tuning. ``examples`` : how many it is trained on; None: all. ``share`` : of the
    updates. ``dropped`` : how many ``top`` or ``bottom`` layers are taken away before training; the embeddings stay.
    ``rate`` : the learning rate, as it is written; empty: the study's. ``checkpoint`` : the update at which the
    training is stopped, though its learning rate falls as if it went on; None: it is not. ``seed`` : None for a
    condition, which the runs of all seeds have in common.
    """

    start: Literal["pretrained", "random"] = "pretrained"
    task: str | None = None
    examples: int | None = None
    share: float = 1.0
    dropped: tuple[Literal["top", "bottom"], int] | None = None
    rate: str = ""
    checkpoint: int | None = None
    seed: int | None = None

    @classmethod
    def parse(cls, name: str, seed: int | None = None) -> "Variant":
        """The variant of this name: ``pretrained``, ``random``, or ``CONDITION-sSEED``, e.g. ``sst2-1k-s2``.

        ``seed`` : for a name without one. Raises ParameterError for any other name.
        """
        if name in ("pretrained", "random"):
            return cls(name)
        parts = re.fullmatch(rf"{CONDITION}-s(?P<seed>\d+)", name if seed is None else f"{name}-s{seed}")
        if not parts or int(parts["seed"]) >= 2**32 or parts["task"] in ("pretrained", "random"):
            raise ParameterError(
                f"'{name}' is no variant: write pretrained, random, or task-sSEED, as in rte-s1; between task and seed "
                "may stand, in this order, -droptop6 or -dropbottom6, -lr2e-5, -half, -quarter or -1k, -at100"
            )
        return cls(
            task=parts["task"],
            examples=int(parts["examples"]) * (1000 if parts["thousands"] else 1) if parts["examples"] else None,
            share=SHARES.get(parts["share"], 1.0),
            dropped=(parts["dropped"], int(parts["layers"])) if parts["dropped"] else None,
            rate=written(float(parts["rate"])) if parts["rate"] else "",
            checkpoint=int(parts["checkpoint"]) if parts["checkpoint"] else None,
            seed=int(parts["seed"]),
        )

    @property
    def amount(self) -> str:
        """What the name says of the amount of training: ``half``, ``quarter``, ``500``, ``1k``; empty if it is all."""
        if self.examples is None:
            return next((name for name, share in SHARES.items() if share == self.share), "")
        return str(self.examples) if self.examples % 1000 else f"{self.examples // 1000}k"

    @property
    def condition(self) -> str:
        """The name without the seed: ``pretrained``, ``random``, ``sst2``, ``sst2-1k``."""
        parts = [
            self.task or self.start,
            "drop{}{}".format(*self.dropped) if self.dropped else "",
            f"lr{self.rate}" if self.rate else "",
            self.amount,
            f"at{self.checkpoint}" if self.checkpoint else "",
        ]
        return "-".join(filter(None, parts))

    @property
    def name(self) -> str:
        return self.condition if self.seed is None else f"{self.condition}-s{self.seed}"

    def columns(self) -> dict[str, Any]:
        """What tables say of a variant, so that no table has to take its name apart. ``dropped`` : top, bottom or
        empty, and how many; ``checkpoint``, ``seed`` : -1 if there is none."""
        end, count = self.dropped or ("", 0)
        return {
            "variant": self.name, "condition": self.condition, "task": self.task or "", "amount": self.amount,
            "dropped": end, "layers_dropped": count, "rate": self.rate, "checkpoint": self.checkpoint or -1,
            "seed": -1 if self.seed is None else self.seed,
        }  # fmt: skip
