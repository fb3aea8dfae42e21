# Shared by the scripts beside it; POSIX sh, because Termux and macOS have no common bash. Sourced, not run.

home="${LANSIM_HOME:-$HOME/.lansim}"
here="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$here/../.." && pwd)"

say() { printf '%s\n' "$*"; }
fail() { say "error: $*" >&2; exit 1; }
need() { command -v "$1" >/dev/null 2>&1 || fail "$1 is missing; $2"; }

# The agent runs on Python 3.11 or newer with zeroconf and cryptography, in an environment of its own.
make_environment() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$1 is older than 3.11; $2"
    "$home/venv/bin/python" -c 'import zeroconf, cryptography' 2>/dev/null || {
        "$1" -m venv ${3:-} "$home/venv"
        "$home/venv/bin/python" -m pip install --quiet zeroconf cryptography
    }
    say "agent: ready in $home/venv"
}

# One token for the whole cluster: made on the first device, then copied to the others by hand.
token_file() {
    if [ ! -s "$home/token" ]; then
        (umask 077 && "$home/venv/bin/python" -c 'import secrets; print(secrets.token_urlsafe(16))' >"$home/token")
        say "made a new pairing token in $home/token; put the same line into that file on every other device"
    fi
}

start_agent() {
    [ -n "$1" ] || fail "which address of this device? usage: $0 agent ADDRESS [MODEL_FILE]"
    [ -x "$home/venv/bin/python" ] || fail "not installed yet; run $0 install first"
    token_file
    set -- --listen "$1" --token-file "$home/token" ${2:+--model-file "$2"}
    cd "$root" && exec "$home/venv/bin/python" -m live.agent "$@"
}

# EXO from its repository; the package called exo in the index is an unrelated program.
fetch_exo() {
    need git "install git"
    need uv "see the uv installation page"
    need npm "install node 18 or newer"
    need cargo "install rust with rustup, then: rustup toolchain install nightly"
    [ -d "$home/exo" ] || git clone https://github.com/exo-explore/exo "$home/exo"
    [ -d "$home/exo/dashboard/build" ] || (cd "$home/exo/dashboard" && npm install && npm run build)
    say "EXO: ready in $home/exo; its commit must be the same on every device:"
    git -C "$home/exo" rev-parse --short HEAD
}

start_exo() {
    [ -d "$home/exo" ] || fail "EXO is not fetched yet; run $0 exo-install first"
    cd "$home/exo" && exec uv run exo "$@"
}

usage() {
    say "usage: $0 install | agent ADDRESS [MODEL_FILE] | $1"
    exit 2
}
