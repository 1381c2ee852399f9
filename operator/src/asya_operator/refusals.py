"""Why the API server refuses an object, from its own words: a reason for a condition, and what to do next; pure.

The words are those of Kubernetes' authorizer and of its admission plugins ResourceQuota, LimitRanger, ServiceAccount,
PodSecurity and ValidatingAdmissionPolicy, and of webhooks.
"""

import re
from typing import NamedTuple


class Refusal(NamedTuple):
    """`message` is the API server's, with the next step."""

    reason: str
    message: str


# (words, reason, next step). The first that matches counts.
REFUSALS: tuple[tuple[str, str, str], ...] = (
    (
        r'User "[^"]*" cannot |cannot set blockOwnerDeletion',
        "PermissionMissing",
        "give the operator this right: the chart's role has it",
    ),
    (
        r"failed quota: .*must specify",
        "QuotaExceeded",
        "set what it names in spec.resources (asya-runtime) and stateProxy.resources (asya-state-proxy)",
    ),
    (r"exceeded quota|failed quota", "QuotaExceeded", "raise the ResourceQuota of the namespace, or ask for less"),
    (
        r"(minimum|maximum) \S+ usage per|limit to request ratio per|must be less than or equal to \S+ limit",
        "LimitRangeViolated",
        "bring spec.resources and stateProxy.resources within the LimitRange of the namespace",
    ),
    (
        r"error looking up service account",
        "ServiceAccountMissing",
        "create the ServiceAccount, or correct spec.serviceAccountName",
    ),
    (
        r"violates PodSecurity",
        "PodSecurityViolated",
        "set the securityContext that it asks for in podTemplate, or another level for the namespace",
    ),
    (
        r"ValidatingAdmissionPolicy|admission webhook \S+ denied",
        "PolicyDenied",
        "change what the policy names, or ask its owner for an exception",
    ),
)


def explain(words: str, otherwise: str, next_step: str) -> Refusal:
    """What `words` of the API server mean; reason `otherwise` and `next_step` where no plugin's are known."""
    for pattern, reason, step in REFUSALS:
        if re.search(pattern, words):
            return Refusal(reason, f"{words}; {step}")
    return Refusal(otherwise, f"{words}; {next_step}")


def of_object(words: str) -> Refusal:
    """Why an object that the operator applies is refused."""
    found = explain(words, "ApplyFailed", "correct the field that it names")
    return Refusal(found.reason, f"the API server refuses: {found.message}")
