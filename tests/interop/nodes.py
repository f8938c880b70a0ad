"""Servers of the matrix: certificates, the real binary with users and kill -9, and mosquitto as a server that is known to
lose what it owes."""

import json
import os
import pathlib
import re
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

import processes
from processes import Unjudged

PASSWORD = "correct horse battery"
P12_PASSWORD = "keystore"
VERSIONS = ("3.1.1", "5.0")
# How long a server may take to be ready; a machine that also compiles is slow.
READY_SECONDS = 60


def user_of(name, version):
    """The two users of each version: no version meets what another left."""
    return name + version[0]


def certificates(folder):
    """A private CA, the server's certificate, one for each user, and a CA that nobody should trust."""
    folder.mkdir(parents=True)

    def openssl(*arguments):
        command = ["openssl"] + [str(one) for one in arguments]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        if done.returncode != 0:
            raise Unjudged("openssl: " + done.stderr.decode())

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    for ca in ("ca", "other-ca"):
        openssl("req", "-x509", *key, "-subj", f"/CN=interop {ca}", "-keyout", folder / f"{ca}.key", "-out", folder / f"{ca}.pem")

    def issue(name, ca, subject, *extensions):
        request = folder / f"{name}.csr"
        openssl("req", *key, "-subj", f"/CN={subject}", "-keyout", folder / f"{name}.key", "-out", request)
        (folder / f"{name}.ext").write_text("\n".join(extensions) + "\n")
        openssl("x509", "-req", "-in", request, "-CA", folder / f"{ca}.pem", "-CAkey", folder / f"{ca}.key", "-CAcreateserial",
                "-days", "2", "-extfile", folder / f"{name}.ext", "-out", folder / f"{name}.pem")

    issue("server", "ca", "localhost", "subjectAltName=DNS:localhost,IP:127.0.0.1", "extendedKeyUsage=serverAuth")
    for version in VERSIONS:
        user = user_of("ann", version)
        for name, ca in ((user, "ca"), (f"{user}-of-other-ca", "other-ca")):
            issue(name, ca, user, "extendedKeyUsage=clientAuth")
            # What Java reads.
            openssl("pkcs12", "-export", "-in", folder / f"{name}.pem", "-inkey", folder / f"{name}.key",
                    "-passout", f"pass:{P12_PASSWORD}", "-out", folder / f"{name}.p12")
    return folder


_given = set()
_giving = threading.Lock()


def free_ports(count):
    """Ports that nobody listens on, none twice in a run, below those that the system gives to clients: the server must
    find its ports again when it is restarted."""
    low = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = []
    with _giving:
        while len(ports) < count:
            port = 10_000 + secrets.randbelow(max(1, low - 10_000))
            with socket.socket() as trial:
                try:
                    trial.bind(("127.0.0.1", port))
                except OSError:
                    continue
            if port not in _given:
                _given.add(port)
                ports.append(port)
    return ports


class Server:
    """A process on ports of its own that can be killed and started again."""

    def __init__(self, folder, certs):
        folder.mkdir(parents=True)
        self.folder, self.certs, self.process = folder, certs, None
        self.log = folder / "log"
        self.tokens = {}

    def spawn(self, command):
        with open(self.log, "ab") as log:
            self.process = processes.start(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until = time.monotonic() + READY_SECONDS
        while time.monotonic() < until and self.process.poll() is None:
            if self.ready():
                return
            time.sleep(0.02)
        self.stop()
        raise Unjudged("the server is not ready: " + self.tail())

    def tail(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-10:])

    def kill(self):
        """kill -9: what is not on disk is gone."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(20)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Godwit(Server):
    """The real binary."""

    mutual = False

    def __init__(self, folder, certs, binary):
        super().__init__(folder, certs)
        mqtt, http, admin, mqtts, https = free_ports(5)
        self.base = f"http://127.0.0.1:{http}"
        self.urls = {
            "tcp": f"mqtt://127.0.0.1:{mqtt}",
            "ws": f"ws://127.0.0.1:{http}/mqtt",
            "tls": f"mqtts://127.0.0.1:{mqtts}",
            "mutual": f"mqtts://127.0.0.1:{mqtts}",
            "wss": f"wss://127.0.0.1:{https}/mqtt",
        }
        self.command = [binary, "serve", "--data-dir", folder / "data", "--workers", "1",
                        "--tls-cert", certs / "server.pem", "--tls-key", certs / "server.key"]
        for option, port in (("mqtt", mqtt), ("http", http), ("admin", admin), ("mqtts", mqtts), ("https", https)):
            self.command += [f"--{option}", f"127.0.0.1:{port}"]
        if self.offers(binary, "--tls-client-ca"):
            self.mutual = True
            self.command += ["--tls-client-ca", certs / "ca.pem", "--tls-client-auth", "optional"]
        self.start()
        for version in VERSIONS:
            for name in ("ann", "bob"):
                self.register(user_of(name, version))

    @staticmethod
    def offers(binary, option):
        said = subprocess.run([binary, "serve", "--help"], capture_output=True, timeout=60, check=False)
        return option.encode() in said.stdout

    def start(self):
        self.spawn(self.command)

    def ready(self):
        try:
            with urllib.request.urlopen(self.base + "/readyz", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def call(self, path, body, token=None):
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        request = urllib.request.Request(f"{self.base}/api/v1{path}", data=json.dumps(body).encode(), headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.loads(answer.read())
        except (OSError, urllib.error.HTTPError) as error:
            raise Unjudged(f"{path}: {error}") from error

    def register(self, user):
        """A user with a device token, as the README's tour makes them."""
        self.call("/users", {"username": user, "password": PASSWORD})
        access = self.call("/auth/login", {"username": user, "password": PASSWORD})["access_token"]
        self.tokens[user] = self.call("/auth/device-tokens", {"name": "interop"}, access)["token"]


class Mosquitto(Server):
    """mosquitto without persistence, for seeing what goes red: it knows no chat, and kill -9 loses what it owes."""

    mutual = True

    def __init__(self, folder, certs, _binary):
        super().__init__(folder, certs)
        names = ("tcp", "ws", "tls", "wss", "mutual")
        self.ports = dict(zip(names, free_ports(len(names))))
        schemes = {"tcp": "mqtt", "ws": "ws", "tls": "mqtts", "wss": "wss", "mutual": "mqtts"}
        self.urls = {
            name: f"{schemes[name]}://127.0.0.1:{port}" + ("/mqtt" if "ws" in name else "") for name, port in self.ports.items()
        }
        passwords = folder / "passwords"
        passwords.touch()
        for version in VERSIONS:
            for name in ("ann", "bob"):
                user = user_of(name, version)
                self.tokens[user] = "gdt_" + secrets.token_hex(16)
                subprocess.run(["mosquitto_passwd", "-b", passwords, user, self.tokens[user]], timeout=20, check=True)
        tls = f"certfile {certs}/server.pem\nkeyfile {certs}/server.key\n"
        lines = "per_listener_settings true\n"
        for name, port in self.ports.items():
            lines += f"listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\n"
            lines += "protocol websockets\n" if "ws" in name else ""
            lines += tls if name in ("tls", "wss", "mutual") else ""
            lines += f"cafile {certs}/ca.pem\nrequire_certificate true\nuse_identity_as_username true\n" if name == "mutual" else ""
        (folder / "mosquitto.conf").write_text("user root\n" + lines if os.geteuid() == 0 else lines)
        program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        self.command = [program, "-c", str(folder / "mosquitto.conf")]
        self.start()

    def start(self):
        self.spawn(self.command)

    def ready(self):
        with socket.socket() as trial:
            return trial.connect_ex(("127.0.0.1", int(re.search(r":(\d+)$", self.urls["tcp"])[1]))) == 0
