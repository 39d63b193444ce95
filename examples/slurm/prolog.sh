#!/bin/sh
# Slurm prolog: every machine of a job has the checkpoints before the job starts, taken from each other.
#
# In slurm.conf:   Prolog=/etc/slurm/prolog.d/diachunk.sh    PrologFlags=Alloc
# Alloc runs it on all machines when the job gets them, at the same time: together they load the origin once. Slurm
# runs it as root, and kills it after BatchStartTimeout + PrologEpilogTimeout; so the fetch is bounded below that, and
# runs as the user that owns the store.
#
# Which checkpoints: those that a job names (sbatch --comment 'diachunk=dia-1.6b,lab/other'), else those of
# /etc/diachunk/config.toml (checkpoints = [...]). A job that names none, on a machine whose config names none, waits
# for nothing.
#
# Exit codes, as slurm.conf(5) wants them: 0 lets the job start. Any other drains this machine and puts the job back
# into the queue. So only what is wrong with *this machine* (its disk: exit 6 of diachunk) is not 0. Whatever else
# happens (no source, a misspelt name, not done in time) is said in the log, and the job itself meets it: its own
# `diachunk fetch` goes on where this one stopped, and names the reason to the person who can mend it.
set -u

user=${DIACHUNK_USER:-diachunk}
at_most_s=${DIACHUNK_PROLOG_S:-240}
diachunk=${DIACHUNK_BIN:-diachunk}
scontrol=${DIACHUNK_SCONTROL:-scontrol}
lock=${DIACHUNK_PROLOG_LOCK:-/run/lock/diachunk-prolog.lock}
ends_at=$(($(date +%s) + at_most_s))

say() {
    logger -t diachunk-prolog -- "job ${SLURM_JOB_ID:-?}: $*" 2>/dev/null || echo "diachunk-prolog: $*" >&2
}

# The comment is whatever its user wrote: only what a name can be made of is taken from it.
named() {
    "$scontrol" show job --oneliner "${SLURM_JOB_ID:-0}" 2>/dev/null |
        sed -n 's/.* Comment=[^ ]*diachunk=\([A-Za-z0-9._@\/,-]*\).*/\1/p' |
        tr ',' '\n' | grep '^[A-Za-z0-9]' | head -n 20
}

# Machines that are done stay for those that are not, but not for long: their own job waits.
fetch() {
    left_s=$((ends_at - $(date +%s)))
    [ "$left_s" -gt 0 ] || return 124
    if [ "$(id -u)" -eq 0 ]; then
        set -- setpriv --reuid "$user" --regid "$user" --init-groups -- "$diachunk" fetch --quiet --linger 20s "$@"
    else
        set -- "$diachunk" fetch --quiet --linger 20s "$@"
    fi
    timeout --kill-after=10 "$left_s" "$@" >/dev/null 9>&-
}

verdict=0
bring() {
    fetch "$@"
    code=$?
    case $code in
        0) ;;
        6)
            say "exit 6: this machine's disk: diachunk fetch $*"
            verdict=1
            ;;
        124 | 137) say "not done after $at_most_s s, the job's own fetch goes on from there: diachunk fetch $*" ;;
        *) say "exit $code: diachunk fetch $*" ;;
    esac
}

# One prolog at a time on a machine: a second job that lands here waits for the first, and finds everything there.
exec 9>"$lock" || exit 0
flock -w "$at_most_s" 9 || {
    say "another prolog still fetches after $at_most_s s; the job goes on without"
    exit 0
}
names=$(named)
if [ -n "$names" ]; then
    for name in $names; do
        bring "$name"
    done
elif [ -f "${DIACHUNK_CONFIG:-/etc/diachunk/config.toml}" ]; then
    bring
fi
exit "$verdict"
