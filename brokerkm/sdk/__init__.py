"""The member's side for applications: a `Member` with its saved state, its connection and its recovery.

The door is `brokerkm.connect`. Inside: `fleet` is what the application holds, `session` the member at work, `state` the directory
in which it is kept, `recovery` when the server is asked for what, `subscriptions` who receives which message,
`sync` the same for scripts.
"""
