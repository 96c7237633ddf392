"""The `guardrail` command: thin commands over the library. `guardrail.cli.app` is the root."""
