"""The protocol's proof: real server and members against an attacker who has everything that was published."""
