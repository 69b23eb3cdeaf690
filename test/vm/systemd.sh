#!/bin/sh
# The daemon as a service of systemd, by the unit of docs/, inside the virtual machine of `vm.sh -s`: what runs goes on while systemd
# restarts, kills, stops and starts it. Ends with the line "N passed, N failed".
set -eu
. "$(dirname "$0")/expect.sh"

ln -sf "$PWD/bin/sluice" "$PWD/bin/sluiced" /usr/local/bin
mkdir -p /etc/sluice
# What container roots ask for the disk has, and not this view of a machine's root.
echo '{"stateDir": "/mnt/state"}' >/etc/sluice/sluiced.json
cp docs/sluiced.service /etc/systemd/system
# An emulated CPU takes about ten times as long to everything.
mkdir -p /etc/systemd/system/sluiced.service.d
printf '[Service]\nTimeoutStartSec=300s\nTimeoutStopSec=150s\n' >/etc/systemd/system/sluiced.service.d/slow.conf
systemctl daemon-reload

of_unit() { systemctl show --property "$1" --value sluiced; }
active() { systemctl is-active sluiced || true; }
# The first process of a container, as the host numbers it.
pid_of() { field pid container inspect "$1"; }
pids() { echo "$(pid_of web) $(pid_of client)"; }
alive() { kill -0 "$web" && kill -0 "$client" && echo yes; }
answer() { sluice exec client wget -qO- http://web/page; }
# Without the daemon: from the client's namespace, to the address.
answer_unserved() { nsenter --target "$client" --net busybox wget -qO- "http://$address/page"; }
# Lines are numbered by who writes them: none is missing, and there are more than before.
gapless() { sluice logs web | awk -v least="$1" '$2 != NR { exit 1 } END { print (NR > least ? "yes" : "only " NR) }'; }

systemctl enable --now sluiced
expect 'enabled and started: the API answers at once' 0 sh -c 'sluice version >/dev/null; echo $?'
expect 'active' active active

load_busybox
sluice network create net >/dev/null
ends='while [ ! -e /end ]; do sleep 1; done; exit'
sluice run -d --name web --network net busybox \
  sh -c 'echo page >/page; (i=0; while i=$((i + 1)); do echo "line $i"; sleep 1; done) & exec httpd -f -h /' >/dev/null
sluice run -d --name client --network net busybox sleep 100000 >/dev/null
sluice run -d --name short --network net busybox sh -c "$ends 7" >/dev/null
sluice run -d --name again --network net --restart always busybox sh -c "rm -f /end; $ends 8" >/dev/null
web=$(pid_of web) client=$(pid_of client)
address=$(sluice exec web sh -c "ip -4 -o address show dev eth0" | sed 's/.* inet \([0-9.]*\).*/\1/')
expect 'it answers by its name' page answer

first=$(of_unit MainPID)
systemctl restart sluiced
expect 'restarted: active' active active
expect 'restarted: another process' yes sh -c "[ $first != $(of_unit MainPID) ] && echo yes"
expect 'restarted: every container is the process that it was' "$web $client" pids
expect 'restarted: it answers by its name' page answer

systemctl kill --kill-whom=main --signal=KILL sluiced
expect 'killed: systemd started it again' 1 of_unit NRestarts
expect 'killed: active' active active
expect 'killed: every container is the process that it was' "$web $client" pids
expect 'killed: it answers by its name' page answer

short=$(pid_of short) again=$(pid_of again) lines=$(sluice logs web | wc -l)
systemctl stop sluiced
expect 'stopped: inactive, and no failure' inactive active
expect 'stopped: what ran runs' yes alive
expect 'stopped: packets go on' page answer_unserved
touch "/proc/$short/root/end" "/proc/$again/root/end"
expect 'stopped: a container ends' ended sh -c "kill -0 $short 2>/dev/null || echo ended"
systemctl start sluiced
expect 'started: the exit that nobody saw, with its code' 7 field exitCode container inspect short
expect 'started: --restart always runs again' running state_of again
expect 'started: every container is the process that it was' "$web $client" pids
expect 'started: the log of the time without a daemon is there' yes gapless "$lines"
expect 'started: it answers by its name' page answer

sluice rm --force web client short again >/dev/null
sluice network rm net >/dev/null
systemctl stop sluiced
expect 'taken down: no monitor is left in the unit' '' \
  sh -c 'cat /sys/fs/cgroup/system.slice/sluiced.service/cgroup.procs 2>/dev/null'
verdict
