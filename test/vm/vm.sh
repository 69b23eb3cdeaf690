#!/bin/sh
# Runs a command in a virtual machine with a stock Debian kernel over a copy-on-write view of this machine's root:
#   vm.sh [-k bookworm|trixie] [-t SECONDS] [-m MEGABYTES] [-d DISK] [-s] COMMAND [ARGUMENT]…
# Output comes as it is written; the exit status is the command's, 124 when time ran out, 125 when the machine did not come up.
# The CPU is emulated (about ten times slower), so that it runs where KVM is not to be had. Needs qemu-system-x86 busybox-static
# kmod cpio xz-utils e2fsprogs. Inside: cgroup v2 alone, loadable modules, a network of nothing but `lo`, temporary files on a
# disk of its own, mounted at /mnt, this folder as the working one. The disk is the file DISK, which is kept and may be that of an earlier
# life of the machine; without one it goes with the machine. With -s the first process is systemd, and the command a service of it.
set -eu
suite=bookworm seconds=600 memory=2048 disk= systemd=
while getopts k:t:m:d:s option; do
  case $option in
    k) suite=$OPTARG ;;
    t) seconds=$OPTARG ;;
    m) memory=$OPTARG ;;
    d) disk=$OPTARG ;;
    s) systemd=yes ;;
    *) exit 2 ;;
  esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || { echo 'vm.sh: there is no command' >&2; exit 2; }

image=${SLUICE_VM_DIR:-/var/cache/sluice-vm}/$suite
mkdir -p "$(dirname "$image")"
flock "$(dirname "$image")" sh "$(dirname "$0")/image.sh" "$suite" "$image" || { echo "vm.sh: the kernel of $suite could not be prepared" >&2; exit 125; }

job=$(mktemp -d)
machine=
trap '[ -z "$machine" ] || kill -9 "$machine" 2>/dev/null || true; rm -rf "$job"' EXIT
trap 'exit 130' INT TERM HUP

quoted() { for word in "$@"; do printf "'%s' " "$(printf %s "$word" | sed "s/'/'\\\\''/g")"; done; }
# A disk, as a host has one: neither the view of this machine's root nor memory carries everything that container roots ask for.
: "${disk:=$job/disk}"
if [ ! -e "$disk" ]; then
  truncate -s 8G "$disk"
  mkfs.ext4 -q -F "$disk"
fi
{
  echo 'ip link set lo up'
  echo "export HOME=/root PATH=$(quoted "$PATH:/usr/sbin:/sbin")"
  echo 'set -e; modprobe -a virtio_blk ext4; mount -t ext4 /dev/vda /mnt'
  echo 'mkdir -p /mnt/lab /run/sluice-lab; mkdir -p -m 1777 /mnt/tmp; export TMPDIR=/mnt/tmp; mount --bind /mnt/lab /run/sluice-lab; set +e'
  # The first memory cgroup has the kernel patch every allocation. An emulated CPU that runs into the patching traps for good
  # (int3, a panic of 6.12): it happens while the machine is quiet.
  echo 'echo +memory >/sys/fs/cgroup/cgroup.subtree_control && mkdir /sys/fs/cgroup/first'
  # An emulated CPU and signals on every bad access of WebAssembly (Node's own, for TypeScript) do not get on: Node dies now and then.
  echo 'export NODE_OPTIONS=--disable-wasm-trap-handler'
  if [ -n "$systemd" ]; then
    # Its services inherit nothing of it. And what a host has from its first start on, this view of a machine may lack.
    echo 'mkdir -p /run/systemd/system /run/systemd/system.conf.d; cp /run/job/command.service /run/systemd/system'
    echo 'printf "[Manager]\nDefaultEnvironment=NODE_OPTIONS=%s TMPDIR=%s HOME=/root\n" "$NODE_OPTIONS" "$TMPDIR" >/run/systemd/system.conf.d/vm.conf'
    echo '[ -s /etc/machine-id ] || tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id'
    # This folder may lie below /tmp, which systemd would cover or empty.
    echo 'for unit in tmp.mount systemd-tmpfiles-setup.service; do ln -s /dev/null /run/systemd/system/$unit; done'
    echo 'exec /lib/systemd/systemd --system --unit=command.service --show-status=false'
  else
    echo '. /run/job/command'
  fi
} >"$job/start"
{
  echo "export SLUICE_LAB_SLOWNESS=$(quoted "${SLUICE_LAB_SLOWNESS:-10}") PATH=$(quoted "$PATH:/usr/sbin:/sbin")"
  echo "cd $(quoted "$PWD")"
  echo "$(quoted "$@") </dev/null >/run/job/output 2>&1"
  echo 'echo $? >/run/job/status'
  echo 'sync'
  echo 'echo o >/proc/sysrq-trigger'
  echo 'sleep 60'
} >"$job/command"
cat >"$job/command.service" <<'UNIT'
[Unit]
Description=The command of vm.sh
[Service]
Type=oneshot
ExecStart=/bin/sh /run/job/command
UNIT
: >"$job/output"

share() { echo "local,path=$1,mount_tag=$2,security_model=none$3"; }
qemu-system-x86_64 -accel tcg,thread=multi -cpu max,pku=off -smp 2 -m "$memory" -nographic -no-reboot -nic none \
  -kernel "$image/vmlinuz" -initrd "$image/initrd" -append 'console=ttyS0 quiet panic=-1' \
  -virtfs "$(share / machine ,readonly=on,multidevs=remap)" \
  -virtfs "$(share "$image/lib/modules" modules ,readonly=on)" \
  -drive "file=$disk,if=virtio,format=raw,cache=unsafe" \
  -virtfs "$(share "$job" job '')" >"$job/console" 2>&1 </dev/null &
machine=$!
tail -c +1 -f --pid=$machine "$job/output" &
follower=$!

# The machine ends by itself; the clock only guards against one that does not.
elapsed=0
while kill -0 "$machine" 2>/dev/null && [ ! -e "$job/status" ] && [ "$elapsed" -lt "$seconds" ]; do
  sleep 1
  elapsed=$((elapsed + 1))
done
for _ in 1 2 3 4 5; do
  if kill -0 "$machine" 2>/dev/null; then sleep 1; fi
done
kill -9 "$machine" 2>/dev/null || true
wait "$machine" 2>/dev/null || true
wait "$follower" 2>/dev/null || true
if [ -s "$job/status" ]; then
  status=$(cat "$job/status")
elif [ "$elapsed" -ge "$seconds" ]; then
  echo "vm.sh: ended after $seconds s" >&2
  status=124
else
  echo 'vm.sh: the machine ended without running the command to its end; its console:' >&2
  tail -n 20 "$job/console" >&2
  status=125
fi
exit "$status"
