#!/bin/bash
# Shows that "dispatcher verify-crash" can fail: each deliberate fault must be found in the class where it is expected.
#
# sabotage.sh PROGRAM [--controls] [FAULT...] with a program built with the feature sabotage; without names every fault
# there is. Faults that show between several nodes only need DISPATCHER_TEST_MARIADB and DISPATCHER_TEST_RABBITMQ; they
# hang on a moment, so that ten seeds may try. A fault that none of them brings to light makes the command blind to it,
# and this script fail. With --controls the same scenarios run without their faults instead, and whatever is found then
# makes the script fail.
set -euo pipefail

program=$1
shift
controls=
if [ "${1:-}" = --controls ]; then
    controls=yes
    shift
fi
faults=("$@")
needs=$("$program" verify-crash --list-faults | awk '$2 == "servers" { print $1 }')
if [ ${#faults[@]} -eq 0 ]; then
    mapfile -t faults < <("$program" verify-crash --list-faults | awk 'NR > 1 { print $1 }')
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
blind=()

seen() {
    local fault=$1 seed code servers=()
    if grep -qx "$fault" <<<"$needs"; then
        if [ -z "${DISPATCHER_TEST_MARIADB:-}" ] || [ -z "${DISPATCHER_TEST_RABBITMQ:-}" ]; then
            echo "$fault: SKIPPED, it needs MariaDB and RabbitMQ"
            [ "${CI:-}" != true ]
            return
        fi
        servers=(--database "$DISPATCHER_TEST_MARIADB" --queue "$DISPATCHER_TEST_RABBITMQ" --nodes 2 --monitors 1 --kills 3)
    fi
    if [ -n "$controls" ]; then
        "$program" verify-crash "${servers[@]}" --like "$fault" --seed 1 >"$log" 2>&1 && echo "like $fault: nothing found" && return
        tail -n 40 "$log" >&2
        return 1
    fi
    for seed in {1..10}; do
        code=0
        "$program" verify-crash "${servers[@]}" --faults "$fault" --seed $seed >"$log" 2>&1 || code=$?
        if [ $code -eq 3 ] && grep -q '^caught:' "$log"; then
            echo "$fault: $(grep '^caught:' "$log"), seed $seed"
            return
        fi
    done
    tail -n 40 "$log" >&2
    return 1
}

for fault in "${faults[@]}"; do
    seen "$fault" || blind+=("$fault")
done
if [ ${#blind[@]} -gt 0 ]; then
    if [ -n "$controls" ]; then
        echo "found without a fault, in the scenario of: ${blind[*]}" >&2
    else
        echo "blind to: ${blind[*]}" >&2
    fi
    exit 1
fi
