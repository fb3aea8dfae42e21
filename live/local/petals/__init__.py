"""A Petals swarm on this machine: bootstrap, servers and client as they are published, behind our relay."""
