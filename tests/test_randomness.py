"""Ids and salts: all different, in all threads, and in a child process others than in its parent."""

from __future__ import annotations

import os
import uuid
from concurrent.futures import ThreadPoolExecutor

from guardrail.randomness import new_id, random_bytes


def test_ids_are_uuids_of_version_four() -> None:
    for _ in range(600):  # over more than one page
        found = uuid.UUID(new_id())
        assert (found.version, found.variant) == (4, uuid.RFC_4122)


def test_no_two_threads_get_the_same() -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: random_bytes(16), range(4000)))
    assert len(set(found)) == 4000
    assert {len(one) for one in found} == {16}


def test_a_child_process_gets_others_than_its_parent() -> None:
    random_bytes(16)  # a page is open
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, random_bytes(16))
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reading, 16)
    assert len(theirs) == 16
    assert theirs != random_bytes(16)


def test_more_than_is_left_of_a_page_is_fetched_anew() -> None:
    assert len(random_bytes(3000)) == len(random_bytes(3000)) == 3000
