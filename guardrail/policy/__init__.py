"""What a community allows: the policy file, how it is read, and how its rules are computed.

`guardrail.policy.bundle` (the arithmetic) is imported on its own: it needs numpy.
"""

from guardrail.policy.loader import Policy, PolicySource, find_policy, list_policies, load_policy, shipped_policies
from guardrail.policy.schema import ClassifierSpec, Guides, PolicyDocument, Preference, RewriteSpec, Rule

__all__ = [
    "ClassifierSpec",
    "Guides",
    "Policy",
    "PolicyDocument",
    "PolicySource",
    "Preference",
    "RewriteSpec",
    "Rule",
    "find_policy",
    "list_policies",
    "load_policy",
    "shipped_policies",
]
