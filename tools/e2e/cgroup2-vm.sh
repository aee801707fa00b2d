#!/bin/sh
# Runs the tests of containers on cgroups v2 in a virtual machine that has no other version.
#
# usage: tools/e2e/cgroup2-vm.sh KERNEL [TEST]
#
# KERNEL is a Linux image with cgroups v2 and tmpfs built in, such as /boot/vmlinuz-*-cloud-amd64 of Debian's package
# linux-image-cloud-amd64; its modules are looked for in ../lib/modules beside it. TEST is a part of tests' names. Needs
# qemu-system-x86_64, cpio, strip, cc, mkfs.xfs and a static busybox (Debian: qemu-system-x86, cpio, binutils, gcc,
# xfsprogs, busybox-static).
# Processors are emulated; ACCEL=kvm is quicker where that works.
set -eu
kernel=${1:?usage: $0 KERNEL [TEST]}
only=${2:-}
# The first is the suite on version 2. The others need no cgroups, take those of either version, or go on without version 1.
programs='cgroups_v2 filesystem gpus launch namespaces nested privileges recovery xfs'
modules=$(dirname "$kernel")/../lib/modules/${kernel##*/vmlinuz-}
cd "$(dirname "$0")/../.."
cargo build --quiet -p tepui-init
built=$(cargo test --quiet -p tepui-containerizer --tests --no-run --message-format=json |
    sed -n 's/.*"kind":\["test"\].*"executable":"\([^"]*\)".*/\1/p')
init=${CARGO_TARGET_DIR:-target}/debug/tepui-init

disk=$(mktemp -d)
trap 'rm -rf "$disk"' EXIT
root=$disk/root
mkdir -p "$root/bin" "$root/proc" "$root/sys" "$root/dev" "$root/tmp" "$root/etc" "$root/run" "$root/modules"
# Copies a program with what it is linked to, at the same places.
install() {
    cp "$1" "$root$2"
    for library in $(ldd "$1" | grep -o '/[^ :]*' | grep '\.so' | sort -u); do
        mkdir -p "$root$(dirname "$library")"
        cp -L "$library" "$root$library"
    done
}
cp "$(command -v busybox)" "$root/bin/busybox"
install "$init" /tepui-init
for program in $programs; do
    for test in $built; do
        case ${test##*/} in "$program"-*) install "$test" "/$program" && strip "$root/$program" ;; esac
    done
done
cc -shared -fPIC -o "$root/libnvml-double.so" core/containerizer/tests/common/nvml_double.c
# It would find no driver of NVIDIA's.
printf '#!/bin/busybox sh\n' >"$root/bin/ldconfig"
chmod +x "$root/bin/ldconfig"
# In the order of what they need.
drivers='overlay loop libcrc32c xfs'
for driver in $drivers; do
    find "$modules" -name "$driver.ko" -exec cp {} "$root/modules/" \;
done
install "$(command -v mkfs.xfs)" /bin/mkfs.xfs
printf 'root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
echo 'nameserver 127.0.0.1' >"$root/etc/resolv.conf"
# Containers change their root, which the kernel refuses to those who are on the initial one.
cat >"$root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mkdir /new
mount -t tmpfs tmpfs /new
for part in /*; do
    case $part in /new) ;; *) cp -a "$part" /new ;; esac
done
exec switch_root /new /tests
INIT
cat >"$root/tests" <<TESTS
#!/bin/busybox sh
export PATH=/bin TEPUI_INIT=/tepui-init TEPUI_TEST_NVML=/libnvml-double.so
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
for driver in $drivers; do insmod /modules/\$driver.ko; done
truncate -s 512M /xfs.img
mkfs.xfs -q /xfs.img
mkdir /disk
mount -t xfs -o loop,pqnoenforce /xfs.img /disk && export TEPUI_TEST_XFS=/disk
for program in $programs; do
    echo "program \$program"
    /\$program --test-threads=1 --nocapture $only
    echo "\$program ended with \$?"
done
poweroff -f
TESTS
chmod +x "$root/tests"
chmod +x "$root/init"
(cd "$root" && find . | cpio --quiet -o -H newc | gzip -1) >"$disk/initrd"

timeout 900 qemu-system-x86_64 -accel "${ACCEL:-tcg}" -m 2048 -smp 2 -nographic -no-reboot -kernel "$kernel" -initrd "$disk/initrd" \
    -append 'console=ttyS0 panic=-1 quiet cgroup_no_v1=all' </dev/null | tee "$disk/log"
for program in $programs; do
    grep -q "$program ended with 0" "$disk/log" || { echo "$program failed"; exit 1; }
done
# What is not run for another reason than that there is no version 1 would be missed.
! grep 'not run:' "$disk/log" | grep -v 'cgroups v1'
