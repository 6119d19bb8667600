"""`brokerkm doctor`: looks for what is wrong around a key server, and says what it means and what to do.

It changes nothing: the one message that it has the broker retain, on a topic of its own, it clears again.
"""

from brokerkm.doctor.examination import examine
from brokerkm.doctor.finding import Finding, Level

__all__ = ["Finding", "Level", "examine"]
