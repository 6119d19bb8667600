"""The demonstration: real processes on this machine form a fleet, and every claim about them is checked.

`story` is what happens; `stage` has the processes: a broker, the key server, one for each member (`device`).
"""
