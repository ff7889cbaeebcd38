# shellcheck shell=bash
# Sourced by the commands beside it. `memlayers_setup EXTRA ...` sees to it that the checkout's .venv holds the package,
# editable, with these extras, in the exact versions of constraints.txt. It leaves behind
#   root    the checkout
#   python  the interpreter of its .venv
# The file .venv/memlayers-setup records what the last set-up was for, so that a later call only compares five lines.
# MEMLAYERS_PYTHON is the Python to make .venv with; without it, the first of 3.11 or newer on the PATH.
# All messages go to stderr. Runs in bash 3.2, which macOS still has.

root="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"
venv="$root/.venv"
python="$venv/bin/python"
stamp="$venv/memlayers-setup"
log="$venv/memlayers-setup.log"

say() { printf 'memlayers: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

memlayers_setup() {
    is_ready "$@" && return
    # The lock is on the checkout's folder and goes with the last process that has it open, pip included.
    (lock && is_ready "$@" || bring_up_to_date "$@") 9<"$root" || exit
}

is_ready() {
    local extra
    read_stamp
    [[ $state == ready && $place == "$root" && $pins == "$(current_pins)" && -x $python ]] || return 1
    for extra in "$@"; do
        [[ " $extras " == *" $extra "* ]] || return 1
    done
}

# state   making: the first set-up of a .venv of ours is under way, or was cut short; updating: a later one; ready
# owner   ours: we made this .venv, and may make it again; found: it was here before us, and we only install into it
read_stamp() {
    state='' owner='' pins='' place='' extras=''
    [[ -f $stamp ]] || return 0
    {
        read -r state
        read -r owner
        read -r pins
        IFS= read -r place
        read -r extras
    } <"$stamp" || state=updating
}

write_stamp() { # state owner pins place extras
    printf '%s\n' "$@" >"$stamp.new" && mv -f -- "$stamp.new" "$stamp" || die "cannot write $stamp"
}

current_pins() { cat -- "$root/constraints.txt" "$root/pyproject.toml" | cksum; }

lock() {
    local locker=$python
    runs "$locker" || { find_python && locker=$found; }
    # flock(2) by way of Python, for flock(1) is not everywhere. On a file system without locks, go on without.
    "$locker" -c '
import fcntl
try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    raise SystemExit(1)
except OSError:
    pass
' && return
    say "waiting for another set-up of this checkout ..."
    "$locker" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'
}

bring_up_to_date() {
    local wanted="$*" extra wanted_pins
    wanted_pins="$(current_pins)"
    trap 'say "set-up interrupted; the next call takes it up again"; exit 130' INT
    read_stamp
    for extra in $extras; do
        [[ " $wanted " == *" $extra "* ]] || wanted="${wanted:+$wanted }$extra"
    done

    if [[ $owner == ours ]]; then
        if [[ $state == making || $place != "$root" ]] || ! is_recent "$(version_of "$python")"; then
            make_venv
        fi
    elif [[ -z "$(ls -A -- "$venv" 2>/dev/null)" ]]; then
        make_venv
    else
        runs "$python" || die "$venv has no Python that runs; remove that folder and try again"
        is_recent "$(version_of "$python")" ||
            die "needs Python 3.11 or newer, found $(version_of "$python") in $venv; remove that folder and try again"
        owner=found
    fi

    if [[ $state != making ]]; then
        say "bringing .venv up to date (a minute or less) ..."
        state=updating
        write_stamp "$state" "$owner" - "$root" "$extras" # what a failure now would leave for the next call to keep
        : >"$log"
    fi
    install "$wanted"
    write_stamp ready "$owner" "$wanted_pins" "$root" "$wanted"
    say ".venv is ready, after $SECONDS s"
}

make_venv() {
    find_python
    say "making .venv with Python $(version_of "$found") (once, a minute or two) ..."
    state=making owner=ours
    mkdir -p -- "$venv" || die "cannot make $venv"
    write_stamp "$state" "$owner" - "$root" ""
    # All but the stamp, so that a removal cut short is still known for one.
    find "$venv" -mindepth 1 -maxdepth 1 ! -name "${stamp##*/}" -exec rm -rf -- {} + || die "cannot empty $venv"
    "$found" -m venv "$venv" >"$log" 2>&1 || die "cannot make a virtual environment (log: $log)"
}

install() { # extras
    local list=${1// /,}
    # A .venv made by uv has no pip of its own.
    "$python" -Im pip --version >>"$log" 2>&1 || "$python" -Im ensurepip >>"$log" 2>&1 || die "no pip in $venv (log: $log)"
    # The build tools first, in exact versions too: a build environment of pip's own would take their newest.
    pip_install setuptools hatchling editables
    pip_install --use-pep517 --no-build-isolation --editable ".${list:+[$list]}"
}

pip_install() {
    local complaint
    (cd -- "$root" && PIP_USER=0 "$python" -Im pip install --no-input --disable-pip-version-check --progress-bar off \
        --constraint constraints.txt "$@") >>"$log" 2>&1 </dev/null && return
    complaint="$(grep -i -m 1 '^error.*[^:]$' "$log" || tail -n 1 "$log")"
    die "pip failed: ${complaint:0:300} (log: $log)"
}

# Sets found, or ends with one line that says what was found instead.
find_python() {
    local name version old=''
    if [[ -n ${MEMLAYERS_PYTHON:-} ]]; then
        version="$(version_of "$MEMLAYERS_PYTHON")" || die "MEMLAYERS_PYTHON=$MEMLAYERS_PYTHON is no Python that runs"
        is_recent "$version" || die "needs Python 3.11 or newer, found $version (MEMLAYERS_PYTHON=$MEMLAYERS_PYTHON)"
        found=$MEMLAYERS_PYTHON
        return
    fi
    # 3.11 first: constraints.txt was made with it.
    for name in python3.11 python3 python3.12 python3.13 python3.14 python; do
        version="$(version_of "$name")" || continue
        if is_recent "$version"; then
            found=$name
            return
        fi
        old="${old:-$version ($(command -v "$name"))}"
    done
    die "needs Python 3.11 or newer, found ${old:-none}; install one, or set MEMLAYERS_PYTHON to one"
}

version_of() { "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null </dev/null; }

runs() { version_of "$1" >/dev/null; }

is_recent() { # version
    [[ $1 =~ ^([0-9]+)\.([0-9]+)\. ]] || return 1
    ((BASH_REMATCH[1] > 3 || BASH_REMATCH[1] == 3 && BASH_REMATCH[2] >= 11))
}
