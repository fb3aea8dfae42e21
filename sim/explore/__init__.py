"""`sim explore`: the answers of the command line as a page and as an HTTP API; needs the extra `explore`.

`app` has the routes, `guard` lets nobody else in, `pool` computes elsewhere and drops what nobody waits for,
`answers` asks the simulator, `edit` changes one value of a scenario's text. The page itself is in `static/`.
"""
