"""The GPU: what it computes agrees with the CPU. Skipped, and said so, on machines without one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from guardrail.classifiers.linear import load_head
from guardrail.dglm.choose import Decoding
from guardrail.dglm.guidance import Guide
from guardrail.dglm.pipeline import Pipeline, load_pipeline
from guardrail.dglm.plans import SpanRequest
from guardrail.dglm.propose import gaussian_diffusion
from guardrail.dglm.writer import DraftWriter

TEXTS = ["I have no idea why the boiler is broken.", "Please read the manual before you ask.", "The pitch is wet."]
RUDE = "Only a stupid idiot would restart the Brompton router at 10:45, Siobhan."
TOLERANCE = 0.08
"""Of a mean log-probability in nats: the GPU computes in bfloat16, with eight bits of mantissa."""

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="NO GPU HERE: agreement of GPU and CPU was not tested on this machine"
)


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return load_pipeline("mini", "all-MiniLM-L6-v2", "cpu")


class Halved(DraftWriter):
    """The writer as on a GPU, bfloat16 and all, but on the CPU."""

    def _precision(self):
        return torch.autocast("cpu", torch.bfloat16)


@pytest.fixture(scope="module")
def halved(pipeline: Pipeline) -> Iterator[Pipeline]:
    writer, statistics = Halved(pipeline.decoder, pipeline.codec), pipeline.statistics
    return Pipeline(pipeline.encoder, statistics, writer, pipeline.sha256, gaussian_diffusion(statistics))


def guides() -> tuple[Guide, ...]:
    head = load_head("toxicity")
    return (Guide(head.weight, head.bias),)


def agree(one: Pipeline, other: Pipeline) -> None:
    assert one.fluency(TEXTS) == pytest.approx(other.fluency(TEXTS), abs=TOLERANCE)
    prefixes = [other.prefix(text, "") for text in TEXTS]
    x = other.encoder.encode(TEXTS)
    assert one.encoder.encode(TEXTS) == pytest.approx(x, abs=2e-3)
    greedy = Decoding([0.0] * len(TEXTS), max_tokens=20)
    found = zip(one.write(x, prefixes, greedy), other.write(x, prefixes, greedy), strict=True)
    same = [a.text == b.text for a, b in found]
    assert sum(same) >= 2  # a near-tie may fall to the other side


@pytest.mark.slow  # few CPUs have instructions for bfloat16
def test_bfloat16_agrees_with_float32(pipeline: Pipeline, halved: Pipeline) -> None:
    agree(halved, pipeline)
    assert halved.rewrite(SpanRequest(RUDE, guides=guides(), candidates=3))


@needs_gpu
def test_gpu_and_cpu_agree(pipeline: Pipeline) -> None:
    on_gpu = load_pipeline("mini", "all-MiniLM-L6-v2", "cuda")
    assert on_gpu.decoder.word.weight.is_cuda
    agree(on_gpu, pipeline)
    request = SpanRequest(RUDE, guides=guides(), candidates=4)
    assert [row.text for row in on_gpu.rewrite(request)] == [row.text for row in on_gpu.rewrite(request)]


@needs_gpu
def test_auto_takes_the_gpu() -> None:
    assert load_pipeline("mini", "all-MiniLM-L6-v2", "auto").decoder.word.weight.is_cuda
