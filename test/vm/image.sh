#!/bin/sh
# Prepares a stock Debian kernel for vm.sh: image.sh SUITE FOLDER
# Downloads the suite's linux-image package with apt, beside the machine's own package lists, and leaves in FOLDER
#   vmlinuz  initrd  modules/<release>/
# The initrd lays a writable layer in memory over the machine's root, shared read-only by 9p, and hands over to it.
set -eu
suite=$1 folder=$2
[ ! -e "$folder/ready" ] || exit 0
rm -rf "$folder"
mkdir -p "$folder/apt/lists/partial" "$folder/apt/archives/partial" "$folder/tree" "$folder/early/bin" "$folder/early/modules"
cd "$folder"

# The mirror that this machine uses; Debian's own where its sources name none.
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
  grep -v '^ *#' | grep -oE 'https?://[^ ]+/debian/?( |$)' | head -n 1 | tr -d ' ') || true
cat >apt/conf <<CONF
Dir::Etc::SourceList "$folder/apt/sources";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "$folder/apt/lists";
Dir::Cache "$folder/apt";
APT::Sandbox::User "root";
CONF
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-https://deb.debian.org/debian} $suite main" >apt/sources
export APT_CONFIG="$folder/apt/conf"
apt-get -qq update
# linux-image-amd64 only points to the package of the newest release.
package=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-.*\)$/\1/p' | head -n 1)
echo "image: $package from $suite" >&2
(cd apt && apt-get -qq download "$package" && dpkg-deb -x "$package"_*.deb ../tree)

moved=tree/lib
[ -d "$moved/modules" ] || moved=tree/usr/lib
mkdir -p lib && mv "$moved/modules" lib/modules
release=$(ls lib/modules)
depmod -b "$folder" "$release"
mv tree/boot/vmlinuz-* vmlinuz
ln -s lib/modules modules

# What it takes to reach the root: modules in the order in which they load.
cp /bin/busybox early/bin/busybox
for module in virtio_pci 9pnet_virtio 9p overlay; do
  modprobe -d "$folder" -S "$release" --show-depends "$module"
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r path; do
  name=$(basename "$path" .xz)
  case $path in *.xz) xz -dc "$path" ;; *) cat "$path" ;; esac >"early/modules/$name"
  echo "$name" >>early/order
done
cat >early/init <<'INIT'
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /bin /machine /layer /root
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r module; do insmod "/modules/$module"; done </order
share='trans=virtio,version=9p2000.L,msize=524288'
mount -t 9p -o "$share,ro,cache=loose" machine /machine
mount -t tmpfs -o mode=755 layer /layer
mkdir /layer/upper /layer/work
mount -t overlay -o lowerdir=/machine,upperdir=/layer/upper,workdir=/layer/work overlay /root
for system in proc sys dev; do mount --move "/$system" "/root/$system"; done
cd /root
mount -t tmpfs -o mode=755 run run
mkdir -p usr/lib/modules run/job dev/pts dev/shm
mount -t 9p -o "$share,ro" modules usr/lib/modules
mount -t 9p -o "$share" job run/job
mount -t cgroup2 cgroup sys/fs/cgroup
mount -t devpts devpts dev/pts
mount -t tmpfs shm dev/shm
ln -sf /proc/self/fd dev/fd
exec switch_root /root /bin/sh /run/job/start
INIT
chmod +x early/init
(cd early && find . | cpio --quiet -o -H newc | gzip -1) >initrd
rm -rf apt tree early
: >ready
