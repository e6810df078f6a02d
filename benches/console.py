#!/usr/bin/env python3
"""What the console costs: processor time of a page, bytes of a page and of the program, and of watching a task live.

    python3 benches/console.py [--quick] [--without PROGRAM] target/release/headgate [target/release/swarm]

Starts a gateway of its own with 100,000 devices and 1,000 tasks (10 of 10,000 devices, 990 of 90) and asks for every
page; the time is the gateway's own, user and system. With `swarm` it also has 10,000 devices take a file slowly and
compares the gateway's time while a task is watched with that while nobody watches. PROGRAM is a gateway that was built
without the feature `console`: what the console adds is the difference. Needs Python and binutils. Ends with 1 where a page costs more than 10 ms or loads more than 150 KB, a watcher
costs more than 2 % of a core, or the console adds more than 1.5 MB to the program. `--quick` is for seeing that it works:
a hundredth of all.
"""

import http.client
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from urllib.parse import urlencode

QUICK = "--quick" in sys.argv
DEVICES = 1_000 if QUICK else 100_000
LARGE, SMALL = (1, 9) if QUICK else (10, 990)
TASK_ROWS, SMALL_ROWS = (100, 9) if QUICK else (10_000, 90)
WATCHED = 100 if QUICK else 10_000
TURNS = 5 if QUICK else 60
PAGE_MS, PAGE_BYTES, WATCH_SHARE, PROGRAM_BYTES = 10.0, 150_000, 0.02, 1_500_000
WATCHERS, WINDOW_SECS, WINDOWS = 20, 4, 1 if QUICK else 8
SOURCES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "gateway")


def cpu(pid):
    """Seconds that a process has used, by its own clock: Linux names it by the inverted process id."""
    return time.clock_gettime((~pid << 3) | 2)


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
        for is_last in (False, True):
            try:
                self.connection.request(method, path, body, headers or {})
                answer = self.connection.getresponse()
                return answer, answer.read()
            except (http.client.RemoteDisconnected, ConnectionError):
                # The gateway ends connections that say nothing for a while.
                self.connection.close()
                if is_last or method != "GET":
                    raise
        return None

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
    bound = "\n".join(f"meter_m{number:06}" for number in range(DEVICES // 10))
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
    assets, largest = set(), 0
    for path in pages(*things):
        text = gateway.page(path)
        assets.update(re.findall(rb'(?:src|href)="(/assets/[^"]+)"', text))
        largest = max(largest, len(text))
        wall, before = time.monotonic(), cpu(gateway.process.pid)
        for _ in range(TURNS):
            gateway.page(path)
        used = (cpu(gateway.process.pid) - before) * 1000 / TURNS
        wall = (time.monotonic() - wall) * 1000 / TURNS
        over = used > PAGE_MS
        good &= not over
        shown = re.sub(r"[0-9a-z]{13}", "..", path)
        print(f"{shown:58} {used:7.2f} {wall:8.2f} {len(text):8}{'  over' if over else ''}")
    size = sum(len(gateway.page(path.decode())) for path in assets)
    print(f"style, script and icon: {size} bytes, loaded once; {largest + size} with the largest page")
    return good and largest + size <= PAGE_BYTES


def below(directory):
    """Bytes of all files below a directory."""
    return sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(directory) for name in names)


def measure_program(program, without):
    """Says what of the program is the console's; gives whether it is within the bar."""
    if not shutil.which("nm"):
        sys.exit("please install: binutils")
    lines = subprocess.run(["nm", "-S", "--demangle", program], check=True, capture_output=True, text=True).stdout
    code = {}
    for line in lines.splitlines():
        fields = line.split(" ", 3)
        if len(fields) == 4 and "headgate::edge::console" in fields[3]:
            code[fields[0]] = int(fields[1], 16)
    if not code:
        sys.exit(f"{program} has no symbols")
    # Texts between tags, and those of the catalogue, have no symbols: they are counted with all that is around them.
    texts = below(f"{SOURCES}/templates/console") + below(f"{SOURCES}/src/edge/console/text")
    assets = below(f"{SOURCES}/assets")
    named = sum(code.values())
    print(f"program: code {named} bytes by its name, texts at most {texts}, style, script and icon {assets}")
    if not without:
        # What is made for the console of other crates' code bears their names.
        return named + texts + assets <= PROGRAM_BYTES
    with tempfile.TemporaryDirectory() as place:
        sizes = []
        for path in (program, without):
            subprocess.run(["strip", "-o", os.path.join(place, "stripped"), path], check=True)
            sizes.append(os.path.getsize(os.path.join(place, "stripped")))
    print(f"program: {sizes[0]} bytes with the console, {sizes[1]} without: {sizes[0] - sizes[1]}")
    return sizes[0] - sizes[1] <= PROGRAM_BYTES


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
    arguments = ["deliver", "--devices", str(WATCHED), "--size", "1MiB", "--slow-fraction", "1", "--slow-bps", "2KiB"]
    arguments += ["--cancel-after", "150s", "--data-dir", gateway.directory]
    log = open(os.path.join(gateway.directory, "..", "swarm.log"), "wb")
    devices = subprocess.Popen([swarm, *arguments], stdout=log, stderr=log)
    found = []

    def is_under_way():
        for task in gateway.api("GET", "/tasks?limit=1")["items"]:
            if task["counts"]["delivering"] > WATCHED // 2:
                found.append(task["id"])
        return bool(found) or devices.poll() is not None

    gateway.wait(is_under_way)
    if not found:
        sys.exit("the devices did not get so far")
    task = found[0]
    rows = re.findall(r'data-row="([0-9a-z]+)"', gateway.page(f"/tasks/{task}").decode())
    path = f"/tasks/{task}/live?rows={','.join(rows)}"
    rates, events = {0: [], 1: [], WATCHERS: []}, {0: [], 1: [], WATCHERS: []}
    for _ in range(WINDOWS):
        for watchers, used in rates.items():
            stop, threads = threading.Event(), []
            for _ in range(watchers):
                threads.append(threading.Thread(target=watch, args=(gateway, path, stop, events[watchers])))
                threads[-1].start()
            begun, before = time.monotonic(), cpu(gateway.process.pid)
            time.sleep(WINDOW_SECS)
            used.append((cpu(gateway.process.pid) - before) / (time.monotonic() - begun))
            stop.set()
            for thread in threads:
                thread.join()
    # What it made goes with the gateway's directory: nothing is to be waited for.
    devices.kill()
    devices.wait()
    middle = {watchers: statistics.median(used) for watchers, used in rates.items()}
    one, each = middle[1] - middle[0], (middle[WATCHERS] - middle[0]) / WATCHERS
    count = gateway.api("GET", f"/tasks/{task}")["counts"]
    told = sum(events.values(), [])
    a_second = len(told) / ((1 + WATCHERS) * WINDOWS * WINDOW_SECS)
    print(f"live: {sum(count.values())} devices, {len(rows)} rows shown: a watcher costs {one * 100:.2f} % of a core, each of")
    print(f"{WATCHERS} watchers {each * 100:.2f} % ({', '.join(f'{middle[key]:.3f} cores with {key}' for key in middle)}),")
    print(f"for {a_second:.2f} events a second of {sum(told) // max(len(told), 1)} bytes")
    # One watcher is less than what the gateway's time differs by from window to window: all of them decide.
    return each <= WATCH_SHARE


def main():
    programs, without = [argument for argument in sys.argv[1:] if argument != "--quick"], None
    if "--without" in programs[:-1]:
        at = programs.index("--without")
        without = programs[at + 1]
        del programs[at : at + 2]
    if not programs:
        sys.exit(__doc__)
    good = measure_program(programs[0], without)
    with tempfile.TemporaryDirectory() as place:
        directory = os.path.join(place, "data")
        os.mkdir(directory)
        gateway = Gateway(os.path.abspath(programs[0]), directory)
        try:
            gateway.sign_in()
            good &= measure_pages(gateway, fill(gateway))
            if len(programs) > 1:
                good &= measure_live(gateway, os.path.abspath(programs[1]))
        finally:
            gateway.stop()
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
