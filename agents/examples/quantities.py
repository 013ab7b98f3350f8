"""Reading numbers, figures or words, with the units behind them: "2.5 million", "6 feet 2 inches"."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from monai_node.agents.examples import values
from monai_node.agents.examples.number_words import GROUPS, PARTS, SMALL, read_number
from monai_node.agents.examples.reading import TEXT_CHARS_MAX, Cursor, Token, tokens_of
from monai_node.agents.examples.units import (
    LENGTH,
    MASS,
    MONTHS,
    TIME,
    VOLUME,
    Unit,
    find_unit,
    per,
    power,
)
from monai_node.agents.examples.values import Refusal, Value

_COMPOUND_KINDS = (LENGTH, MASS, TIME, MONTHS, VOLUME)
_UNIT_WORDS_MAX = 4  # "pounds per square inch"
_REPLACED = str.maketrans(
    {"×": "*", "·": "*", "⋅": "*", "∙": "*", "÷": "/", "∕": "/", "−": "-", "–": "-", "√": " sqrt "}
    | {"²": "^2", "³": "^3", "π": " pi ", "“": '"', "”": '"', "’": "'", "′": "'", "″": '"'}
)
_VULGAR = {"½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3", "⅛": "1/8"}
_VULGAR_PATTERN = re.compile(rf"(\d*)\s?([{''.join(_VULGAR)}])")
_FEET_AND_INCHES = re.compile(r"(\d{1,2})\s?'\s?(\d{1,2}(?:\.\d{1,3})?)(?:\"|'')?(?!\w)")
_TOKEN = re.compile(
    r"(?P<number>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][+-]?\d{1,4}(?!\w))?|\.\d+)"
    r"|(?P<joint>(?<=[^\W\d_])-(?=[^\W\d_])|[\"`])"
    r"|(?P<times>[xX](?=\s*[\d(]))"
    r"|(?P<word>[^\W\d_]+(?:'s|[23](?![\w.]))?|°)"
    r"|(?P<sign>\*\*|[-+*/^%()!=$€£])"
    r"|(?P<stop>[.?,;:\n])"
)
_DATE_LIKE = re.compile(r"\d{4}-\d\d?-\d\d?|\d\d?[/.]\d\d?[/.]\d{2,4}|\d:\d\d|\d\.\d+\.\d|\w_\w")


class NotArithmetic(Exception):
    """Something in the text is no arithmetic, so none of it is answered."""


def read(text: str) -> tuple[str, list[Token]]:
    """The text made plain, and its tokens; NotArithmetic when it cannot be a calculation."""
    if len(text) > TEXT_CHARS_MAX:
        raise NotArithmetic("too long for a calculation")
    plain = _VULGAR_PATTERN.sub(lambda m: f"({m[1] or 0}+{_VULGAR[m[2]]})", text)
    plain = unicodedata.normalize("NFKC", plain.translate(_REPLACED))
    plain = _FEET_AND_INCHES.sub(r"\1 feet \2 inches", plain)
    if len(plain) > TEXT_CHARS_MAX:
        raise NotArithmetic("too long for a calculation")
    tokens = None if _DATE_LIKE.search(plain) else tokens_of(plain, _TOKEN)
    if not tokens:
        raise NotArithmetic("it holds signs that are no arithmetic")
    return plain, tokens


class Quantities(Cursor):
    """Reads quantities from where the cursor stands. `is_compound` tells of one with several parts.

    `joins_with_and` allows "3 hours and 20 minutes"; where "and" stands between operands it is off.
    """

    def __init__(self, tokens: Sequence[Token]) -> None:
        super().__init__(tokens)
        self.is_compound = False
        self.joins_with_and = True

    def quantity(self) -> Value:
        """A number with the unit that follows it: "5 km", "$12", "an hour", "6 feet 2 inches"."""
        sign = self.take("$", "€", "£")
        number = self.number()
        if sign and number is not None:
            return Value(number, self._per(find_unit(sign), "per", "/", "an", "a"))
        if number is None:
            has_article = self.take("a", "an")
            number = PARTS.get(self.peek().lower)
            if number is not None:
                self.index += 1
                return Value(number)
            unit = self.unit() if has_article else None
            if unit is not None:
                return self._compound(Value(Fraction(1), unit))
        if number is None:
            raise NotArithmetic("a number was due")
        return self.with_unit(Value(number))

    def with_unit(self, value: Value) -> Value:
        part = PARTS.get(self.peek().lower)
        if part is not None and self.words[self.index - 1] not in PARTS:
            self.index += 1
            return replace(value, magnitude=value.magnitude * part)
        unit = self.unit()
        return value if unit is None else self._compound(replace(value, unit=unit))

    def _compound(self, value: Value) -> Value:
        """“3 hours and 20 minutes”, “6 feet 2”: further parts of the kind, each smaller."""
        unit = value.unit
        while unit is not None and unit.dimension in _COMPOUND_KINDS:
            start = self.index
            if self.joins_with_and:
                self.take("and", ",")
            number = self.number() if self.peek().kind in ("number", "word") else None
            smaller = self.unit() if number is not None else None
            if smaller is None and self.index == start + 1 and unit.one == "foot":
                smaller = find_unit("inch") if self.peek().kind != "sign" else None
            if number is None or smaller is None or smaller.dimension != unit.dimension:
                self.index = start
                break
            if smaller.factor >= unit.factor:
                self.index = start
                break
            value = values.attempt(values.add, value, Value(number, smaller))
            self.is_compound, unit = True, smaller
        return value

    def number(self) -> Fraction | None:
        """A number or None: "1,234.5", "2.5 million", "forty-two", "2 and a half"."""
        start = self.index
        token = self.take_kind("number")
        if token is not None:
            value = _figure(token.text)
            if self.peek().lower in ("k", *GROUPS) and self._is_multiple(token):
                value *= GROUPS.get(self.peek().lower, 1000)
                self.index += 1
        else:
            found = read_number(self.words, self.index)
            if found is not None:
                value, self.index = Fraction(found[0]), found[1]
                value = self._after_point(value)
            elif self.take("a dozen", "dozen"):
                value = Fraction(12)
            else:
                return None
        if self.index > start and self.take("and a half", "and one half"):
            value += Fraction(1, 2)
        elif self.take("and a quarter"):
            value += Fraction(1, 4)
        return value

    def _is_multiple(self, number: Token) -> bool:
        """“5k” is five thousand; “5 K” are kelvins."""
        following = self.peek()
        return following.lower in GROUPS or (following.text == "k" and following.start == number.end)

    def _after_point(self, whole: Fraction) -> Fraction:
        """“three point one four”."""
        digits = ""
        while self.words[self.index : self.index + 1] == ["point"] or digits:
            at = self.index + (not digits)
            word = self.words[at] if at < len(self.words) else ""
            if SMALL.get(word, 10) > 9:
                break
            digits, self.index = digits + str(SMALL[word]), at + 1
        return whole + Fraction(int(digits), 10 ** len(digits)) if digits else whole

    def unit(self) -> Unit | None:
        """The unit that stands here, or None: "km", "square feet", "m^2", "miles per hour"."""
        return self._per(self._simple_unit(), "per", "/")

    def _per(self, unit: Unit | None, *words: str) -> Unit | None:
        start = self.index
        if unit is not None and self.take(*words):
            other = self._simple_unit()
            if other is not None:
                return per(unit, other)
            self.index = start
        return unit

    def _simple_unit(self) -> Unit | None:
        start = self.index
        exponent = 2 if self.take("square", "sq") else 3 if self.take("cubic", "cu") else 1
        for length in range(_UNIT_WORDS_MAX, 0, -1):
            tokens = self.tokens[self.index : self.index + length]
            if len(tokens) < length or any(t.kind not in ("word", "sign") for t in tokens):
                continue
            unit = self._looked_up(tokens)
            if unit is not None:
                self.index += length
                if exponent == 1 and unit.dimension == LENGTH and self.take("^ 2", "^ 3"):
                    exponent = 2 if self.words[self.index - 1] == "2" else 3
                return self._raised(unit, exponent)
        self.index = start
        return None

    def _looked_up(self, tokens: Sequence[Token]) -> Unit | None:
        name = " ".join(token.text for token in tokens)
        if name.lower() == "in":  # the preposition, unless a conversion or the end follows
            following = self.peek(1)
            is_unit = following.lower in ("to", "in", "into", "as", ")") or following.kind in (
                "end",
                "stop",
            )
            return find_unit("inch") if is_unit else None
        if name[-1] in "23" and len(name) > 1:
            base = find_unit(name[:-1])
            if base is None or base.dimension != LENGTH:
                return None
            return self._raised(base, int(name[-1]))
        return find_unit(name)

    def _raised(self, unit: Unit, exponent: int) -> Unit | None:
        if exponent == 1:
            return unit
        if unit.dimension != LENGTH:
            return None
        return power(unit, 2 if exponent == 2 else 3)


def _figure(text: str) -> Fraction:
    digits = text.replace(",", "")
    if len(digits) > values.DIGITS_MAX or re.search(r"[eE][+-]?\d{4}", digits):
        raise Refusal(values.TOO_LONG)
    return Fraction(digits)


def quantities_in(text: str) -> list[Value]:
    """Every figure in a text, with its unit if it has one; number words where a unit follows.

    Only the last TEXT_CHARS_MAX characters are read: the text may be a whole chat message.
    """
    plain = unicodedata.normalize("NFKC", text[-TEXT_CHARS_MAX:].translate(_REPLACED))
    tokens = [
        Token(match.lastgroup or "", match[0], match.start(), match.end())
        for match in _TOKEN.finditer(plain)
        if match.lastgroup != "joint"
    ]
    reader = Quantities(tokens)
    found: list[Value] = []
    while not reader.is_at_end:
        start, token = reader.index, reader.peek()
        try:
            value = reader.quantity() if token.kind != "stop" else None
        except (NotArithmetic, Refusal):
            value = None
        if value is None or (value.unit is None and token.kind != "number"):
            reader.index = start + 1
            continue
        is_exact = "≈" not in plain[max(0, token.start - 2) : token.start]
        negative = start > 0 and tokens[start - 1].text == "-" and _is_sign(plain, tokens[start - 1])
        value = values.negated(value) if negative else value
        found.append(replace(value, is_exact=is_exact))
    return found


def _is_sign(plain: str, token: Token) -> bool:
    """Whether a "-" belongs to the number after it, as in "is -40", not as in "9-5"."""
    before = plain[max(0, token.start - 1) : token.start]
    return plain[token.end : token.end + 1].isdigit() and not before.isalnum()
