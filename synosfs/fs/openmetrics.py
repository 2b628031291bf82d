"""The text of OpenMetrics 1.0, which Prometheus reads: families of samples, each with its labels.

https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md. All samples of a family stand
together: a ``Family`` gathers its own text while others grow, and ``text`` puts them in a row. Labels are made once for
all the samples of a thing (``labels``). No type is used that the older text format lacks, so
readers of that take this too.
"""

import re
from collections.abc import Iterable
from math import inf

from synosfs.process.figures import Distribution
from synosfs.slices import Slices

_ESCAPED = {"\\": "\\\\", '"': '\\"', "\n": "\\n"}


def labels(**values: object) -> str:
    """Labels by name, as they stand between braces. Bytes that are no UTF-8 (``os.fsdecode``) show as escapes."""
    return ",".join(f'{name}="{_escaped(str(value))}"' for name, value in values.items())


def _escaped(value: str) -> str:
    valid = value.encode("utf-8", "backslashreplace").decode()
    return re.sub(r'[\\"\n]', lambda found: _ESCAPED[found[0]], valid)


class Family:
    """One family: its type is ``gauge``, ``counter``, ``histogram`` or ``summary``. The name ends with the ``unit``,
    where there is one.
    """

    def __init__(self, name: str, kind: str, told: str, unit: str = "") -> None:
        assert name.endswith(unit)
        self._name = name
        self._plain = name + "_total" * (kind == "counter")
        self.text = bytearray(f"# TYPE {name} {kind}\n".encode())
        if unit:
            self.text += f"# UNIT {name} {unit}\n".encode()
        self.text += f"# HELP {name} {_escaped(told)}\n".encode()

    def add(self, labels: str, value: float) -> None:
        """A sample."""
        self._add(self._plain, labels, value)

    def histogram(self, labels: str, found: Distribution, octaves: Iterable[int]) -> None:
        """Nanoseconds as seconds, in buckets that end just before these powers of two of a nanosecond: so counts are
        exact.
        """
        for octave in octaves:
            edge = ((1 << octave) - 1) / 1e9
            self._add(f"{self._name}_bucket", f'{labels},le="{edge!r}"', found.below(octave))
        self._add(f"{self._name}_bucket", f'{labels},le="+Inf"', found.count)
        self._sums(labels, found)

    def summary(self, labels: str, found: Distribution) -> None:
        """Percentiles, of nanoseconds as seconds."""
        known = found.summary()
        for share, seconds in ((0.5, known.p50), (0.9, known.p90), (0.99, known.p99), (1.0, known.most)):
            self._add(self._name, f'{labels},quantile="{share}"', seconds)
        self._sums(labels, found)

    def _sums(self, labels: str, found: Distribution) -> None:
        self._add(f"{self._name}_count", labels, found.count)
        self._add(f"{self._name}_sum", labels, found.total / 1e9)

    def _add(self, name: str, labels: str, value: float) -> None:
        shown = "+Inf" if value == inf else repr(value)
        self.text += (f"{name}{{{labels}}} {shown}\n" if labels else f"{name} {shown}\n").encode()


async def text(families: Iterable[Family], slices: Slices) -> bytearray:
    """The whole of an exposition. It may be long, so it grows family by family."""
    whole = bytearray()
    for family in families:
        whole += family.text
        await slices.pause()
    whole += b"# EOF\n"
    return whole
