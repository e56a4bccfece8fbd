# What the process-level tests share. Source it; it makes a private folder and a port base, and cleans up on every way out.
#
#   start_cluster [NODES]    three nodes under $dir/cluster, on ports of their own; hctl is holdfastctl on it
#   make_cluster [NODES]     the same without starting them, so that configure can say more before start_cluster
#   configure SECTION LINE.. lines for that section of each node's configuration
#   load PREFIX SECONDS      clients that put and read keys PREFIX-...; begin_load PREFIX and end_load PREFIX do it beside other things
#   export_all, judged PREFIX  of nodes n1 to n3: they hold the same, and all that a load was told is there
#   ok WORDS / fail WORDS    one TAP line; fail shows what the last command said
#   check WORDS -- COMMAND   ok if the command succeeds
#
# Processes are ended by local-cluster through their pid files, never by name.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2
root=$PWD
dir=$(mktemp -d /tmp/holdfast-test.XXXXXX) || exit 2
number=0
failed=0
# A port base from the process id keeps parallel runs apart: 20000 to 29990.
port_base=$((20000 + ($$ % 1000) * 10))
bin=${HOLDFAST_BIN:-$root/build/bin}
background=()

# A test's own cleaning up, before the folder goes: the name of a function.
at_finish=:

finish() {
    local code=$?
    trap '' INT TERM
    trap - EXIT
    "$at_finish"
    for pid in "${background[@]}"; do
        kill -KILL "$pid" 2>/dev/null
    done
    if [ $failed -ne 0 ] || [ $code -ne 0 ]; then
        keep=build/test-log/$(basename "$0").kept
        rm -rf "$keep" && mkdir -p "$keep" && cp -r "$dir"/*.log "$dir"/*.txt "$keep"/ 2>/dev/null
        for log in "$dir"/cluster/n*/log; do
            [ -e "$log" ] && cp "$log" "$keep/$(basename "$(dirname "$log")")-log"
        done
    fi
    if [ -d "$dir/cluster" ]; then
        deploy/local-cluster wipe --dir "$dir/cluster" >/dev/null 2>&1
    fi
    rm -rf "$dir"
    [ $code -eq 0 ] && code=$failed
    exit $code
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

ok() {
    number=$((number + 1))
    echo "ok $number - $*"
}
fail() {
    number=$((number + 1))
    failed=1
    echo "not ok $number - $*"
    for log in "$dir"/cluster/n*/log; do
        [ -e "$log" ] && echo "# $log:" && tail -n 8 "$log" | sed 's/^/# /'
    done
}
check() {
    local words=()
    while [ "$1" != -- ]; do words+=("$1"); shift; done
    shift
    if "$@" >"$dir/last.log" 2>&1; then
        ok "${words[@]}"
    else
        local code=$?
        fail "${words[@]} (exit code $code)"
        tail -n 20 "$dir/last.log" | sed 's/^/# /'
        return $code
    fi
}

cluster() { deploy/local-cluster "$@" --dir "$dir/cluster" --port-base "$port_base"; }
start_cluster() { cluster up --nodes "${1:-3}" >"$dir/up.log" 2>&1 || { fail "the cluster starts"; cat "$dir/up.log"; exit 1; }; }
make_cluster() { cluster make --nodes "${1:-3}" >"$dir/up.log" 2>&1 || { fail "the cluster is made"; cat "$dir/up.log"; exit 1; }; }
configure() {
    local section=$1 file; shift
    for file in "$dir"/cluster/n*/holdfast.conf; do
        if grep -qxF "[$section]" "$file"; then
            printf '%s\n' "$@" >"$dir/lines" && sed -i "/^\[$section\]\$/r $dir/lines" "$file"
        else
            { printf '\n[%s]\n' "$section" && printf '%s\n' "$@"; } >>"$file"
        fi
    done
}
hctl() { "$bin/holdfastctl" --profile "$dir/cluster/client.ini" "$@"; }

# The name of the leader; waits up to 20 s for one.
leader() {
    local name i
    for i in $(seq 200); do
        name=$(hctl status --output json 2>/dev/null | python3 -c '
import json, sys
try:
    print(next((n["name"] for n in json.load(sys.stdin)["nodes"] if n["role"] == "leader"), ""))
except ValueError:
    print("")')
        [ -n "$name" ] && echo "$name" && return 0
        sleep 0.1
    done
    return 1
}

# All nodes have the same applied index; waits up to 30 s.
settled() {
    local i
    for i in $(seq 300); do
        hctl status --output json 2>/dev/null | python3 -c '
import json, sys
try:
    nodes = json.load(sys.stdin)["nodes"]
except ValueError:
    sys.exit(1)
roles = sorted(n["role"] for n in nodes)
sys.exit(0 if roles == ["follower"] * (len(nodes) - 1) + ["leader"]
         and len({n["applied"] for n in nodes}) == 1 and all(n["applied"] == n["commit"] for n in nodes) else 1)' && return 0
        sleep 0.1
    done
    return 1
}
pid_of() { cat "$dir/cluster/$1/pid"; }
other_than() { # NODE: the numbers of the others of three
    local n
    for n in 1 2 3; do [ "n$n" != "$1" ] && echo $n; done
}

# One load at a time; its history is $dir/history-PREFIX.txt, what it says in the end $dir/load-PREFIX.txt.
load_timeout_ms=1500
load_pid=
begin_load() { # PREFIX [SECONDS]
    "$bin/holdfast-history" --profile "$dir/cluster/client.ini" --seconds "${2:-300}" --seed 7 --prefix "$1-" --timeout "$load_timeout_ms" \
        --pause 1000 >"$dir/history-$1.txt" 2>"$dir/load-$1.txt" &
    load_pid=$!
    background=("$load_pid")
}
await_load() { # PREFIX
    wait "$load_pid" || fail "load $1 ends well"
    background=()
    [ "$(grep -c '"event":"ok"' "$dir/history-$1.txt")" -gt 100 ] || fail "load $1 did hardly anything"
}
load() { begin_load "$1" "$2" && await_load "$1"; }
end_load() { # PREFIX: half a second later, so that it met the end of what was done
    sleep 0.5
    kill -TERM "$load_pid"
    await_load "$1"
}
export_all() {
    local n
    for n in 1 2 3; do
        hctl --node n$n --local export - >"$dir/n$n.txt" || return 1
    done
    cmp "$dir/n1.txt" "$dir/n2.txt" && cmp "$dir/n2.txt" "$dir/n3.txt"
}
judged() { python3 tests/chaos/check_history.py "$dir/history-$1.txt" "$dir/n1.txt" "$dir/n2.txt" "$dir/n3.txt"; }
