"""Reads a trace of system calls and checks the order: request read, log written, log synchronised, 202 written."""

import re
import sys

LOG = "provisioning.db-wal>"
CALL = re.compile(r"^(\d+)\s+(\S+)\s+(.*)$")


def calls(path):
    """Each call at the moment it was finished: time, name, arguments, result."""
    begun = {}
    with open(path, errors="replace") as trace:
        for line in trace:
            found = CALL.match(line)
            if not found:
                continue
            thread, time, text = found.groups()
            if text.endswith("<unfinished ...>"):
                begun[thread] = text[: -len("<unfinished ...>")]
                continue
            resumed = re.match(r"<\.\.\. \w+ resumed>(.*)$", text)
            if resumed:
                text = begun.pop(thread, "") + resumed.group(1)
            name, _, rest = text.partition("(")
            yield time, name, rest


def main(path):
    request = written = synced = answer = None
    for time, name, rest in calls(path):
        if request is None:
            if name in ("read", "recvfrom") and '"POST /api/v1/jobs' in rest:
                request = time
            continue
        if name == "pwrite64" and LOG in rest and synced is None:
            written = time
        if name in ("fdatasync", "fsync") and LOG in rest and rest.rstrip().endswith("= 0") and written and not answer:
            synced = f"{time} ({name})"
        if name in ("write", "writev", "sendto") and '"HTTP/1.1 202' in rest:
            answer = time
            break
    steps = [("request read", request), ("log written", written), ("log synchronised", synced), ("202 written", answer)]
    for step, seen in steps:
        print(f"{step:17} {seen if seen else 'NOT SEEN'}")
    if any(seen is None for _, seen in steps):
        sys.exit("the trace does not show that the row was durable before the answer")
    print("durable before the answer: yes")


main(sys.argv[1])
