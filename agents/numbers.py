"""Numbers in results: which there are, and whether one of them is the one that a calculation gives."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from monai_node.agents.clauses import OPEN, PASSED, SHORT_CHARS, failed, whole_words
from monai_node.agents.lexicon import vocabulary
from monai_node.router.verdict import Verdict

# A figure as people write it: groups of three, a fraction after a point or a comma, a power of ten.
_FIGURE = re.compile(
    r"(?<!\w)(?P<digits>\d{1,40}(?:[.,'’\u00a0\u202f ]\d{3}(?!\d)){0,13}(?:[.,]\d{1,40})?)"
    r"(?:[eE](?P<power>[+-]?\d{1,2}))?(?!\d)"
)
_MARK = re.compile(r"\D")
_ANY_DIGIT = re.compile(r"[\d½¼¾⅓⅔⅛]")
_OVER = re.compile(r"(?<![\d/])(?:(\d{1,6})[ -])?(\d{1,15})\s?[/⁄]\s?(\d{1,15})(?![\d/])")
_WORD = re.compile(r"[^\W\d_]+")
_FIGURES_MAX = 100
_ROUNDING_MAX = Fraction(1, 50)
# What is calculated here has 12 digits where it is no short number; a result may have more.
_NEAR = Fraction(1, 10**10)

# A number may be said in words. Those that say how many there are without a number count, too.
_WORDS = vocabulary("""
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred
    hundreds thousand thousands million millions billion billions trillion dozen dozens half quarter
    third once twice thrice none no nobody nothing both all single pair couple several many few some
    infinite infinitely unlimited countless unknown uncountable undefined exist exists depends depend vary
    varies enough null eins ein eine einen zwei drei vier fünf sechs
    sieben acht neun zehn elf zwölf zwanzig dreißig vierzig fünfzig hundert tausend million millionen
    milliarde milliarden kein keine keinen beide alle einige viele unendlich halb zéro un une deux trois
    quatre cinq sept huit neuf dix onze douze vingt trente cent cents mille milliard milliards aucun
    aucune tous plusieurs infini moitié cero uno una dos tres cuatro cinco seis siete ocho nueve diez
    once doce veinte treinta cien ciento mil millón millones ninguno ninguna ningún todos todas ambos
    varios infinito mitad due tre quattro sei sette otto nove dieci cento nessuno nessuna dois duas três
    quatro oito dez cem nenhum twee drie vier vijf zes zeven acht negen tien
    """)
# Within longer words: hunderttausend, veintiuno, soixante-dix.
_STEM = re.compile(
    r"hundert|tausend|zwanzig|zehn|[ßs]zig|hundred|thousand|million|milli|vingt|soixante|veinti|cientos|cento"
)
# Words that scale a figure, or signs that compute: the number is not the figure alone.
_SCALED = re.compile(
    r"\d\s?(?:million|billion|trillion|milliard|mio\b|mrd\b|mil\b|tausend|thousand|hundred|dozen|bn\b|[km]\b"
    r"|lakh|crore"
    r"|[x×*·]\s?10|\^|√|π|\\|²|³|[½¼¾⅓⅔⅛])|[√π∞]|\\(?:frac|sqrt|times)|\bpi\b"
    r"|\b(?:remainder|rest|reste|resto|r\s?\d)|\d,\d\d,\d{3}(?!\d)",  # 12,34,567 in India
    re.I,
)


@dataclass(frozen=True, slots=True)
class SomeNumber:
    """A number, in figures or in words."""

    held_chars: int | None = SHORT_CHARS

    def early(self, beginning: str) -> Verdict:
        return PASSED if has_number(whole_words(beginning)) else OPEN

    def whole(self, text: str) -> Verdict:
        return PASSED if has_number(text) else failed("a number was asked for, the result has none")


@dataclass(frozen=True, slots=True)
class TheNumber:
    """This number, rounded or not, with whatever unit and signs between its groups of digits."""

    value: Fraction
    held_chars: int | None = None

    def early(self, beginning: str) -> Verdict:
        return PASSED if self._is_in(whole_words(beginning)) else OPEN

    def whole(self, text: str) -> Verdict:
        if self._is_in(text):
            return PASSED
        if _SCALED.search(text) or len(_FIGURE.findall(text)) > _FIGURES_MAX:
            return OPEN
        if _FIGURE.search(text):
            return failed("the number is not the one that the calculation gives")
        return OPEN if has_number(text) else failed("a number was asked for, the result has none")

    def _is_in(self, text: str) -> bool:
        return any(self._is_it(value, decimals) for value, decimals in readings(text))

    def _is_it(self, value: Fraction, decimals: int) -> bool:
        """Whether a figure with so many decimals is this number, rounded there or cut there. Rounding
        away a fiftieth of it and more is another number: 14 for 13.6."""
        difference, expected = abs(abs(value) - abs(self.value)), abs(self.value)
        if expected.denominator == 1:
            return difference == 0
        is_rounded = difference < Fraction(1, 10**decimals) and difference <= expected * _ROUNDING_MAX
        return is_rounded or difference <= expected * _NEAR


def has_number(text: str) -> bool:
    """Whether a text has any number, in figures or in words of a few languages."""
    if _ANY_DIGIT.search(text):
        return True
    # Other scripts have number words that are not known here.
    folded = text.casefold()
    is_said = _STEM.search(folded) is not None or any(word in _WORDS for word in _WORD.findall(folded))
    return is_said or any(map(_is_foreign, text))


def _is_foreign(letter: str) -> bool:
    return letter >= "\u0370" and letter.isalpha()


def readings(text: str) -> Iterator[tuple[Fraction, int]]:
    """The numbers of a text, each in every way in which its marks can be read, and how many decimals it
    has then: "1.234" is a number of thousands or one of thousandths."""
    for count, found in enumerate(_FIGURE.finditer(text)):
        if count == _FIGURES_MAX:
            return
        power = int(found["power"] or 0)
        for digits, decimals in _ways(found["digits"]):
            value = Fraction(int(digits), 10**decimals) * Fraction(10) ** power
            yield value, max(0, decimals - power)
    for found in _OVER.finditer(text):
        whole, over, under = map(int, found.groups("0"))
        if under:
            yield Fraction(over, under), 12
            yield whole + Fraction(over, under), 12  # 2 1/2


def _ways(figure: str) -> Iterator[tuple[str, int]]:
    parts = _MARK.split(figure)
    marks = _MARK.findall(figure)
    if all(len(part) == 3 for part in parts[1:]):
        yield "".join(parts), 0  # every mark groups thousands
    if marks and marks[-1] in ".,":
        yield "".join(parts), len(parts[-1])
    if marks == [","] and len(parts[1]) != 3:  # a list without blanks: "3,4"
        yield from ((part, 0) for part in parts)
