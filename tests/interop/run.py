#!/usr/bin/env python3
"""The interoperability matrix: the same script against the real binary by stock clients, each from its own package
manager. Each client has a server of its own, so that one's kill -9 is nobody else's.

    tests/interop/run.py [--check | --bless] [--only CLIENT] [--plant NAME]

Without an option, red cells make it fail. --check fails if a cell is not as docs/interop.md has it; --bless writes that
file. --plant puts a broken server in the place of the product (see README.md), to see what goes red.

GODWIT_BIN names the binary, else target/debug/godwit is built. Needs Python 3.9 or later, Node.js, a JDK, Maven, Go and
Rust; mosquitto-clients is installed with apt-get if it is missing. Exit code 0: green; 1: red; 2: nothing could be judged.
"""

import argparse
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
import breaks  # noqa: E402
import table  # noqa: E402
from clients import CLIENTS, PLACE, ROOT, TARGET  # noqa: E402
from nodes import VERSIONS, Godwit, Mosquitto, certificates  # noqa: E402
from processes import Unjudged, end  # noqa: E402
from scenario import STEPS, Scenario  # noqa: E402

# What a run may take at most, with installing; a lane that is still at it then is a fault.
LANE_SECONDS = 600


def binary():
    if os.environ.get("GODWIT_BIN"):
        return pathlib.Path(os.environ["GODWIT_BIN"]).resolve()
    build = ["cargo", "build", "--quiet", "--workspace", "--bin", "godwit"]
    if subprocess.run(build, cwd=ROOT, check=False).returncode != 0:
        raise Unjudged("the binary does not build")
    return TARGET / "debug" / "godwit"


class Lane(threading.Thread):
    """One client: installed, then both versions, against a server of its own."""

    def __init__(self, client, start_server, folder):
        super().__init__(name=client.name, daemon=True)
        self.client, self.start_server, self.folder = client, start_server, folder
        self.cells, self.failure = {}, None

    def run(self):
        began = time.monotonic()
        try:
            command = self.client.install()
            installed = time.monotonic()
            server = self.start_server(self.folder / self.client.name)
            try:
                for version in VERSIONS:
                    scenario = Scenario(command, version, server, self.folder / f"{self.client.name}.errors")
                    scenario.run()
                    self.cells[version] = scenario.cells
            finally:
                server.stop()
            now = time.monotonic()
            print(f"{self.client.name}: installed in {installed - began:.1f} s, done in {now - installed:.1f} s", flush=True)
        except Unjudged as reason:
            self.failure = str(reason)
        except Exception as error:  # a fault of this harness: the others go on, the run fails
            self.failure = repr(error)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = options.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true")
    what.add_argument("--bless", action="store_true")
    options.add_argument("--only", action="append", choices=[client.name for client in CLIENTS])
    options.add_argument("--plant", choices=["mosquitto", *breaks.BREAKS])
    given = options.parse_args()
    if given.bless and (given.only or given.plant) or given.check and given.only:
        options.error("the page is of a whole run, of the product")
    clients = [client for client in CLIENTS if not given.only or client.name in given.only]
    PLACE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="godwit-interop-") as place:
        folder = pathlib.Path(place)
        certs = certificates(folder / "certificates")
        kind = {None: Godwit, "mosquitto": Mosquitto, **breaks.BREAKS}[given.plant]
        program = None if kind is Mosquitto else binary()

        def start_server(where):
            return kind(where, certs, program)

        lanes = [Lane(client, start_server, folder) for client in clients]
        try:
            for lane in lanes:
                lane.start()
            until = time.monotonic() + LANE_SECONDS
            for lane in lanes:
                lane.join(max(0, until - time.monotonic()))
                if lane.is_alive():
                    lane.failure = f"not done in {LANE_SECONDS} s"
        finally:
            end()
        failed = [lane for lane in lanes if lane.failure]
        if failed:
            raise Unjudged("; ".join(f"{lane.client.name}: {lane.failure}" for lane in failed))
    cells = {lane.client.name: lane.cells for lane in lanes}
    return table.judge(cells, clients, [name for name, _ in STEPS], given)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))
    try:
        sys.exit(main())
    except Unjudged as reason:
        print(f"interop: {reason}", file=sys.stderr)
        sys.exit(2)
