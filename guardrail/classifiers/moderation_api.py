"""Kind `moderation_api`: a server with the shape of OpenAI's moderation endpoint, `POST {url}/moderations`.

```yaml
vendor:
  kind: moderation_api
  url: https://api.openai.com/v1        # default; any server that answers alike
  model: omni-moderation-latest         # default
  categories: [hate, harassment]        # default: the largest of all
  api_key_env: OPENAI_API_KEY           # default; the variable that holds the key, empty for none
  timeout: 5s                           # default; for each request, with one repetition if the server is busy
```

A text is cut at sentences into pieces of at most 4,000 characters, all of which are sent; its score is that of its
worst piece. A server that fails, hangs or answers something else is an error, and the rule's `on_error` decides.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from guardrail.classifiers.base import BuildContext, check_options
from guardrail.classifiers.options import seconds, text, texts, writable
from guardrail.errors import ClassifierError, ModerationError
from guardrail.text.segment import sentences
from guardrail.types import Passage, Score, Span

__all__ = ["ModerationAPI", "build"]

KIND: Final = "moderation_api"
PIECE: Final = 4_000  # characters of one input
BATCH: Final = 32  # inputs of one request
_BUSY: Final = frozenset({429, 500, 502, 503, 504})
_OPTIONS = ("url", "model", "categories", "api_key_env", "timeout")


class ModerationAPI:
    """Scores texts by a moderation endpoint. Thread-safe; connects when it is first asked.

    Args:
        name: its name in the policy.
        url: where `/moderations` stands.
        model: what the server is asked for.
        categories: whose scores count; empty: all.
        api_key_env: the environment variable with the key; empty: none is sent.
        timeout: seconds for each request.
    """

    kind = KIND

    def __init__(
        self, name: str, url: str, model: str, categories: tuple[str, ...], api_key_env: str, timeout: float
    ) -> None:
        self.name = name
        self._url, self._model, self._categories = url.rstrip("/"), model, categories
        self._key_env, self._timeout = api_key_env, timeout
        self._client: Any = None
        self._lock = threading.Lock()

    @property
    def fingerprint(self) -> str:
        """`"sha256:..."` of server, model and categories: what the server does with them cannot be known."""
        content = json.dumps([KIND, self._url, self._model, sorted(self._categories)])
        return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"

    def score(self, passages: Sequence[Passage]) -> list[Score]:
        """One score for each passage; a long one carries the span of its worst piece.

        Raises:
            ModerationError: the server failed, did not answer in time, or not in the shape of the endpoint.
        """
        pieces = [(row, span) for row, passage in enumerate(passages) for span in _pieces(passage.text)]
        values: list[float] = []
        for start in range(0, len(pieces), BATCH):
            batch = pieces[start : start + BATCH]
            values += self._ask([writable(passages[row].text[slice(*span)]) for row, span in batch])
        found: list[Score] = []
        for row, passage in enumerate(passages):
            own = [(value, span) for value, (at, span) in zip(values, pieces, strict=True) if at == row]
            value, span = max(own, default=(0.0, (0, 0)))
            found.append(Score(value, () if span == (0, len(passage.text)) or not own else (span,)))
        return found

    def _ask(self, inputs: list[str]) -> list[float]:
        answer = self._post({"model": self._model, "input": inputs})
        results = answer.get("results") if isinstance(answer, dict) else None
        if not isinstance(results, list) or len(results) != len(inputs):
            raise ModerationError(f"{self._url} did not answer with one result for each of {len(inputs)} texts")
        return [self._value(result) for result in results]

    def _value(self, result: Any) -> float:
        scores = result.get("category_scores") if isinstance(result, dict) else None
        if not isinstance(scores, dict) or not scores:
            raise ModerationError(f"{self._url} answered without category_scores")
        for category in self._categories:
            if category not in scores:
                raise ModerationError(f"{self._url} does not score {category!r}, only {', '.join(sorted(scores))}")
        values = [scores[category] for category in self._categories or scores]
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
                raise ModerationError(f"{self._url} gave the score {value!r}, which is not in [0, 1]")
        return float(max(values))

    def _post(self, body: Mapping[str, Any]) -> Any:
        import httpx

        key = os.environ.get(self._key_env, "") if self._key_env else ""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        deadline = time.monotonic() + 2 * self._timeout
        for attempt in range(2):
            try:
                response = self._connection().post(f"{self._url}/moderations", json=body, headers=headers)
            except httpx.HTTPError as error:
                if attempt or isinstance(error, httpx.TimeoutException) or time.monotonic() > deadline:
                    raise ModerationError(f"{self._url} cannot be asked: {type(error).__name__}") from error
                continue
            if response.status_code in _BUSY and not attempt:
                time.sleep(min(0.2, self._timeout / 10))
                continue
            if response.status_code != httpx.codes.OK:
                raise ModerationError(f"{self._url} answered with status {response.status_code}")
            try:
                return response.json()
            except ValueError as error:
                raise ModerationError(f"{self._url} did not answer with JSON") from error
        raise AssertionError("unreachable: the second attempt returns or raises")

    def _connection(self) -> Any:
        import httpx

        with self._lock:
            if self._client is None:
                self._client = httpx.Client(timeout=self._timeout, follow_redirects=False)
            return self._client


def _pieces(source: str) -> Iterator[Span]:
    """Whole sentences packed into pieces of at most `PIECE` characters, which cover the text; none of a blank one."""
    if not source.strip():
        return
    start = end = 0
    for span in sentences(source):
        if span[1] - start > PIECE and end > start:
            yield start, end
            start = end
        end = span[1]
    yield start, end


def build(name: str, options: Mapping[str, Any], context: BuildContext) -> ModerationAPI:  # noqa: ARG001
    """Build the classifier that the options describe (see the module). Asks nobody.

    Raises:
        ClassifierError: an option is unknown or of the wrong form.
    """
    check_options(KIND, name, options, _OPTIONS)
    url = text(name, options, "url", "https://api.openai.com/v1")
    if not url.startswith(("http://", "https://")):
        raise ClassifierError(f"classifier {name!r}: 'url' must start with http:// or https://, not {url!r}.")
    key_env = options.get("api_key_env", "OPENAI_API_KEY")
    if not isinstance(key_env, str):
        raise ClassifierError(f"classifier {name!r}: 'api_key_env' must be the name of a variable, not {key_env!r}.")
    return ModerationAPI(
        name,
        url,
        text(name, options, "model", "omni-moderation-latest"),
        texts(name, options, "categories"),
        key_env,
        seconds(name, options, "timeout", 5.0),
    )
