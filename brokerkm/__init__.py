"""Group key management for message brokers."""
