#!/bin/bash
# A private MariaDB for tests: mariadb.sh start|stop DIR PORT
#
# It listens on 127.0.0.1:PORT and keeps everything below DIR; no service of the machine is touched. Databases compare
# text byte by byte (utf8mb4_bin), as SQLite does. The URL prefix for tests is mysql://root@127.0.0.1:PORT.
set -euo pipefail

usage() {
    echo "usage: $0 start|stop DIR PORT" >&2
    exit 2
}

[ $# -eq 3 ] || usage
action=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd)
port=$3

ask() {
    mariadb --no-defaults --user=root --socket="$dir/socket" --batch --skip-column-names --execute="$1"
}

start() {
    if ask 'select 1' >/dev/null 2>&1; then
        return
    fi
    if [ ! -d "$dir/data/mysql" ]; then
        mariadb-install-db --no-defaults --datadir="$dir/data" --auth-root-authentication-method=normal \
            --skip-test-db --user="$(id -un)" >"$dir/install.log" 2>&1 || {
            tail -n 20 "$dir/install.log" >&2
            exit 1
        }
    fi
    setsid mariadbd --no-defaults --user="$(id -un)" --datadir="$dir/data" --socket="$dir/socket" --port="$port" \
        --bind-address=127.0.0.1 --pid-file="$dir/pid" --skip-log-bin --skip-name-resolve \
        --innodb-flush-log-at-trx-commit=1 --innodb-buffer-pool-size=64M \
        --character-set-server=utf8mb4 --collation-server=utf8mb4_bin \
        >"$dir/server.log" 2>&1 </dev/null &
    local deadline=$((SECONDS + 60))
    until ask 'select 1' >/dev/null 2>&1; do
        if [ $SECONDS -ge $deadline ] || ! kill -0 $! 2>/dev/null; then
            echo "MariaDB did not start:" >&2
            tail -n 20 "$dir/server.log" >&2
            exit 1
        fi
        sleep 0.1
    done
    # Clients over TCP on loopback, without a password: this server holds nothing but tests' tables.
    ask "create user if not exists root@'127.0.0.1'; grant all on *.* to root@'127.0.0.1' with grant option"
}

stop() {
    local pid deadline=$((SECONDS + 30))
    pid=$(cat "$dir/pid" 2>/dev/null || true)
    [ -n "$pid" ] || return 0
    # Only the server of this folder, not another process that got its number.
    tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -- "--datadir=$dir/data " || return 0
    kill "$pid"
    while kill -0 "$pid" 2>/dev/null; do
        if [ $SECONDS -ge $deadline ]; then
            kill -KILL "$pid"
        fi
        sleep 0.1
    done
}

case $action in
start) start ;;
stop) stop ;;
*) usage ;;
esac
