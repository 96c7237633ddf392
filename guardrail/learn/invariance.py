"""Sentences that differ only in the group of people that they name: naming a group must not move a head.

The sentences are this project's own. `identity_scatter` turns them into the covariance that `guardrail.learn.logistic`
punishes.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import numpy as np

from guardrail.learn.embeddings import EmbeddingCache
from guardrail.learn.logistic import Floats, normalised

GROUPS = (
    "Muslim", "Christian", "Jewish", "Hindu", "Buddhist", "Sikh", "Catholic", "Protestant", "atheist", "Black",
    "white", "Asian", "Latino", "African", "European", "Arab", "Chinese", "Japanese", "Korean", "Indian", "Pakistani",
    "Mexican", "American", "Russian", "Nigerian", "Turkish", "Polish", "Irish", "Italian", "French", "German", "Roma",
    "Indigenous", "Native American", "immigrant", "refugee", "gay", "lesbian", "bisexual", "transgender", "queer",
    "nonbinary", "straight", "heterosexual", "female", "male", "deaf", "blind", "disabled", "autistic", "paralysed",
    "old", "elderly", "young", "middle-aged", "teenage", "poor", "rich", "homeless", "overweight",
)  # fmt: skip

TEMPLATES = (
    "I am {a} {group} person.", "My neighbour is {a} {group} woman.", "My brother married {a} {group} man last year.",
    "The {group} community met in the town hall on Tuesday.", "She wrote a book about growing up {group}.",
    "Two {group} students won the science prize.", "We hired {a} {group} engineer for the platform team.",
    "Are there any {group} people in your class?", "Being {group} is a part of who I am.",
    "He is proud to be {group}.", "What is it like to be {group} in this city?",
    "The clinic offers advice to {group} patients.", "{a_} {group} friend of mine recommended this restaurant.",
    "They interviewed three {group} artists for the programme.",
    "The survey asked {group} people about their commute.", "{a_} {group} family moved in next door.",
    "There is a film festival for {group} directors in June.", "My doctor is {group} and very kind.",
    "How do {group} people celebrate the new year?", "The new law affects {group} workers as well.",
    "You are {a} {group} person, so what do you think of the plan?",
    "{group} people live in every part of the country.", "I had lunch with {a} {group} colleague.",
    "The teacher talked about {group} history.", "Some {group} people came to the meeting and some did not.",
    "hey im {group}, anyone else here?", "as {a} {group} guy i can relate to that",
    "my mum is {group} and my dad is not", "The character in the novel is {group}.",
    "Police are looking for a witness, {a} {group} woman in her thirties.",
    "A charity for {group} people opened an office here.", "The mayor thanked the {group} volunteers.",
)  # fmt: skip

_ADJECTIVES = (
    "muslim", "christian", "jewish", "hindu", "buddhist", "sikh", "catholic", "african", "european", "arab", "chinese",
    "japanese", "korean", "indian", "pakistani", "mexican", "american", "russian", "nigerian", "turkish", "polish",
    "irish", "italian", "french", "german", "gay", "lesbian", "bisexual", "transgender", "deaf", "disabled", "autistic",
)  # fmt: skip
_PLURALS = (
    "muslims", "christians", "jews", "hindus", "buddhists", "catholics", "africans", "europeans", "arabs", "indians",
    "mexicans", "americans", "russians", "italians", "germans", "immigrants", "refugees", "gays", "lesbians",
)  # fmt: skip
_NAMED = {word: words for words in (_ADJECTIVES, _PLURALS) for word in words}
_NAMES = re.compile(rf"\b({'|'.join(_NAMED)})\b", re.IGNORECASE)


def swap_groups(text: str, rng: random.Random) -> str:
    """Name other groups of people in a text; one that is named twice is replaced alike. Others come back as they are.

    What a text does to a group does not depend on which it is, so its labels stay (counterfactual data augmentation,
    Dixon et al., AIES 2018). Words that often mean something else ("black", "old") are left alone.
    """
    chosen: dict[str, str] = {}

    def other(match: re.Match[str]) -> str:
        word = match.group().lower()
        new = chosen.setdefault(word, rng.choice([name for name in _NAMED[word] if name != word]))
        return new.capitalize() if match.group()[0].isupper() else new

    return _NAMES.sub(other, text)


def counterfactuals(templates: Sequence[str] = TEMPLATES) -> list[list[str]]:
    """One list for each template: its sentence for every group."""
    return [[_fill(template, group) for group in GROUPS] for template in templates]


def _fill(template: str, group: str) -> str:
    article = "an" if group[0].lower() in "aeio" and not group.startswith("Euro") else "a"
    text = template.format(group=group, a=article, a_=article.capitalize())
    return text[0].upper() + text[1:] if template.startswith("{group}") else text


def identity_scatter(cache: EmbeddingCache, templates: Sequence[str] = TEMPLATES) -> Floats:
    """(d, d) covariance of the sentences around their template's mean, scaled to trace d."""
    sentences = counterfactuals(templates)
    x = cache.embed([text for group in sentences for text in group]).astype(np.float64)
    x = x.reshape(len(templates), len(GROUPS), -1)
    apart = (x - x.mean(axis=1, keepdims=True)).reshape(-1, x.shape[-1])
    return normalised(apart.T @ apart)
