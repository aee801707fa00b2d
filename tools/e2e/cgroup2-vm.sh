#!/bin/sh
# Runs the tests of containers on cgroups v2 in a virtual machine that has no other version.
#
# usage: tools/e2e/cgroup2-vm.sh KERNEL
#
# KERNEL is a Linux image with cgroups v2 and tmpfs built in, such as /boot/vmlinuz-*-cloud-amd64 of Debian's package
# linux-image-cloud-amd64. Needs qemu-system-x86_64, cpio and a static busybox (Debian: qemu-system-x86, cpio,
# busybox-static). Processors are emulated; ACCEL=kvm is quicker where that works.
set -eu
kernel=${1:?usage: $0 KERNEL}
cd "$(dirname "$0")/../.."
cargo build --quiet -p tepui-init
test=$(cargo test --quiet -p tepui-containerizer --test cgroups_v2 --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*cgroups_v2[^"]*\)".*/\1/p' | tail -1)
init=${CARGO_TARGET_DIR:-target}/debug/tepui-init

disk=$(mktemp -d)
trap 'rm -rf "$disk"' EXIT
root=$disk/root
mkdir -p "$root/bin" "$root/proc" "$root/sys" "$root/dev" "$root/tmp" "$root/etc"
cp "$(command -v busybox)" "$root/bin/busybox"
cp "$test" "$root/test"
cp "$init" "$root/tepui-init"
# What both are linked to, at the same places.
for library in $(ldd "$test" "$init" | grep -o '/[^ :]*' | grep '\.so' | sort -u); do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done
echo 'root:x:0:0:root:/:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
cat >"$root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin TEPUI_INIT=/tepui-init
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
/test --test-threads=1 --nocapture
echo "tests ended with $?"
poweroff -f
INIT
chmod +x "$root/init"
(cd "$root" && find . | cpio --quiet -o -H newc | gzip -1) >"$disk/initrd"

timeout 300 qemu-system-x86_64 -accel "${ACCEL:-tcg}" -m 1024 -smp 2 -nographic -no-reboot -kernel "$kernel" -initrd "$disk/initrd" \
    -append 'console=ttyS0 panic=-1 quiet cgroup_no_v1=all' </dev/null | tee "$disk/log"
grep -q 'tests ended with 0' "$disk/log" && ! grep -q 'not run:' "$disk/log"
