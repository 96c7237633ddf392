"""The revision changes when, and only when, the policy decides by something else."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.policy import PolicyDocument, load_policy
from guardrail.policy.revision import canonical_json, revision_of

PATTERN = """\
policy: p
classifiers: {words: {kind: pattern, lexicon: words.txt}}
rules: {r: {weights: {words: 1}, thresholds: {block: 0.5}}}
"""


def shuffled(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        items = [(key, shuffled(item, rng)) for key, item in value.items()]
        rng.shuffle(items)
        return dict(items)
    return value


@settings(max_examples=40, deadline=None)
@given(st.integers())
def test_the_order_of_keys_does_not_matter(seed: int) -> None:
    plain = load_policy("general").document.model_dump(mode="json")
    one = PolicyDocument.model_validate(plain)
    other = PolicyDocument.model_validate(shuffled(plain, random.Random(seed)))
    assert revision_of(canonical_json(one)) == revision_of(canonical_json(other))


def test_comments_spelling_and_defaults_do_not_matter(load, minimal) -> None:
    revision = load(minimal).revision
    assert load("# a comment\n" + minimal.replace("0.4", "0.40").replace("1.0", "1")).revision == revision
    assert load(minimal + "on_error: block\nrewrite: {candidates: 8}\n").revision == revision
    assert load(json.dumps(yaml.safe_load(minimal))).revision == revision


def test_it_is_the_hash_of_the_canonical_text(load, minimal) -> None:
    policy = load(minimal)
    assert policy.revision == "sha256:" + hashlib.sha256(policy.canonical.encode()).hexdigest()
    assert json.loads(policy.canonical)["rules"]["harassment"]["weights"] == {"toxicity": 1.0, "insult": 0.5}


def test_every_meaningful_edit_changes_it(load, minimal) -> None:
    revisions = {
        load(text).revision
        for text in (
            minimal,
            minimal.replace("block: 0.9", "block: 0.91"),
            minimal.replace("insult: 0.5", "insult: 0.6"),
            minimal.replace("policy: p", "policy: q"),
            minimal + "mode: shadow\n",
            minimal + "refusal: No.\n",
            minimal + "rewrite: {order: [redact, dglm]}\n",
            minimal + "rewrite: {order: [dglm, redact]}\n",
        )
    }
    assert len(revisions) == 8


def test_extending_or_writing_out_is_the_same(load, minimal) -> None:
    whole = load(minimal).revision
    assert (
        load(p="policy: p\nextends: parent\n", parent=minimal.replace("policy: p", "policy: parent")).revision == whole
    )


def test_the_content_of_a_lexicon_counts_and_its_place_does_not(write) -> None:
    write("a/words.txt", "one\n")
    write("b/words.txt", "one\n")
    first = load_policy(write("a/p.yaml", PATTERN))
    assert load_policy(write("b/p.yaml", PATTERN)).revision == first.revision
    assert "words.txt" not in first.canonical
    write("b/words.txt", "two\n")
    assert load_policy("b/p.yaml").revision != first.revision


def test_any_text_has_a_canonical_form(load, minimal) -> None:
    policy = load(minimal + 'refusal: "a\\u202E\\0 é"\n')
    assert policy.revision == revision_of(policy.canonical)
    assert policy.canonical.isascii()
    assert json.loads(policy.canonical)["refusal"] == "a\u202e\0 é"
