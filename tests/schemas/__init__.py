"""The wire contract's tests: its CDDL, its vectors and the script that makes them."""
