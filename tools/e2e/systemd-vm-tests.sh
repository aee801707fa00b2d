# Run by systemd in the virtual machine of systemd-vm.sh: the units of docs/systemd, with tasks that outlive the agent.
set -eu
for applet in cat find grep ip kill mkdir pidof sed sleep tail test touch; do
    [ -e "/usr/bin/$applet" ] || busybox ln -s busybox "/usr/bin/$applet"
done
ip link set lo up
agent=tepui-agent.service
dropin=/etc/systemd/system/$agent.d/test.conf
mkdir -p "${dropin%/*}"

failed() {
    echo "FAILED: $*"
    systemctl status --no-pager --lines=0 tepui-master $agent || true
    for unit in tepui-master $agent; do journalctl --no-pager -o cat -u $unit | tail -n 30; done
    tail -n 40 /tmp/*.log
    exit 1
}

# wait_for WHAT COMMAND ...: until the command succeeds.
wait_for() {
    what=$1 left=300
    shift
    until "$@"; do
        left=$((left - 1))
        [ $left -gt 0 ] || failed "waited in vain: $what"
        sleep 0.2
    done
}

property() { systemctl show --value --property "$1" $agent; }
registered() { tepui agents --master 127.0.0.1:5050 2>&1 | grep -q machine; }
alone() { ! pidof tepui-init >/dev/null; }
up() { [ -s "/tmp/$1.pid" ]; }
ended() { ! kill -0 "$1" 2>/dev/null; }
# The cgroup of version 2 that a process is in.
cgroup() { sed -n 's/^0:://p' "/proc/$1/cgroup"; }
parent() { sed -n 's/^PPid:\t//p' "/proc/$1/status"; }

# outlives NAME SUPERVISORS CONTAINERS: a task goes on over a restart of the agent. Its supervisor is in a cgroup of the first
# name, it is itself in one of the second, and nothing is left when it has ended and the agent is stopped.
outlives() {
    name=$1
    systemctl daemon-reload
    systemctl start $agent
    wait_for "$name: an agent" registered
    tepui run --master 127.0.0.1:5050 --checkpoint --follow --name "$name" --cpus 0.1 --mem 64 \
        --command "echo \$\$ > /tmp/$name.pid; while ! test -e /tmp/$name.go; do sleep 0.2; done; echo went on" >"/tmp/$name.log" 2>&1 &
    run=$!
    wait_for "$name: a task" up "$name"
    task=$(cat "/tmp/$name.pid")
    supervisor=$(parent "$(parent "$task")")
    case $(cgroup "$supervisor") in $2) ;; *) failed "$name: the supervisor is in $(cgroup "$supervisor")" ;; esac
    case $(cgroup "$task") in $3) ;; *) failed "$name: the task is in $(cgroup "$task")" ;; esac
    before=$(property MainPID)
    systemctl restart $agent || failed "$name: no restart"
    [ "$(property MainPID)" != "$before" ] || failed "$name: the same agent"
    ! ended "$task" || failed "$name: the task ended with the agent"
    wait_for "$name: the agent's return" registered
    touch "/tmp/$name.go"
    wait_for "$name: the end" ended "$run"
    wait $run || failed "$name: tepui run: $?"
    grep -q 'went on' "/tmp/$name.log" || failed "$name: no output after the restart"
    wait_for "$name: no supervisor" alone
    systemctl stop $agent
    [ "$(property ActiveState)" = inactive ] || failed "$name: the agent is $(property ActiveState)"
    place=/sys/fs/cgroup${3%/\*}
    [ -z "$(find "$place" -mindepth 1 -path '*/mesos/*' -type d 2>/dev/null)" ] || failed "$name: cgroups are left below $place"
    echo "passed: $name"
}

systemctl start tepui-master
tepui agent doctor | grep "^systemd.*KillMode=process$" || failed "the doctor's opinion of the unit"

# As the unit is shipped.
outlives shipped '/mesos_executors.slice' '/mesos/*'

# systemd kills all that is in the unit's cgroup.
printf '[Service]\nKillMode=control-group\n' >$dropin
systemctl daemon-reload
tepui agent doctor | grep "^systemd.*set KillMode=process$" || failed "the doctor's opinion of control-group"
outlives control-group '/mesos_executors.slice' '/mesos/*'

# All below the unit, without the slice.
printf '[Service]\nDelegateSubgroup=agent\nExecStart=\nExecStart=%s\n' \
    '/usr/bin/tepui-agent --config=/etc/tepui/agent.toml --systemd_enable_support=false --cgroups_root=system.slice/tepui-agent.service/mesos' >$dropin
outlives delegated '/system.slice/tepui-agent.service/agent' '/system.slice/tepui-agent.service/mesos/*'
echo "all tests passed"
