"""The script that every client goes through, one version at a time, and the judgement of each step: one place for all
clients. It knows no client by name."""

import json
import time

from clients import Program
from nodes import P12_PASSWORD, user_of

# How long what must come is waited for. Nothing is waited for that must not come: a later message shows that.
SECONDS = 15
OWED = 10
PAYLOADS = ["one", "größer ☃ 💬", "", "0123456789abcdef" * 3840, "last"]
# CONNACK's "bad user name or password".
BAD_TOKEN = {"3.1.1": 4, "5.0": 0x86}
# "Not authorized".
NO_TOKEN = {"3.1.1": 5, "5.0": 0x87}
ANOTHER_TOKEN = "gdt_" + "0" * 32


class Red(Exception):
    """The step did not go as it must."""


class NotOffered(Exception):
    """The client has no way to do it."""


def expect(wanted, got, what):
    if wanted != got:
        raise Red(f"{what}: {short(got)} instead of {short(wanted)}")


def short(value):
    text = repr(value)
    return text if len(text) < 300 else text[:200] + " … " + text[-80:]


def is_receipt(message):
    return message["topic"] == "me/inbox/json" and json.loads(message["payload"])["type"] == "receipt"


class Scenario:
    """One client, one version, one server. `cells` is what came of it: name → (state, reason)."""

    def __init__(self, command, version, server, errors):
        self.command, self.version, self.server, self.errors = command, version, server, errors
        self.ann, self.bob = user_of("ann", version), user_of("bob", version)
        self.program = Program(command, errors)
        self.cells = {}

    def run(self):
        for name, steps in STEPS:
            try:
                steps(self)
                self.cells[name] = ("yes", "")
            except NotOffered as reason:
                self.cells[name] = ("not offered", str(reason))
            except Red as reason:
                self.cells[name] = ("RED", str(reason))
            if self.program.process.poll() is not None:
                self.program = Program(self.command, self.errors)
        self.program.kill()

    # The steps' words.

    def attempt(self, conn, user, subscribe=(), by="tcp", program=None, **more):
        step = {"op": "connect", "conn": conn, "version": self.version, "url": self.server.urls[by], "client_id": f"{conn}-{user}",
                "persistent": False, "subscribe": [{"topic": topic, "qos": qos} for topic, qos in subscribe]}
        if by in ("tls", "wss", "mutual"):
            step["ca"] = str(self.server.certs / "ca.pem")
        if by != "mutual":
            step.update(user=user, password=self.server.tokens[user])
        step.update(more)
        answer = (program or self.program).ask(step)
        if "not_offered" in answer:
            raise NotOffered(answer["not_offered"])
        return answer

    def connect(self, conn, user, subscribe=(), **more):
        answer = self.attempt(conn, user, subscribe, **more)
        if not answer["ok"]:
            raise Red(f"{conn} is not connected: {answer}")
        for (topic, qos), granted in zip(subscribe, answer["granted"]):
            if granted > 2 or granted < qos:
                raise Red(f"{topic} at QoS {qos} was granted as {granted}")
        expect(len(subscribe), len(answer["granted"]), "filters granted")
        return answer["session_present"]

    def publish(self, conn, topic, payload, qos=1, retain=False):
        answer = self.program.ask({"op": "publish", "conn": conn, "topic": topic, "payload": payload, "qos": qos, "retain": retain})
        if not answer["ok"]:
            raise Red(f"publish to {topic}: {answer}")

    def receive(self, conn, count, seconds=SECONDS):
        """The next messages. What an inbox is told beside them, how far others got, comes when it comes: it is left out."""
        got, until = [], time.monotonic() + seconds
        while len(got) < count:
            left = max(0, until - time.monotonic())
            answer = self.program.ask({"op": "receive", "conn": conn, "count": count - len(got), "seconds": left})
            if not answer["ok"]:
                raise Red(f"receive: {answer}")
            got += [one for one in answer["messages"] if not is_receipt(one)]
            if not answer["messages"]:
                break
        return got

    def disconnect(self, *conns):
        for conn in conns:
            answer = self.program.ask({"op": "disconnect", "conn": conn})
            if not answer["ok"]:
                raise Red(f"disconnect: {answer}")

    def there_and_back(self, conn, qos, **how):
        """Both ways: every payload goes out and comes back, in order."""
        topic = f"iot/{self.ann}/{conn}"
        self.connect(conn, self.ann, [(topic, qos)], **how)
        # Who only publishes; a client may well need a connection for each.
        self.connect(f"{conn}-out", self.ann, **how)
        for payload in PAYLOADS:
            self.publish(f"{conn}-out", topic, payload, qos)
        wanted = [{"topic": topic, "payload": payload, "qos": qos, "retain": False} for payload in PAYLOADS]
        expect(wanted, self.receive(conn, len(PAYLOADS)), "messages")
        self.disconnect(conn, f"{conn}-out")

    # The steps.

    def with_token(self):
        present = self.connect("plain", self.ann, [(f"iot/{self.ann}/hello", 1)])
        if present:
            raise Red("a session is present that never was")
        self.disconnect("plain")

    def wrong_token(self):
        answer = self.attempt("wrong", self.ann, [(f"iot/{self.ann}/wrong", 1)], password=ANOTHER_TOKEN)
        expect((False, BAD_TOKEN[self.version]), (answer["ok"], answer.get("code")), f"refusal ({answer})")

    def qos_0(self):
        self.there_and_back("qos0", 0)

    def qos_1(self):
        self.there_and_back("qos1", 1)

    def qos_2(self):
        self.there_and_back("qos2", 2)

    def retained(self):
        topic = f"iot/{self.ann}/retained"
        self.connect("live", self.ann, [(topic, 1)])
        self.connect("setter", self.ann)
        self.publish("setter", topic, "kept", retain=True)
        wanted = {"topic": topic, "payload": "kept", "qos": 1, "retain": False}
        expect([wanted], self.receive("live", 1), "what came live")
        self.connect("late", self.ann, [(topic, 1)])
        expect([dict(wanted, retain=True)], self.receive("late", 1), "what was retained")
        self.disconnect("live", "late", "setter")

    def retained_cleared(self):
        topic = f"iot/{self.ann}/retained"
        self.connect("setter", self.ann)
        self.publish("setter", topic, "", retain=True)
        self.connect("later", self.ann, [(topic, 1)])
        self.publish("setter", topic, "behind")
        wanted = {"topic": topic, "payload": "behind", "qos": 1, "retain": False}
        expect([wanted], self.receive("later", 1), "first message after clearing")
        self.disconnect("later", "setter")

    def will(self):
        topic = f"iot/{self.ann}/will"
        self.connect("heir", self.ann, [(topic, 1)])
        doomed = Program(self.command, self.errors)
        try:
            will = {"topic": topic, "payload": "gone", "qos": 1, "retain": False}
            self.connect("doomed", self.ann, [(f"iot/{self.ann}/doomed", 1)], program=doomed, will=will)
            expect([], self.receive("heir", 1, 0), "messages before the end")
        finally:
            doomed.kill()
        expect([will], self.receive("heir", 1), "the will")
        self.disconnect("heir")

    def owing(self):
        """Prepares three cells: a session goes away, is owed, and the server is killed."""
        owed = self.owed = {
            f"iot/{self.ann}/owed/1": (1, [f"one {number}" for number in range(OWED)]),
            f"iot/{self.ann}/owed/2": (2, [f"two {number}" for number in range(OWED)]),
        }
        filters = [(topic, qos) for topic, (qos, _) in owed.items()] + [("me/inbox/json", 1)]
        self.failed_to_owe = None
        try:
            if self.connect("keeper", self.ann, filters, persistent=True):
                raise Red("a session is present that never was")
            self.disconnect("keeper")
            self.connect("owing", self.ann)
            self.connect("friend", self.bob)
            for number in range(OWED):
                for topic, (qos, payloads) in owed.items():
                    self.publish("owing", topic, payloads[number], qos)
                self.publish("friend", f"c/@{self.ann}/send/text", f"chat {number}")
            self.publish("owing", f"iot/{self.ann}/retained/over", "kept", retain=True)
        except Red as reason:
            self.failed_to_owe = reason
        self.server.kill()
        self.server.start()
        # Their connections are gone with the server: a new program, as after a client's own restart.
        self.program.kill()
        self.program = Program(self.command, self.errors)

    def session_present(self):
        self.owing()
        present = self.connect("keeper", self.ann, persistent=True)
        if self.failed_to_owe:
            raise self.failed_to_owe
        if present is None:
            raise NotOffered("mosquitto_sub does not show CONNACK's flag; that the session was there is seen in the next row")
        if not present:
            raise Red("no session is present")

    def owed_in_order(self):
        chats = [f"chat {number}" for number in range(OWED)]
        # Beside the messages, the inbox has that the conversation came to be.
        got = self.receive("keeper", 3 * OWED + 1)
        for topic, (qos, payloads) in self.owed.items():
            wanted = [{"topic": topic, "payload": payload, "qos": qos, "retain": False} for payload in payloads]
            expect(wanted, [one for one in got if one["topic"] == topic], f"owed on {topic}")
        inbox = [json.loads(one["payload"]) for one in got if one["topic"].startswith("me/inbox")]
        expect(chats, [event.get("content") for event in inbox if event["type"] == "message"], "owed by chat")
        # Nothing was owed twice.
        topic = f"iot/{self.ann}/owed/1"
        self.connect("owing", self.ann)
        self.publish("owing", topic, "end")
        expect(["end"], [one["payload"] for one in self.receive("keeper", 1)], "what comes behind")
        self.disconnect("keeper", "owing")

    def retained_over_kill(self):
        topic = f"iot/{self.ann}/retained/over"
        self.connect("late", self.ann, [(topic, 1)])
        wanted = {"topic": topic, "payload": "kept", "qos": 1, "retain": True}
        expect([wanted], self.receive("late", 1), "what was retained")
        self.disconnect("late")

    def web_socket(self):
        self.there_and_back("websocket", 1, by="ws")

    def web_socket_over_tls(self):
        self.there_and_back("secure-websocket", 1, by="wss")

    def tls(self):
        self.there_and_back("tls", 1, by="tls")
        other = str(self.server.certs / "other-ca.pem")
        distrusted = self.attempt("distrusting", self.ann, [(f"iot/{self.ann}/tls", 1)], by="tls", ca=other)
        # Without a CONNACK: it is the client that would not.
        if distrusted["ok"] or distrusted.get("code") is not None:
            raise Red(f"a server of another CA: {distrusted}")

    def mutual_tls(self):
        if not self.server.mutual:
            raise Red("the server has no option --tls-client-ca")
        # No user name, no token: the certificate says who it is, and so where it may publish.
        self.there_and_back("mutual", 1, by="mutual", **self.certificate(self.ann))
        filters = [(f"iot/{self.ann}/mutual", 1)]
        stranger = self.attempt("stranger", self.ann, filters, by="mutual", **self.certificate(f"{self.ann}-of-other-ca"))
        # Some clients show only what the server asks for, and so come with none.
        if stranger["ok"] or stranger.get("code") not in (None, NO_TOKEN[self.version]):
            raise Red(f"a client's certificate of another CA: {stranger}")
        nobody = self.attempt("nobody", self.ann, filters, by="mutual")
        expect((False, NO_TOKEN[self.version]), (nobody["ok"], nobody.get("code")), f"neither certificate nor token ({nobody})")

    def certificate(self, name):
        place = self.server.certs
        return {"cert": str(place / f"{name}.pem"), "key": str(place / f"{name}.key"), "p12": str(place / f"{name}.p12"),
                "p12_password": P12_PASSWORD}

    def chat(self):
        self.connect("inbox", self.ann, [("me/inbox/json", 1)])
        self.connect("friend", self.bob)
        for text in ("hi", "größer ☃ 💬"):
            self.publish("friend", f"c/@{self.ann}/send/text", text)
        got = self.receive("inbox", 2)
        expect([("me/inbox/json", 1)] * 2, [(one["topic"], one["qos"]) for one in got], "the inbox")
        events = [json.loads(one["payload"]) for one in got]
        wanted = [("message", self.bob, "text", text) for text in ("hi", "größer ☃ 💬")]
        keys = ("type", "sender_name", "content_type", "content")
        expect(wanted, [tuple(event.get(key) for key in keys) for event in events], "the messages")
        first, second = (event["sequence_number"] for event in events)
        expect(1, second - first, "step of the sequence numbers")
        self.disconnect("inbox", "friend")


# A row of the matrix each, in the order in which they are done.
STEPS = [
    ("connects with user name and device token", Scenario.with_token),
    ("wrong token: refused with 4, in 5.0 0x86", Scenario.wrong_token),
    ("QoS 0, both ways", Scenario.qos_0),
    ("QoS 1, both ways", Scenario.qos_1),
    ("QoS 2, both ways", Scenario.qos_2),
    ("retained: set, got", Scenario.retained),
    ("retained: cleared", Scenario.retained_cleared),
    ("will at an abrupt end", Scenario.will),
    ("kill -9 of the server: session present", Scenario.session_present),
    ("kill -9 of the server: all that is owed, in order, once", Scenario.owed_in_order),
    ("kill -9 of the server: retained", Scenario.retained_over_kill),
    ("WebSocket", Scenario.web_socket),
    ("WebSocket over TLS", Scenario.web_socket_over_tls),
    ("TLS with a private CA; another CA refused", Scenario.tls),
    ("mutual TLS: the certificate names the user", Scenario.mutual_tls),
    ("chat: `c/@name/send/text` to `me/inbox/json`", Scenario.chat),
]
