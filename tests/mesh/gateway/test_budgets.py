"""How much a key may still use, with time in the test's hands."""

from __future__ import annotations

import pytest

from monai_node.mesh.gateway.access.budgets import Budgets, DayUsage, Failures
from monai_node.mesh.gateway.errors import OverLimit, error_headers
from monai_node.mesh.keys import new_key

DAY = 86400.0
RATED, _ = new_key(0.0, requests_per_minute=3)
METERED, _ = new_key(0.0, tokens_per_day=100)


def refusal(budgets: Budgets, key: object, now: float) -> OverLimit:
    with pytest.raises(OverLimit) as refused:
        budgets.take(key, now)  # type: ignore[arg-type]
    return refused.value


def test_a_minutes_requests_may_come_at_once_and_then_one_as_each_becomes_free() -> None:
    budgets = Budgets()
    for _ in range(3):
        budgets.take(RATED, 1000.0)
    refused = refusal(budgets, RATED, 1000.0)
    assert (refused.status, refused.code) == (429, "rate_limit_exceeded")
    assert refused.retry_after_seconds == pytest.approx(20.0)
    budgets.take(RATED, 1020.0)
    refusal(budgets, RATED, 1020.0)


def test_headers_say_what_is_left_as_openais_do() -> None:
    budgets = Budgets()
    budgets.take(RATED, 1000.0)
    assert budgets.headers(RATED, 1000.0) == {
        "x-ratelimit-limit-requests": "3",
        "x-ratelimit-remaining-requests": "2",
        "x-ratelimit-reset-requests": "20s",
    }
    budgets.spend(METERED.id, 130, 1000.0)
    assert budgets.headers(METERED, 1000.0) == {
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "23h43m20s",
    }
    assert budgets.headers(new_key(0.0)[0], 0.0) == {}


def test_a_clock_that_is_put_back_neither_gives_nor_takes() -> None:
    budgets = Budgets()
    for _ in range(3):
        budgets.take(RATED, 1000.0)
    refusal(budgets, RATED, 10.0)
    budgets.take(RATED, 30.0)


def test_spent_tokens_hold_until_the_day_ends_and_no_client_need_try_again_soon() -> None:
    budgets = Budgets()
    budgets.spend(METERED.id, 99, DAY + 10)
    budgets.take(METERED, DAY + 10)
    budgets.spend(METERED.id, 1, DAY + 20)
    refused = refusal(budgets, METERED, 2 * DAY - 600)
    assert refused.code == "insufficient_quota"
    assert error_headers(refused) == {"retry-after": "600", "x-should-retry": "false"}
    budgets.take(METERED, 2 * DAY)


def test_a_restart_forgets_no_token_of_today_and_all_of_yesterday() -> None:
    before = Budgets()
    before.spend(METERED.id, 100, DAY)
    usage = DayUsage.model_validate_json(before.usage().model_dump_json())
    refusal(Budgets(usage), METERED, DAY + 1)
    Budgets(usage).take(METERED, 2 * DAY)


def test_a_revoked_key_leaves_nothing_behind() -> None:
    budgets = Budgets()
    budgets.spend(METERED.id, 5, 0.0)
    budgets.keep_only({RATED.id})
    assert budgets.usage().tokens == {}


def test_an_address_that_shows_wrong_keys_is_slowed_down_and_no_other() -> None:
    failures = Failures()
    waits = [failures.failed("192.0.2.1", 0.0) for _ in range(11)]
    assert waits == [*[0.0] * 10, pytest.approx(6.0)]
    assert failures.failed("192.0.2.2", 0.0) == 0.0
    assert failures.failed("192.0.2.1", 6.1) == 0.0


def test_one_network_is_one_source_in_ipv6_and_not_in_ipv4() -> None:
    failures = Failures()
    for n in range(10):
        failures.failed(f"2001:db8::{n}", 0.0)
        failures.failed(f"::ffff:192.0.2.{n}", 0.0)
    assert failures.failed("2001:db8::aaaa", 0.0) > 0
    assert failures.failed("2001:db8:0:1::1", 0.0) == 0.0
    assert failures.failed("::ffff:192.0.2.100", 0.0) == 0.0


def test_the_table_of_addresses_is_bounded() -> None:
    failures = Failures()
    for n in range(5000):
        failures.failed(f"10.0.{n // 256}.{n % 256}", 0.0)
    assert len(failures) == 1024
