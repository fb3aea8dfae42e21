#!/data/data/com.termux/files/usr/bin/sh
# Android in Termux: the agent, and llama.cpp's RPC server, because no EXO 1.x runs on Android.
set -eu
. "$(dirname "$0")/common.sh"

case "${1:-}" in
install)
    # Termux has cryptography ready; pip would build it on the phone, with Rust.
    pkg install -y python python-cryptography termux-api
    # Without its compiled parts zeroconf is a little slower and needs no compiler on the phone.
    SKIP_CYTHON=1 make_environment python "pkg upgrade python" --system-site-packages
    say "also install the app Termux:API (same source as Termux), or battery and Wi-Fi stay unknown"
    ;;
agent)
    termux-wake-lock || say "hint: pkg install termux-api, so that the phone does not fall asleep"
    start_agent "${2:-}" "${3:-}"
    ;;
rpc-install)
    pkg install -y git cmake clang
    [ -d "$home/llama.cpp" ] || git clone https://github.com/ggml-org/llama.cpp "$home/llama.cpp"
    cmake -S "$home/llama.cpp" -B "$home/llama.cpp/build" -DGGML_RPC=ON -DCMAKE_BUILD_TYPE=Release
    cmake --build "$home/llama.cpp/build" --target rpc-server -j 4
    say "commit, which must be the same on every device:"
    git -C "$home/llama.cpp" rev-parse --short HEAD
    ;;
rpc)
    [ -n "${2:-}" ] || fail "which address of this phone? usage: $0 rpc ADDRESS; its authors: never on an open network"
    termux-wake-lock || true
    exec "$home/llama.cpp/build/bin/rpc-server" -H "$2" -p 50052 -c
    ;;
*) usage "rpc-install | rpc ADDRESS" ;;
esac
