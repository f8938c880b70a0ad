"""paho-mqtt: takes steps as JSON lines on standard input, answers each with a JSON line. See ../README.md."""

import json
import queue
import sys
import time
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

WAIT = 20
# paho-mqtt gives the return codes of 3.1.1 as their namesakes of 5.0.
CODES_OF_3 = {0x84: 1, 0x85: 2, 0x88: 3, 0x86: 4, 0x87: 5}


class Refused(Exception):
    """CONNACK said no."""


class Connection:
    def __init__(self, step):
        url = urlsplit(step["url"])
        self.v5 = step["version"] == "5.0"
        self.messages = queue.Queue()
        self.answers = queue.Queue()
        self.client = client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=step["client_id"],
            clean_session=None if self.v5 else not step["persistent"],
            protocol=mqtt.MQTTv5 if self.v5 else mqtt.MQTTv311,
            transport="websockets" if url.scheme in ("ws", "wss") else "tcp",
            reconnect_on_failure=False,
        )
        client.on_connect = lambda c, u, flags, code, props: self.answers.put((flags.session_present, code.value))
        client.on_subscribe = lambda c, u, mid, codes, props: self.answers.put([code.value for code in codes])
        client.on_message = lambda c, u, message: self.messages.put(message)
        client.on_disconnect = lambda *args: self.answers.put(None)
        if url.path:
            client.ws_set_options(path=url.path)
        if "user" in step:
            client.username_pw_set(step["user"], step["password"])
        if "ca" in step:
            client.tls_set(ca_certs=step["ca"], certfile=step.get("cert"), keyfile=step.get("key"))
        if "will" in step:
            client.will_set(**step["will"])
        properties = None
        if self.v5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 3600 if step["persistent"] else 0
        start = {"clean_start": not step["persistent"], "properties": properties} if self.v5 else {}
        client.connect(url.hostname, url.port, keepalive=30, **start)
        client.loop_start()

    def answer(self):
        answer = self.answers.get(timeout=WAIT)
        if answer is None:
            raise ConnectionError("the connection was closed")
        return answer

    def connected(self):
        session_present, code = self.answer()
        if code != 0:
            raise Refused(code if self.v5 else CODES_OF_3.get(code, code))
        return session_present

    def subscribe(self, topic, qos):
        self.client.subscribe(topic, qos)
        return self.answer()[0]

    def publish(self, step):
        info = self.client.publish(step["topic"], step["payload"], step["qos"], step["retain"])
        info.wait_for_publish(WAIT)
        return info.is_published()

    def receive(self, count, seconds):
        got, until = [], time.monotonic() + seconds
        while len(got) < count:
            try:
                one = self.messages.get(timeout=max(0, until - time.monotonic()))
            except queue.Empty:
                break
            got.append({"topic": one.topic, "payload": one.payload.decode(), "qos": one.qos, "retain": one.retain})
        return got

    def disconnect(self):
        self.client.disconnect()
        self.client.loop_stop()


def perform(connections, step):
    name = step["conn"]
    if step["op"] == "connect":
        connection = Connection(step)
        try:
            session_present = connection.connected()
        except Refused as refused:
            return {"ok": False, "code": refused.args[0]}
        connections[name] = connection
        granted = [connection.subscribe(one["topic"], one["qos"]) for one in step["subscribe"]]
        return {"ok": True, "session_present": session_present, "granted": granted}
    if step["op"] == "publish":
        return {"ok": connections[name].publish(step)}
    if step["op"] == "receive":
        return {"ok": True, "messages": connections[name].receive(step["count"], step["seconds"])}
    connections.pop(name).disconnect()
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
