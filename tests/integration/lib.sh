# What the process-level tests share. Source it; it makes a private folder and a port base, and cleans up on every way out.
#
#   start_cluster [NODES]    three nodes under $dir/cluster, on ports of their own; hctl is holdfastctl on it
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
