"""The judge: what a compiled policy says of texts. Read `judge.judge` first."""

from guardrail.judge.judge import Judge
from guardrail.judge.reading import minimal, trim
from guardrail.judge.work import Unit, Verdict

__all__ = ["Judge", "Unit", "Verdict", "minimal", "trim"]
