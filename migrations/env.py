"""Alembic's entry point. `guardrail db upgrade` passes an open connection; a developer's `alembic -c
migrations/alembic.ini -x url=sqlite:///dev.sqlite revision --autogenerate` passes a URL.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from guardrail.audit.database import make_engine
from guardrail.audit.migrate import include_object
from guardrail.audit.tables import metadata


def run(connection: Connection) -> None:
    """Migrate on `connection`; a transaction that is already open there is used and left to its owner."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=True,  # SQLite alters a table by building it anew
        compare_type=True,
        include_object=include_object,
        transactional_ddl=True,  # true of SQLite too, because we begin transactions ourselves
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    url = context.get_x_argument(as_dictionary=True).get("url")
    if url is None:
        raise SystemExit("Say which database: alembic -c migrations/alembic.ini -x url=sqlite:///dev.sqlite ...")
    with make_engine(url).connect() as opened:
        run(opened)
        opened.commit()
