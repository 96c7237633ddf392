"""Importing guardrail is free, and its public names are these."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import guardrail

HEAVY = set(
    "alembic anthropic fastapi google httpx litellm numpy openai pydantic re2 rich scipy sentence_transformers sklearn "
    "sqlalchemy structlog tokenizers torch transformers typer yaml".split()
)


def modules_after(statement: str) -> set[str]:
    program = f"{statement}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_import_loads_no_third_party_module() -> None:
    bare = modules_after("pass")
    loaded = modules_after("import guardrail") - bare
    assert {name.partition(".")[0] for name in loaded} & HEAVY == set()
    assert {name for name in loaded if name.startswith("guardrail")} == {"guardrail"}


def test_values_and_errors_need_only_the_standard_library() -> None:
    loaded = modules_after("from guardrail import Action, Decision, GuardrailError, Outcome, Stage, State")
    assert {name.partition(".")[0] for name in loaded} & HEAVY == set()


def test_command_root_loads_no_model_and_no_database() -> None:
    roots = {name.partition(".")[0] for name in modules_after("import guardrail.cli.app")}
    assert roots & (HEAVY - {"rich", "typer"}) == set()


@pytest.mark.slow
def test_a_check_and_a_rewrite_load_no_framework_but_torch() -> None:
    """Importing `transformers`, and torch's compiler with it, takes longer than all that they do at first."""
    loaded = modules_after(
        "from guardrail import Guardrail, Settings\n"
        "guard = Guardrail('general', settings=Settings(device='cpu', rewriter={'timeout': 600}))\n"
        "guard.check('Thank you for the report.')\n"
        "decision = guard.rewrite('Only a stupid idiot would restart the router at 10:45.')\n"
        "assert decision.rewrite and decision.rewrite.method == 'dglm', decision"
    )
    assert "torch" in loaded
    avoided = (
        "litellm networkx pandas rich scipy sentence_transformers sklearn sqlalchemy structlog sympy torch._dynamo "
        "transformers"
    )
    assert loaded & set(avoided.split()) == set()


def test_public_names() -> None:
    expected = (
        "Action AuditUnavailable Blocked CheckpointError ClassifierError ClassifierFailure ConfigurationError "
        "DataError Decision Guardrail GuardrailError Message MissingDependencyError ModerationError Outcome Passage "
        "Policy PolicyError Reason Rewrite RewriteFailure Settings SettingsError Stage State UnsupportedPath "
        "__version__ errors load_policy load_settings outcome wrap"
    )
    assert guardrail.__all__ == expected.split()
    assert dir(guardrail) == sorted(guardrail.__all__)


@pytest.mark.parametrize("name", guardrail.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(guardrail, name) is not None


def test_error_names_are_those_of_the_error_tree() -> None:
    from guardrail import errors

    assert set(errors.__all__) - {"did_you_mean"} <= set(guardrail.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'guard'"):
        _ = guardrail.guard
