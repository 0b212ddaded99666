#!/bin/bash
# Shows that the crash test can fail: builds deliberate faults in and expects the test to find duplicates.
#
# sabotage.sh [FAULTS] with FAULTS such as no-look,epoch-in-token (the default). The build with faults goes to
# a target folder of its own, so that it never stands where the real program is expected.
set -euo pipefail
cd "$(dirname "$0")/../.."

faults=${1:-no-look,epoch-in-token}
target=${CARGO_TARGET_DIR:-target}/sabotage
log=$(mktemp)
trap 'rm -f "$log"' EXIT

if DISPATCHER_TEST_SABOTAGE=$faults cargo test --target-dir "$target" --features sabotage --test it -- --nocapture \
    killed_again_and_again >"$log" 2>&1; then
    cat "$log"
    echo "the crash test did not notice: $faults" >&2
    exit 1
fi
grep -E "^seed|^places of death|^effects|^lost |^duplicated [0-9]+:" "$log" || true
if ! grep -qE "^(.*: )?duplicated [1-9][0-9]*:" "$log"; then
    tail -n 50 "$log" >&2
    echo "the crash test failed for another reason than duplicates" >&2
    exit 1
fi
echo "found, as it must be: $faults"
