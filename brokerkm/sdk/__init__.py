"""The member's side for applications: a `Member` with its saved state, its connection and its recovery.

The door is `brokerkm.connect`. Inside: `fleet` is what applications hold, `session` the member at work, `keeper` and
`state` how every change of it is saved, `recovery` when the server is asked for what, `subscriptions` who receives
which message, `sync` the fleet for scripts.
"""
