"""What the checks that need no model cost beside those of peers, on the same texts in one run, as ratios.

    python benchmarks/peers.py --python llm-guard=.venvs/peers/bin/python --python presidio=.venvs/peers/bin/python

Three tasks: words of a lexicon, personal data that has a format, secrets. Every side runs in a process of its own (a
peer under the interpreter that `--python` names for it, else under this one), all take turns, and each says how much
processor time a pass over the texts took. `ratio` is a peer's time over ours, the median of the turns. `found` counts the
texts in which a side found something: on `marked` texts, which hold it, and on the others. A peer that cannot be imported
is listed under `left_out` with the reason. Checks that ask a model (llm-guard's toxicity, openai-guardrails' jailbreak,
Presidio's names of people) have no side here: their models have to be fetched. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OURS = "guardrail"
TASKS = {
    "words": (OURS, "litellm", "openai-guardrails", "llm-guard"),
    "personal data": (OURS, "litellm", "presidio"),
    "secrets": (OURS, "openai-guardrails", "llm-guard"),
}
PERSONAL = """
Write to maria.keller@example.org if the parcel does not arrive.
Her card is 4111 1111 1111 1111, it expires in May.
Please transfer the deposit to DE89 3704 0044 0532 0130 00 by Friday.
You can reach the workshop at +44 20 7946 0958 until six.
His number is 078-05-1120, he wrote it on the form himself.
The request came from 192.168.17.23 shortly after midnight.
Cc j.o'neill@mail.example.com on everything, please.
Pay with 5500 0000 0000 0004 or in cash.
""".strip().splitlines()
SECRETS = [
    "Set AWS_ACCESS_KEY_ID=AKIA" + "QYLPMN5HHHFPZAM2 before you start the job.",
    "The bot uses ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a for the release.",
    "curl -H 'Authorization: Bearer xoxb-" + "1234567890-1234567890123-AbCdEfGhIjKlMnOpQrStUvWx' https://slack.com",
    "export STRIPE=sk_live_" + "4eC39HqLyjWDarjtT1zdp7dcTYooMQauvdEDq54NiTphI7jx",
]
PREBUILT = ("email", "us_ssn", "visa", "mastercard", "iban", "ipv4", "us_phone")
ENTITIES = ["EMAIL_ADDRESS", "CREDIT_CARD", "IBAN_CODE", "PHONE_NUMBER", "US_SSN", "IP_ADDRESS"]

Finds = Callable[[str], object]
"""Something true where a text holds what is looked for."""


def lexicon() -> list[str]:
    lines = (ROOT / "policies" / "lexicons" / "swearing.txt").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def texts(task: str) -> tuple[list[str], list[str]]:
    """What holds something, and what holds nothing: the project's own held-aside texts."""

    def held_aside(name: str) -> list[str]:
        with (ROOT / "training" / "heads" / f"{name}.jsonl").open(encoding="utf-8") as stream:
            return [row["text"] for row in map(json.loads, stream) if row["split"] == "test"]

    word = re.compile(rf"\b(?:{'|'.join(map(re.escape, lexicon()))})\b", re.IGNORECASE)
    plain = [text for text in (*held_aside("everyday"), *held_aside("courtesy")) if not word.search(text)]
    marked = {
        "words": [text for text in held_aside("profanity") if word.search(text)],
        "personal data": PERSONAL,
        "secrets": SECRETS,
    }
    return marked[task], plain


def ours(task: str) -> Finds:
    from guardrail.classifiers import pattern, pii, secrets
    from guardrail.classifiers.base import BuildContext
    from guardrail.types import Passage

    context = BuildContext("", "cpu", Path(), Path())
    made = {
        "words": lambda: pattern.build("x", {"words": lexicon()}, context),
        "personal data": lambda: pii.build("x", {}, context),
        "secrets": lambda: secrets.build("x", {}, context),
    }[task]()
    return lambda text: made.score([Passage(text)])[0].value


def litellm(task: str) -> Finds:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    from litellm.proxy.guardrails.guardrail_hooks.litellm_content_filter.content_filter import ContentFilterGuardrail
    from litellm.proxy.guardrails.guardrail_hooks.litellm_content_filter.patterns import get_all_pattern_names
    from litellm.types.guardrails import BlockedWord, ContentFilterAction, ContentFilterPattern

    mask = ContentFilterAction.MASK
    if task == "words":
        options: dict[str, Any] = {"blocked_words": [BlockedWord(keyword=word, action=mask) for word in lexicon()]}
    else:
        known = [name for name in PREBUILT if name in get_all_pattern_names()]
        made = [ContentFilterPattern(pattern_type="prebuilt", pattern_name=name, action=mask) for name in known]
        options = {"patterns": made}
    guard = ContentFilterGuardrail(guardrail_name="peer", **options)
    return lambda text: guard._filter_single_text(text) != text


def openai_guardrails(task: str) -> Finds:
    import asyncio

    from guardrails.checks.text.keywords import KeywordCfg, match_keywords
    from guardrails.checks.text.secret_keys import SecretKeysCfg, secret_keys

    if task == "words":
        keywords = KeywordCfg(keywords=lexicon())
        return lambda text: match_keywords(text, keywords, "peer").tripwire_triggered
    settings, loop = SecretKeysCfg(threshold="balanced"), asyncio.new_event_loop()
    return lambda text: loop.run_until_complete(secret_keys(None, text, settings)).tripwire_triggered


def llm_guard(task: str) -> Finds:
    from llm_guard.input_scanners import BanSubstrings, Secrets

    scanner = BanSubstrings(lexicon(), match_type="word") if task == "words" else Secrets()
    return lambda text: not scanner.scan(text)[1]


def presidio(_: str) -> Finds:
    import spacy
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    class Blank(SpacyNlpEngine):  # type: ignore[misc]
        """English without a trained model: what has a format needs none."""

        def __init__(self) -> None:
            super().__init__(models=[{"lang_code": "en", "model_name": "en_core_web_sm"}])
            self.nlp = {"en": spacy.blank("en")}

    registry = RecognizerRegistry(supported_languages=["en"])
    registry.load_predefined_recognizers(languages=["en"])
    engine = AnalyzerEngine(registry=registry, nlp_engine=Blank(), supported_languages=["en"])
    return lambda text: engine.analyze(text, "en", entities=ENTITIES)


SIDES: dict[str, Callable[[str], Finds]] = {
    OURS: ours,
    "litellm": litellm,
    "openai-guardrails": openai_guardrails,
    "llm-guard": llm_guard,
    "presidio": presidio,
}


def serve(side: str, task: str) -> None:
    """Answer every line on standard input with one pass over the texts."""
    import logging

    answers, sys.stdout = sys.stdout, sys.stderr  # peers print
    logging.disable()
    marked, plain = texts(task)
    try:
        finds = SIDES[side](task)
        found = [sum(bool(finds(text)) for text in part) for part in (marked, plain)]
    except Exception as error:  # noqa: BLE001 (whatever a peer raises is why it is left out)
        print(json.dumps({"left_out": f"{type(error).__name__}: {error}"[:200]}), file=answers, flush=True)
        return
    print(json.dumps({"found": found}), file=answers, flush=True)
    for _ in sys.stdin:
        started = time.process_time()
        for text in (*marked, *plain):
            finds(text)
        print(json.dumps(time.process_time() - started), file=answers, flush=True)


class Child:
    """One side at one task, in a process of its own."""

    def __init__(self, python: str, side: str, task: str) -> None:
        command = [python, __file__, "--serve", side, "--task", task]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(  # noqa: S603 (its own file, under an interpreter that the caller names)
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        said = self.process.stdout.readline() if self.process.stdout else ""
        self.first: dict[str, Any] = json.loads(said) if said else {"left_out": "it ended without an answer"}

    def once(self) -> float:
        """Seconds of processor time of one pass."""
        if self.process.stdin is None or self.process.stdout is None:
            raise SystemExit("a side without pipes")
        self.process.stdin.write("again\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def measure(task: str, pythons: dict[str, str], rounds: int) -> dict[str, Any]:
    """The figures of all sides at one task."""
    marked, plain = texts(task)
    document: dict[str, Any] = {"marked": len(marked), "others": len(plain), "sides": {}, "left_out": {}}
    with ExitStack() as stack:
        children: dict[str, Child] = {}
        for side in TASKS[task]:
            child = Child(pythons.get(side, sys.executable), side, task)
            stack.callback(child.end)
            if "found" in child.first:
                children[side] = child
            else:
                document["left_out"][side] = child.first["left_out"]
        times: dict[str, list[float]] = {side: [] for side in children}
        for turn in range(rounds):
            for side in children if turn % 2 else reversed(children):
                times[side].append(children[side].once())
    for side, values in times.items():
        hits, alarms = children[side].first["found"]
        micros = statistics.median(values) / (len(marked) + len(plain)) * 1e6
        figures = {"cpu_us_per_text": round(micros, 1), "found": {"marked": hits, "others": alarms}}
        if side != OURS:
            pairs = [theirs / own for theirs, own in zip(values, times[OURS], strict=True)]
            figures["ratio"] = round(statistics.median(pairs), 2)
        document["sides"][side] = figures
    return document


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", action="append", default=[], help="SIDE=INTERPRETER, where a peer is installed")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--serve", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        serve(options.serve, options.task)
        return
    pythons = dict(each.split("=", 1) for each in options.python)
    print(json.dumps({task: measure(task, pythons, options.rounds) for task in TASKS}, indent=2))


if __name__ == "__main__":
    main()
