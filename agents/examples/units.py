"""Units of measure, each as an exact fraction of its SI unit.

Sources of the factors, all exact by definition: the SI brochure (BIPM, 9th edition); the
international yard and pound agreement of 1959 (1 yd = 0.9144 m, 1 lb = 0.45359237 kg); NIST SP 811
appendix B for US customary measures, BTU(IT), calorie(th), atmosphere, horsepower and conventional
millimetre of mercury; IAU 2012 for the astronomical unit; IEC 80000-13 for kibi, mebi, …. US
customary gallons and cups are meant unless "imperial" or "UK" is said. Months are a dimension of
their own: a month has no fixed length.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Literal

Dimension = tuple[int, ...]

_BASES = ("length", "mass", "time", "temperature", "data", "months", "dollars", "euros", "sterling")
SCALAR: Dimension = (0,) * len(_BASES)


@dataclass(frozen=True, slots=True)
class Unit:
    """`one` and `many` name it; a magnitude times `factor`, plus `offset`, is in SI units."""

    one: str
    many: str
    dimension: Dimension
    factor: Fraction
    offset: Fraction = Fraction(0)
    is_money: bool = False
    parts: tuple[Unit, ...] = ()

    def named(self, magnitude: Fraction) -> str:
        return self.one if abs(magnitude) == 1 else self.many


def dimension_of(**exponents: int) -> Dimension:
    return tuple(exponents.get(base, 0) for base in _BASES)


LENGTH = dimension_of(length=1)
AREA = dimension_of(length=2)
VOLUME = dimension_of(length=3)
MASS = dimension_of(mass=1)
TIME = dimension_of(time=1)
TEMPERATURE = dimension_of(temperature=1)
SPEED = dimension_of(length=1, time=-1)
DATA = dimension_of(data=1)
ENERGY = dimension_of(length=2, mass=1, time=-2)
POWER = dimension_of(length=2, mass=1, time=-3)
PRESSURE = dimension_of(length=-1, mass=1, time=-2)
MONTHS = dimension_of(months=1)
KINDS = {
    SCALAR: "a plain number",
    LENGTH: "a length",
    AREA: "an area",
    VOLUME: "a volume",
    MASS: "a mass",
    TIME: "a time",
    TEMPERATURE: "a temperature",
    SPEED: "a speed",
    DATA: "an amount of data",
    dimension_of(data=1, time=-1): "a data rate",
    ENERGY: "an energy",
    POWER: "a power",
    PRESSURE: "a pressure",
    MONTHS: "a span of calendar months",
    dimension_of(dollars=1): "an amount of dollars",
    dimension_of(euros=1): "an amount of euros",
    dimension_of(sterling=1): "an amount of pounds sterling",
}

_METRIC = {"kilo": ("k", 3), "mega": ("M", 6), "giga": ("G", 9), "tera": ("T", 12)}
_SMALL = {"centi": ("c", -2), "milli": ("m", -3), "micro": ("µ", -6), "nano": ("n", -9)}
_RARE = {"hecto": ("h", 2), "deci": ("d", -1), "peta": ("P", 15)}
_PREFIXES = _METRIC | _SMALL | _RARE
_BINARY = {"kibi": ("Ki", 10), "mebi": ("Mi", 20), "gibi": ("Gi", 30), "tebi": ("Ti", 40)}

# name, its symbols, dimension, factor, prefixes in use
_PREFIXED: tuple[tuple[str, tuple[str, ...], Dimension, str, str], ...] = (
    ("metre", ("m",), LENGTH, "1", "kilo centi milli micro nano deci"),
    ("meter", (), LENGTH, "1", "kilo centi milli micro nano deci"),
    ("gram", ("g",), MASS, "0.001", "kilo milli micro"),
    ("gramme", (), MASS, "0.001", "kilo milli"),
    ("second", ("s",), TIME, "1", "milli micro nano"),
    ("litre", ("l", "L"), VOLUME, "0.001", "centi milli deci hecto"),
    ("liter", (), VOLUME, "0.001", "centi milli deci hecto"),
    ("byte", ("B",), DATA, "8", "kilo mega giga tera peta"),
    ("bit", ("bit", "b"), DATA, "1", "kilo mega giga tera"),
    ("joule", ("J",), ENERGY, "1", "kilo mega giga"),
    ("watt hour", ("Wh",), ENERGY, "3600", "kilo mega giga tera"),
    ("calorie", ("cal",), ENERGY, "4.184", "kilo"),
    ("electronvolt", ("eV",), ENERGY, "1.602176634e-19", "kilo mega giga"),
    ("watt", ("W",), POWER, "1", "kilo mega giga milli"),
    ("pascal", ("Pa",), PRESSURE, "1", "kilo mega hecto"),
    ("bar", ("bar",), PRESSURE, "100000", "milli"),
)

# "one/many": further spellings, dimension, factor
_PLAIN: tuple[tuple[str, str, Dimension, str], ...] = (
    ("inch/inches", "", LENGTH, "0.0254"),
    ("foot/feet", "ft", LENGTH, "0.3048"),
    ("yard/yards", "yd,yds", LENGTH, "0.9144"),
    ("mile/miles", "mi", LENGTH, "1609.344"),
    ("nautical mile/nautical miles", "nmi", LENGTH, "1852"),
    ("furlong/furlongs", "", LENGTH, "201.168"),
    ("light year/light years", "ly,lightyear,lightyears", LENGTH, "9460730472580800"),
    ("astronomical unit/astronomical units", "au,AU", LENGTH, "149597870700"),
    ("hectare/hectares", "ha", AREA, "10000"),
    ("acre/acres", "ac", AREA, "4046.8564224"),
    ("US gallon/US gallons", "gallon,gallons,gal", VOLUME, "0.003785411784"),
    ("US quart/US quarts", "quart,quarts,qt", VOLUME, "0.000946352946"),
    ("US pint/US pints", "pint,pints,pt", VOLUME, "0.000473176473"),
    ("US cup/US cups", "cup,cups", VOLUME, "0.0002365882365"),
    (
        "US fluid ounce/US fluid ounces",
        "fluid ounce,fluid ounces,fl oz",
        VOLUME,
        "0.0000295735295625",
    ),
    ("US tablespoon/US tablespoons", "tablespoon,tablespoons,tbsp", VOLUME, "0.00001478676478125"),
    ("US teaspoon/US teaspoons", "teaspoon,teaspoons,tsp", VOLUME, "0.00000492892159375"),
    ("oil barrel/oil barrels", "barrel,barrels,bbl", VOLUME, "0.158987294928"),
    ("imperial gallon/imperial gallons", "UK gallon,UK gallons", VOLUME, "0.00454609"),
    ("imperial quart/imperial quarts", "UK quart,UK quarts", VOLUME, "0.0011365225"),
    ("imperial pint/imperial pints", "UK pint,UK pints", VOLUME, "0.00056826125"),
    (
        "imperial fluid ounce/imperial fluid ounces",
        "UK fluid ounce,UK fluid ounces,imperial fl oz,UK fl oz",
        VOLUME,
        "0.0000284130625",
    ),
    ("cubic centimetre/cubic centimetres", "cc,ccm", VOLUME, "0.000001"),
    ("tonne/tonnes", "t,metric ton,metric tons,metric tonne,metric tonnes", MASS, "1000"),
    ("US ton/US tons", "ton,tons,short ton,short tons", MASS, "907.18474"),
    ("long ton/long tons", "imperial ton,imperial tons,UK ton,UK tons", MASS, "1016.0469088"),
    ("pound/pounds", "lb,lbs", MASS, "0.45359237"),
    ("ounce/ounces", "oz", MASS, "0.028349523125"),
    ("stone/stone", "st,stones", MASS, "6.35029318"),
    ("carat/carats", "ct", MASS, "0.0002"),
    ("grain/grains", "", MASS, "0.00006479891"),
    ("kilogram/kilograms", "kilo,kilos,kgs", MASS, "1"),
    ("second/seconds", "sec,secs", TIME, "1"),
    ("minute/minutes", "min,mins", TIME, "60"),
    ("hour/hours", "h,hr,hrs", TIME, "3600"),
    ("day/days", "d", TIME, "86400"),
    ("week/weeks", "wk,wks", TIME, "604800"),
    ("fortnight/fortnights", "", TIME, "1209600"),
    ("month/months", "", MONTHS, "1"),
    ("year/years", "yr,yrs", MONTHS, "12"),
    ("decade/decades", "", MONTHS, "120"),
    ("century/centuries", "", MONTHS, "1200"),
    ("knot/knots", "kn,kt,kts", SPEED, "1852/3600"),
    ("mile per hour/miles per hour", "mph", SPEED, "0.44704"),
    ("kilometre per hour/kilometres per hour", "kph,kmh,kmph", SPEED, "1000/3600"),
    ("foot per second/feet per second", "fps", SPEED, "0.3048"),
    ("BTU/BTU", "btus", ENERGY, "1055.05585262"),
    ("horsepower/horsepower", "hp,mechanical horsepower", POWER, "745.69987158227022"),
    ("metric horsepower/metric horsepower", "PS", POWER, "735.49875"),
    ("atmosphere/atmospheres", "atm", PRESSURE, "101325"),
    (
        "pound per square inch/pounds per square inch",
        "psi",
        PRESSURE,
        str(Fraction("0.45359237") * Fraction("9.80665") / Fraction("0.0254") ** 2),
    ),
    ("millimetre of mercury/millimetres of mercury", "mmhg", PRESSURE, "133.322387415"),
    ("inch of mercury/inches of mercury", "inhg", PRESSURE, "3386.388640341"),
    ("torr/torr", "", PRESSURE, "101325/760"),
    ("megabit per second/megabits per second", "mbps", dimension_of(data=1, time=-1), "1000000"),
    ("gigabit per second/gigabits per second", "gbps", dimension_of(data=1, time=-1), "1000000000"),
    ("kilobit per second/kilobits per second", "kbps", dimension_of(data=1, time=-1), "1000"),
)

_SCALES = (
    ("°C", "c,celsius,centigrade", "1", "273.15"),
    ("°F", "f,fahrenheit", "5/9", "45967/180"),
    ("K", "kelvin,kelvins", "1", "0"),
)
_MONEY = (
    ("$", "dollars", "dollar,dollars,usd,bucks"),
    ("€", "euros", "euro,euros,eur"),
    ("£", "sterling", "gbp,pounds sterling,quid"),
)

_MONEY_WORDS = {
    "$": ("dollar", "dollars"),
    "€": ("euro", "euros"),
    "£": ("pound sterling", "pounds sterling"),
}


@cache
def _table() -> dict[str, Unit]:
    """Symbols as written, then all in lower case; the first to claim a name has it."""
    exact: dict[str, Unit] = {}
    for name, symbols, dimension, factor, prefixes in _PREFIXED:
        _add(exact, Unit(name, f"{name}s", dimension, Fraction(factor)), (name, f"{name}s", *symbols))
        scales = {p: (_PREFIXES[p][0], Fraction(10) ** _PREFIXES[p][1]) for p in prefixes.split()}
        if dimension == DATA:
            scales |= {p: (s, Fraction(2) ** n) for p, (s, n) in _BINARY.items()}
        for prefix, (sign, scale) in scales.items():
            unit = Unit(prefix + name, f"{prefix}{name}s", dimension, Fraction(factor) * scale)
            _add(exact, unit, (unit.one, unit.many, *(sign + symbol for symbol in symbols)))
    for names, others, dimension, factor in _PLAIN:
        one, many = names.split("/")
        _add(exact, Unit(one, many, dimension, Fraction(factor)), (one, many, *_listed(others)))
    for sign, others, factor, offset in _SCALES:
        unit = Unit(sign, sign, TEMPERATURE, Fraction(factor), Fraction(offset))
        degrees = [f"{d} {o}" for d in ("degree", "degrees", "deg", "°") for o in _listed(others)]
        _add(exact, unit, (sign, sign[-1], *_listed(others), *degrees))
    for sign, base, others in _MONEY:
        unit = Unit(sign, sign, dimension_of(**{base: 1}), Fraction(1), is_money=True)
        _add(exact, unit, (sign, *_listed(others)))
    _add(exact, exact["kilobyte"], ("KB",))
    _add(exact, exact["microsecond"], ("us",))
    lowered: dict[str, Unit] = {}
    for spelling, unit in exact.items():
        lowered.setdefault(spelling.lower(), unit)
    return lowered | exact


def _listed(names: str) -> list[str]:
    return names.split(",") if names else []


def _add(table: dict[str, Unit], unit: Unit, spellings: Iterable[str]) -> None:
    for spelling in spellings:
        table.setdefault(spelling, unit)


def find_unit(spelling: str) -> Unit | None:
    """The unit of that name or symbol: "km", "miles", "fl oz". Case counts in Mb and MB."""
    table = _table()
    spelling = spelling.replace("\u03bc", "µ")  # Greek mu, which Unicode folds the micro sign into
    return table.get(spelling) or table.get(spelling.lower())


def power(unit: Unit, exponent: Literal[2, 3]) -> Unit:
    """The square or cubic unit of a length."""
    word = {2: "square", 3: "cubic"}[exponent]
    return Unit(
        f"{word} {unit.one}",
        f"{word} {unit.many}",
        tuple(exponent * e for e in unit.dimension),
        unit.factor**exponent,
        parts=(unit,),
    )


def per(unit: Unit, other: Unit) -> Unit:
    """“kilometres per hour”, of any two units."""
    one, many = _MONEY_WORDS[unit.one] if unit.is_money else (unit.one, unit.many)
    return Unit(
        f"{one} per {other.one}",
        f"{many} per {other.one}",
        tuple(a - b for a, b in zip(unit.dimension, other.dimension, strict=True)),
        unit.factor / other.factor,
        parts=(unit, other),
    )


def kind_of(dimension: Dimension) -> str:
    return KINDS.get(dimension, "another kind of quantity")
