#!/usr/bin/env python3
"""Carries out the steps of the Dockerfile in a Debian of its own, without an engine, and runs what they make.

usage: try.py [--program HEADGATE]

Needs root, debootstrap and dockerfile-parse. With --program the stage that compiles is left out, and this program is what it would have
made; without it this machine's Rust stands in for the image that brings one. The gateway runs as the image says: as its user,
without capabilities, with a root that cannot be written, in a network of its own; it has to become healthy by the image's own
check, and to end well when asked.
"""
import argparse, json, os, pathlib, shlex, shutil, subprocess, sys, tempfile, time

from dockerfile_parse import DockerfileParser

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = HERE.parents[1]
MIRROR = os.environ.get("MIRROR", "http://deb.debian.org/debian")


def run(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, **options)


def stages():
    """The instructions of each stage, by FROM."""
    with tempfile.TemporaryDirectory() as copy:
        # The parser opens what it reads for writing.
        path = shutil.copy(HERE / "Dockerfile", copy)
        with open(path, "r+b") as file:
            steps = DockerfileParser(fileobj=file).structure
    found = []
    for step in steps:
        if step["instruction"] == "FROM":
            found.append([])
        if found and step["instruction"] != "COMMENT":
            found[-1].append((step["instruction"], step["value"]))
    return found


class Root:
    """A root directory that becomes an image, step by step."""

    def __init__(self, directory):
        self.directory, self.workdir, self.environment, self.said = directory, "/", {}, {}
        run("debootstrap", "--variant=minbase", "bookworm", directory, MIRROR, stdout=subprocess.DEVNULL)
        shutil.copy("/etc/resolv.conf", directory / "etc/resolv.conf")

    def chroot(self, *command):
        environment = {"PATH": "/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        mounts = f"mount -t proc proc {self.directory}/proc; mount --bind /dev {self.directory}/dev; "
        inner = 'cd "$0" && exec "$@"'
        line = ["chroot", self.directory, "sh", "-c", inner, self.workdir, *command]
        script = mounts + shlex.join(map(str, line))
        run("unshare", "--mount", "sh", "-ec", script, env=environment | self.environment)

    def compiler(self):
        """What the image of Rust brings, from this machine."""
        self.chroot("sh", "-c", "apt-get update -q && apt-get install -y -q --no-install-recommends gcc g++ make ca-certificates libc6-dev")
        sysroot = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True).stdout.strip()
        shutil.copytree(sysroot, self.directory / "usr/local/rust", symlinks=True)
        registry = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo")) / "registry"
        if registry.exists():
            shutil.copytree(registry, self.directory / "root/.cargo/registry", symlinks=True)

    def take(self, step, value, earlier):
        if step == "RUN":
            self.chroot("sh", "-c", value)
        elif step == "WORKDIR":
            self.workdir = value
            (self.directory / value.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif step == "ENV":
            self.environment |= dict(word.split("=", 1) for word in shlex.split(value))
        elif step == "COPY":
            self.copy(shlex.split(value), earlier)
        else:
            self.said[step] = value

    def copy(self, words, earlier):
        source, names = (SOURCE, words[:-1])
        if words[0].startswith("--from="):
            source, names = earlier, [words[1].lstrip("/")]
        into = self.directory / (pathlib.Path(self.workdir) / words[-1]).as_posix().lstrip("/")
        for name in names:
            if (source / name).is_dir():
                shutil.copytree(source / name, into, ignore=shutil.ignore_patterns("target"))
            elif len(names) > 1 or words[-1].endswith("/"):
                shutil.copy(source / name, into / pathlib.Path(name).name)
            else:
                shutil.copy(source / name, into)

    def serve(self):
        """Runs the image, until it is healthy, and ends it."""
        root, (uid, gid) = self.directory, self.said["USER"].split(":")
        volumes = json.loads(self.said["VOLUME"])
        check = shlex.join(json.loads(self.said["HEALTHCHECK"].split("CMD ", 1)[1]))
        command = shlex.join(json.loads(self.said["ENTRYPOINT"]) + json.loads(self.said["CMD"]))
        user = f"chroot --userspec={uid}:{gid} {root}"
        script = ["ip link set lo up", f"mount --bind {root} {root}", f"mount -t proc proc {root}/proc"]
        # Of the devices a container has these.
        script.append(f"mount -t tmpfs tmpfs {root}/dev; ln -s /proc/self/fd {root}/dev/fd")
        for device in ["null", "zero", "random", "urandom"]:
            script.append(f"touch {root}/dev/{device}; mount --bind /dev/{device} {root}/dev/{device}")
        for number, volume in enumerate(volumes):
            disk = f"{root}.volume{number}"
            script.append(f"install -d -m 0700 -o {uid} -g {gid} {disk}; mount --bind {disk} {root}{volume}")
        script += [
            f"mount -o remount,bind,ro {root}",
            f"{user} {command} & pid=$!",
            f"for turn in $(seq 150); do if {user} {check} 2>/dev/null; then healthy=1; break; fi; kill -0 $pid; sleep 0.2; done",
            '[ "${healthy:-0}" = 1 ]',
            "grep -E '^(Uid|CapEff):' /proc/$pid/status",
            'kill -TERM $pid; wait $pid; echo "ended with $?"',
        ]
        environment = {"PATH": os.environ["PATH"]} | self.environment
        run("unshare", "--mount", "--net", "sh", "-ec", "\n".join(script), env=environment)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", type=pathlib.Path)
    program = parser.parse_args().program
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        sys.exit("try.py: needs root and debootstrap")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        earlier = None
        *building, last = stages()
        if program:
            earlier = pathlib.Path(scratch) / "given"
            (earlier / "out").mkdir(parents=True)
            shutil.copy(program, earlier / "out/headgate")
            building = []
        for number, stage in enumerate([*building, last]):
            root = Root(pathlib.Path(scratch) / f"stage{number}")
            if stage[0][1].startswith("rust:"):
                root.compiler()
            for step, value in stage:
                print(f"{time.monotonic() - begun:6.0f} s  {step} {value[:100]}", flush=True)
                root.take(step, value, earlier)
            earlier = root.directory
        root.serve()
    print("the image works")


main()
