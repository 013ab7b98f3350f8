"""Arithmetic in figures and in words: from a text to the value it asks for.

Precedence as in mathematics: postfix (%, !, squared), power (from the right), sign, × ÷ "of", + −.
A word that is not understood raises NotArithmetic: the reader never skips what it does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial, reduce

from monai_node.agents.examples import values
from monai_node.agents.examples.number_words import PARTS
from monai_node.agents.examples.quantities import NotArithmetic, Quantities
from monai_node.agents.examples.reading import Token
from monai_node.agents.examples.values import Refusal, Value

DEPTH_MAX = 100  # parentheses, signs and functions within each other
_PI = Fraction("3.14159265358979323846264338327950288419716939937511")
_BEFORE = ("result", "answer", "total", "sum", "that number", "that", "it", "this")
_E = Fraction("2.71828182845904523536028747135266249775724709369996")

Operation = Callable[..., Value]
_FUNCTIONS: tuple[tuple[tuple[str, ...], Operation], ...] = (
    (("cube root of", "cubic root of", "cbrt"), partial(values.root, degree=3)),
    (("square root of", "root of", "sqrt of", "sqrt"), partial(values.root, degree=2)),
    (("square of",), partial(values.power_of, exponent=2)),
    (("cube of",), partial(values.power_of, exponent=3)),
    (("factorial of",), values.factorial),
    (("absolute value of",), values.absolute),
    (
        ("natural logarithm of", "natural log of", "ln of", "ln"),
        partial(values.logarithm, base=None),
    ),
    (("logarithm of", "log of", "log"), partial(values.logarithm, base=10)),
    (("double", "twice"), partial(values.multiply, Value(Fraction(2)))),
    (("triple",), partial(values.multiply, Value(Fraction(3)))),
    (("halve",), partial(values.multiply, Value(Fraction(1, 2)))),
)
_FOLDS: tuple[tuple[tuple[str, ...], Operation], ...] = (
    (("sum of", "total of"), values.add),
    (("product of",), values.multiply),
    (("quotient of",), values.divide),
)


class Expressions(Quantities):
    """Reads expressions from where the cursor stands. `operations` counts what was worked out.

    `previous` is what "it" and "the result" stand for; None when there is nothing before.
    """

    def __init__(self, tokens: Sequence[Token], previous: Callable[[], Value | None]) -> None:
        super().__init__(tokens)
        self.previous = previous
        self.operations = 0
        self._depth = 0

    def expression(self) -> Value:
        """Sums and differences: the loosest level."""
        left = self._product()
        while True:
            if self.take("+", "plus", "added to", "increased by"):
                left = self.worked(values.add, left, self._product())
            elif self.take("-", "minus", "decreased by", "reduced by", "less"):
                left = self.worked(values.subtract, left, self._product())
            elif left.is_percent and self.take("off"):
                left = self.worked(values.subtract, self._product(), left)
            else:
                return left

    def _product(self) -> Value:
        start = self.index
        left = self._signed()
        is_share = left.is_percent or self.words[self.index - 1] in PARTS
        while True:
            if self.take("*", "times", "multiplied by", "x", "**") or self.take_kind("times"):
                left = self.worked(values.multiply, left, self._signed())
            elif self.take("divided by", "over", "/"):
                left, is_share = self.worked(values.divide, left, self._signed()), True
            elif self.take("modulo", "mod"):
                left = self.worked(values.remainder, left, self._signed())
            elif is_share and self.take("of the", "of", "tip on", "on"):
                left, is_share = self.worked(values.multiply, left, self._signed()), False
            elif self.index > start and self._multiplies_silently():
                left = self.worked(values.multiply, left, self._signed())
            else:
                return left

    def _multiplies_silently(self) -> bool:
        """“2(3 + 4)”, “2 pi”, “half a mile”."""
        before, here = self.words[self.index - 1], self.peek().lower
        if before in PARTS and here in ("a", "an"):
            return True
        return (before[-1:].isdigit() or before == ")") and here in ("(", "pi")

    def _signed(self) -> Value:
        negative = False
        while self.peek().lower in ("-", "+", "minus", "negative"):
            negative ^= self.peek().lower != "+"
            self.index += 1
        value = self._power()
        return values.negated(value) if negative else value

    def _power(self) -> Value:
        base = self._postfix()
        if not self.take("^", "**", "to the power of", "raised to the power of", "raised to"):
            return base
        self._enter()
        exponent = self._signed()
        self._depth -= 1
        return self.worked(values.raised, base, exponent)

    def _postfix(self) -> Value:
        value = self._primary()
        while True:
            if self.take("%", "percent", "per cent", "pct"):
                if value.unit is not None or value.is_percent:
                    raise NotArithmetic("a percentage of a quantity")
                value = Value(value.magnitude / 100, None, value.is_exact, True)
            elif self.take("squared", "cubed") and value.unit is None:
                exponent = 2 if self.words[self.index - 1] == "squared" else 3
                value = self.worked(values.raised, value, Value(Fraction(exponent)))
            elif self._is_factorial() and self.take("!", "factorial"):
                value = self.worked(values.factorial, value)
            else:
                return value

    def _is_factorial(self) -> bool:
        """A mark at the very end of "2 + 2!" is a tone of voice; in "5!" it is an operation."""
        is_last = self.index == len(self.tokens) - 1
        return self.peek().lower == "factorial" or not (is_last and self.operations)

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise Refusal(f"That is nested more than {DEPTH_MAX} deep, which is where I stop.")

    def _primary(self) -> Value:
        self._enter()
        value = self._named() or self.quantity()
        self._depth -= 1
        return value

    def _named(self) -> Value | None:
        """A bracket, a function, a constant, or a word for what came before."""
        if self.take("("):
            value = self.expression()
            if not self.take(")"):
                raise NotArithmetic("a bracket is not closed")
            return self.with_unit(value) if value.unit is None else value
        if self.take("pi", "e"):
            return Value(_PI if self.words[self.index - 1] == "pi" else _E, None, False)
        self.take("the")
        value: Value | None = self._function() or self._of_several()
        if value is None and self.take(*_BEFORE):
            value = self.previous()
            if value is None:
                raise NotArithmetic("it refers to something that was not given")
        return value

    def _function(self) -> Value | None:
        for phrases, operation in _FUNCTIONS:
            if self.take(*phrases):
                return self.worked(operation, self._signed())
        return None

    def _of_several(self) -> Value | None:
        """“the sum of 3, 4 and 5”, “the difference between 10 and 3”."""
        for phrases, operation in _FOLDS:
            if self.take(*phrases):
                return self._folded(operation, self.operands())
        if self.take("difference between", "difference of"):
            return values.absolute(self._folded(values.subtract, self.operands()))
        if self.take("average of", "mean of"):
            operands = self.operands()
            count = Value(Fraction(len(operands)))
            return self.worked(values.divide, self._folded(values.add, operands), count)
        return None

    def _folded(self, operation: Operation, operands: list[Value]) -> Value:
        return reduce(lambda left, right: self.worked(operation, left, right), operands)

    def operands(self) -> list[Value]:
        """Two or more values between commas and "and"."""
        outer, self.joins_with_and = self.joins_with_and, False
        found = [self._product()]
        while self.take(", and", ",", "and"):
            found.append(self._product())
        self.joins_with_and = outer
        if len(found) < 2:
            raise NotArithmetic("a second number was due")
        return found

    def worked(self, operation: Operation, *operands: Value) -> Value:
        self.operations += 1
        return values.attempt(operation, *operands)
