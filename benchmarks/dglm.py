"""What a DGLM rewrite costs: the whole proposal of 8 candidates over plain sampling of 8 from the same decoder.

Both sides alternate in one process on the same sentences, on a GPU where there is one, else on the CPU. Prints one JSON
object: median milliseconds, their ratio, the share of each stage, rewrites and diffusion proposals per second, and how far
the decoder is from its floor: the bytes of its weights over the device's measured bandwidth, or the operations of a
step's tokens over its measured rate, whichever takes longer. Without a GPU all times are processor times, so that other work
on the machine does not count. Absolute times depend on the machine; the ratios are the claim.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import torch

from guardrail.classifiers.linear import load_head
from guardrail.dglm import pipeline as pipeline_module
from guardrail.dglm.choose import Decoding
from guardrail.dglm.decoder import Decoder
from guardrail.dglm.guidance import Guide
from guardrail.dglm.pipeline import Pipeline, SpanRequest, load_pipeline
from guardrail.dglm.propose import STUDENT, ProposalSettings

SENTENCES = (
    "Only an idiot would restart the Brompton router at 10:45 and expect the logs to survive, you useless clown.",
    "Your pull request is absolute trash, the tests fail on Windows and the cache is never invalidated.",
    "I told that stupid landlord in Leeds twice that the boiler leaks and he still did nothing about it.",
    "What kind of moron deploys to production on a Friday evening without telling anyone on the team?",
)
CANDIDATES = 8


def milliseconds(work: Callable[[], object]) -> float:
    """Processor time of the work; with a GPU, wall-clock time until it is done."""
    if not torch.cuda.is_available():
        started = time.process_time()
        work()
        return (time.process_time() - started) * 1000.0
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) * 1000.0


@contextmanager
def timed_stages(pipeline: Pipeline) -> Iterator[dict[str, float]]:
    """Sum the milliseconds of the stages of rewrites: what is timed calls nothing else that is timed."""
    spent: dict[str, float] = defaultdict(float)
    steps = SimpleNamespace(count=0)

    def timed(name: str, function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            kept: list[object] = []
            spent[name] += milliseconds(lambda: kept.append(function(*arguments, **options)))
            return kept[0]

        return call

    names = {"weighty_words": "find words", "bad_clauses": "find clauses", "project": "move"}
    saved = {name: getattr(pipeline_module, name) for name in names}
    writer, step, propose = pipeline.writer, pipeline.decoder.step, pipeline.diffusion.propose
    write, fluency = writer.write, writer.fluency

    def counted(ids: torch.Tensor, *arguments: object) -> object:
        steps.count += ids.shape[1] == 1
        return step(ids, *arguments)

    try:
        for name, stage in names.items():
            setattr(pipeline_module, name, timed(stage, saved[name]))
        writer.write = timed("decode", write)  # type: ignore[method-assign, assignment]
        writer.fluency = timed("fluency", fluency)  # type: ignore[method-assign, assignment]
        pipeline.decoder.step = counted  # type: ignore[method-assign, assignment]
        pipeline.diffusion.propose = timed("diffuse", propose)  # type: ignore[method-assign, assignment]
        yield spent
    finally:
        for name, function in saved.items():
            setattr(pipeline_module, name, function)
        writer.write, writer.fluency = write, fluency  # type: ignore[method-assign]
        pipeline.decoder.step = step  # type: ignore[method-assign]
        pipeline.diffusion.propose = propose  # type: ignore[method-assign]
        spent["steps"] = steps.count


def bandwidth(device: torch.device) -> float:
    """Bytes per second that a large array is read at."""
    array = torch.ones(64 << 20, device=device)  # 256 MiB
    return array.nbytes / (min(milliseconds(array.sum) for _ in range(5)) / 1000.0)


def rate(device: torch.device, rows: int, width: int) -> float:
    """Operations per second of a matrix product of the decoder's shape and precision."""
    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    x, w = torch.ones(rows, width, device=device, dtype=kind), torch.ones(width, 4 * width, device=device, dtype=kind)
    times = [milliseconds(lambda: [x @ w for _ in range(200)]) / 200 for _ in range(5)]
    return 2.0 * rows * width * 4 * width / (min(times) / 1000.0)


def weights_per_step(decoder: Decoder) -> int:
    """Weights that one written token meets: all linear layers but the prompt generator's, and the output words."""
    linear = [m for name, m in decoder.named_modules() if isinstance(m, torch.nn.Linear) and "prompt" not in name]
    return sum(m.weight.numel() for m in linear) + len(decoder.output_ids) * decoder.config.width


def plain(pipeline: Pipeline, text: str) -> None:
    """Sample 8 continuations of the same prefix, no guidance."""
    x = pipeline.encoder.encode([text]).repeat(CANDIDATES, axis=0)
    prefix = pipeline.prefix(text, "")
    pipeline.write(x, [prefix] * CANDIDATES, Decoding([0.8] * CANDIDATES, max_tokens=len(prefix.draft) + 12))


def proposals_per_second(pipeline: Pipeline, guides: tuple[Guide, ...]) -> dict[str, float]:
    kinds = {"dpmpp_2m 15": ProposalSettings()}
    if pipeline.diffusion.student is not None:
        kinds["student 4"] = STUDENT
    before = pipeline.encoder.encode(["Is it repaired?"])[0]
    found = {}
    for name, settings in kinds.items():

        def work(settings: ProposalSettings = settings) -> object:
            return pipeline.diffusion.propose(CANDIDATES, guides, before=before, settings=settings)

        work()
        found[name] = round(CANDIDATES * 1000.0 / statistics.median(milliseconds(work) for _ in range(5)), 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--mode", choices=("project", "edit", "continue"), default="project")
    parser.add_argument("--checkpoint", default="mini")
    options = parser.parse_args()
    pipeline = load_pipeline(options.checkpoint, "all-MiniLM-L6-v2", "auto")
    device = pipeline.decoder.word.weight.device
    head = load_head("toxicity")
    guides = (Guide(head.weight, head.bias),)
    requests = [SpanRequest(text, guides=guides, candidates=CANDIDATES, mode=options.mode) for text in SENTENCES]
    sides: dict[str, list[float]] = {"rewrite": [], "plain": []}
    for request in requests:  # warm
        pipeline.rewrite(request)
        plain(pipeline, request.text)
    for _ in range(options.repeats):
        for request in requests:
            sides["rewrite"].append(milliseconds(lambda request=request: pipeline.rewrite(request)))
            sides["plain"].append(milliseconds(lambda request=request: plain(pipeline, request.text)))
    with timed_stages(pipeline) as spent:
        for request in requests:
            spent["all"] += milliseconds(lambda request=request: pipeline.rewrite(request))
    print(json.dumps(report(pipeline, guides, options, sides, spent, device)))


def report(
    pipeline: Pipeline,
    guides: tuple[Guide, ...],
    options: argparse.Namespace,
    sides: dict[str, list[float]],
    spent: dict[str, float],
    device: torch.device,
) -> dict[str, object]:
    rewrite, sampling = statistics.median(sides["rewrite"]), statistics.median(sides["plain"])
    decoder = pipeline.decoder
    weights = weights_per_step(decoder)
    bytes_per_weight = 2 if device.type == "cuda" else 4
    by_memory = 1000.0 * weights * bytes_per_weight / bandwidth(device)
    by_arithmetic = 1000.0 * 2.0 * weights * CANDIDATES / rate(device, CANDIDATES, decoder.config.width)
    step = spent["decode"] / max(1.0, spent["steps"])
    stages = {name: value for name, value in spent.items() if name not in ("steps", "all")}
    return {
        "benchmark": "dglm",
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads",
        "mode": options.mode,
        "candidates": CANDIDATES,
        "rewrite_ms": round(rewrite, 1),
        "plain_sampling_ms": round(sampling, 1),
        "ratio": round(rewrite / sampling, 3),
        "share_of_stages": {name: round(value / spent["all"], 4) for name, value in stages.items()},
        "rewrites_per_second": round(1000.0 / rewrite, 2),
        "proposals_per_second": proposals_per_second(pipeline, guides),
        "floor": {
            "ms_per_step_by_memory": round(by_memory, 3),
            "ms_per_step_by_arithmetic": round(by_arithmetic, 3),
            "ms_per_step_measured": round(step, 3),
            "ratio": round(step / max(by_memory, by_arithmetic), 2),
        },
    }


if __name__ == "__main__":
    main()
