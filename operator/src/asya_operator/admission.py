"""From the bytes of an AdmissionReview to the bytes of its answer; pure.

https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
Whatever comes in, something definite goes out: a 4xx for what is no review, and for a review an
answer with its uid.
"""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from asya_contract.names import ACTOR_LABEL
from asya_operator.api import patterns
from asya_operator.inject import Refused, inject, wants_state
from asya_operator.settings import Settings

API_VERSION = "admission.k8s.io/v1"
Result = Literal["injected", "unchanged", "refused"]
# etcd's limit on an object leaves no room for longer ones.
LONGEST_MESSAGE = 4000


class NotAReview(ValueError):
    """Something that cannot be answered with a uid; the caller says 400 with these words."""


@dataclass(frozen=True)
class Answer:
    """`body` is the AdmissionReview to send; `result` is for metrics, `message` for the log."""

    body: dict[str, Any]
    result: Result
    message: str = ""


@dataclass(frozen=True)
class Review:
    """What of an AdmissionReview request is known to be there."""

    uid: str
    request: Mapping[str, Any]


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def parse(body: bytes) -> Review:
    """The review in `body`.

    Raises:
        NotAReview: no JSON, another kind or version, no request, no uid.
    """
    if not body:
        raise NotAReview("the body is empty; expected an AdmissionReview")
    try:
        review = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise NotAReview(f"the body is not JSON: {error}") from None
    if not isinstance(review, dict):
        raise NotAReview("the body is no object; expected an AdmissionReview")
    version, kind = review.get("apiVersion"), review.get("kind")
    if kind != "AdmissionReview" or version != API_VERSION:
        raise NotAReview(f"apiVersion {version!r}, kind {kind!r}: expected {API_VERSION} AdmissionReview")
    request = review.get("request")
    if not isinstance(request, dict):
        raise NotAReview("request: missing")
    uid = request.get("uid")
    if not isinstance(uid, str) or not uid:
        raise NotAReview("request.uid: missing")
    return Review(uid, request)


def answer(review: Review, settings: Settings) -> Answer:
    """What the API server is told about a review."""
    request = review.request
    try:
        pod, namespace = _pod(request)
        if pod is None or not wants_state(pod):
            return _allowed(review, "unchanged", [])
        return _allowed(review, "injected", patch(pod, inject(pod, namespace, settings)))
    except Refused as error:
        return refusal(review, str(error))


def whose(review: Review) -> dict[str, str]:
    """Namespace and actor of the pod as it names them, for the log; whatever is not there is left out."""
    inner: Any = review.request
    for name in ("object", "metadata", "labels"):
        inner = inner.get(name) if isinstance(inner, Mapping) else None
    actor = inner.get(ACTOR_LABEL) if isinstance(inner, Mapping) else None
    namespace = review.request.get("namespace")
    if not isinstance(namespace, str):
        return {}
    return {"namespace": namespace} | ({"actor": f"{namespace}/{actor}"} if isinstance(actor, str) else {})


def _pod(request: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """The pod to look at and its namespace; no pod where there is nothing to do."""
    kind = request.get("kind")
    if not isinstance(kind, dict) or kind.get("kind") != "Pod" or kind.get("group") not in ("", None):
        raise Refused(
            f"request.kind: {json.dumps(kind)[:200]} is not Pod; the webhook is registered for the wrong kind"
        )
    if request.get("operation") != "CREATE" or request.get("subResource"):
        return None, ""
    pod, namespace = request.get("object"), request.get("namespace")
    if not isinstance(pod, dict):
        raise Refused("request.object: missing")
    if not isinstance(namespace, str) or len(namespace) > 63 or not re.fullmatch(patterns.DNS_LABEL, namespace):
        raise Refused("request.namespace: missing, or no name of a namespace")
    return pod, namespace


def _allowed(review: Review, result: Result, operations: list[dict[str, Any]]) -> Answer:
    response: dict[str, Any] = {"uid": review.uid, "allowed": True}
    if operations:
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(json.dumps(operations, separators=(",", ":")).encode()).decode()
    return Answer(_review(response), result)


def refusal(review: Review, message: str) -> Answer:
    """A denial with the reason a user sees in `kubectl` and in the ReplicaSet's events."""
    said = f"asya state: {message}"[:LONGEST_MESSAGE]
    response = {"uid": review.uid, "allowed": False, "status": {"code": 403, "reason": "Forbidden", "message": said}}
    return Answer(_review(response), "refused", said)


def _review(response: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response}


def patch(before: Any, after: Any, path: str = "") -> list[dict[str, Any]]:
    """RFC 6902 operations that make `after` of `before`. Lists of one length are patched by entry, so that a
    mount in a container with thousands of variables does not send them all."""
    if before is after or (before == after and type(before) is type(after)):
        return []
    if isinstance(before, dict) and isinstance(after, dict):
        operations: list[dict[str, Any]] = []
        for name in after:
            here = f"{path}/{_escape(name)}"
            if name not in before:
                operations.append({"op": "add", "path": here, "value": after[name]})
            else:
                operations += patch(before[name], after[name], here)
        operations += [{"op": "remove", "path": f"{path}/{_escape(name)}"} for name in before if name not in after]
        return operations
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [
            op for index, pair in enumerate(zip(before, after, strict=True)) for op in patch(*pair, f"{path}/{index}")
        ]
    return [{"op": "replace", "path": path, "value": after}]


def _escape(name: str) -> str:
    """RFC 6901."""
    return name.replace("~", "~0").replace("/", "~1")
