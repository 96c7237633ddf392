"""Which wire format a URL speaks. What is not listed here is refused: an unknown generative call is never let through."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from guardrail.errors import UnsupportedPath
from guardrail.wire.chat_completions import ChatCompletions
from guardrail.wire.completions import Completions
from guardrail.wire.formats import WireFormat
from guardrail.wire.messages import Messages
from guardrail.wire.responses import Responses

__all__ = ["FORMATS", "Route", "route"]

_ALL = (ChatCompletions(), Completions(), Responses(), Messages())
FORMATS: dict[str, WireFormat] = {form.name: form for form in _ALL}


@dataclass(frozen=True, slots=True)
class Route:
    """How a call is moderated: `format` None passes it through. `has_input`: its request carries a conversation."""

    format: WireFormat | None = None
    has_input: bool = True


_PASS = Route()

# (methods, end of the path, format, the request carries the conversation)
_GENERATIVE: tuple[tuple[str, str, str, bool], ...] = (
    ("POST", r"/chat/completions", "chat_completions", True),
    ("GET POST", r"/chat/completions/[^/]+", "chat_completions", False),
    ("POST", r"/completions", "completions", True),
    ("POST", r"/responses(?:/compact)?", "responses", True),
    ("GET", r"/responses/[^/]+", "responses", False),
    ("POST", r"/responses/[^/]+/cancel", "responses", False),
    ("POST", r"/messages", "messages", True),
    ("POST", r"/publishers/anthropic/models/[^/]+:(?:streamRawPredict|rawPredict)", "messages", True),
    ("POST", r"/model/[^/]+/invoke", "messages", True),
)
# No generated text: what these return was uploaded, counted, measured or configured by their caller. No colon, since
# some providers name the verb after one (`models/x:generateContent`).
_MANAGEMENT = (
    r"embeddings|moderations|rerank|count_tokens|input_tokens|input_items|files|uploads|vector_stores|containers|"
    r"fine_tuning/jobs|fine_tuning/checkpoints|organizations?|projects/[^/:]+/(?:users|roles|groups|api_keys|service_accounts)|"
    r"skills|webhooks|user_profiles|content_provenance_checks"
)
_PASSED: tuple[tuple[str, str], ...] = (
    ("GET", r"/"),
    ("GET DELETE", r"(?:/[^:]*)?/models(?:/[^:]*)?"),
    ("DELETE", r"(?:/[^:]*)?/(?:chat/completions|responses|conversations|batches|messages/batches)/[^/:]+"),
    ("GET", r"(?:/[^:]*)?/(?:batches|messages/batches)(?:/[^/:]+)?"),
    ("POST", r"(?:/[^:]*)?/(?:batches|messages/batches)/[^/:]+/cancel"),
    ("GET", r"(?:/[^:]*)?/chat/completions/[^/:]+/messages"),
    ("GET POST PUT PATCH DELETE", rf"(?:/[^:]*)?/(?:{_MANAGEMENT})(?:/[^:]*)?"),
)


@lru_cache(maxsize=4096)
def route(method: str, path: str) -> Route:
    """How `method` on a URL path is moderated. Only the end of the path counts: gateways have prefixes of their own.

    Raises:
        UnsupportedPath: not known. Streams of Bedrock's own binary format, audio, images, batches, assistants' threads and
            realtime sessions are among these.
    """
    path = path.rstrip("/") or "/"
    for methods, pattern, name, has_input in _GENERATIVE:
        if method in methods.split() and re.search(f"{pattern}$", path):
            return Route(FORMATS[name], has_input)
    for methods, pattern in _PASSED:
        if method in methods.split() and re.fullmatch(pattern, path):
            return _PASS
    raise UnsupportedPath(
        f"{method} {path} is not a call that guardrail knows, so it was not sent: its texts would pass unmoderated. "
        "Known: chat completions, completions, responses, messages, and calls that generate nothing (embeddings, models, "
        "files, moderations, ...). For others use a client that is not wrapped."
    )
