#!/bin/bash
# Shows that a submit is answered 202 only after its row was made durable: fsync.sh PROGRAM
#
# Traces `dispatcher dev` while one job is submitted, and fails unless, between the arrival of the request and the
# write of its answer, the write-ahead log of the provisioning database was written and synchronised.
set -euo pipefail

[ $# -eq 1 ] || {
    echo "usage: $0 PROGRAM" >&2
    exit 2
}
program=$1
work=$(mktemp -d)
tracer=

finish() {
    # The traced process is the tracer's child; it ends politely and takes its parts along.
    if [ -n "$tracer" ] && [ -s "$work/ready.json" ]; then
        kill "$(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["pid"])' "$work/ready.json")" 2>/dev/null || true
        wait "$tracer" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap finish EXIT

strace -f -y -tt -s 64 -o "$work/trace" \
    -e trace=read,recvfrom,write,writev,sendto,pwrite64,fdatasync,fsync \
    "$program" dev --listen 127.0.0.1:0 --data "$work/data" --ready-file "$work/ready.json" \
    --guest-processes 0 --without pinger >"$work/log" 2>&1 &
tracer=$!

deadline=$((SECONDS + 120))
until [ -s "$work/ready.json" ]; do
    if [ $SECONDS -ge $deadline ] || ! kill -0 "$tracer" 2>/dev/null; then
        echo "the traced process did not get ready" >&2
        tail -n 20 "$work/log" "$work/trace" >&2
        exit 1
    fi
    sleep 0.1
done
"$program" jobs submit --ready-file "$work/ready.json" --idempotency-key fsync-1 noop --note shown-durable
# The last lines of the trace are written when the process has ended.
kill "$(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["pid"])' "$work/ready.json")"
wait "$tracer" || true
tracer=
python3 "$(dirname "$0")/fsync.py" "$work/trace"
