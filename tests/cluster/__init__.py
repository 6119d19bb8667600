"""Several key servers on one database and one broker."""
