"""The small process that runs on every device and measures on request; start it with `python -m live.agent`.

It has to run in Termux on a phone, so nothing that the running agent imports needs more than the
standard library, `zeroconf` and `cryptography`: no pydantic, no numpy, nothing of `simulator`.
(`live.agent.peers`, `links` and `matrix` are the asking side on the user's own machine;
they may import everything and the agent imports none of them.)
"""
