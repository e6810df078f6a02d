#!/usr/bin/env python3
"""What the console costs: processor time of a page, bytes of a page, and of watching a task live.

    python3 benches/console.py target/release/headgate [target/release/swarm]

Starts a gateway of its own with 100,000 devices and 1,000 tasks (10 of 10,000 devices, 990 of 90) and asks for every
page; the time is the gateway's own, user and system, out of /proc. With `swarm` it also has 10,000 devices take a file
slowly and compares the gateway's time while a task is watched with that while nobody watches. Needs nothing but Python.
Ends with 1 where a page costs more than 10 ms or has more than 150 KB, or a watcher more than 2 % of a core.
"""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from urllib.parse import urlencode

DEVICES = 100_000
LARGE, SMALL = 10, 990
TASK_ROWS, SMALL_ROWS = 10_000, 90
TURNS = 60
PAGE_MS, PAGE_BYTES, WATCH_SHARE = 10.0, 150_000, 0.02
WATCHERS, WINDOW_SECS, WINDOWS = 20, 6, 4
TICK = os.sysconf("SC_CLK_TCK")


def cpu(pid):
    """Seconds that a process has used."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


class Gateway:
    """A gateway with a data directory of its own."""

    def __init__(self, program, directory):
        self.directory = directory
        environment = {
            **os.environ,
            "HEADGATE__DATA_DIR": directory,
            "HEADGATE__HTTP__LISTEN": "127.0.0.1:0",
            "HEADGATE__METRICS__LISTEN": "127.0.0.1:0",
            "HEADGATE__MQTT__LISTEN": "127.0.0.1:0",
            "HEADGATE__FILES__LISTEN": "127.0.0.1:0",
            "HEADGATE__DELIVERY__MAX_OPEN_DELIVERIES": "1000000",
            "HEADGATE__DELIVERY__MAX_IN_PROGRESS": "20000",
        }
        log = open(os.path.join(directory, "..", "gateway.log"), "wb")
        self.process = subprocess.Popen([program, "serve"], env=environment, stdout=log, stderr=log)
        ports = os.path.join(directory, "ports.json")
        self.wait(lambda: os.path.exists(ports))
        with open(ports, encoding="utf-8") as file:
            self.address = json.load(file)["http"]
        self.token = self.read("api.token")
        self.connection = http.client.HTTPConnection(self.address, timeout=120)
        self.headers = {}

    def read(self, name):
        with open(os.path.join(self.directory, name), encoding="utf-8") as file:
            return file.read().strip()

    def wait(self, is_so, secs=300):
        end = time.monotonic() + secs
        while not is_so():
            if time.monotonic() > end or self.process.poll() is not None:
                sys.exit("the gateway did not get so far")
            time.sleep(0.05)

    def ask(self, method, path, body=None, headers=None):
        self.connection.request(method, path, body, headers or {})
        answer = self.connection.getresponse()
        return answer, answer.read()

    def api(self, method, path, body=None, kind="application/json"):
        headers = {"authorization": f"Bearer {self.token}", "content-type": kind}
        body = json.dumps(body) if kind == "application/json" and body is not None else body
        while True:
            answer, text = self.ask(method, "/api/v1" + path, body, headers)
            if answer.status == 429:
                time.sleep(float(answer.getheader("retry-after", "1")))
                continue
            if answer.status >= 300:
                sys.exit(f"{method} {path}: {answer.status} {text[:300]}")
            return json.loads(text) if text else None

    def sign_in(self):
        form = urlencode({"name": "admin", "password": self.read("admin.password"), "next": "/"})
        answer, _ = self.ask("POST", "/sign-in", form, {"content-type": "application/x-www-form-urlencoded"})
        self.headers = {"cookie": answer.getheader("set-cookie").split(";")[0], "accept": "text/html"}

    def page(self, path):
        answer, text = self.ask("GET", path, headers=self.headers)
        if answer.status != 200:
            sys.exit(f"{path}: {answer.status}")
        return text

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def fill(gateway):
    """100,000 devices, 1,000 tasks. Gives what pages are about."""
    gateway.api("POST", "/products", {"id": "meter", "name": "Meter"})
    rows = "\n".join(f"m{number:06},Meter {number},meter" for number in range(DEVICES))
    batch = gateway.api("POST", "/device-batches", f"node_id,device_name,product_id\n{rows}\n", "text/csv")
    gateway.wait(lambda: gateway.api("GET", f"/device-batches/{batch['id']}")["state"] == "finished")
    part = "--b\r\nContent-Disposition: form-data; name=\"{}\"{}\r\n\r\n{}\r\n"
    form = part.format("product", "", "meter") + part.format("name", "", "firmware")
    form += part.format("file", "; filename=\"f\"", "x" * 100_000) + "--b--\r\n"
    resource = gateway.api("POST", "/resources", form, "multipart/form-data; boundary=b")["id"]
    gateway.api("POST", "/apps", {"id": "app", "name": "App"})
    bound = "\n".join(f"meter_m{number:06}" for number in range(10_000))
    gateway.api("POST", "/apps/app/devices:csv", f"device_id\n{bound}\n", "text/csv")
    task = None
    for number in range(LARGE + SMALL):
        count = TASK_ROWS if number < LARGE else SMALL_ROWS
        begin = number * count % (DEVICES - count)
        devices = [f"meter_m{device:06}" for device in range(begin, begin + count)]
        body = {"name": f"Roll-out {number}", "resource_id": resource, "device_ids": devices}
        made = gateway.api("POST", "/tasks", body)
        task = task or made["id"]
    gateway.wait(lambda: gateway.api("GET", f"/tasks/{task}")["run"] == "running")
    delivery = gateway.api("GET", f"/tasks/{task}/deliveries?limit=1")["items"][0]["id"]
    return resource, task, delivery, batch["id"]


def pages(resource, task, delivery, batch):
    """The addresses of all pages."""
    yield from ["/", "/resources", f"/resources/{resource}", f"/deliver?resource={resource}"]
    yield from ["/tasks", "/tasks?run=running", "/tasks?product=meter", f"/tasks/{task}"]
    yield from [f"/tasks/{task}?state=pending", f"/tasks/{task}?state=failed", f"/deliveries/{delivery}"]
    yield from ["/devices", "/devices?product=meter", "/devices?status=frozen", "/devices?text=m0999"]
    yield from ["/devices?text=meter", "/devices?text=nothing", "/devices?app=app", "/devices/meter_m000007"]
    yield from [f"/deliver/devices?resource={resource}&text=m05", "/uploads", "/uploads?name=x"]
    yield from ["/batches", f"/batches/{batch}", f"/batches/{batch}?state=failed", "/products", "/products/meter"]
    yield from ["/applications", "/applications/app", "/nodes", "/operators", "/tokens", "/account"]
    yield from ["/audit", "/audit?action=task", "/audit?action=device.freeze", "/audit?until=2001-01-01"]


def measure_pages(gateway, things):
    """Says what each page costs; gives whether all are within the bar."""
    good = True
    print(f"{'page':58} {'CPU ms':>7} {'wall ms':>8} {'bytes':>8}")
    assets = set()
    for path in pages(*things):
        text = gateway.page(path)
        assets.update(re.findall(rb'(?:src|href)="(/assets/[^"]+)"', text))
        wall, before = time.monotonic(), cpu(gateway.process.pid)
        for _ in range(TURNS):
            gateway.page(path)
        used = (cpu(gateway.process.pid) - before) * 1000 / TURNS
        wall = (time.monotonic() - wall) * 1000 / TURNS
        over = used > PAGE_MS or len(text) > PAGE_BYTES
        good &= not over
        shown = re.sub(r"[0-9a-z]{13}", "..", path)
        print(f"{shown:58} {used:7.2f} {wall:8.2f} {len(text):8}{'  over' if over else ''}")
    size = sum(len(gateway.page(path.decode())) for path in assets)
    print(f"style, script and icon: {size} bytes, loaded once")
    return good


def watch(gateway, path, stop, events):
    """Reads a page's event stream until it is told to stop."""
    connection = http.client.HTTPConnection(gateway.address, timeout=30)
    connection.request("GET", path, headers={**gateway.headers, "accept": "text/event-stream"})
    answer = connection.getresponse()
    while not stop.is_set():
        line = answer.readline()
        if not line:
            return
        if line.startswith(b"data:"):
            events.append(len(line))
    connection.close()


def measure_live(gateway, swarm):
    """Says what a watcher of 10,000 devices costs; gives whether it is within the bar."""
    arguments = ["deliver", "--devices", "10000", "--size", "1MiB", "--slow-fraction", "1", "--slow-bps", "2KiB"]
    arguments += ["--cancel-after", "150s", "--data-dir", gateway.directory]
    log = open(os.path.join(gateway.directory, "..", "swarm.log"), "wb")
    devices = subprocess.Popen([swarm, *arguments], stdout=log, stderr=log)
    found = []

    def is_under_way():
        for task in gateway.api("GET", "/tasks?limit=1")["items"]:
            if task["counts"]["delivering"] > 5_000:
                found.append(task["id"])
        return bool(found) or devices.poll() is not None

    gateway.wait(is_under_way)
    if not found:
        sys.exit("the devices did not get so far")
    task = found[0]
    rows = re.findall(r'data-row="([0-9a-z]+)"', gateway.page(f"/tasks/{task}").decode())
    path = f"/tasks/{task}/live?rows={','.join(rows)}"
    rates, events = {False: [], True: []}, []
    for window in range(2 * WINDOWS):
        is_watched = window % 2 == 1
        stop, threads = threading.Event(), []
        if is_watched:
            threads = [threading.Thread(target=watch, args=(gateway, path, stop, events)) for _ in range(WATCHERS)]
            for thread in threads:
                thread.start()
        begun, before = time.monotonic(), cpu(gateway.process.pid)
        time.sleep(WINDOW_SECS)
        rates[is_watched].append((cpu(gateway.process.pid) - before) / (time.monotonic() - begun))
        stop.set()
        for thread in threads:
            thread.join()
    devices.send_signal(signal.SIGINT)
    devices.wait(60)
    middle = {key: sorted(values)[len(values) // 2] for key, values in rates.items()}
    share = (middle[True] - middle[False]) / WATCHERS
    count = gateway.api("GET", f"/tasks/{task}")["counts"]
    a_second = len(events) / (WATCHERS * WINDOWS * WINDOW_SECS)
    print(f"live: {sum(count.values())} devices, {len(rows)} rows shown; {share * 100:.2f} % of a core for each of")
    print(f"{WATCHERS} watchers ({middle[False]:.2f} cores without, {middle[True]:.2f} with them), {a_second:.2f} events a second,")
    print(f"{sum(events) // max(len(events), 1)} bytes each")
    return share <= WATCH_SHARE


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as place:
        directory = os.path.join(place, "data")
        os.mkdir(directory)
        gateway = Gateway(os.path.abspath(sys.argv[1]), directory)
        try:
            gateway.sign_in()
            good = measure_pages(gateway, fill(gateway))
            if len(sys.argv) > 2:
                good &= measure_live(gateway, os.path.abspath(sys.argv[2]))
        finally:
            gateway.stop()
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
