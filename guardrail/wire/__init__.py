"""Wire formats: request and response JSON and server-sent events, turned into passages and back, in place.

Nothing here does I/O or knows a client library. `routes` says which format a URL speaks; `chat_completions`,
`completions`, `responses` and `messages` read and write one format each; `units` turns texts into passages to judge and
verdicts back into texts; `sse` reads and writes event streams.
"""
