"""
Intake: where items come from. Sources stream pages of (key, payload, position) and can go on from any page's position.

One file per kind of source; :mod:`~durabatch.intake.open` chooses. Nothing here knows the ledger.
"""
