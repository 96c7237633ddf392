"""What a policy can measure. Each kind is a module with `build(name, options, context) -> Classifier`.

Nothing is imported here: `guardrail.registry` loads a kind when a policy first names it.
"""
