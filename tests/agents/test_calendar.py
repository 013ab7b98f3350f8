from __future__ import annotations

import calendar as stdlib_calendar
import re
import time
from contextlib import suppress
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_node.agents import Abstain
from monai_node.agents.examples.calendar_dates import agent
from monai_node.agents.examples.spans import MONTHS, WEEKDAYS, Span, easter, months_between, working_days
from monai_node.agents.testing import ask, context, turns

_NOW = "2026-11-20T14:05"  # a Friday


def _answer(text: str, *earlier: str, locale: str = "", zone: str = "Europe/Paris", now: str = _NOW) -> str:
    return ask(agent, text, context=context(now, timezone=zone, locale=locale, turns=turns(*earlier)))


@pytest.mark.parametrize(
    ("text", "result"),
    [
        # today and near it
        ("What day is it today?", "Today is Friday, 20 November 2026."),
        ("what's the date", "Today is Friday, 20 November 2026."),
        ("what day is it tomorrow", "Tomorrow is Saturday, 21 November 2026."),
        ("the day after tomorrow", "The day after tomorrow is Sunday, 22 November 2026."),
        ("what date is 90 days from now", "90 days from now is Thursday, 18 February 2027."),
        ("What date will it be in 90 days?", "In 90 days it is Thursday, 18 February 2027."),
        ("what date was it 100 days ago", "100 days ago was Wednesday, 12 August 2026."),
        ("a fortnight ago", "A fortnight ago was Friday, 6 November 2026."),
        ("10 working days from today", "10 working days from today is Friday, 4 December 2026."),
        ("when is next Friday", "Next Friday is Friday, 27 November 2026."),
        ("this Friday", "Today is Friday, 20 November 2026."),
        ("last Friday", "Last Friday was Friday, 13 November 2026."),
        ("what date is three weeks from Tuesday", "Three weeks from Tuesday is Tuesday, 15 December 2026."),
        ("first Monday of September 2027", "First Monday of September 2027 is Monday, 6 September 2027."),
        (
            "what is the last Friday of this month",
            "The last Friday of this month is Friday, 27 November 2026.",
        ),
        (
            "what is the last day of February 2028",
            "The last day of February 2028 is Tuesday, 29 February 2028.",
        ),
        # dates as people write them
        ("what weekday was 20 July 1969", "20 July 1969 was a Sunday."),
        ("What day of the week was July 20th, 1969?", "20 July 1969 was a Sunday."),
        ("what weekday was the 20th of July 1969?", "20 July 1969 was a Sunday."),
        ("what weekday is 1969-07-20", "20 July 1969 was a Sunday."),
        ("what weekday is 20.7.1969", "20 July 1969 was a Sunday."),
        ("what weekday is 7/20/1969", "20 July 1969 was a Sunday."),
        ("what weekday is 3/7/2024", "3 July 2024 was a Wednesday (3/7/2024 read with the day first)."),
        ("what weekday was 1 January 1500", "1 January 1500 (Gregorian calendar) was a Monday."),
        ("what weekday is 30 February 2024", "There is no 30 February 2024."),
        ("when is Easter 2025", "Easter 2025 was Sunday, 20 April 2025."),
        ("when does Easter fall in 2030?", "Easter 2030 is Sunday, 21 April 2030."),
        ("when is Christmas", "Christmas is Friday, 25 December 2026."),
        ("is 5 May 2026 a Tuesday", "Yes: 5 May 2026 was a Tuesday."),
        ("is 21 November 2026 a weekday?", "No: 21 November 2026 is a Saturday."),
        # adding and counting
        (
            "add 3 weeks and 2 days to 5 May 2026",
            "3 weeks and 2 days after 5 May 2026 was Thursday, 28 May 2026.",
        ),
        ("subtract 10 days from 1 March 2024", "10 days before 1 March 2024 was Tuesday, 20 February 2024."),
        ("31 January 2027 plus 1 month", "31 January 2027 plus 1 month is Sunday, 28 February 2027."),
        ("days until 25 December", "It is 35 days until Friday, 25 December 2026."),
        ("how many days are left until Christmas?", "It is 35 days until Friday, 25 December 2026."),
        (
            "how many weeks until 1 March 2027",
            "It is 14 weeks and 3 days (101 days) until Monday, 1 March 2027.",
        ),
        ("how many days until 20 November", "Friday, 20 November 2026 is today."),
        ("how many days are left in this year", "It is 41 days until Thursday, 31 December 2026."),
        (
            "how many days between 3 March 2024 and 2024-05-01",
            "From Sunday, 3 March 2024 to Wednesday, 1 May 2024 is 59 days.",
        ),
        (
            "how many days from 1 November to 3 February",
            "From Sunday, 1 November 2026 to Wednesday, 3 February 2027 is 94 days.",
        ),
        (
            "how many days from 3 March to 5 May 2024",
            "From Sunday, 3 March 2024 to Sunday, 5 May 2024 is 63 days.",
        ),
        (
            "how long ago was 1 January 2000",
            "Saturday, 1 January 2000 was 26 years, 10 months and 19 days (9820 days) ago.",
        ),
        ("how many days since 1 January 2026", "Thursday, 1 January 2026 was 323 days ago."),
        (
            "how many business days between 1 June 2026 and 15 July 2026",
            "From Monday, 1 June 2026 to Wednesday, 15 July 2026 is 33 weekdays (Monday to Friday, both "
            "dates counted, public holidays not left out).",
        ),
        (
            "how old is someone born on 3 March 1990",
            "Someone born on Saturday, 3 March 1990 is 36 years old today.",
        ),
        # the calendar
        ("is 2028 a leap year", "Yes, 2028 is a leap year: its February has 29 days."),
        ("Was 1900 a leap year?", "No, 1900 is not a leap year: its February has 28 days."),
        ("when is the next leap year", "The next leap year is 2028."),
        ("how many days are in February 2028", "February 2028 has 29 days."),
        ("how many days does February have in 2027", "February 2027 has 28 days."),
        ("how many days are there in 2028", "2028 has 366 days."),
        ("ISO week of 1 January 2027", "Friday, 1 January 2027 is in ISO week 53 of 2026 (2026-W53)."),
        ("what week is it", "Friday, 20 November 2026 is in ISO week 47 of 2026 (2026-W47)."),
        ("what day of the year is 5 May 2026", "Tuesday, 5 May 2026 was day 125 of 2026."),
        ("what year is it", "It is 2026."),
        # the clock
        ("what time is it", "It is 14:05 on Friday, 20 November 2026 (Europe/Paris, UTC+1)."),
        (
            "what time is it in Tokyo",
            "It is 22:05 on Friday, 20 November 2026 in Tokyo (Asia/Tokyo, UTC+9).",
        ),
        (
            "What's the current time in São Paulo?",
            "It is 10:05 on Friday, 20 November 2026 in São Paulo (America/Sao_Paulo, UTC-3).",
        ),
        (
            "time in Kathmandu",
            "It is 18:50 on Friday, 20 November 2026 in Kathmandu (Asia/Kathmandu, UTC+5:45).",
        ),
        ("time difference between London and New York", "New York is 5 hours behind London today."),
        (
            "what time is it in Tokyo when it is 3 pm in London",
            "15:00 in London is 00:00 on Saturday, 21 November 2026 in Tokyo.",
        ),
        # two questions
        (
            "What day is it today and is 2028 a leap year?",
            "Today is Friday, 20 November 2026.\nYes, 2028 is a leap year: its February has 29 days.",
        ),
        ("99999999999 days from now", "That lies outside the years 1 to 9999, which is as far as I count."),
        ("9000 years from now", "That lies outside the years 1 to 9999, which is as far as I count."),
    ],
)
def test_a_question_has_its_answer(text: str, result: str) -> None:
    assert _answer(text) == result


def test_today_is_the_askers() -> None:
    assert _answer("what day is it", zone="Asia/Tokyo", now="2026-11-20T23:30+00:00") == (
        "Today is Saturday, 21 November 2026."
    )


@pytest.mark.parametrize(
    ("locale", "day"),
    [("en-US", "7 March 2024"), ("en_us", "7 March 2024"), ("en-GB", "3 July 2024"), ("", "3 July 2024")],
)
def test_the_locale_decides_an_ambiguous_date_and_the_answer_says_how(locale: str, day: str) -> None:
    answer = _answer("what weekday was 3/7/2024", locale=locale)
    assert answer.startswith(day)
    assert f"read with the {'month' if day[0] == '7' else 'day'} first" in answer


def test_a_bare_day_is_a_question_only_where_dates_are_the_subject() -> None:
    weather = ("How is the weather today?", "It rains.")
    for text in ("and tomorrow?", "and next Friday?"):
        with pytest.raises(Abstain):
            _answer(text, *weather)
    dates = ("when is next Monday?", "Next Monday is Monday, 23 November 2026.")
    assert _answer("and next Friday?", *dates) == "Next Friday is Friday, 27 November 2026."
    assert _answer("next Friday") == "Next Friday is Friday, 27 November 2026."


def test_that_is_the_last_date_that_was_said() -> None:
    said = ("add 3 weeks to 5 May 2026", "3 weeks after 5 May 2026 was Tuesday, 26 May 2026.")
    assert _answer("what week is that", *said).startswith("Tuesday, 26 May 2026 was in ISO week 22")
    assert _answer("and in London?", "what time is it in Tokyo", "22:05").startswith("It is 13:05 on")


@pytest.mark.parametrize(
    "text",
    """What is the weather tomorrow?
What happened on 20 July 1969?
Who was born on 5 May 1818?
37 * 49
how many days are in 3 weeks
how many days in a week
what time is it in Atlantis
Schedule a meeting for next Friday
remind me tomorrow at 10:30
when was the French Revolution
what is Christmas
What is May?
Who is April?
March on
Write a poem about Friday
Is Friday a good day to travel?
25 December
20 July 1969
how long does it take to boil an egg
how many people live in Tokyo
what is the time complexity of quicksort
when does the shop open on Sunday
what date is our meeting
How old is the universe?
How old is Tom Hanks?
between 5 and 10
What day is the concert in Tokyo?
convert 5 miles to km
Tell me a joke about today's news
Is 2028 a good year?
What week of pregnancy is this
the second of the two
what day comes after Monday
How many weeks of holiday do I have?
Translate 'today is Monday' to French
tomorrow
Friday""".splitlines(),
)
def test_what_is_no_question_about_dates_is_left_to_others(text: str) -> None:
    with pytest.raises(Abstain):
        _answer(text)


# --- against Python's own calendar ------------------------------------------------------------------
_DATES = st.dates(date(1600, 1, 1), date(9000, 12, 31))


def _spelled(day: date) -> str:
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"


@settings(deadline=None)
@given(
    _DATES,
    st.sampled_from(["{0.day} {1} {0.year}", "{1} {0.day}, {0.year}", "{0}", "{0.day}.{0.month}.{0.year}"]),
)
def test_weekdays_agree_with_datetime(day: date, form: str) -> None:
    shown = form.format(day, MONTHS[day.month - 1])
    assert re.match(
        rf"{_spelled(day)} (is|was) a {WEEKDAYS[day.weekday()]}\b", _answer(f"what weekday is {shown}")
    )


@settings(deadline=None)
@given(_DATES, _DATES)
def test_days_between_agree_with_datetime(first: date, second: date) -> None:
    answer = _answer(f"how many days between {first} and {_spelled(second)}")
    days = abs((second - first).days)
    assert answer.endswith(f"is {days} day{'s' if days != 1 else ''}." if days else f"{_spelled(first)}.")


@settings(deadline=None)
@given(_DATES, st.integers(0, 300_000))
def test_adding_days_agrees_with_datetime(day: date, count: int) -> None:
    expected = day + timedelta(days=count)
    assert f", {_spelled(expected)}." in _answer(f"what date is {count} days after {_spelled(day)}")


@given(_DATES, st.integers(0, 5000))
def test_months_are_added_by_the_calendar_and_counted_back(day: date, count: int) -> None:
    later = Span(months=count).after(day)
    assert (later.year * 12 + later.month) - (day.year * 12 + day.month) == count
    assert later.day == min(day.day, stdlib_calendar.monthrange(later.year, later.month)[1])
    assert months_between(day, later) == count


@given(_DATES, st.integers(0, 400))
def test_working_days_are_the_mondays_to_fridays(first: date, count: int) -> None:
    days = [first + timedelta(days=n) for n in range(count + 1)]
    assert working_days(first, days[-1]) == sum(day.weekday() < 5 for day in days)


@given(_DATES, st.integers(1, 300), st.sampled_from([1, -1]))
def test_adding_working_days_lands_on_the_nth_one(start: date, count: int, sign: int) -> None:
    day = start
    for _ in range(count):
        day += timedelta(days=sign)
        while day.weekday() > 4:
            day += timedelta(days=sign)
    assert Span(working_days=count).after(start, sign) == day


@pytest.mark.parametrize(
    ("year", "month", "day"),
    [(1961, 4, 2), (1998, 4, 12), (2000, 4, 23), (2008, 3, 23), (2024, 3, 31), (2038, 4, 25), (2285, 3, 22)],
)
def test_easter_falls_where_the_tables_say(year: int, month: int, day: int) -> None:
    assert easter(year) == date(year, month, day)


@settings(deadline=None)
@given(
    st.datetimes(datetime(2000, 1, 1), datetime(2035, 1, 1)),
    st.sampled_from(
        [("Tokyo", "Asia/Tokyo"), ("New York", "America/New_York"), ("sydney", "Australia/Sydney")]
    ),
)
def test_the_time_elsewhere_agrees_with_zoneinfo(moment: datetime, place: tuple[str, str]) -> None:
    there = moment.replace(tzinfo=ZoneInfo("UTC")).astimezone(ZoneInfo(place[1]))
    answer = _answer(f"what time is it in {place[0]}?", zone="UTC", now=moment.isoformat())
    assert answer.startswith(f"It is {there:%H:%M} on {WEEKDAYS[there.weekday()]}, {_spelled(there.date())}")


# --- hostile input ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text",
    [
        "what day is it " * 15_000,
        "what date is " + "1 day after " * 300 + "today",
        "what date is today" + " plus 1 day" * 300,
        "what date is " + "1 day on " * 430 + "today",
        "what date is " + "a day after " * 300 + "nothing",
        "what date is 1 day" + " and 1 day" * 350 + " ago",
        "999999999 working days from today",
        "what date is 999999999 months from now",
        "how many days between 0001-01-01 and 9999-12-31",
        "the day before 1 January 0001 is when",
        "what weekday is 0000-00-00",
        "what time is it in " + "a " * 1900,
        "what weekday is 3/7/" * 190,
        "(" * 3900,
        "\0",
    ],
)
def test_hostile_text_costs_little_time(text: str) -> None:
    start = time.process_time()
    with suppress(Abstain):
        assert len(_answer(text)) < 5000
    assert time.process_time() - start < 1.0


_WORDS = re.findall(
    r"\S+",
    "what day date is was the of in on to from between and days weeks until ago today Friday next last 25 "
    "December 2024-05-01 3/7/2024 week a leap year time London plus add 9999 first month",
)


@settings(max_examples=300, deadline=1000)
@given(st.lists(st.sampled_from(_WORDS), max_size=12))
def test_any_sequence_of_words_is_answered_or_left_to_others(words: list[str]) -> None:
    with suppress(Abstain):
        assert _answer(" ".join(words)).endswith(".")
