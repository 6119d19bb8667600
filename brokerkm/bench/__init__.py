"""Measurements of brokerkm, each beside its floor or a rival that is measured in the same run."""
