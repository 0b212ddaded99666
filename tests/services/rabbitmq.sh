#!/bin/bash
# A private RabbitMQ for tests: rabbitmq.sh start|stop|kill|block|unblock DIR PORT
#
# It listens on 127.0.0.1:PORT with a name daemon, a cookie and ports of its own, and keeps everything below DIR; no
# service of the machine is touched. start waits until it takes connections; kill is a power cut, after which start
# goes on with what was on disk; block and unblock set and lift the memory alarm. The URL for tests is
# amqp://127.0.0.1:PORT.
set -euo pipefail

usage() {
    echo "usage: $0 start|stop|kill|block|unblock DIR PORT" >&2
    exit 2
}

[ $# -eq 3 ] || usage
action=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd)
port=$3
bin=/usr/lib/rabbitmq/bin
# Three ports a broker: its own, that of other nodes, that of the name daemon.
dist=$((port + 20000))
names=$((port + 10000))

export HOME=$dir \
    RABBITMQ_NODENAME=test$port@localhost RABBITMQ_NODE_PORT=$port RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 \
    RABBITMQ_DIST_PORT=$dist RABBITMQ_MNESIA_BASE=$dir/mnesia RABBITMQ_LOG_BASE=$dir/log \
    RABBITMQ_ENABLED_PLUGINS_FILE=$dir/plugins RABBITMQ_PID_FILE=$dir/pid RABBITMQ_CONFIG_FILE=$dir/rabbitmq \
    RABBITMQ_CONF_ENV_FILE=$dir/none \
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='+S 1:1 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}' \
    ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT=$names

# The broker of this folder, not another process that got its number.
pid() {
    local found
    found=$(cat "$dir/pid" 2>/dev/null || true)
    [ -n "$found" ] || return 1
    { tr '\0' ' ' <"/proc/$found/cmdline" | grep -qF -- "-home $dir "; } 2>/dev/null || return 1
    echo "$found"
}

# Whether it answers the first bytes of the protocol, which it does only when it is up.
answers() {
    timeout 2 bash -c "exec 3<>/dev/tcp/127.0.0.1/$port && printf 'AMQP\0\0\11\1' >&3 && head -c 1 <&3 | grep -q ." \
        2>/dev/null
}

ctl() {
    "$bin/rabbitmqctl" -q "$@" >/dev/null
}

start() {
    if pid >/dev/null && answers; then
        return
    fi
    echo '[].' >"$dir/plugins"
    # A test's disk may be nearly full, and the memory alarm is set by hand.
    printf 'loopback_users.guest = true\nvm_memory_high_watermark.relative = 0.8\ndisk_free_limit.absolute = 10MB\nlog.console = false\n' \
        >"$dir/rabbitmq.conf"
    if [ ! -f "$dir/.erlang.cookie" ]; then
        head -c 20 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$dir/.erlang.cookie"
        chmod 400 "$dir/.erlang.cookie"
    fi
    rm -f "$dir/pid"
    setsid "$bin/rabbitmq-server" >"$dir/server.log" 2>&1 </dev/null &
    local started=$! deadline=$((SECONDS + 120))
    until answers; do
        if [ $SECONDS -ge $deadline ] || ! kill -0 $started 2>/dev/null; then
            echo "RabbitMQ did not start:" >&2
            tail -n 20 "$dir/server.log" >&2
            exit 1
        fi
        sleep 0.2
    done
}

# Waits until a process is gone; by force when it takes too long.
await_end() {
    local deadline=$((SECONDS + 40))
    while kill -0 "$1" 2>/dev/null; do
        [ $SECONDS -lt $deadline ] || kill -KILL "$1" 2>/dev/null || true
        sleep 0.1
    done
}

# The name daemon of this port; it refuses to end while a broker is registered.
forget_names() {
    epmd -port "$names" -kill >/dev/null 2>&1 || true
}

stop() {
    local found
    if found=$(pid); then
        kill "$found"
        await_end "$found"
    fi
    forget_names
}

power_cut() {
    local found
    if found=$(pid); then
        kill -KILL "$found"
        await_end "$found"
    fi
}

case $action in
start) start ;;
stop) stop ;;
kill) power_cut ;;
block) ctl set_vm_memory_high_watermark 0.00001 ;;
unblock) ctl set_vm_memory_high_watermark 0.8 ;;
*) usage ;;
esac
