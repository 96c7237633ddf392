"""Repair and cost, suites: against people, baselines and published systems; and what it all costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardrail.dglm.plans import SpanRequest
from guardrail.evaluate.bench import Bench
from guardrail.evaluate.cost import proposal_costs, rewrite_costs
from guardrail.evaluate.repair import Judges, RepairCase, evaluate_repair, read_cases, read_peer_cases

if TYPE_CHECKING:
    from guardrail.engine import Guardrail

STRENGTHS = (0.2, 0.35, 0.5, 0.75, 1.0)

COST_TEXTS = (
    "Only an idiot would restart the Brompton router at 10:45 and expect the logs to survive, you useless clown.",
    "Your pull request is absolute trash, the tests fail on Windows and the cache is never invalidated.",
    "I told that stupid landlord in Leeds twice that the boiler leaks and he still did nothing about it.",
)

PARADETOX = Path("pairs/paradetox.jsonl.gz")
PEERS = Path("pairs/peers_on_test10k.jsonl.gz")


def repair_suite(
    bench: Bench, guard: Guardrail, limit: int, *, pairs: Path | None = None, advance: Callable[[str, int], None]
) -> dict[str, Any]:
    """Repair held-aside flagged sentences, with human rewrites and with published systems; return both reports.

    Args:
        limit: sentences of each set. pairs: rows with source and targets; default: ParaDetox. Its split test is used.
        advance: told what is being done and how many sentences were done since.
    """
    judges = Judges(bench.judge, bench.fluency, bench.guides)
    cases = read_cases(pairs or bench.data / PARADETOX, "test", limit)
    trained = read_cases(bench.data / PARADETOX, "train")
    peers = read_peer_cases(bench.data / PEERS, trained, limit)

    def repair(name: str, own: Sequence[RepairCase]) -> dict[str, Any]:
        return evaluate_repair(guard, bench.pipeline.encoder, judges, own, lambda: advance(name, 1))

    with_people = repair("repair", cases)
    flagged = [sample["source"] for sample in with_people["samples"]]
    return {
        "with_people": with_people,
        "with_peers": repair("peers", peers),
        "fluency_judge_auroc": bench.fluency.auroc,
        "curve": strength_curve(bench, flagged[: max(4, limit // 8)], advance),
    }


def cost_suite(bench: Bench, advance: Callable[[str, int], None]) -> dict[str, Any]:
    """Return `proposals` and `rewrites`, see `guardrail.evaluate.cost`, and the device."""
    return {
        "device": str(bench.pipeline.writer.device),
        "diffusion": "trained network" if bench.pipeline.trained else "closed form of Gaussian latents",
        "proposals": proposal_costs(bench.pipeline, bench.guides, advance=lambda: advance("proposals", 1)),
        "rewrites": rewrite_costs(bench.pipeline, bench.guides, COST_TEXTS, advance=lambda: advance("rewrites", 1)),
    }


def strength_curve(bench: Bench, texts: Sequence[str], advance: Callable[[str, int], None]) -> list[dict[str, Any]]:
    """Return control, fidelity and fluency of candidates per mode and strength.

    Of four candidates per text, before anything is selected: control is the share that the judge accepts, fidelity the
    cosine to the draft, fluency the share that its judge accepts.
    """
    rows = []
    for mode in ("project", "edit"):
        for strength in STRENGTHS:
            requests = [
                SpanRequest(text, guides=bench.guides, candidates=4, mode=mode, strength=strength) for text in texts
            ]
            found = []
            for request in requests:
                found.append([row.text for row in bench.pipeline.rewrite(request)])
                advance("curve", 1)
            flat = [text for own in found for text in own]
            if not flat:
                continue
            x = bench.pipeline.encoder.encode(flat)
            drafts = bench.pipeline.encoder.encode(texts).repeat([len(own) for own in found], axis=0)
            rows.append(
                {
                    "mode": mode,
                    "strength": strength,
                    "candidates": len(flat),
                    "judge_accepts": float((bench.judge(flat) < 0.5).mean()),
                    "similarity_to_draft": float((x * drafts).sum(axis=1).mean()),
                    "fluent": float((bench.fluency(flat) >= 0.5).mean()),
                }
            )
    return rows
