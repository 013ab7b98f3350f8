"""The time elsewhere: places and their zones, and the questions about them.

Places are the tz database's own cities, and some that it files under others.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime, time
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from monai_node.agents.examples.date_reading import Dates
from monai_node.agents.examples.reading import Cursor, Phrases
from monai_node.agents.examples.spans import said

_PLACE_WORDS_MAX = 4
_WHAT_TIME = Phrases(
    """what time is it|what time it is|what's the time|what is the time|what is the current time|
    what's the current time|the current time|current time|the time|local time|the local time|
    what is the local time|what time|time|what day is it|what date is it|what's the date|
    what is the date|what is the time now|what time will it be|what hour is it"""
)
_GAP = Phrases(
    """what is the time difference|what's the time difference|the time difference|time difference|
    how many hours|how many hours difference|how many hours difference is there|hour difference|
    time zone difference|what is the time zone difference"""
)

# Places that are asked for and are no key of the tz database; countries only where one zone holds.
_OTHERS = {
    "America/Los_Angeles": "california,san francisco,seattle,san diego,las vegas,silicon valley",
    "America/New_York": "new york city,nyc,boston,washington,washington dc,miami,atlanta,philadelphia",
    "America/Chicago": "houston,dallas,texas,austin,new orleans,minneapolis",
    "America/Denver": "salt lake city",
    "America/Toronto": "ottawa,montreal",
    "America/Sao_Paulo": "rio,rio de janeiro",
    "America/Argentina/Buenos_Aires": "argentina",
    "Asia/Kolkata": "india,mumbai,bombay,delhi,new delhi,bangalore,bengaluru,chennai,hyderabad",
    "Asia/Shanghai": "china,beijing,peking,shenzhen,guangzhou",
    "Asia/Tokyo": "osaka,kyoto",
    "Asia/Seoul": "korea,south korea",
    "Asia/Dubai": "abu dhabi,uae",
    "Asia/Karachi": "pakistan,islamabad,lahore",
    "Asia/Ho_Chi_Minh": "vietnam,hanoi",
    "Asia/Bangkok": "thailand",
    "Asia/Manila": "philippines",
    "Asia/Kathmandu": "nepal",
    "Asia/Jerusalem": "tel aviv",
    "Asia/Riyadh": "saudi arabia",
    "Europe/London": "uk,united kingdom,britain,england,scotland,wales,edinburgh,manchester",
    "Europe/Paris": "france,lyon,marseille",
    "Europe/Berlin": "germany,munich,hamburg,frankfurt,cologne,stuttgart",
    "Europe/Rome": "italy,milan,naples",
    "Europe/Madrid": "barcelona",
    "Europe/Zurich": "switzerland,geneva,bern,basel",
    "Europe/Vienna": "austria",
    "Europe/Amsterdam": "netherlands,the netherlands,holland",
    "Europe/Brussels": "belgium",
    "Europe/Stockholm": "sweden",
    "Europe/Oslo": "norway",
    "Europe/Copenhagen": "denmark",
    "Europe/Helsinki": "finland",
    "Europe/Athens": "greece",
    "Europe/Kyiv": "ukraine,kiev",
    "Europe/Moscow": "saint petersburg",
    "Europe/Dublin": "ireland",
    "Pacific/Auckland": "new zealand,wellington",
    "Africa/Nairobi": "kenya",
    "Africa/Lagos": "nigeria",
    "Africa/Johannesburg": "south africa,cape town",
}


@cache
def _zones() -> dict[str, str]:
    found: dict[str, str] = {}
    keys = sorted(available_timezones())
    # Cities before countries and abbreviations; "EST5EDT" and the like are nobody's word for a place.
    for key in (*(k for k in keys if "/" in k and not k.startswith("Etc/")), *keys):
        if not any(character.isdigit() for character in key):
            found.setdefault(folded(key.rsplit("/", 1)[-1].replace("_", " ")), key)
    for key, places in _OTHERS.items():
        found.update(dict.fromkeys(places.split(","), key))
    return found


def folded(name: str) -> str:
    """Lower case without accents: "São Paulo" is "sao paulo"."""
    letters = unicodedata.normalize("NFKD", name.lower())
    return "".join(c for c in letters if not unicodedata.combining(c)).replace("-", " ")


def find_zone(place: str) -> ZoneInfo | None:
    """The zone of a city or a country with one zone; None when it is not known."""
    key = _zones().get(folded(place))
    return ZoneInfo(key) if key else None


def answer_time(reader: Dates) -> str | None:
    """The answer to a question about the time here or elsewhere, if one stands at the cursor."""
    start = reader.index
    for answer in (_time_gap, _time_there_when, _time_now):
        found = answer(reader)
        if found is not None:
            return found
        reader.index = start
    return None


def _time_now(reader: Dates) -> str | None:
    """“what time is it in Tokyo”, “current time in New York”, “and in Paris” after such a question."""
    asked = reader.take_from(_WHAT_TIME)
    is_day = reader.words[reader.index - 1] in ("date", "it") and "time" not in reader.words
    reader.take("is it now", "is it", "right now", "now")
    if not reader.take("in", "at", "for"):
        bare = asked and not is_day and reader.words[reader.index - 1] not in ("time", "the")
        named = asked and "time" in reader.words and reader.words[0] in ("what", "what's")
        return _clock_text(reader.ctx.now, "") if bare or named else None
    if not asked and not any("time" in turn.content.lower() for turn in reader.ctx.turns[-2:]):
        return None
    place = _place(reader)
    return None if place is None else _clock_text(reader.ctx.now.astimezone(place[1]), place[0])


def _clock_text(moment: datetime, place: str) -> str:
    where = f" in {place}" if place else ""
    return f"It is {moment:%H:%M} on {said(moment.date())}{where} ({_zone_text(moment)})."


def _zone_text(moment: datetime) -> str:
    minutes = round((moment.utcoffset() or moment - moment).total_seconds() / 60)
    hours, rest = divmod(abs(minutes), 60)
    offset = f"UTC{'-' if minutes < 0 else '+'}{hours}" + (f":{rest:02}" if rest else "")
    key = getattr(moment.tzinfo, "key", "")
    return f"{key}, {offset}" if key else offset


def _place(reader: Cursor) -> tuple[str, ZoneInfo] | None:
    """The longest name of a place at the cursor, with its country if one follows: "Paris, France"."""
    for length in range(_PLACE_WORDS_MAX, 0, -1):
        tokens = reader.tokens[reader.index : reader.index + length]
        name = " ".join(token.text for token in tokens)
        zone = find_zone(name) if len(tokens) == length else None
        if zone is not None:
            reader.index += length
            start = reader.index
            if not (reader.take(",") and find_zone(reader.peek().text)):
                reader.index = start - 1
            reader.index += 1
            return name if name != name.lower() else name.title(), zone
    return None


def _time_gap(reader: Dates) -> str | None:
    """“time difference between London and Tokyo”."""
    if not reader.take_from(_GAP):
        return None
    reader.take("are there", "is it", "are", "is")
    if not reader.take("between", "from"):
        return None
    first = _place(reader)
    second = _place(reader) if first and reader.take("and", "to") else None
    if first is None or second is None:
        return None
    here, there = (reader.ctx.now.astimezone(zone) for _, zone in (first, second))
    gap = (there.replace(tzinfo=None) - here.replace(tzinfo=None)).total_seconds() / 3600
    if gap == 0:
        return f"{first[0]} and {second[0]} have the same time today."
    hours = f"{abs(gap):g} hour{'s' if abs(gap) != 1 else ''}"
    word = "ahead of" if gap > 0 else "behind"
    return f"{second[0]} is {hours} {word} {first[0]} today."


def _time_there_when(reader: Dates) -> str | None:
    """“what time is it in Tokyo when it is 3 pm in London”, and the other way round."""
    there = None
    if reader.take_from(_WHAT_TIME) and reader.take("in", "at"):
        there = _place(reader)
        if there is None:
            return None
    if not reader.take("when it's", "when it is", "if it's", "if it is", "at"):
        return None
    moment = _moment_of_day(reader)
    here = _place(reader) if moment and reader.take("in") else None
    reader.take(",")
    if there is None and here and reader.take_from(_WHAT_TIME) and reader.take("in", "at"):
        there = _place(reader)
    if moment is None or here is None or there is None:
        return None
    today = reader.ctx.now.astimezone(here[1]).date()
    start = datetime.combine(today, moment, here[1])
    result = start.astimezone(there[1])
    day = "" if result.date() == today else f" on {said(result.date())}"
    return f"{start:%H:%M} in {here[0]} is {result:%H:%M}{day} in {there[0]}."


def _moment_of_day(reader: Cursor) -> time | None:
    token = reader.take_kind("clock")
    if token is None:
        words = {"noon": 12, "midday": 12, "midnight": 0}
        word = reader.take(*words)
        return time(words[word]) if word else None
    figures = re.match(r"(\d+)(?::(\d+))?\s?([ap])?", token.lower)
    if figures is None:
        return None
    hour, minute, half = int(figures[1]), int(figures[2] or 0), figures[3]
    if half and not 1 <= hour <= 12:
        return None
    hour = hour % 12 + (12 if half == "p" else 0) if half else hour
    return time(hour, minute) if hour < 24 and minute < 60 else None
