"""mosquitto_sub and mosquitto_pub: takes steps as JSON lines on standard input, answers each with a JSON line. See
../README.md. A connection that subscribes is a running mosquitto_sub; one that does not is a mosquitto_pub a message."""

import json
import queue
import re
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

WAIT = 20
VERSIONS = {"3.1.1": "mqttv311", "5.0": "mqttv5"}


NOTHING = {"topic": "iot/%u/nothing", "qos": 0}


class Closed(Exception):
    """The program ended."""


def options(step):
    """The options that both programs have."""
    url = urlsplit(step["url"])
    given = ["-h", url.hostname, "-p", str(url.port), "-V", VERSIONS[step["version"]], "-i", step["client_id"]]
    if "user" in step:
        given += ["-u", step["user"], "-P", step["password"]]
    for option, key in (("--cafile", "ca"), ("--cert", "cert"), ("--key", "key")):
        if key in step:
            given += [option, step[key]]
    if step["persistent"]:
        given += ["-c"] + (["-x", "3600"] if step["version"] == "5.0" else [])
    if "will" in step:
        will = step["will"]
        given += ["--will-topic", will["topic"], "--will-payload", will["payload"], "--will-qos", str(will["qos"])]
    return given


class Subscriber:
    """A running mosquitto_sub."""

    def __init__(self, step):
        # -d says when the subscription is granted, between the messages; stdbuf, so that it says so at once.
        command = ["stdbuf", "-oL", "mosquitto_sub", "-d", "-F", "%j"] + options(step)
        # It cannot come back without subscribing: then to what gets nothing, so that only a kept session can bring something.
        for one in step["subscribe"] or [NOTHING]:
            command += ["-t", one["topic"].replace("%u", step.get("user", ""))]
        command += ["-q", str(max((one["qos"] for one in step["subscribe"]), default=0))]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.messages, self.said, self.errors = queue.Queue(), queue.Queue(), []
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            granted = re.match(r"Subscribed \(mid: \d+\): (.*)", line)
            if line.startswith("{"):
                self.messages.put(json.loads(line))
            elif granted:
                self.said.put([int(code) for code in granted[1].split(", ")])
            elif not line.startswith("Client "):
                self.errors.append(line.strip())
        self.said.put(None)

    def granted(self):
        answer = self.said.get(timeout=WAIT)
        if answer is None:
            raise Closed(self.process.wait(), " ".join(self.errors))
        return answer

    def receive(self, count, seconds):
        got, until = [], time.monotonic() + seconds
        while len(got) < count:
            try:
                one = self.messages.get(timeout=max(0, until - time.monotonic()))
            except queue.Empty:
                break
            # An empty payload is null.
            got.append({"topic": one["topic"], "payload": one["payload"] or "", "qos": one["qos"], "retain": bool(one["retain"])})
        return got

    def disconnect(self):
        self.process.terminate()
        self.process.wait(WAIT)


def publish(connect, step):
    command = ["mosquitto_pub", "-q", str(step["qos"]), "-t", step["topic"]] + options(connect)
    command += (["-r"] if step["retain"] else []) + (["-s"] if step["payload"] else ["-n"])
    done = subprocess.run(command, input=step["payload"].encode(), capture_output=True, timeout=WAIT, check=False)
    return {"ok": done.returncode == 0, "error": done.stderr.decode().strip()}


def perform(connections, step):
    name = step["conn"]
    if step["op"] == "connect":
        if step["url"].startswith("ws"):
            return {"ok": False, "not_offered": "mosquitto_sub 2.0 has no WebSocket"}
        if not step["subscribe"] and not step["persistent"]:
            connections[name] = step
            return {"ok": True, "session_present": False, "granted": []}
        connection = Subscriber(step)
        try:
            granted = connection.granted()
        except Closed as closed:
            # Its exit code is CONNACK's code, and else 1 for nearly everything.
            status, error = closed.args
            return {"ok": False, "code": status if "Connection error" in error else None, "error": error}
        connections[name] = connection
        # -d does not show CONNACK's session present flag.
        return {"ok": True, "session_present": None, "granted": granted[:len(step["subscribe"])]}
    if step["op"] == "publish":
        return publish(connections[name], step)
    if step["op"] == "receive":
        return {"ok": True, "messages": connections[name].receive(step["count"], step["seconds"])}
    connection = connections.pop(name)
    if isinstance(connection, Subscriber):
        connection.disconnect()
    return {"ok": True}


def main():
    connections = {}
    for line in sys.stdin:
        try:
            answer = perform(connections, json.loads(line))
        except Exception as error:  # whatever it is, the judge is told
            answer = {"ok": False, "error": repr(error)}
        print(json.dumps(answer), flush=True)


main()
