"""An explanation as one HTML page that stands by itself: no script, nothing fetched, everything escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from guardrail.explain.explanation import Explanation, RuleExplanation, Word
from guardrail.types import Span

__all__ = ["as_html", "shade"]

_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.6 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem }
.text { white-space: pre-wrap; overflow-wrap: anywhere; padding: .8rem 1rem; border: 1px solid #8884; border-radius: 6px }
.text .else { opacity: .55 }
mark { color: inherit; border-radius: 3px; padding: 0 .1em }
mark.out { text-decoration: line-through }
table { border-collapse: collapse; margin: .6rem 0 }
td, th { text-align: left; padding: .15rem 1rem .15rem 0 }
td.number { text-align: right; font-variant-numeric: tabular-nums }
.action { text-transform: uppercase; font-weight: 600 }
footer { opacity: .6; font-size: .85rem; margin-top: 2rem }
""".strip()


def as_html(explanations: Sequence[Explanation], title: str = "Explanation") -> str:
    """Return the page. Red words raise a rule's risk, blue ones lower it; the colour is as strong as the word counts."""
    body = "\n".join(_section(one) for one in explanations)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f"<style>\n{_STYLE}\n</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n{body}\n"
        "<footer>Red words raise the risk, blue ones lower it: attention suppression (AtMan).</footer>\n</body>\n</html>\n"
    )


def shade(word: Word, strongest: float) -> float:
    """How strongly to colour a word, in [-1, 1], where `strongest` is the largest relevance of any."""
    return max(-1.0, min(1.0, word.relevance / strongest)) if strongest > 0 else 0.0


def _section(one: Explanation) -> str:
    parts = [
        f'<section>\n<p><span class="action">{escape(one.action.value)}</span>, risk {one.risk:.2f}: {escape(one.note)}</p>'
    ]
    if not one.rules:
        parts.append(f'<p class="text">{_safe(one.text)}</p>')
    removed = one.counterfactual.spans if one.counterfactual else ()
    parts += [_rule(one.text, rule, removed) for rule in one.rules]
    return "\n".join([*parts, "</section>"])


def _rule(text: str, rule: RuleExplanation, removed: Sequence[Span]) -> str:
    heading = (
        f"<h2>{_safe(rule.rule)}</h2>\n<p>{_safe(rule.description)}</p>"
        if rule.description
        else (f"<h2>{_safe(rule.rule)}</h2>")
    )
    numbers = f"<p>{escape(rule.action.value)}: risk {rule.risk:.2f}, threshold {rule.threshold:.2f}</p>"
    if rule.error:
        return f"{heading}\n{numbers}\n<p>could not be judged: {_safe(rule.error)}</p>"
    rows = "".join(
        f'<tr><td>{_safe(name)}</td><td class="number">{value:+.2f}</td></tr>'
        for name, value in sorted(rule.contributions.items(), key=lambda item: -abs(item[1]))
    )
    table = f"<table><tr><th>classifier</th><th>adds</th></tr>{rows}</table>"
    return f"{heading}\n{numbers}\n{_coloured(text, rule, removed)}\n{table}"


def _coloured(text: str, rule: RuleExplanation, removed: Sequence[Span]) -> str:
    strongest = max((abs(word.relevance) for word in rule.words), default=0.0)
    start, end = rule.span
    pieces = [f'<span class="else">{_safe(text[:start])}</span>']
    at = start
    for word in rule.words:
        if word.span[0] < at:
            continue  # several words of a normalised reading may stand for one stretch
        pieces.append(_safe(text[at : word.span[0]]))
        value = shade(word, strongest)
        colour = f"rgba({'220,40,40' if value > 0 else '40,90,220'},{abs(value) * 0.75:.2f})"
        out = ' class="out"' if word.span in removed else ""
        title = f"{word.relevance:+.3f}"
        pieces.append(f'<mark{out} style="background:{colour}" title="{title}">{_safe(text[slice(*word.span)])}</mark>')
        at = word.span[1]
    pieces.append(f'{_safe(text[at:end])}<span class="else">{_safe(text[end:])}</span>')
    return f'<p class="text">{"".join(pieces)}</p>'


def _safe(text: str) -> str:
    """Escaped, and without characters that may not stand in a page (lone surrogates, controls, direction overrides)."""
    shown = "".join(
        "�" if 0xD800 <= ord(char) <= 0xDFFF or (ord(char) < 32 and char not in "\n\t") or char in _OVERRIDES else char
        for char in text
    )
    return escape(shown)


_OVERRIDES = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
