"""What happens out of memory on a GPU."""

from __future__ import annotations

import pytest
import torch

from guardrail.dglm.memory import within_memory


def test_out_of_memory_halves_the_batch_and_ends_on_the_cpu(caplog: pytest.LogCaptureFixture) -> None:
    sizes: list[int] = []
    on_cpu: list[int] = []

    def work(items):
        sizes.append(len(items))
        if len(items) > 2 or 7 in items:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [10 * item for item in items]

    def fallback(items):
        on_cpu.extend(items)
        return [10 * item for item in items]

    with caplog.at_level("WARNING"):
        assert within_memory(work, list(range(8)), fallback) == [10 * item for item in range(8)]
    assert sizes[:3] == [8, 4, 2]
    assert on_cpu == [7]
    assert "smaller batch" in caplog.text
    assert "CPU" in caplog.text


def test_other_errors_are_not_taken_for_lack_of_memory() -> None:
    def work(items):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        within_memory(work, [1, 2], lambda items: [0 for _ in items])
