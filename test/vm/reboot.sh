#!/bin/sh
# A host that is switched off hard, inside the virtual machine of vm.sh: reboot.sh before|after
# `before` starts containers with each restart policy and says "SWITCH OFF" when whoever runs the machine is to kill it; `after`, in
# another life of the machine over the same disk, looks which of them the daemon starts. Ends with the line "N passed, N failed".
set -eu
. "$(dirname "$0")/expect.sh"
state=/mnt/state
settings="--state-dir $state --run-dir /run/sluice --log-level warn"

# shellcheck disable=SC2086
node dist/src/main.cjs $settings >/run/job/daemon.log 2>&1 &
daemon=$!
trap 'kill $daemon 2>/dev/null || true' EXIT
sluice() { bin/sluice "$@"; }
tries=0
until sluice version >/dev/null 2>&1; do
  tries=$((tries + 1))
  [ $tries -lt 120 ] && kill -0 $daemon || { cat /run/job/daemon.log >&2; echo '0 passed, 1 failed'; exit 1; }
  sleep 1
done

policies='always unless-stopped on-failure no'
if [ "$1" = before ]; then
  load_busybox
  sluice network create web >/dev/null
  for policy in $policies; do
    sluice run -d --name "$policy" --network web --restart "$policy" -v data:/data busybox \
      sh -c "echo start >>/data/$policy; sync /data/$policy; exec httpd -f -h /data" >/dev/null
  done
  for policy in always unless-stopped; do
    sluice run -d --name "told-$policy" --restart "$policy" busybox sleep 100000 >/dev/null
    sluice stop -t 1 "told-$policy" >/dev/null
  done
  # Only the containers' own lines were forced to the disk. Longer than a change takes to the disk (a second), shorter than a kernel takes by itself to write what nobody forces (thirty).
  sleep 4
  echo 'SWITCH OFF'
  sleep 600
fi

starts_of() { wc -l <"$(field mountpoint volume inspect data)/$1" | tr -d ' '; }

for policy in always unless-stopped on-failure; do
  expect "--restart $policy: runs again" running state_of "$policy"
  expect "--restart $policy: was started twice" 2 starts_of "$policy"
done
expect '--restart no: has ended' exited state_of no
expect '--restart no: was started once' 1 starts_of no
expect 'stopped by hand, --restart unless-stopped: stays so' exited state_of told-unless-stopped
expect 'stopped by hand, --restart always: runs, as in Docker' running state_of told-always
expect 'the end that nobody saw has status 255' 255 field exitCode container inspect no
expect 'its network, its names and the volume are there' 'start' \
  sluice exec unless-stopped sh -c 'wget -qO- http://always/no'
verdict
