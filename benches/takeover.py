"""What it costs that a device comes to another node, and that its session is kept: for benches/cluster.sh.

    takeover.py <data directory> <first port> <takeovers> <sessions>

One device comes to node 1 and node 2 in turn, each time while the other has it. Prints `name value` lines: the median and
the 99th percentile of milliseconds from CONNECT to CONNACK, the median and the most commands that nodes sent to Redis for
one takeover, how many were told 0x8E, and the bytes of Redis for each persistent session that rests with nothing queued.
"""

import json
import pathlib
import socket
import ssl
import statistics
import struct
import sys
import threading
import time
import urllib.request

DIRECTORY, BASE = pathlib.Path(sys.argv[1]), int(sys.argv[2])
TAKEOVERS, SESSIONS = int(sys.argv[3]), int(sys.argv[4])
TAKEN_OVER = 0x8E
PRODUCT = "takeover"

tls = ssl.create_default_context(cafile=str(DIRECTORY / "tls" / "ca.pem"))


def ask(path, body):
    """Makes something by the API of node 1; what is there already is nothing."""
    token = (DIRECTORY / "api.token").read_text().strip()
    request = urllib.request.Request(
        f"http://127.0.0.1:{BASE + 180}/api/v1{path}",
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def redis(*words):
    """A connection on which a command was sent."""
    connection = socket.create_connection(("127.0.0.1", BASE + 79), 10)
    connection.sendall((" ".join(words) + "\r\n").encode())
    return connection


def memory():
    """Bytes that Redis uses."""
    with redis("INFO", "memory") as connection:
        text = b""
        while b"used_memory_human" not in text:
            text += connection.recv(65536)
    return int(text.split(b"used_memory:")[1].split(b"\r\n")[0])


def text(value):
    data = value.encode()
    return struct.pack("!H", len(data)) + data


def packet(kind, body):
    length, encoded = len(body), b""
    while True:
        length, digit = divmod(length, 128)
        encoded += bytes([digit | (128 if length else 0)])
        if not length:
            return bytes([kind]) + encoded + body


def read(stream, size):
    data = b""
    while len(data) < size:
        more = stream.recv(size - len(data))
        if not more:
            raise SystemExit("a connection was closed")
        data += more
    return data


def receive(stream):
    kind, length, shift = read(stream, 1)[0], 0, 0
    while True:
        digit = read(stream, 1)[0]
        length |= (digit & 127) << shift
        shift += 7
        if digit < 128:
            return kind, read(stream, length)


def come(node, device, secret):
    """Connects by MQTT 5 with a session that is kept for an hour; gives the connection and when CONNECT was sent."""
    plain = socket.create_connection(("127.0.0.1", BASE + 100 * node + 83), 10)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream = tls.wrap_socket(plain, server_hostname="localhost")
    expiry = b"\x05\x11" + struct.pack("!I", 3600)
    body = text("MQTT") + bytes([5, 0xC0]) + struct.pack("!H", 300) + expiry
    body += text(device) + text(device) + text(secret)
    sent = time.time()
    stream.sendall(packet(0x10, body))
    kind, answer = receive(stream)
    if kind != 0x20 or answer[1] != 0:
        raise SystemExit(f"{device} was refused: {answer.hex()}")
    return stream, sent


class Monitor:
    """When which device was spoken of to Redis by a node, and not by a script."""

    def __init__(self, device):
        self.device, self.times = device.encode(), []
        self.connection = redis("MONITOR")
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        rest = b""
        while True:
            data = self.connection.recv(1 << 20)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\r\n")
            for line in lines:
                if self.device in line and b" lua]" not in line[:60]:
                    self.times.append(float(line[1:].split(b" ", 1)[0]))


def takeovers():
    made = ask("/devices", {"product_id": PRODUCT, "node_id": "wanders"})
    device, secret = made["device_id"], made["secret"]
    current, _ = come(1, device, secret)
    time.sleep(1)
    monitor = Monitor(device)
    time.sleep(0.2)
    begun, took, told = [], [], 0
    for number in range(TAKEOVERS):
        following, sent = come(2 - number % 2, device, secret)
        took.append((time.time() - sent) * 1000)
        begun.append(sent)
        kind, reason = receive(current)
        told += kind == 0xE0 and reason[:1] == bytes([TAKEN_OVER])
        current.close()
        current = following
    time.sleep(1)
    counts, edges = [0] * len(begun), begun[1:] + [float("inf")]
    at = 0
    for when in sorted(monitor.times):
        while when >= edges[at]:
            at += 1
        counts[at] += when >= begun[0]
    current.close()
    took.sort()
    print("takeover_ms_median", f"{statistics.median(took):.2f}")
    print("takeover_ms_p99", f"{took[len(took) * 99 // 100]:.2f}")
    print("takeover_round_trips_median", f"{statistics.median(counts):g}")
    print("takeover_round_trips_most", max(counts))
    print("takeovers_told", told)


def sessions():
    devices = []
    for number in range(SESSIONS):
        made = ask("/devices", {"product_id": PRODUCT, "node_id": f"rests{number:06}"})
        devices.append((made["device_id"], made["secret"]))
    before = memory()
    for number, (device, secret) in enumerate(devices):
        stream, _ = come(1 + number % 3, device, secret)
        stream.sendall(b"\xe0\x00")
        stream.close()
    time.sleep(2)
    print("session_bytes", round((memory() - before) / SESSIONS))


ask("/products", {"id": PRODUCT, "name": PRODUCT})
takeovers()
sessions()
