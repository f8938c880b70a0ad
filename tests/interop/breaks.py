"""Planted breaks: what stands between clients and the real binary and spoils one thing, so that it can be seen which cells
find it. README.md says which do."""

import shutil
import socket
import struct
import threading

from nodes import Godwit

CONNACK, PUBLISH, DISCONNECT = 2, 3, 14


class Packet:
    """One MQTT packet: its first byte, and what follows the length."""

    def __init__(self, first, body):
        self.first, self.body = first, bytearray(body)

    @property
    def kind(self):
        return self.first >> 4

    def length(self):
        left, out = len(self.body), bytearray()
        while True:
            left, digit = divmod(left, 128)
            out.append(digit | (128 if left else 0))
            if not left:
                return out

    def bytes(self):
        return bytes([self.first]) + self.length() + self.body

    def topic(self):
        size = struct.unpack_from(">H", self.body)[0]
        return self.body[2:2 + size].decode()

    def qos(self):
        return self.first >> 1 & 3


def read(stream):
    """The next packet, or None at the end."""
    first = stream.read(1)
    if not first:
        return None
    length = shift = 0
    while True:
        digit = stream.read(1)
        if not digit:
            return None
        length |= (digit[0] & 127) << shift
        shift += 7
        if digit[0] < 128:
            break
    body = stream.read(length)
    return Packet(first[0], body) if len(body) == length else None


class Faithful:
    """What passes packets on as they are. One for each connection."""

    def to_client(self, packet):
        return [packet]

    def to_server(self, packet):
        return [packet]

    def at_end(self):
        """What the server gets when a client ends without a word."""
        return b""


class LosesOne(Faithful):
    """The third PUBLISH to a client never comes."""

    def __init__(self):
        self.seen = 0

    def to_client(self, packet):
        self.seen += packet.kind == PUBLISH
        return [] if packet.kind == PUBLISH and self.seen == 3 else [packet]


class DoublesOne(Faithful):
    """The second PUBLISH to a client comes twice; of QoS 2 as QoS 2 forbids it, with another packet identifier."""

    def __init__(self):
        self.seen = 0

    def to_client(self, packet):
        self.seen += packet.kind == PUBLISH
        if packet.kind != PUBLISH or self.seen != 2:
            return [packet]
        again = Packet(packet.first, packet.body)
        if packet.qos() == 2:
            struct.pack_into(">H", again.body, 2 + len(packet.topic().encode()), 65_535)
        return [packet, again]


class Swaps(Faithful):
    """The first PUBLISH to a client comes behind the second."""

    def __init__(self):
        self.seen, self.held = 0, None

    def to_client(self, packet):
        self.seen += packet.kind == PUBLISH
        if packet.kind == PUBLISH and self.seen == 1:
            self.held = packet
            return []
        if packet.kind == PUBLISH and self.held:
            held, self.held = self.held, None
            return [packet, held]
        return [packet]


class NoRetainFlag(Faithful):
    """A retained message comes as if it were new."""

    def to_client(self, packet):
        if packet.kind == PUBLISH:
            packet.first &= ~1
        return [packet]


class NeverClears(Faithful):
    """An empty retained message does not clear."""

    def to_server(self, packet):
        # Short ones with the flag: nothing behind the topic, the identifier and 5.0's length of properties.
        if packet.kind == PUBLISH and packet.first & 1 and len(packet.body) <= 2 + len(packet.topic().encode()) + 3:
            packet.first &= ~1
        return [packet]


class NoWill(Faithful):
    """An abrupt end looks like a DISCONNECT."""

    def at_end(self):
        return bytes([DISCONNECT << 4, 0])


class FlipsSessionPresent(Faithful):
    """CONNACK says the opposite of what is."""

    def to_client(self, packet):
        if packet.kind == CONNACK and packet.body[1] == 0:
            packet.body[0] ^= 1
        return [packet]


class WrongRefusal(Faithful):
    """Who is refused hears of a server that is not available."""

    def to_client(self, packet):
        if packet.kind == CONNACK and packet.body[1] != 0:
            packet.body[1] = 0x88 if packet.body[1] >= 0x80 else 3
        return [packet]


class NoConnack(Faithful):
    """Nobody is let in."""

    def to_client(self, packet):
        if packet.kind == CONNACK and packet.body[1] == 0:
            packet.body[1] = 5
        return [packet]


SPOILERS = {
    "loses-one": LosesOne,
    "doubles-one": DoublesOne,
    "swaps": Swaps,
    "no-retain-flag": NoRetainFlag,
    "never-clears": NeverClears,
    "no-will": NoWill,
    "flips-session-present": FlipsSessionPresent,
    "wrong-refusal": WrongRefusal,
    "no-connack": NoConnack,
}


class Proxy:
    """Stands before the plain MQTT listener."""

    def __init__(self, port, spoiler):
        self.port, self.spoiler = port, spoiler
        self.door = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.door.accept()
            try:
                server = socket.create_connection(("127.0.0.1", self.port))
            except OSError:
                client.close()
                continue
            spoiler = self.spoiler()
            for pump in (self.to_server, self.to_client):
                threading.Thread(target=pump, args=(client, server, spoiler), daemon=True).start()

    @staticmethod
    def pass_on(source, target, change, at_end=lambda: b""):
        try:
            with source.makefile("rb") as stream:
                while packet := read(stream):
                    for one in change(packet):
                        target.sendall(one.bytes())
                    if packet.kind == DISCONNECT:
                        break
                else:
                    target.sendall(at_end())
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def to_server(self, client, server, spoiler):
        self.pass_on(client, server, spoiler.to_server, spoiler.at_end)

    def to_client(self, client, server, spoiler):
        self.pass_on(server, client, spoiler.to_client)


def spoiled(name):
    """The product behind a proxy that spoils."""
    def start(folder, certs, binary):
        node = Godwit(folder, certs, binary)
        port = int(node.urls["tcp"].rsplit(":", 1)[1])
        node.urls["tcp"] = f"mqtt://127.0.0.1:{Proxy(port, SPOILERS[name]).door.getsockname()[1]}"
        return node
    return start


def wrong_path(folder, certs, binary):
    """MQTT over WebSocket is not where it is said to be."""
    node = Godwit(folder, certs, binary)
    for name in ("ws", "wss"):
        node.urls[name] += "tt"
    return node


def other_certificates(folder, certs, change):
    changed = folder.parent / f"{folder.name}-certificates"
    shutil.copytree(certs, changed)
    change(changed)
    return changed


def foreign_certificate(folder, certs, binary):
    """The server's certificate is not of the CA that clients know."""
    def change(place):
        shutil.copy(place / "other-ca.pem", place / "ca.pem")
    node = Godwit(folder, certs, binary)
    node.certs = other_certificates(folder, certs, change)
    return node


def trusts_anyone(folder, certs, binary):
    """Client and server take certificates of any CA."""
    def change(place):
        both = (place / "ca.pem").read_text() + (place / "other-ca.pem").read_text()
        for name in ("ca.pem", "other-ca.pem"):
            (place / name).write_text(both)
    return Godwit(folder, other_certificates(folder, certs, change), binary)


BREAKS = {name: spoiled(name) for name in SPOILERS}
BREAKS.update({"wrong-path": wrong_path, "foreign-certificate": foreign_certificate, "trusts-anyone": trusts_anyone})
