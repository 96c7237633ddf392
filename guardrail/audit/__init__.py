"""The record: every decision, its reasons and its rewrites, in SQLite or PostgreSQL, tied together by a hash chain.

Start with `guardrail.audit.store`. This package imports nothing by itself, so that `import guardrail` stays free of
SQLAlchemy.
"""
