"""Upstreams that try to get a disallowed sentence past the guard: the streams of messages. See `adversary`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from adversary import APIS, WHOLE, ahear, assert_nothing_of_it, hear, hear_harmless, whole

CASES = [(api, name) for api in ("messages",) for name in APIS[api][0]]


@pytest.mark.parametrize(("size", "end"), [(1 << 20, "\n"), (1, "\r\n"), (7, "\r")])
@pytest.mark.parametrize(("api", "name"), CASES)
def test_not_a_word_of_it_is_delivered(guard: Any, api: str, name: str, size: int, end: str) -> None:
    heard = hear(api, name, guard, size, end)
    assert heard
    assert_nothing_of_it(heard)


@pytest.mark.parametrize(("api", "name"), CASES)
async def test_nor_asynchronously(guard: Any, api: str, name: str) -> None:
    assert_nothing_of_it(await ahear(api, name, guard, 23))


@pytest.mark.parametrize(
    ("api", "name"), [("messages", "plain"), ("messages", "over_two_blocks"), ("messages", "thinking")]
)
def test_the_same_streams_are_delivered_if_nothing_is_wrong_with_them(guard: Any, api: str, name: str) -> None:
    heard = hear_harmless(api, name, guard)
    assert "frumpish" in heard
    assert "withheld" not in heard


@pytest.mark.parametrize(("api", "name"), [(api, name) for api in ("messages",) for name in WHOLE[api]])
def test_whole_answers(guard: Any, api: str, name: str) -> None:
    assert_nothing_of_it([whole(api, WHOLE[api][name], guard)])
