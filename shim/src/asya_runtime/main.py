"""The command line of `run.py`, and the wiring of the runtime.

`run.py` serves the handler, `run.py FILE|-m MODULE ARGS` runs a program. Exit statuses: 0 drained, 1
the handler cannot be had, 78 (EX_CONFIG) a bad variable, 69 (EX_UNAVAILABLE) no state proxy or port.
"""

import os
import sys
import traceback
from typing import List

from asya_contract.env import EnvError, RuntimeEnv, ShimEnv
from asya_runtime import init, program
from asya_runtime.execution import Bridge, Execution
from asya_runtime.handlers import HandlerError, is_async, load
from asya_runtime.logs import log, say, set_up
from asya_runtime.mounts import ProxyMissing, wait
from asya_runtime.server import CannotListen, Server
from asya_runtime.signals import Signals
from asya_runtime.turns import Turns, of_the_shim
from asya_runtime.workers import Loop, Threads, Workers, loop_aside, loop_here

_CONFIG = 78
_UNAVAILABLE = 69


def main(arguments: List[str]) -> int:
    """Do what `run.py` was called for; the exit status."""
    if arguments and arguments[0] in ("-h", "--help"):
        print("usage: run.py                      serve the handler that ASYA_HANDLER names")
        print("       run.py FILE [ARGS...]       run a program with the state mounted")
        print("       run.py -m MODULE [ARGS...]  the same for a module")
        return 0
    init.stand_in()
    stateful = _activate()
    if arguments:
        program.run(arguments)
        return 0
    return serve(stateful)


def _activate() -> bool:
    if not os.environ.get("ASYA_STATE_PROXY_MOUNTS"):
        return False
    import asya_shim

    return asya_shim.activate_from_environment()


def serve(stateful: bool) -> int:
    """Serve the handler until SIGTERM; the exit status."""
    try:
        env = RuntimeEnv.from_env(os.environ)
        shim = ShimEnv.from_env(os.environ)
    except EnvError as error:
        return _give_up(_CONFIG, str(error))
    set_up(env.log_level, env.actor)
    try:
        server = Server(env)
    except CannotListen as error:
        return _give_up(_UNAVAILABLE, str(error))
    signals = Signals(server.drain)
    signals.install()
    server.start()
    server.watch(signals.reader, signals.woken)
    try:
        if stateful:
            wait(shim, env.state_wait)
        handler = load(env.handler)
    except ProxyMissing as error:
        return _give_up(_UNAVAILABLE, str(error))
    except HandlerError as error:
        if error.__cause__ is not None:
            say("".join(traceback.format_exception(None, error.__cause__, error.__cause__.__traceback__)))
        return _give_up(1, str(error))
    one = env.concurrency == 1
    turns = of_the_shim(process_wide=one) if stateful else Turns()
    bridge: Bridge = loop_here() if one else loop_aside()
    workers: Workers = Loop(env.concurrency) if is_async(handler) else Threads(env.concurrency)

    def ready() -> None:
        signals.starting = False
        server.open(workers)
        log("info", "ready", handler=env.handler, port=server.port, socket=env.socket or None, pid=os.getpid())

    workers.run(Execution(handler, turns, env.conflict_retries, bridge), ready)
    server.join()
    log("info", "drained")
    return 0


def _give_up(status: int, reason: str) -> int:
    say(f"asya: {reason}")
    sys.stderr.flush()
    return status
