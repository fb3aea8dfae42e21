#!/bin/sh
# Linux: the agent, EXO from its repository, and what this user may read of the radio.
set -eu
. "$(dirname "$0")/common.sh"

case "${1:-}" in
install)
    need python3 "install python 3.11 or newer with its venv module"
    make_environment python3 "install a newer python"
    command -v iw >/dev/null 2>&1 || say "hint: install iw, so that the doctor sees Wi-Fi band, signal and power-save"
    ;;
agent) start_agent "${2:-}" "${3:-}" ;;
exo-install) fetch_exo ;;
exo) shift && start_exo "$@" ;;
radio-awake)
    interface="$(iw dev | awk '$1 == "Interface" { print $2; exit }')"
    [ -n "$interface" ] || fail "no Wi-Fi interface here"
    sudo iw dev "$interface" set power_save off
    say "$interface stays awake until the next connection"
    ;;
*) usage "exo-install | exo [OPTIONS] | radio-awake" ;;
esac
