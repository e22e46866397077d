"""
Processes that run handlers. A worker never opens the ledger: items come in and results go out over two pipes.

The parts, in the order in which an item meets them: :mod:`protocol` (frames), :mod:`link` (the pipes' end in the worker), :mod:`backlog`
(what waits); a model that runs items, :mod:`hands` (sync handlers and commands) or :mod:`tasks` (async handlers); :mod:`item_runner` (one
item), :mod:`command` and :mod:`child` (one subprocess), :mod:`outcomes` (what is finished and not yet sent), :mod:`cells` (what a worker was
doing when it died).
"""
