"""Exact values with units: what an expression works out to, and how it is written.

Rational numbers are kept exactly. What is irrational (roots, logarithms, pi, most broken powers) is
computed to 50 digits, carries `is_exact=False` from there on, and is written with "≈". Numbers of
more than DIGITS_MAX digits are refused, so that no short text costs more than milliseconds.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from math import isqrt

from monai_node.agents.examples.units import SCALAR, TEMPERATURE, Unit, kind_of, per, power

DIGITS_MAX = 1000
SHOWN_DIGITS = 12  # significant digits of what is not a whole number
WHOLE_DIGITS = 60  # whole numbers are written in full up to here
_BITS_MAX = 3322  # log2(10 ** DIGITS_MAX)
TOO_LONG = f"That number has more than {DIGITS_MAX} digits, which is where I stop."
_IRRATIONAL = decimal.Context(
    prec=50, traps=[decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow]
)


class Refusal(Exception):
    """A calculation that was understood and has no answer; its text is the answer."""


@dataclass(frozen=True, slots=True)
class Value:
    """A magnitude in its unit. A percentage keeps its magnitude divided by a hundred.

    `refusal` says why there is no result; whatever is calculated from such a value is refused too.
    """

    magnitude: Fraction
    unit: Unit | None = None
    is_exact: bool = True
    is_percent: bool = False
    refusal: str = ""


def attempt(operation: Callable[..., Value], *operands: Value) -> Value:
    """The result of an operation, or the value that says why there is none."""
    for operand in operands:
        if operand.refusal:
            return operand
    try:
        return operation(*operands)
    except Refusal as sentence:
        return Value(Fraction(0), refusal=str(sentence))


def _bounded(value: Value) -> Value:
    size = max(value.magnitude.numerator.bit_length(), value.magnitude.denominator.bit_length())
    if size > _BITS_MAX:
        raise Refusal(TOO_LONG)
    return value


def converted(value: Value, unit: Unit) -> Value:
    """The same quantity in another unit; Refusal when they measure different things."""
    if value.unit is None:
        raise Refusal(f"{written(value)} has no unit: which unit is it in?")
    if value.unit.dimension != unit.dimension:
        raise Refusal(
            f"{written(value)} is {kind_of(value.unit.dimension)}, "
            f"which cannot be given as {kind_of(unit.dimension)} in {unit.many}."
        )
    si = value.magnitude * value.unit.factor + value.unit.offset
    return _bounded(Value((si - unit.offset) / unit.factor, unit, value.is_exact))


def negated(value: Value) -> Value:
    return replace(value, magnitude=-value.magnitude)


def absolute(value: Value) -> Value:
    return replace(value, magnitude=abs(value.magnitude))


def subtract(left: Value, right: Value) -> Value:
    return add(left, right, -1)


def add(left: Value, right: Value, sign: int = 1) -> Value:
    """The sum; "80 + 15 %" adds 15 % of 80, as people and pocket calculators mean it."""
    if right.is_percent and not left.is_percent:
        return multiply(left, Value(1 + sign * right.magnitude, None, right.is_exact))
    if (left.unit is None) != (right.unit is None):
        bare, other = (left, right) if left.unit is None else (right, left)
        raise Refusal(f"{written(bare)} has no unit and cannot be added to {written(other)}.")
    if left.unit is not None and right.unit is not None:
        if TEMPERATURE == left.unit.dimension == right.unit.dimension:
            raise Refusal("Temperatures are points on a scale: I convert them but do not add them.")
        right = converted(right, left.unit)
    return _bounded(
        Value(
            left.magnitude + sign * right.magnitude,
            left.unit,
            left.is_exact and right.is_exact,
            left.is_percent,
        )
    )


def multiply(left: Value, right: Value) -> Value:
    unit, scale = _combined(left.unit, right.unit, 1)
    return _bounded(Value(left.magnitude * right.magnitude * scale, unit, left.is_exact and right.is_exact))


def divide(left: Value, right: Value) -> Value:
    if right.magnitude == 0:
        raise Refusal("Division by zero has no result.")
    unit, scale = _combined(left.unit, right.unit, -1)
    return _bounded(Value(left.magnitude / right.magnitude * scale, unit, left.is_exact and right.is_exact))


def remainder(left: Value, right: Value) -> Value:
    if left.unit or right.unit:
        raise Refusal("A remainder needs plain numbers.")
    if right.magnitude == 0:
        raise Refusal("Division by zero has no result.")
    return replace(left, magnitude=left.magnitude % right.magnitude)


def _combined(left: Unit | None, right: Unit | None, sign: int) -> tuple[Unit | None, Fraction]:
    """The unit of a product (or quotient), and what the magnitudes' product is multiplied by."""
    if right is None:
        return _scale_free(left), Fraction(1)
    if left is None and sign == 1:
        return _scale_free(right), Fraction(1)
    if left is None or TEMPERATURE in (left.dimension, right.dimension):
        raise Refusal("I do not know a unit for the result of that.")
    dimension = tuple(a + sign * b for a, b in zip(left.dimension, right.dimension, strict=True))
    scale = left.factor * right.factor**sign
    if dimension == SCALAR:
        return None, scale
    for unit in (*left.parts, *right.parts):
        if unit.dimension == dimension:
            return unit, scale / unit.factor
    if sign == -1 and not left.parts and not right.parts:
        return per(left, right), Fraction(1)
    if sign == 1 and left.dimension == right.dimension and not left.parts:
        return power(left, 2), scale / left.factor**2
    raise Refusal(f"I do not know a unit for the result of {left.many} and {right.many}.")


def _scale_free(unit: Unit | None) -> Unit | None:
    if unit is not None and unit.offset:
        raise Refusal("Temperatures are points on a scale: I convert them but do not multiply them.")
    return unit


def raised(base: Value, exponent: Value) -> Value:
    """A power: exact for whole exponents and perfect roots, otherwise to 50 digits."""
    if base.unit is not None or exponent.unit is not None:
        raise Refusal("A power needs plain numbers.")
    b, e = base.magnitude, exponent.magnitude
    if b == 0 and e <= 0:
        raise Refusal("Zero to the power of zero or less has no result.")
    is_exact = base.is_exact and exponent.is_exact
    if e.denominator == 1:
        if abs(b) == 1:  # whatever the size of the exponent
            return Value(b if e.numerator % 2 else Fraction(1), None, is_exact)
        size = max(b.numerator.bit_length(), b.denominator.bit_length())
        if (size - 1) * abs(e.numerator) > _BITS_MAX:
            raise Refusal(TOO_LONG)
        return _bounded(Value(b**e.numerator, None, is_exact))
    if b < 0:
        raise Refusal("A broken power of a negative number is not a real number.")
    root = _exact_root(b, e.denominator) if is_exact else None
    if root is not None:
        return raised(Value(root), Value(Fraction(e.numerator)))
    return irrational(lambda: _IRRATIONAL.power(_decimal(b), _decimal(e)))


def power_of(base: Value, exponent: int) -> Value:
    return raised(base, Value(Fraction(exponent)))


def _exact_root(value: Fraction, degree: int) -> Fraction | None:
    roots = [_whole_root(part, degree) for part in (value.numerator, value.denominator)]
    if roots[0] is None or roots[1] is None:
        return None
    return Fraction(roots[0], roots[1])


def _whole_root(value: int, degree: int) -> int | None:
    if degree > max(1, value.bit_length()):
        return value if value < 2 else None
    if degree == 2:
        root = isqrt(value)
    else:
        low, high = 0, 1 << (value.bit_length() // degree + 1)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if middle**degree <= value else (low, middle - 1)
        root = low
    return root if root**degree == value else None


def root(value: Value, degree: int) -> Value:
    """The square or cube root; the cube root of a negative number is negative."""
    if value.unit is not None:
        raise Refusal("A root needs a plain number.")
    if value.magnitude < 0 and degree == 2:
        raise Refusal("The square root of a negative number is not a real number.")
    if value.magnitude < 0:
        return negated(root(negated(value), degree))
    if value.magnitude == 0:
        return value
    return raised(replace(value, is_percent=False), Value(Fraction(1, degree)))


def logarithm(value: Value, base: int | None) -> Value:
    """To the base 10 or (None) the natural one."""
    if value.unit is not None or value.magnitude <= 0:
        raise Refusal("A logarithm needs a plain number above zero.")
    exact = value.is_exact and (value.magnitude == 1 or _is_power_of_ten(value.magnitude))
    function = _IRRATIONAL.ln if base is None else _IRRATIONAL.log10
    result = irrational(lambda: function(_decimal(value.magnitude)))
    return replace(result, is_exact=exact and (base is not None or value.magnitude == 1))


def _is_power_of_ten(value: Fraction) -> bool:
    digits = str(max(value.numerator, value.denominator))
    return min(value.numerator, value.denominator) == 1 and digits.strip("0") == "1"


def factorial(value: Value) -> Value:
    if value.unit is not None or value.magnitude.denominator != 1 or value.magnitude < 0:
        raise Refusal("A factorial needs a whole number from zero.")
    result = Value(Fraction(1), None, value.is_exact)
    for factor in range(2, min(value.magnitude.numerator, DIGITS_MAX) + 1):
        result = _bounded(replace(result, magnitude=result.magnitude * factor))
    return result


def irrational(work: Callable[[], Decimal]) -> Value:
    """The result of a Decimal function of 50 digits, as a value that is not exact."""
    try:
        result = work()
    except (decimal.Overflow, decimal.InvalidOperation, decimal.DivisionByZero):
        raise Refusal("That is beyond the numbers I work with.") from None
    if result and abs(result.adjusted()) > DIGITS_MAX:
        raise Refusal(TOO_LONG)
    return Value(Fraction(result), None, False)


def _decimal(value: Fraction) -> Decimal:
    return _IRRATIONAL.divide(Decimal(value.numerator), Decimal(value.denominator))


def is_short(value: Value) -> bool:
    """Whether `written` gives the value in full."""
    number = value.magnitude * (100 if value.is_percent else 1)
    if value.unit is not None and value.unit.is_money:
        return value.is_exact and (number * 100).denominator == 1
    if number.denominator == 1:
        return value.is_exact and abs(number) < 10**WHOLE_DIGITS
    return value.is_exact and _rounded(number) == number


def written(value: Value) -> str:
    """The value for a reader, without "≈": "8.04672 kilometres", "$12.50", "15%"."""
    magnitude = value.magnitude * (100 if value.is_percent else 1)
    unit = value.unit
    if unit is not None and unit.is_money:
        return ("-" if magnitude < 0 else "") + unit.one + _amount(abs(magnitude))
    text = _number(magnitude, is_exact=value.is_exact)
    if value.is_percent:
        return f"{text}%"
    return f"{text} {unit.named(magnitude)}" if unit is not None else text


def _amount(money: Fraction) -> str:
    """In whole cents; without any when there are none."""
    whole, cents = divmod(round(money * 100), 100)
    return f"{whole}.{cents:02}" if cents else f"{whole}"


def _number(value: Fraction, *, is_exact: bool) -> str:
    if is_exact and value.denominator == 1 and abs(value) < 10**WHOLE_DIGITS:
        return str(value.numerator)
    rounded = Decimal(0) if value == 0 else _shown(value)
    if rounded == 0 or -7 <= rounded.adjusted() <= 14:
        text = f"{rounded:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    digits, exponent = f"{rounded:e}".split("e")
    digits = digits.rstrip("0").rstrip(".") if "." in digits else digits
    return f"{digits} × 10^{int(exponent)}"


def _shown(value: Fraction) -> Decimal:
    context = decimal.Context(prec=SHOWN_DIGITS)
    return context.divide(Decimal(value.numerator), Decimal(value.denominator))


def _rounded(value: Fraction) -> Fraction:
    return Fraction(_shown(value))
