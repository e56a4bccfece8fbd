#!/usr/bin/env bash
# Holdfast as an operator deploys it: three containers, each booted with systemd in its own network namespace on a bridge, installed by
# `make install`, started by `systemctl start holdfast`. Put and get, a restart of each node in turn, and the leader's container switched
# off under load: nothing acknowledged is lost. Everything is cleaned up, also when this fails half-way.
#
# A missing tool is a failure here, not a skip: on a machine that can't do this, don't claim that it works.
set -u
cd "$(dirname "$0")/../.." || exit 2
root=$PWD
number=0
failed=0
ok() { number=$((number + 1)); echo "ok $number - $*"; }
fail() { number=$((number + 1)); failed=1; echo "not ok $number - $*"; }
check() { # check WORDS -- COMMAND
    local words=()
    while [ "$1" != -- ]; do words+=("$1"); shift; done
    shift
    if "$@" >"$dir/last.log" 2>&1; then ok "${words[@]}"; else fail "${words[@]}"; tail -n 15 "$dir/last.log" | sed 's/^/# /'; return 1; fi
}

if [ "$(id -u)" -ne 0 ]; then
    echo "ok 1 - systemd deployment # SKIP needs root"
    exit 0
fi
for tool in systemd-nspawn nsenter ip unshare mount python3; do
    command -v $tool >/dev/null || { echo "not ok 1 - $tool is missing: run make deps-test"; exit 1; }
done

dir=$(mktemp -d /tmp/holdfast-deploy.XXXXXX) || exit 2
tag=hf$$
netns=$tag
nodes="1 2 3"
declare -A leader_pid=() nspawn_pid=()

# ---- Cleaning up -------------------------------------------------------------------------------------------------
end_container() { # power off: SIGKILL to the container's first process
    local i=$1 _
    [ -n "${leader_pid[$i]:-}" ] && kill -KILL "${leader_pid[$i]}" 2>/dev/null
    if [ -n "${nspawn_pid[$i]:-}" ]; then
        for _ in $(seq 50); do
            [ -d "/proc/${nspawn_pid[$i]}" ] || break
            sleep 0.1
        done
        kill -KILL "${nspawn_pid[$i]}" 2>/dev/null
        wait "${nspawn_pid[$i]}" 2>/dev/null
    fi
    unset "leader_pid[$i]" "nspawn_pid[$i]"
}
cgroup_roots() { for c in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do [ -d $c ] && echo $c; done; [ -e /sys/fs/cgroup/cgroup.procs ] && echo /sys/fs/cgroup; }
drop_cgroup() { # all below, deepest first
    local c
    for c in $(cgroup_roots); do
        [ -d "$c/$tag-$1" ] && find "$c/$tag-$1" -depth -type d -exec rmdir {} \; 2>/dev/null
    done
}
cleanup() {
    local code=$? i _
    trap '' INT TERM
    trap - EXIT
    [ -n "${load:-}" ] && kill -KILL "$load" 2>/dev/null
    if [ $failed -ne 0 ]; then
        mkdir -p build/test-log/deploy.kept
        cp "$dir"/*.log "$dir"/*.txt build/test-log/deploy.kept/ 2>/dev/null
    fi
    for i in $nodes; do
        end_container "$i"
    done
    for i in $nodes; do
        for _ in $(seq 20); do drop_cgroup "$i"; [ -d "/sys/fs/cgroup/systemd/$tag-$i" ] || break; sleep 0.1; done
        umount -l "$dir/$i/root" 2>/dev/null
    done
    ip netns delete "$netns" 2>/dev/null
    umount -l "$dir/mem" 2>/dev/null
    rm -rf "$dir"
    [ $code -eq 0 ] && code=$failed
    exit $code
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# ---- A network with a bridge, in a namespace of our own ----------------------------------------------------------
mkdir "$dir/mem" && mount -t tmpfs -o size=2g,mode=0755 holdfast "$dir/mem" || { fail "a tmpfs can be mounted"; exit 1; }
in_net() { nsenter --net="/run/netns/$netns" "$@"; }
ip netns add "$netns" && in_net ip link set lo up && in_net ip link add hfbr type bridge &&
    in_net ip address add 10.77.0.254/24 dev hfbr && in_net ip link set hfbr up || { fail "a bridge in a network namespace"; exit 1; }

# ---- Install once, and certificates as an operator makes them ----------------------------------------------------
stage=$dir/mem/stage
check "make install" -- make --no-print-directory install DESTDIR="$stage" PREFIX=/usr || exit 1
certs=$dir/mem/certs
mkdir "$certs"
{ deploy/certificates ca "$certs" && for n in n1 n2 n3 client; do deploy/certificates make "$certs" $n; done; } >"$dir/certs.log" 2>&1 ||
    { fail "certificates are made"; exit 1; }
thumb() { deploy/certificates thumbprint "$certs/$1.crt"; }
cluster_id=$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')

write_config() { # write_config I FILE
    {
        printf '[node]\nname = n%s\ncluster = %s\ndata = /var/lib/holdfast/data\n' "$1" "$cluster_id"
        printf 'client_listen = 10.77.0.%s:4400\npeer_listen = 10.77.0.%s:4500\n' "$1" "$1"
        printf '[tls]\nca = ca.crt\ncert = n%s.crt\nkey = n%s.key\n' "$1" "$1"
        for k in $nodes; do
            printf '[member n%s]\nid = %s\npeer = 10.77.0.%s:4500\nclient = 10.77.0.%s:4400\nthumbprint = %s\n' \
                "$k" "$k" "$k" "$k" "$(thumb n"$k")"
        done
        printf '[identity operator]\nthumbprint = %s\nrole = admin\n' "$(thumb client)"
    } >"$2"
}

make_root() { # make_root I: an overlay of / with its own identity, address and configuration
    local i=$1 base=$dir/mem/$1 upper unit
    upper=$base/upper
    mkdir -p "$upper" "$base/work" "$dir/$i/root"
    cp -a "$stage/." "$upper/"
    mkdir -p "$upper/etc/systemd/system/multi-user.target.wants" "$upper/etc/holdfast" "$upper/var/lib" "$upper/tmp" "$upper/run" \
        "$upper/var/tmp" "$upper/var/log/journal"
    chmod 1777 "$upper/tmp" "$upper/var/tmp"
    head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$upper/etc/machine-id"
    echo >>"$upper/etc/machine-id"
    echo "hf$i" >"$upper/etc/hostname"
    : >"$upper/etc/fstab"
    # What this host starts is none of the container's business.
    for unit in /etc/systemd/system/*.wants/* /etc/systemd/system/*.service; do
        [ -e "$unit" ] || [ -L "$unit" ] || continue
        ln -sf /dev/null "$upper/etc/systemd/system/$(basename "$unit")"
    done
    for unit in systemd-networkd.service systemd-resolved.service systemd-timesyncd.service systemd-udevd.service getty.target \
        console-getty.service systemd-journal-flush.service apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer \
        fstrim.timer dpkg-db-backup.timer systemd-logind.service; do
        ln -sf /dev/null "$upper/etc/systemd/system/$unit"
    done
    cat >"$upper/etc/systemd/system/address.service" <<UNIT
[Unit]
Description=Static address
DefaultDependencies=no
Before=network.target
Wants=network.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'ip link set lo up; ip address add 10.77.0.$i/24 dev host0; ip link set host0 up'
UNIT
    ln -sf ../address.service "$upper/etc/systemd/system/multi-user.target.wants/address.service"
    ln -sf /lib/systemd/system/multi-user.target "$upper/etc/systemd/system/default.target"
    write_config "$i" "$upper/etc/holdfast/holdfast.conf"
    cp "$certs/ca.crt" "$certs/n$i.crt" "$certs/n$i.key" "$upper/etc/holdfast/"
    mount -t overlay overlay -o "lowerdir=/,upperdir=$upper,workdir=$base/work" "$dir/$i/root"
}

boot() { # boot I: nspawn in a cgroup of its own in every hierarchy that systemd uses
    local i=$1 c
    for c in $(cgroup_roots); do mkdir -p "$c/$tag-$i"; done
    (
        for c in $(cgroup_roots); do echo $BASHPID >"$c/$tag-$i/cgroup.procs"; done
        exec nsenter --net="/run/netns/$netns" systemd-nspawn --quiet --boot --directory="$dir/$i/root" --machine="$tag-$i" \
            --network-bridge=hfbr --register=no --keep-unit --link-journal=no --resolv-conf=off --timezone=off --console=pipe
    ) </dev/null >"$dir/boot-$i.log" 2>&1 &
    nspawn_pid[$i]=$!
}

await_boot() { # await_boot I: the container's first process, and systemd that says it runs
    local i=$1 _ pid state
    for _ in $(seq 100); do
        for pid in $(pgrep -P "${nspawn_pid[$i]}" 2>/dev/null); do
            [ "$(tr -d '\0' <"/proc/$pid/comm" 2>/dev/null)" = systemd ] && leader_pid[$i]=$pid
        done
        if [ -n "${leader_pid[$i]:-}" ]; then
            state=$(on "$i" systemctl is-system-running 2>/dev/null)
            [ "$state" = running ] || [ "$state" = degraded ] && return 0
        fi
        sleep 0.1
    done
    return 1
}
on() { local i=$1; shift; nsenter -t "${leader_pid[$i]}" -a "$@"; }

for i in $nodes; do make_root "$i" >"$dir/root-$i.log" 2>&1 || { fail "container $i is prepared"; cat "$dir/root-$i.log"; exit 1; }; done
for i in $nodes; do boot "$i"; done
for i in $nodes; do check "container $i boots systemd" -- await_boot "$i" || { tail "$dir/boot-$i.log"; exit 1; }; done

# ---- Start, and prove that systemd started it in its container ---------------------------------------------------
start_node() {
    on "$1" systemd-sysusers && on "$1" systemd-tmpfiles --create && on "$1" systemctl daemon-reload &&
        on "$1" chown -R root:holdfast /etc/holdfast && on "$1" sh -c 'chmod 640 /etc/holdfast/*' &&
        on "$1" systemctl start --no-block holdfast
}
for i in $nodes; do check "node $i: systemctl start holdfast" -- start_node "$i" || exit 1; done
active() {
    local _
    for _ in $(seq 150); do
        [ "$(on "$1" systemctl is-active holdfast)" = active ] && return 0
        sleep 0.1
    done
    on "$1" systemctl status holdfast --no-pager
    on "$1" journalctl -u holdfast --no-pager -n 20
    return 1
}
for i in $nodes; do check "node $i becomes active (Type=notify)" -- active "$i"; done
started_by_systemd() {
    local main
    main=$(on "$1" systemctl show -p MainPID --value holdfast)
    [ "$main" -gt 1 ] && on "$1" cat "/proc/$main/cgroup" | grep -q 'holdfast\.service' &&
        on "$1" readlink "/proc/$main/exe" | grep -q '/usr/bin/holdfastd$' &&
        [ "$(on "$1" stat -c %U "/proc/$main")" = holdfast ]
}
for i in $nodes; do check "node $i: its process is the unit's, and runs as user holdfast" -- started_by_systemd "$i"; done
[ $failed -eq 0 ] || exit 1

cat >"$dir/client.ini" <<INI
[client]
endpoints = 10.77.0.1:4400, 10.77.0.2:4400, 10.77.0.3:4400
ca = $certs/ca.crt
cert = $certs/client.crt
key = $certs/client.key
node.n1 = 10.77.0.1:4400
node.n2 = 10.77.0.2:4400
node.n3 = 10.77.0.3:4400
INI
hctl() { in_net "$root/build/bin/holdfastctl" --profile "$dir/client.ini" "$@"; }
roles() { hctl status --output json 2>/dev/null | python3 -c '
import json, sys
try:
    print(" ".join(n["name"] + "=" + n["role"] for n in json.load(sys.stdin)["nodes"]))
except ValueError:
    pass'; }
serving() { # serving N: a leader and N - 1 followers, within 15 s
    local _
    for _ in $(seq 150); do
        [ "$(roles | tr ' ' '\n' | grep -cE '=(leader|follower)$')" -eq "$1" ] && roles | grep -q =leader && return 0
        sleep 0.1
    done
    roles
    return 1
}
unreachable() {
    local _
    for _ in $(seq 50); do
        roles | tr ' ' '\n' | grep -qx "n$1=unreachable" && return 0
        sleep 0.1
    done
    roles
    return 1
}
check "one leader, two followers" -- serving 3
check "put" -- hctl put greeting hello
check "get" -- test "$(hctl get greeting)" = hello

# ---- Under load: restart each in turn, then the leader's power is cut --------------------------------------------
in_net "$root/build/bin/holdfast-history" --profile "$dir/client.ini" --seconds 14 --clients 6 --timeout 3000 \
    >"$dir/history.txt" 2>"$dir/history.err.txt" &
load=$!
sleep 0.5
for i in $nodes; do
    check "restart of node $i" -- on "$i" systemctl restart holdfast
    check "all three serve again" -- serving 3
done
victim=$(roles | tr ' ' '\n' | sed -n 's/^n\([0-9]\)=leader$/\1/p')
check "there is a leader to switch off: n$victim" -- test -n "$victim"
end_container "$victim"
check "its power is off" -- unreachable "$victim"
check "the other two serve, with another leader" -- serving 2
boot "$victim"
check "the container boots again" -- await_boot "$victim"
check "and its node starts" -- start_node "$victim"
check "and becomes active" -- active "$victim"
check "three serve" -- serving 3
wait "$load"
check "the load ended well: $(cat "$dir/history.err.txt")" -- test $? -eq 0
load=
applied_everywhere() {
    local _
    for _ in $(seq 100); do
        hctl status --output json | python3 -c '
import json, sys
nodes = json.load(sys.stdin)["nodes"]
sys.exit(0 if len({n.get("applied") for n in nodes}) == 1 and all(n["role"] != "unreachable" for n in nodes) else 1)' && return 0
        sleep 0.1
    done
    return 1
}
check "equal applied indexes" -- applied_everywhere
for i in $nodes; do hctl export --node "n$i" --local - >"$dir/n$i.txt" 2>"$dir/last.log" || fail "n$i exports"; done
check "nothing acknowledged is lost, on any node" -- python3 tests/chaos/check_history.py "$dir/history.txt" "$dir"/n{1,2,3}.txt
sed 's/^/# /' "$dir/last.log"
for i in $nodes; do check "node $i: systemctl stop ends it gracefully" -- on "$i" systemctl stop holdfast; done
