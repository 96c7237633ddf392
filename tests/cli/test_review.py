"""`guardrail review` from the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from guardrail.cli.app import app

PASSWORD = "correct horse battery"


def run(*arguments: str, text: str | None = PASSWORD + "\n") -> object:
    return CliRunner().invoke(app, ["review", *arguments], input=text)


def test_the_first_admin_is_made_once() -> None:
    done = run("create-admin", "Ann", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["name"] == "ann"
    assert PASSWORD not in done.output
    again = run("create-admin", "ann")
    assert again.exit_code == 2
    assert "already" in again.output


@pytest.mark.parametrize("text", ["", "short\n"])
def test_without_a_good_password_there_is_no_admin(text: str) -> None:
    assert run("create-admin", "ann", text=text).exit_code == 2


def test_the_pages_are_served_and_signed_in_to(tmp_path: Path) -> None:
    assert run("create-admin", "ann").exit_code == 0
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "guardrail", "review", "--port", str(port), "--json"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GUARDRAIL_")}
    server = subprocess.Popen(
        command, cwd=tmp_path, env=kept, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        url = json.loads(server.stdout.readline())["url"]
        with httpx.Client(base_url=url, transport=httpx.HTTPTransport(retries=20)) as client:
            page = client.get("/login", timeout=30)
            token = re.search(r'name="form_token" value="([^"]+)"', page.text).group(1)
            form = {"form_token": token, "user": "ann", "password": PASSWORD, "next": "/people"}
            assert client.post("/login", data=form).headers["location"] == "/people"
            assert "everywhere: admin" in client.get("/people").text
            assert "server" not in page.headers
    finally:
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=30)
    assert "Traceback" not in errors
    assert "review.secret is not set" in errors
    assert PASSWORD not in errors


def test_a_secret_that_is_too_short_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDRAIL_REVIEW_SECRET", "hush-hush")
    done = run()
    assert done.exit_code == 2
    assert "at least 32" in done.output
    assert "hush" not in done.output
