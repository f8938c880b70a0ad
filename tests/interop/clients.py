"""The stock clients: how each is installed by its own package manager into target/interop, at which version, and how its
small program is started."""

import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import threading
import venv

import processes
from processes import Unjudged

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
PLACE = TARGET / "interop"
INSTALL_SECONDS = 600


def run(what, command, **options):
    done = subprocess.run(command, capture_output=True, timeout=INSTALL_SECONDS, check=False, **options)
    if done.returncode != 0:
        said = (done.stdout + done.stderr).decode(errors="replace")
        raise Unjudged(f"{what} failed: " + "\n".join(said.splitlines()[-15:]))
    return done.stdout.decode(errors="replace")


def need(command, hint):
    if not shutil.which(command):
        raise Unjudged(f"{command} is missing: install {hint}")


def apt(command, package):
    """As ./dev does it."""
    if shutil.which(command):
        return
    need("apt-get", package)
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    run("apt-get update", sudo + ["apt-get", "update", "-qq"])
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    run(f"installing {package}", sudo + ["apt-get", "install", "-y", "-qq", package], env=environment)


def fresh(place, sources):
    """Whether what is in place was made of these files; and how to note that it was. Cargo has a lock that other builds
    hold, Maven needs ten seconds to find nothing to do."""
    digest = hashlib.sha256()
    for source in sorted(sources):
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    stamp = place / "made-of.txt"
    return stamp.exists() and stamp.read_text() == digest.hexdigest(), lambda: stamp.write_text(digest.hexdigest())


def mosquitto():
    apt("mosquitto_pub", "mosquitto-clients")
    need("stdbuf", "coreutils")
    need("python3", "Python 3.9 or later")
    return ["python3", HERE / "mosquitto" / "client.py"]


def paho():
    place, wanted = PLACE / "venv", HERE / "paho" / "requirements.txt"
    done, note = fresh(place, [wanted])
    if not done:
        venv.create(place, with_pip=True, clear=True)
        run("pip install", [place / "bin" / "python", "-m", "pip", "install", "--quiet", "-r", wanted])
        note()
    return [place / "bin" / "python", HERE / "paho" / "client.py"]


def mqttjs():
    need("node", "Node.js 18 or later")
    need("npm", "npm")
    place, folder = PLACE / "mqttjs", HERE / "mqttjs"
    place.mkdir(parents=True, exist_ok=True)
    locks = [folder / "package.json", folder / "package-lock.json"]
    done, note = fresh(place, locks)
    if not done:
        for lock in locks:
            shutil.copy(lock, place)
        run("npm ci", ["npm", "ci", "--no-audit", "--no-fund"], cwd=place)
        note()
    # Node looks for modules from where the program is.
    shutil.copy(folder / "client.mjs", place)
    return ["node", place / "client.mjs"]


def hivemq():
    need("java", "a JDK of version 17 or later")
    need("javac", "a JDK of version 17 or later")
    need("mvn", "Maven")
    place, folder = PLACE / "hivemq", HERE / "hivemq"
    done, note = fresh(place, [folder / "pom.xml", *(folder / "src").glob("*.java")])
    if not done:
        maven = ["mvn", "-B", "-q", "-f", folder / "pom.xml", f"-Dout={place}"]
        run("mvn", maven + ["dependency:copy-dependencies", "compile"])
        note()
    quick = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto"]
    return ["java", *quick, "-cp", f"{place}/classes:{place}/lib/*", "Client"]


def go():
    need("go", "Go 1.24 or later")
    place = PLACE / "go"
    place.mkdir(parents=True, exist_ok=True)
    run("go build", ["go", "build", "-o", place / "client", "."], cwd=HERE / "go")
    return [place / "client"]


def rumqttc():
    need("cargo", "Rust")
    place, folder, made = PLACE / "rumqttc", HERE / "rumqttc", TARGET / "debug" / "godwit-interop-rumqttc"
    place.mkdir(parents=True, exist_ok=True)
    done, note = fresh(place, [folder / "Cargo.toml", ROOT / "Cargo.toml", *(folder / "src").glob("*.rs")])
    if not done or not made.exists():
        # The whole workspace's features, as everybody else builds: nothing is compiled twice.
        run("cargo build", ["cargo", "build", "--quiet", "--workspace", "--bin", "godwit-interop-rumqttc"], cwd=ROOT)
        note()
    return [made]


def pinned(path, pattern):
    return re.search(pattern, (HERE / path).read_text())[1]


class Client:
    """A column of the matrix."""

    def __init__(self, name, source, install, version):
        self.name, self.source, self.install, self.version = name, source, install, version


CLIENTS = [
    Client("mosquitto", "mosquitto_pub and mosquitto_sub, apt", mosquitto,
           lambda: re.search(r"version (\S+)", run_any(["mosquitto_sub", "--help"]))[1]),
    Client("paho-mqtt", "Eclipse paho-mqtt (Python), pip", paho,
           lambda: pinned("paho/requirements.txt", r"paho-mqtt==(\S+)")),
    Client("MQTT.js", "mqtt (JavaScript), npm", mqttjs,
           lambda: json.loads((HERE / "mqttjs/package.json").read_text())["dependencies"]["mqtt"]),
    Client("HiveMQ", "com.hivemq:hivemq-mqtt-client (Java), Maven Central", hivemq,
           lambda: pinned("hivemq/pom.xml", r"<hivemq.version>(.*)</hivemq.version>")),
    Client("Go", "Eclipse paho.mqtt.golang for 3.1.1, paho.golang for 5.0, Go modules", go,
           lambda: pinned("go/go.mod", r"paho.mqtt.golang v(\S+)") + ", " + pinned("go/go.mod", r"paho.golang v(\S+)")),
    Client("rumqttc", "rumqttc (Rust), crates.io", rumqttc,
           lambda: pinned("../../Cargo.lock", r'name = "rumqttc"\nversion = "(.*)"')),
]


def run_any(command):
    """What a program says, whatever its exit code."""
    return subprocess.run(command, capture_output=True, timeout=20, check=False).stdout.decode()


class Program:
    """A client's running program: a step in, an answer out, each one line of JSON."""

    def __init__(self, command, errors):
        with open(errors, "ab") as log:
            self.process = processes.start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)

    def ask(self, step, seconds=40):
        late = threading.Timer(seconds, self.kill)
        late.start()
        try:
            self.process.stdin.write(json.dumps(step).encode() + b"\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            late.cancel()
        return json.loads(line) if line else {"ok": False, "error": f"the program ended, or gave no answer in {seconds} s"}

    def kill(self):
        """Nobody says goodbye to the server."""
        processes.kill_group(self.process)
