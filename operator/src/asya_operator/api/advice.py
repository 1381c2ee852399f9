"""What is allowed but probably not meant."""

from asya_contract.env import parse_seconds
from asya_operator.api.model import AsyncActor


def warnings(actor: AsyncActor) -> list[str]:
    """Sentences that name the field and what to do; an actor without them is none the better for it."""
    spec, state = actor.spec, actor.spec.state_proxy
    found: list[str] = []
    if spec.deletion_policy == "Delete" and state is None:
        found.append("spec.deletionPolicy: Delete has no effect without stateProxy")
    if state is None:
        if spec.conflict_retries:
            found.append("spec.conflictRetries has no effect without stateProxy")
        return found
    mounts = [("spec.stateProxy", state), *((f"spec.stateProxy.mounts[{m.name}]", m) for m in state.mounts)]
    for path, mount in mounts:
        writable_lww = mount.consistency == "lww" and not mount.is_read_only
        if writable_lww and spec.replicas > 1:
            found.append(
                f"{path}.consistency: lww with spec.replicas: {spec.replicas}: two pods that change one file at once "
                "keep the later change only; use cas, or a path per conversation"
            )
        elif writable_lww and spec.concurrency > 1:
            found.append(
                f"{path}.consistency: lww with spec.concurrency: {spec.concurrency}: two turns that change one file at "
                "once keep the later change only; use cas, or a path per conversation"
            )
        if mount.from_actor is not None and not mount.is_read_only:
            found.append(f"{path}.readOnly: false: this actor may change the state of {mount.from_actor!r}")
        if mount.guard == "directory":
            found.append(
                f"{path}.guard: directory is weaker: a program without the shim sees an empty read-only directory "
                "instead of an error"
            )
        if mount.endpoint is not None and mount.endpoint.startswith("http://"):
            found.append(f"{path}.endpoint: {mount.endpoint}: credentials and state travel unencrypted")
    if spec.conflict_retries and all(mount.consistency == "lww" for _, mount in mounts):
        found.append("spec.conflictRetries has no effect with consistency: lww, which knows no conflicts")
    grace = (spec.pod_template or {}).get("spec", {}).get("terminationGracePeriodSeconds")
    if isinstance(grace, int) and grace < parse_seconds(spec.turn_timeout):
        found.append(
            f"spec.podTemplate.spec.terminationGracePeriodSeconds: {grace} is less than spec.turnTimeout: "
            f"{spec.turn_timeout}: a turn may be cut off when its pod ends"
        )
    return found
