"""The scenarios that the vectors tell, by subject."""
