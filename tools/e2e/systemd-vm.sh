#!/bin/sh
# Runs a master and an agent as units of a real systemd, in a virtual machine, and restarts the agent while tasks run.
#
# usage: tools/e2e/systemd-vm.sh KERNEL
#
# KERNEL is a Linux image with cgroups v2 and tmpfs built in, as for cgroup2-vm.sh. systemd is that of Debian 13, which is
# unpacked from its packages once, into target/systemd-vm. Needs qemu-system-x86_64, mmdebstrap, cpio, strip and a static
# busybox (Debian: qemu-system-x86, mmdebstrap, cpio, binutils, busybox-static).
# Processors are emulated; ACCEL=kvm is quicker where that works.
set -eu
kernel=${1:?usage: $0 KERNEL}
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}
libraries='allocators authorizers fetchers isolators leaders loggers'
packages='tepui-daemon tepui-host tepui-cli tepui-init tepui-logger-rotating'
for library in $libraries; do packages="$packages tepui-$library"; done
# shellcheck disable=SC2046,SC2086 # names without blanks
cargo build --quiet $(printf -- '-p %s ' $packages)

debian=$target/systemd-vm/debian.tar
if [ ! -e "$debian" ]; then
    mkdir -p "$target/systemd-vm"
    mmdebstrap --quiet --variant=extract --include=systemd --dpkgopt='path-exclude=/usr/share/*' \
        trixie "$target/systemd-vm/new.tar" "${MIRROR:-http://deb.debian.org/debian}"
    mv "$target/systemd-vm/new.tar" "$debian"
fi

disk=$(mktemp -d)
trap 'rm -rf "$disk"' EXIT
root=$disk/root
mkdir "$root"
tar -xf "$debian" -C "$root" --exclude='./dev/*'
mkdir -p "$root/proc" "$root/sys" "$root/dev" "$root/run" "$root/tmp" "$root/root" "$root/usr/libexec/tepui" \
    "$root/usr/lib/tepui/modules" "$root/etc/tepui" "$root/etc/systemd/system" "$root/var/log"
for merged in bin sbin lib lib64; do
    [ -e "$root/$merged" ] || ln -s "usr/$merged" "$root/$merged"
done
cp "$(command -v busybox)" "$root/usr/bin/busybox"
ln -s busybox "$root/usr/bin/sh"
for program in tepui tepui-master tepui-agent; do
    cp "$target/debug/$program" "$root/usr/bin/"
done
for program in tepui-init tepui-logger tepui-module-host; do
    cp "$target/debug/$program" "$root/usr/libexec/tepui/"
done
for library in $libraries; do
    cp "$target/debug/libtepui_$library.so" "$root/usr/lib/tepui/modules/"
done
strip "$root"/usr/bin/tepui* "$root"/usr/libexec/tepui/* "$root"/usr/lib/tepui/modules/*
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
# Otherwise it would be asked who this is.
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
cp docs/systemd/*.service "$root/etc/systemd/system/"
cat >"$root/etc/tepui/master.toml" <<'MASTER'
ip = "127.0.0.1"
work_dir = "/var/lib/tepui/master"
MASTER
cat >"$root/etc/tepui/agent.toml" <<'AGENT'
ip = "127.0.0.1"
hostname = "machine"
master = "127.0.0.1:5050"
work_dir = "/var/lib/tepui/agent"
isolation = "cgroups/cpu,cgroups/mem"
resources = "cpus:1;mem:512;disk:512"
container_logger = "rotating"
AGENT
cp tools/e2e/systemd-vm-tests.sh "$root/tests"
cat >"$root/etc/systemd/system/tests.service" <<'UNIT'
[Unit]
Description=Tests of the units
FailureAction=poweroff-immediate
SuccessAction=poweroff-immediate

[Service]
Type=oneshot
ExecStart=/bin/sh /tests
StandardOutput=file:/dev/ttyS0
StandardError=inherit
TimeoutStartSec=infinity
UNIT
# systemd takes what is mounted here; on the initial root containers could not change theirs.
cat >"$root/init" <<'INIT'
#!/usr/bin/busybox sh
busybox=/usr/bin/busybox
$busybox mkdir /new
$busybox mount -t tmpfs -o mode=755 tmpfs /new
for part in /*; do
    case $part in /new) ;; *) $busybox cp -a "$part" /new ;; esac
done
exec $busybox switch_root /new /usr/lib/systemd/systemd
INIT
chmod +x "$root/init"
(cd "$root" && find . | cpio --quiet -o -H newc) >"$disk/initrd"

timeout 900 qemu-system-x86_64 -accel "${ACCEL:-tcg}" -m 3072 -smp 2 -nographic -no-reboot -kernel "$kernel" -initrd "$disk/initrd" \
    -append 'console=ttyS0 panic=-1 quiet systemd.unit=tests.service systemd.show_status=0' </dev/null | tee "$disk/log"
grep -q '^all tests passed' "$disk/log"
