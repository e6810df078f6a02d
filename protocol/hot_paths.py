#!/usr/bin/env python3
"""Counts the instructions of the hot paths under valgrind, and fails where one costs more than it did.

Instructions, not seconds: they are the same however busy the machine is. `hot_paths.py PROGRAM` compares with
hot_paths.json beside this file; `hot_paths.py PROGRAM --write` takes the counts of now for the ones to keep.
A path that became cheaper by more than the tolerance fails too: write it down, or the gain is lost unseen.
"""
import json, pathlib, re, subprocess, sys

PATHS = ["publish_header", "publish_decode", "puback_decode", "puback_encode", "pump_step", "index_match", "claim_read"]
FEW, MANY = 1_000, 11_000
# Another compiler of the same version on another processor's features moves counts by less.
TOLERANCE = 0.05


def instructions(program, path, times):
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, path, str(times)]
    told = subprocess.run(command, capture_output=True, text=True)
    found = re.search(r"Collected : (\d+)", told.stderr)
    if told.returncode or not found:
        sys.exit(f"{' '.join(command)}: {told.stderr}")
    return int(found[1])


def main():
    program, write = sys.argv[1], "--write" in sys.argv[2:]
    kept_at = pathlib.Path(__file__).with_suffix(".json")
    kept = json.loads(kept_at.read_text()) if kept_at.exists() else {}
    now, failed = {}, False
    for path in PATHS:
        count = instructions(program, path, MANY) - instructions(program, path, FEW)
        now[path] = round(count / (MANY - FEW), 1)
        before = kept.get(path)
        change = now[path] / before - 1 if before else 0
        bad = not write and (before is None or abs(change) > TOLERANCE)
        failed |= bad
        print(f"{path:16} {now[path]:9.1f} instructions, {change:+.1%}{'  FAILED' if bad else ''}")
    if write:
        kept_at.write_text(json.dumps(now, indent=2) + "\n")
    elif failed:
        sys.exit("a hot path costs something else than protocol/hot_paths.json says; if that is meant: make icount-write")


main()
