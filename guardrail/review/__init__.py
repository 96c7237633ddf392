"""The pages and the API where people look at decisions: a queue, a decision with all that explains it, appeals.

`guardrail.review.app` builds the web application; `guardrail review` serves it. Read `access` for who may do what, `filling` and
`queue` for what waits and in which order, `verdicts` for what a person's word changes.
"""
