"""What really is, beside what is saved: OpenTofu's view and whether hosts answer. Changes nothing, guesses nothing."""

from collections.abc import Sequence

from deployer.environment import AnyEnvironment, Resources
from deployer.errors import DeployerError
from deployer.process import Context
from deployer.remote.ssh import Target, who_answers
from deployer.tofu.engine import Tofu
from deployer.tofu.state import look


def compare(environment: AnyEnvironment, tofu: Tofu, targets: Sequence[Target], context: Context) -> tuple[str, ...]:
    """Lines for people; the first word of each is `same`, `differs` or `unknown`."""
    lines: list[str] = []
    state = look(tofu.folder)
    if state.errored is not None:
        lines.append(f"differs: OpenTofu left a state it could not save: {state.errored}")
    if state.interrupted:
        lines.append("differs: OpenTofu was cut short (killed, or a full disk); it may not know all that exists")
    if state.condition in ("absent", "empty", "damaged"):
        expected = environment.resources is Resources.NONE and state.condition == "absent"
        lines.append(f"{'same' if expected else 'differs'}: OpenTofu's state is {state.condition}")
    elif environment.resources is not Resources.NONE:
        lines += _planned(tofu)
    for target in targets:
        name, where = target.name, f"at {target.address} port {target.port}"
        who, why = who_answers(target, context)
        if who == "ours":
            lines.append(f"same: {name} answers {where}")
        else:
            found = f"another machine than {name} answers" if who == "another" else f"{name} does not answer"
            lines.append(f"differs: {found} {where}: {why}")
    return tuple(lines)


def _planned(tofu: Tofu) -> list[str]:
    try:
        changed = [f"differs: {change.address} was changed or removed behind our back" for change in tofu.drift()]
        plan = tofu.plan()
    except DeployerError as error:
        return [f"unknown: OpenTofu cannot tell: {error}"]
    changed += [f"differs: OpenTofu would {change.action} {change.address}" for change in plan.changes]
    return changed or ["same: OpenTofu finds everything as it was made"]
