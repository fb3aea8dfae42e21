"""A real cluster on one machine: llama.cpp RPC processes as devices, throttled, behind shaped links."""
