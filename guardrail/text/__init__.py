"""Text before it is judged: obfuscation undone with a map back, sentences, windows. Standard library and RE2 only.

Nothing is imported here, so that a caller loads only what it uses: `normalise`, `segment`.
"""
