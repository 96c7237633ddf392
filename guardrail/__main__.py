"""`python -m guardrail` is the `guardrail` command."""

from guardrail.cli.app import main

if __name__ == "__main__":
    main()
