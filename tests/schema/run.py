#!/usr/bin/env python3
"""Runs schemathesis over the OpenAPI document that the real binary serves: no answer may have a status, a header, a
content type or a body that the document does not have. Starts the binary on a data folder and ports of its own.

    tests/schema/run.py [--seed N] [--seconds N]

GODWIT_BIN names the binary, else target/debug/godwit is built. Needs Python 3.9 or later; schemathesis is installed into
target/schema-venv. Exit code 0: green; 1: red; 2: nothing could be judged.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import venv

sys.dont_write_bytecode = True
from closed import closed  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
CHECKS = ",".join([
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
])
DOCUMENT = "/api/v1/openapi.json"
PASSWORD = "correct horse battery"

# Operations that end the session they come by. They are tried by another user, who logs in anew for each request.
ENDING = [
    ("POST", "/api/v1/auth/logout"),
    ("POST", "/api/v1/auth/password"),
    ("DELETE", "/api/v1/auth/sessions"),
    ("DELETE", "/api/v1/auth/sessions/{session_id}"),
]


class Unjudged(Exception):
    """Nothing can be said of the product."""


def tool():
    """Path of schemathesis in an environment of its own."""
    place = TARGET / "schema-venv"
    wanted = (HERE / "requirements.txt").read_text()
    stamp = place / "installed.txt"
    if not stamp.exists() or stamp.read_text() != wanted:
        venv.create(place, with_pip=True, clear=True)
        pip = [place / "bin" / "python", "-m", "pip", "install", "--quiet", "-r", HERE / "requirements.txt"]
        if subprocess.run(pip, timeout=600, check=False).returncode != 0:
            raise Unjudged("schemathesis could not be installed")
        stamp.write_text(wanted)
    return place / "bin" / "schemathesis"


def binary():
    if os.environ.get("GODWIT_BIN"):
        return pathlib.Path(os.environ["GODWIT_BIN"])
    build = ["cargo", "build", "--quiet", "--workspace", "--bin", "godwit"]
    if subprocess.run(build, cwd=ROOT, check=False).returncode != 0:
        raise Unjudged("the binary does not build")
    return TARGET / "debug" / "godwit"


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Node:
    """The running binary."""

    def __init__(self, folder):
        mqtt, http, admin = free_ports(3)
        self.base = f"http://127.0.0.1:{http}"
        self.log = folder / "log"
        command = [binary(), "serve", "--data-dir", folder / "data"]
        for option, port in (("--mqtt", mqtt), ("--http", http), ("--admin", admin)):
            command += [option, f"127.0.0.1:{port}"]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until = time.monotonic() + 60
        while time.monotonic() < until and self.process.poll() is None:
            try:
                if self.call("GET", "/readyz")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        self.stop()
        raise Unjudged("the node is not ready: " + self.tail())

    def call(self, method, path, body=None, token=None):
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def done(self, method, path, body=None, token=None):
        status, answer = self.call(method, "/api/v1" + path, body, token)
        if not 200 <= status < 300:
            raise Unjudged(f"{method} {path}: {status} {answer}")
        return answer

    def tail(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def settle(node):
    """Users and things to ask for. Gives the token, and values for the parameters by their names in the document."""
    ids = {}
    for name in ("alice", "bob", "ending"):
        ids[name] = node.done("POST", "/users", {"username": name, "password": PASSWORD})["user_id"]
    tokens = {}
    for name in ("alice", "bob"):
        tokens[name] = node.done("POST", "/auth/login", {"username": name, "password": PASSWORD})["access_token"]
    token = tokens["alice"]
    node.done("POST", "/contacts", {"user_id": ids["alice"]}, tokens["bob"])
    direct = node.done("POST", "/conversations", {"type": "one_on_one", "user_id": ids["bob"]}, token)
    group = node.done("POST", "/groups", {"name": "Harbour", "members": [ids["bob"]]}, token)
    path = f"/conversations/{direct['conversation_id']}/messages"
    message = node.done("POST", path, {"content": "the harbour at night", "client_message_id": "first"}, token)
    node.done("POST", path, {"content": "a second word"}, tokens["bob"])
    node.done("POST", f"/conversations/{group['conversation_id']}/messages", {"content": "all of you"}, token)
    device = node.done("POST", "/auth/device-tokens", {"name": "phone"}, token)
    session = node.done("GET", "/auth/sessions", None, token)["sessions"][0]
    return token, {
        "conversation_id": direct["conversation_id"],
        "group_id": group["conversation_id"],
        "message_id": message["message_id"],
        "user_id": ids["bob"],
        "session_id": session["session_id"],
        "id": device["id"],
        "username": "bob",
        "sender": ids["alice"],
        "query": "harbour",
    }


def one_run(command, document, name, folder, node, arguments, seconds, environment=None, known=None):
    """One run of schemathesis; gives whether it was green, and what was asked and answered."""
    work = folder / name
    work.mkdir()
    har = work / "traffic.har"
    config = ""
    if known:
        config = "[parameters]\n" + "".join(f'"path.{key}" = {json.dumps(value)}\n' for key, value in known.items()
                                             if key not in ("username", "sender", "query"))
        config += "".join(f'"query.{key}" = {json.dumps(known[key])}\n' for key in ("username", "sender", "query"))
    (work / "schemathesis.toml").write_text(config)
    line = [command, "run", document, "--url", node.base, "--checks", CHECKS, "--no-color", "--warnings", "off",
            "--generation-database", "none", "--continue-on-failure", "--request-timeout", "30",
            "--suppress-health-check", "all", "--max-time", str(seconds),
            "--report", "har", "--report-har-path", har, *arguments]
    print(f"\n== {name}, at most {seconds} s", flush=True)
    try:
        ended = subprocess.run(line, cwd=work, timeout=3 * seconds + 120, check=False,
                               env={**os.environ, **(environment or {})})
    except subprocess.TimeoutExpired as error:
        raise Unjudged(f"{name} did not end") from error
    if ended.returncode not in (0, 1) or not har.exists():
        raise Unjudged(f"schemathesis ended with {ended.returncode}")
    entries = json.loads(har.read_text())["log"]["entries"]
    answers = [(entry["request"]["method"], urllib.parse.urlsplit(entry["request"]["url"]).path,
                entry["response"]["status"]) for entry in entries]
    return ended.returncode == 0, answers


def statuses(document, answers):
    """Which statuses each operation gave how often."""
    doors = []
    for path, item in document["paths"].items():
        # A path without parameters before one with.
        pattern = re.compile("^" + re.sub(r"\\{[^}]*\\}", "[^/]+", re.escape(path)) + "$")
        doors += [(path.count("{"), method.upper(), path, pattern) for method in item
                  if method in ("get", "put", "post", "delete", "patch")]
    doors.sort(key=lambda door: door[0])
    counts = {(method, path): collections.Counter() for _, method, path, _ in doors}
    for method, path, status in answers:
        for _, of, template, pattern in doors:
            if of == method and pattern.match(path):
                counts[method, template][status] += 1
                break
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--seconds", type=int, default=120, help="of all runs together, about")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    command = tool()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="godwit-schema-"))
    node = Node(folder)
    try:
        green = judge(command, folder, node, options)
    finally:
        node.stop()
    if green:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(f"records are in {folder}")
    return 0 if green else 1


def judge(command, folder, node, options):
    status, document = node.call("GET", DOCUMENT)
    if status != 200:
        raise Unjudged(f"{DOCUMENT}: {status}")
    token, known = settle(node)
    strict = folder / "openapi.json"
    strict.write_text(json.dumps(closed(document)))
    unending, ending = [], []
    for method, path in ENDING:
        if method.lower() not in document["paths"].get(path, {}):
            raise Unjudged(f"{method} {path} is not in the document")
    names = {f"{method} {path}" for method, path in ENDING}
    for name in sorted(names):
        unending += ["--exclude-name", name]
        ending += ["--include-name", name]
    seed = ["--seed", str(options.seed)]
    with_token = ["--header", f"Authorization: Bearer {token}"]
    share = options.seconds / 13
    helped = {
        "SCHEMATHESIS_HOOKS": "hooks",
        "PYTHONPATH": str(HERE),
        "PYTHONDONTWRITEBYTECODE": "1",
        "SCHEMA_API": node.base,
        "SCHEMA_LOGIN": json.dumps({"username": "ending", "password": PASSWORD}),
        "SCHEMA_KNOWN": json.dumps(known),
    }
    plan = [
        # Anything at all: mostly refusals.
        ("anything", [*unending, *with_token, "--phases", "examples,coverage,fuzzing"], 5, None, None),
        # Parameters that name what is there: successes.
        ("known", [*unending, *with_token, "--phases", "examples,coverage,fuzzing", "--mode", "positive"], 3, helped,
         known),
        # What one answer names, asked of the next operation.
        ("chains", [*unending, *with_token, "--phases", "stateful"], 2, None, None),
        ("ending", [*ending, "--phases", "examples,coverage,fuzzing", "--max-examples", "20"], 2,
         {**helped, "SCHEMA_ENDING": "1"}, None),
        ("nobody", ["--phases", "fuzzing", "--max-examples", "3"], 1, None, None),
    ]
    green, answers = True, []
    for name, arguments, shares, environment, values in plan:
        seconds = max(5, round(share * shares))
        fine, given = one_run(command, strict, name, folder, node, [*seed, *arguments], seconds, environment, values)
        green &= fine
        answers += given
        if node.process.poll() is not None:
            print(f"the node ended in {name}: {node.tail()}")
            return False
        if node.call("GET", "/api/v1/users/me", token=token)[0] != 200:
            raise Unjudged(f"the token did not survive {name}: an operation that ends sessions is missing in ENDING")
    counts = statuses(document, answers)
    print(f"\n{len(answers)} answers")
    for (method, path), found in sorted(counts.items(), key=lambda item: (item[0][1], item[0][0])):
        print(f"{method:7}{path:60}", " ".join(f"{status}:{found[status]}" for status in sorted(found)))
        if not any(200 <= status < 300 for status in found):
            print("       ^ never succeeded: nothing was seen of its success")
            green = False
    print("green" if green else "red", f"seed {options.seed}")
    return green


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Unjudged as reason:
        print(f"cannot be judged: {reason}")
        sys.exit(2)
