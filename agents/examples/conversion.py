"""Quantities in other units, and the quantity that a follow-up ("and in kilometres?") is about."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from math import floor

from monai_node.agents import Context
from monai_node.agents.examples import values
from monai_node.agents.examples.quantities import quantities_in
from monai_node.agents.examples.units import MONTHS, TIME, Unit, find_unit
from monai_node.agents.examples.values import Refusal, Value, is_short, written

_DAYS = 365
_NOTE = f"(counting {_DAYS} days to a year)"
_RESULT = re.compile(r"[=≈][^=≈\n]*\Z")  # "5 miles = 8.04672 kilometres", as this agent writes it


def in_unit(value: Value, unit: Unit) -> Value:
    """The quantity in `unit`. Years become days at 365 to a year, and say so; months do not."""
    found = {value.unit.dimension if value.unit else None, unit.dimension}
    if found != {MONTHS, TIME} or value.unit is None:
        return values.converted(value, unit)
    year, day = find_unit("year"), find_unit("day")
    assert year is not None
    assert day is not None
    calendar = unit if unit.dimension == MONTHS else value.unit
    if (calendar.factor / year.factor).denominator != 1:
        raise Refusal("A month has 28 to 31 days, so that depends on which month it is.")
    if unit.dimension == TIME:
        days = Value(values.converted(value, year).magnitude * _DAYS, day, value.is_exact)
        result = values.converted(days, unit)
    else:
        years = Value(values.converted(value, day).magnitude / _DAYS, year, value.is_exact)
        result = values.converted(years, unit)
    return replace(result, unit=replace(unit, one=f"{unit.one} {_NOTE}", many=f"{unit.many} {_NOTE}"))


def in_two_units(value: Value, first: Unit, second: Unit) -> tuple[str, bool] | None:
    """“5 feet 10.5 inches” and whether that is exact; None unless `second` is the finer unit."""
    if first.dimension != second.dimension or second.factor >= first.factor or first.offset:
        return None
    amount = values.converted(value, first)
    whole = floor(abs(amount.magnitude))
    rest = Value(abs(amount.magnitude) - whole, first, value.is_exact)
    finer = values.converted(rest, second)
    sign = "-" if amount.magnitude < 0 else ""
    text = f"{sign}{written(Value(Fraction(whole), first))} {written(finer)}"
    return text, is_short(finer)


@dataclass(frozen=True, slots=True)
class Earlier:
    """What was said before a task, nearest first: artifacts, the last answer, its question."""

    texts: tuple[str, ...]

    @classmethod
    def of(cls, ctx: Context) -> Earlier:
        texts = [artifact.text for artifact in reversed(ctx.artifacts)]
        for role in ("assistant", "user"):
            texts += [turn.content for turn in reversed(ctx.turns) if turn.role == role][:1]
        return cls(tuple(texts))

    def value(self, target: Unit | None = None) -> Value | None:
        """The last quantity of the nearest text that has one, rather one that `target` fits."""
        for text in self.texts:
            found = quantities_in(text)
            with_unit = [value for value in found if value.unit is not None]
            fitting = [v for v in with_unit if v.unit and target and _fits(v.unit, target)]
            best = fitting or (with_unit if target else []) or found
            if best:
                return best[-1]
        return None

    @property
    def is_clear(self) -> bool:
        """Whether the nearest text with numbers has only one, or ends like a result."""
        for text in self.texts:
            count = len(quantities_in(text))
            if count:
                return count == 1 or _RESULT.search(text) is not None
        return False


def _fits(unit: Unit, target: Unit) -> bool:
    return unit.dimension == target.dimension or {unit.dimension, target.dimension} == {
        MONTHS,
        TIME,
    }
