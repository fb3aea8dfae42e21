"""A swarm: servers that come, choose blocks and go, and clients that find their way through them.

`population` makes servers of a scenario, `board` is what they announce, `servers` their lives, `view` what
one client knows of them, `chats` what it does, `sharing` how chats slow each other down, `run` one swarm,
`study` many at once.
"""
