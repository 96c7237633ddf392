"""litellm's objects as JSON, and JSON as litellm's objects. litellm is imported only where an object must be made."""

from __future__ import annotations

from typing import Any

from guardrail.errors import ModerationError

__all__ = ["native_event", "native_response", "plain_document"]

# Responses events by type, where litellm has a class; others become its GenericEvent.
_EVENTS = {
    "response.created": "ResponseCreatedEvent",
    "response.in_progress": "ResponseInProgressEvent",
    "response.completed": "ResponseCompletedEvent",
    "response.incomplete": "ResponseIncompleteEvent",
    "response.failed": "ResponseFailedEvent",
    "response.output_item.added": "OutputItemAddedEvent",
    "response.output_item.done": "OutputItemDoneEvent",
    "response.content_part.added": "ContentPartAddedEvent",
    "response.content_part.done": "ContentPartDoneEvent",
    "response.output_text.delta": "OutputTextDeltaEvent",
    "response.output_text.done": "OutputTextDoneEvent",
    "response.refusal.delta": "RefusalDeltaEvent",
    "response.refusal.done": "RefusalDoneEvent",
    "response.function_call_arguments.delta": "FunctionCallArgumentsDeltaEvent",
    "response.function_call_arguments.done": "FunctionCallArgumentsDoneEvent",
}


def plain_document(value: Any) -> dict[str, Any]:
    """An object of litellm as JSON.

    Raises:
        ModerationError: it is nothing that can be read.
    """
    if isinstance(value, dict):
        return value
    dump = getattr(value, "model_dump", None)
    if dump is None:
        raise ModerationError(
            f"litellm returned a {type(value).__name__}, which guardrail cannot read, so it was withheld."
        )
    document: dict[str, Any] = dump(mode="json", warnings=False)
    return document


def native_response(form: str, document: dict[str, Any], like: Any = None) -> Any:
    """The object that litellm would have made of a response. `like`: the original, whose hidden parameters are kept."""
    from litellm.types.llms.openai import ResponsesAPIResponse
    from litellm.types.utils import ModelResponse, TextCompletionResponse

    classes = {
        "chat_completions": ModelResponse,
        "completions": TextCompletionResponse,
        "responses": ResponsesAPIResponse,
    }
    made: Any = (type(like) if like is not None else classes[form])(**document)
    for name in ("_hidden_params", "_response_headers", "_response_ms"):
        if hasattr(like, name):
            setattr(made, name, getattr(like, name))
    return made


def native_event(form: str, data: dict[str, Any]) -> Any:
    """The object that litellm would have made of a stream's event."""
    from litellm.types.llms import openai as events
    from litellm.types.utils import ModelResponseStream, TextCompletionResponse

    if form == "chat_completions":
        return ModelResponseStream(**data)
    if form == "completions":
        return TextCompletionResponse(**data)
    return getattr(events, _EVENTS.get(data["type"], "GenericEvent"))(**data)
