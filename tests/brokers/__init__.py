"""Real brokers for the tests: each a process of its own, on a free port of loopback, in its own directory."""
