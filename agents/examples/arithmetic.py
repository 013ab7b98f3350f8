"""The arithmetic agent: exact calculations and unit conversions, in figures or in words.

Every word of a task is understood or the agent abstains. A result is written in full when it is a
whole number of at most 60 digits or has at most 12 significant digits; otherwise it is rounded to
12 and marked "≈".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from monai_node.agents import Abstain, Agent, Context
from monai_node.agents.examples import values
from monai_node.agents.examples.conversion import Earlier, in_two_units, in_unit
from monai_node.agents.examples.expression import Expressions, Operation
from monai_node.agents.examples.quantities import NotArithmetic, read
from monai_node.agents.examples.reading import Phrases, Token
from monai_node.agents.examples.units import Unit
from monai_node.agents.examples.values import Refusal, Value, is_short, written

agent = Agent("arithmetic", "Exact calculations and unit conversions.")

_LEAD = Phrases(
    """what is|what's|whats|what are|what does|what do|what will|what would|is|how much is|how much|
    how many is|how far is|how long is|how tall is|how heavy is|how hot is|how fast is|calculate|
    compute|evaluate|work out|figure out|solve|find|find out|tell me|give me|show me|can you|
    could you|would you|will you|please|hey|hi|hello|ok|okay|so|and|then|now|also|next|finally|
    the result of|the value of|the answer to|result of|value of|i need|i want|i want to know|
    i need to know|let me know|do you know|quickly|if you|when you|you get|do you get if|
    do you get when|what about|how about|with|the|me|my|by the way|,|.|?|!|;|:"""
)
_TAIL = Phrases(
    """please|thanks|thank you|equal to|equals|equal|make|makes|is|come to|exactly|for me|in total|
    altogether|work out to|give|gives|give me|to be exact|then|
    as a decimal|as a number|=|?|.|!|,|;|:"""
)
_LINKS = Phrases("are there|is there|are|is|there|in|make up|makes up|equals|equal|does|do")
_INTO = (
    "expressed in",
    "converted to",
    "converted into",
    "is how many",
    "equals how many",
    "= how many",
    "in terms of",
    "in",
    "into",
    "to",
    "as",
)
_COMMANDS: tuple[tuple[tuple[str, ...], tuple[str, ...], Operation], ...] = (
    (("add",), ("to", "and", "with"), values.add),
    (("subtract", "take away", "take", "deduct"), ("from",), values.subtract),
    (("multiply",), ("by", "with", "and"), values.multiply),
    (("divide",), ("by",), values.divide),
)
_CONTINUATIONS: tuple[tuple[tuple[str, ...], Operation], ...] = (
    (("times", "multiplied by", "multiply by", "*"), values.multiply),
    (("divided by", "divide by", "/"), values.divide),
    (("plus", "added to"), values.add),
)


@agent.skill(
    name="Arithmetic and unit conversion",
    tags=["math", "calculator", "arithmetic", "units", "conversion", "exact"],
    examples=[
        "What is 37 * 49?",
        "Calculate 3 + 4 * (2 - 1)",
        "how much is 15% of 80",
        "convert 5 miles to kilometres",
        "72 F in C",
        "what is the square root of 144",
        "2 to the power of 10",
        "divide 100 by 8",
        "half of 90 plus twelve",
        "3 hours 20 minutes in seconds",
        "how many pounds is 10 kg",
        "how many feet are in a mile",
        "add 26.2 miles and 5 km",
        "1.5 GB in MB",
        "multiply that by three",
        "and in kilometres?",
    ],
)
def arithmetic(text: str, ctx: Context) -> str:
    """Calculates exactly with numbers: adds, subtracts, multiplies, divides, percentages, powers
    and roots, and converts units of length, weight, temperature, time, volume, speed and data."""
    try:
        plain, tokens = read(text)
        return "\n".join(_Statements(plain, tokens, ctx).answers())
    except NotArithmetic as reason:
        raise Abstain(f"no arithmetic: {reason}") from None
    except Refusal as sentence:  # raised while reading a single number
        return str(sentence)


@dataclass(frozen=True, slots=True)
class _Line:
    """`left` is said before the result only when several results must be told apart."""

    left: str
    relation: str
    right: str
    is_complete: bool = False

    def alone(self) -> str:
        return self.among_others() if self.is_complete else f"{self.relation} {self.right}".lstrip("= ")

    def among_others(self) -> str:
        return f"{self.left} {self.relation} {self.right}".strip()


class _Statements(Expressions):
    """The statements of one text, each of which becomes a line (or a line per target unit)."""

    def __init__(self, plain: str, tokens: Sequence[Token], ctx: Context) -> None:
        super().__init__(tokens, self._before)
        self.plain = plain
        self.earlier = Earlier.of(ctx)
        self.last: Value | None = None
        self.referred = False
        self.is_mixed = False  # "in hours and minutes" is one target of two units

    def answers(self) -> list[str]:
        lines: list[_Line] = []
        self.skip(_LEAD)
        while not self.is_at_end:
            lines += self._statement()
            at = self.index
            self.skip(_TAIL)
            self.skip(_LEAD)
            if at == self.index and not self.is_at_end:
                raise NotArithmetic(f"{self.peek().text!r} is not understood")
        if not lines:
            raise NotArithmetic("nothing to calculate")
        return [lines[0].alone()] if len(lines) == 1 else [line.among_others() for line in lines]

    def _before(self) -> Value | None:
        self.referred = True
        return self.last or self.earlier.value()

    def _statement(self) -> list[_Line]:
        self.operations, self.is_compound, self.referred = 0, False, False
        if self.take("how many", "how much"):
            return self._how_many()
        targets = self._targets()  # nothing but a unit: a follow-up
        if targets:
            return self._conversions("", self._earlier_in(targets[0]), targets)
        self.take("convert", "change", "turn", "express")
        start = self.index
        value = self._share() or self._command() or self.expression()
        source = self._slice(start)
        targets = self._targets()
        if targets:
            if self.referred and not self.operations:
                source, value = "", self._earlier_in(targets[0])
            return self._conversions(source, value, targets)
        if self.referred and self.last is None and not self.earlier.is_clear:
            raise NotArithmetic("it is not clear which number is meant")
        if not self.operations:
            raise NotArithmetic("a number and nothing to do with it")
        self.last = value
        return [_result(source, value)]

    def _earlier_in(self, target: Unit) -> Value:
        value = self.last or self.earlier.value(target)
        if value is None:
            raise NotArithmetic("there is no earlier quantity to convert")
        return value

    def _how_many(self) -> list[_Line]:
        """“how many feet are in 2 miles”, “how many kilometres is that”."""
        target = self.unit()
        if target is None:
            raise NotArithmetic("that is not a unit")
        self.skip(_LINKS)
        start = self.index
        value = self.expression()
        if self.referred and not self.operations:
            return self._conversions("", self._earlier_in(target), [target])
        return self._conversions(self._slice(start), value, [target])

    def _share(self) -> Value | None:
        """“what percent of 80 is 20”, “20 is what percent of 80”."""
        start = self.index
        if self.take("what percent of", "what percentage of"):
            whole = self.expression()
            if self.take("is", "are"):
                return self._percentage(self.expression(), whole)
        elif self.peek().kind in ("number", "sign"):
            part = self.expression()
            if self.take("is what percent of", "is what percentage of", "as a percentage of"):
                return self._percentage(part, self.expression())
        self.index, self.operations = start, 0
        return None

    def _percentage(self, part: Value, whole: Value) -> Value:
        ratio = self.worked(values.divide, part, whole)
        return replace(ratio, is_percent=ratio.unit is None)

    def _command(self) -> Value | None:
        """“add 5 to 7”, “subtract 3 from 10”, “multiply that by 4”; “times 4” after a result."""
        for words, operation in _CONTINUATIONS:
            if self.take(*words):
                return self.worked(operation, self._needed(), self.expression())
        for verbs, links, operation in _COMMANDS:
            if self.take(*verbs):
                return self._commanded(operation, links)
        if self.take("increase", "raise"):
            return self._changed(values.add)
        if self.take("decrease", "reduce"):
            return self._changed(values.subtract)
        return None

    def _commanded(self, operation: Operation, links: tuple[str, ...]) -> Value:
        self.joins_with_and = False  # in "add 2 miles and 3 km" the word stands between operands
        first = self.expression()
        self.joins_with_and = True
        link = self.take(*links)
        if link is None:
            return self.worked(operation, self._needed(), first)
        second = self.expression()
        return self.worked(operation, *((second, first) if link == "from" else (first, second)))

    def _changed(self, operation: Operation) -> Value:
        start = self.expression()
        if not self.take("by"):
            raise NotArithmetic("by how much?")
        return self.worked(operation, start, self.expression())

    def _needed(self) -> Value:
        value = self._before()
        if value is None:
            raise NotArithmetic("it refers to something that was not given")
        return value

    def _targets(self) -> list[Unit]:
        """“in km”, “to miles and feet”, “in km and in miles”."""
        found: list[Unit] = []
        start = self.index
        self.is_mixed = False
        while self.take(*_INTO) or (found and self.take("and", ",")):
            self.is_mixed = bool(found) and self.words[self.index - 1] == "and"
            self.is_mixed = not self.take(*_INTO) and self.is_mixed
            self.take("a", "an", "the")
            unit = self.unit()
            if unit is None:
                break
            found.append(unit)
            start = self.index
        self.index = start
        return found

    def _conversions(self, source: str, value: Value, targets: list[Unit]) -> list[_Line]:
        """A line per unit, or one line for "hours and minutes"."""
        if not self.operations and not self.is_compound:
            source = ""  # a plain quantity is written by us
        results = [values.attempt(partial(in_unit, unit=target), value) for target in targets]
        self.last = results[0]
        if self.is_mixed and len(targets) == 2 and not any(result.refusal for result in results):
            mixed = in_two_units(value, *targets)
            if mixed is not None:
                return [_equation(source, value, mixed[0], mixed[1])]
        return [
            _equation(source, value, written(result), is_short(result))
            if not result.refusal
            else _refused(result)
            for result in results
        ]

    def _slice(self, start: int) -> str:
        first, last = self.tokens[start], self.tokens[self.index - 1]
        return " ".join(self.plain[first.start : last.end].split())


def _equation(source: str, value: Value, result: str, is_exact: bool) -> _Line:
    left = source or written(value)
    is_exact = is_exact and (bool(source) or is_short(value))
    return _Line(left, "=" if is_exact else "≈", result, is_complete=True)


def _result(source: str, value: Value) -> _Line:
    if value.refusal:
        return _refused(value)
    return _Line(source, "=" if is_short(value) else "≈", written(value))


def _refused(value: Value) -> _Line:
    return _Line("", "", value.refusal, is_complete=True)
