#!/bin/sh
# macOS: the agent, and EXO from its repository. Nothing is installed system-wide and no setting is changed.
set -eu
. "$(dirname "$0")/common.sh"

case "${1:-}" in
install)
    need python3 "brew install python@3.12"
    make_environment "$(command -v python3.13 || command -v python3.12 || command -v python3)" "brew install python@3.12"
    ;;
agent)
    # A Mac that sleeps answers nobody: keep it awake as long as the agent runs.
    [ -n "${LANSIM_AWAKE:-}" ] || exec env LANSIM_AWAKE=1 caffeinate -is "$0" "$@"
    start_agent "${2:-}" "${3:-}"
    ;;
exo-install)
    xcode-select -p >/dev/null 2>&1 || fail "Xcode is missing; MLX needs its Metal tools, get it from the App Store"
    fetch_exo
    ;;
exo) shift && start_exo "$@" ;;
*) usage "exo-install | exo [OPTIONS]" ;;
esac
