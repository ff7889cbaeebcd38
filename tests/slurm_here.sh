#!/usr/bin/env bash
# A real Slurm of one node on this machine, for tests: Debian's packages, munge, everything under one folder. As root.
#   tests/slurm_here.sh start FOLDER       then: export SLURM_CONF=FOLDER/slurm.conf
#   tests/slurm_here.sh stop FOLDER
set -euo pipefail
folder=$2
if [ "$1" = stop ]; then
    for name in slurmd slurmctld; do
        [ ! -f "$folder/$name.pid" ] || kill "$(cat "$folder/$name.pid")" || true
    done
    exit 0
fi
if ! command -v slurmctld slurmd munged >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq slurm-wlm munge >/dev/null
fi
mkdir -p "$folder"/{state,spool} /run/munge
chown munge:munge /run/munge
[ -f /etc/munge/munge.key ] || { dd if=/dev/urandom bs=1 count=1024 of=/etc/munge/munge.key status=none; }
chown munge:munge /etc/munge/munge.key && chmod 400 /etc/munge/munge.key
munge -n >/dev/null 2>&1 || runuser -u munge -- munged
node=$(hostname -s)
# cred_expire is also how long a job that was requeued waits before it may start again: two minutes by default.
cat >"$folder/slurm.conf" <<CONF
ClusterName=here
SlurmctldHost=$node(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
JobRequeue=1
KillWait=20
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
SlurmctldPort=46817
SlurmdPort=46818
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=2000 State=UNKNOWN
PartitionName=here Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF="$folder/slurm.conf"
slurmctld
slurmd
for _ in $(seq 60); do
    [ "$(sinfo -h -o %t 2>/dev/null)" = idle ] && exit 0
    sleep 0.5
done
echo "slurm_here.sh: the node did not come up" >&2
tail -n 20 "$folder"/*.log >&2
exit 1
