"""Why a text was flagged: what each classifier added, which words did it, and without which it would pass."""
