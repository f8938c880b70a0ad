"""What the run has started, so that nothing outlives it; and the one exception that every file here may raise."""

import os
import subprocess
import threading

_started = []
_ended = threading.Event()


class Unjudged(Exception):
    """Nothing can be said of the product: a tool is missing, a server does not start."""


def start(command, **options):
    """A process that leads a group of its own."""
    if _ended.is_set():
        raise Unjudged("the run has ended")
    process = subprocess.Popen(command, start_new_session=True, **options)
    _started.append(process)
    return process


def kill_group(process):
    """kill -9, of its children too."""
    try:
        os.killpg(process.pid, 9)
    except ProcessLookupError:
        pass
    process.wait(20)


def end():
    """Kills whatever still runs, where a run does not come to its own end."""
    _ended.set()
    for process in _started:
        if process.poll() is None:
            kill_group(process)
