#!/usr/bin/env python3
"""Counts the instructions of the hot paths under valgrind, and fails where one costs more than it did.

Instructions, not seconds: they are the same however busy the machine is. `hot_paths.py PROGRAM` compares with
hot_paths.json beside this file; `hot_paths.py PROGRAM --write` takes the counts of now for the ones to keep.
A path that became cheaper by more than the tolerance fails too: write it down, or the gain is lost unseen.
Counts are compared only where the same compiler made the program, for the same kind of processor.
"""
import json, os, pathlib, re, subprocess, sys

PATHS = ["publish_header", "publish_decode", "puback_decode", "puback_encode", "pump_step", "index_match", "claim_read"]
FEW, MANY = 1_000, 11_000
# What the C library and `memchr` choose by the processor (a copy by 32 bytes or by 16) moves counts by 2 % at most;
# other versions of both, and of valgrind, by as little.
TOLERANCE = 0.05
# The C library copies alike on every processor: without what only some have.
ABSENT = ["AVX", "AVX2", "AVX512F", "AVX512VL", "ERMS", "FSRM", "BMI2", "AVX_Usable", "AVX2_Usable", "AVX512F_Usable"]
ENVIRONMENT = {**os.environ, "GLIBC_TUNABLES": "glibc.cpu.hwcaps=" + ",".join("-" + name for name in ABSENT)}


def instructions(program, path, times):
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, path, str(times)]
    told = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    found = re.search(r"Collected : (\d+)", told.stderr)
    if told.returncode or not found:
        sys.exit(f"{' '.join(command)}: {told.stderr}")
    return int(found[1])


def compiler():
    said = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    of = dict(line.split(": ", 1) for line in said.splitlines() if ": " in line)
    return f"rustc {of['release']} {of['host']}"


def main():
    program, write = sys.argv[1], "--write" in sys.argv[2:]
    kept_at = pathlib.Path(__file__).with_suffix(".json")
    kept = json.loads(kept_at.read_text()) if kept_at.exists() and not write else {"compiler": "", "instructions": {}}
    same = kept["compiler"] == compiler()
    now, failed = {}, False
    for path in PATHS:
        count = instructions(program, path, MANY) - instructions(program, path, FEW)
        now[path] = round(count / (MANY - FEW), 1)
        before = kept["instructions"].get(path)
        change = now[path] / before - 1 if before else 0
        bad = same and not write and (before is None or abs(change) > TOLERANCE)
        failed |= bad
        print(f"{path:16} {now[path]:9.1f} instructions, {change:+.1%}{'  FAILED' if bad else ''}")
    if write:
        kept_at.write_text(json.dumps({"compiler": compiler(), "instructions": now}, indent=2) + "\n")
    elif not same:
        print(f"not compared: kept are the counts of {kept['compiler']}, this is {compiler()}")
    elif failed:
        sys.exit("a hot path costs something else than protocol/hot_paths.json says; if that is meant: make icount-write")


main()
