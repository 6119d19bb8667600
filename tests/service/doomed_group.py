"""What the process that is killed and the test that kills it both know."""

GROUP = "killed"
DOOMED = "doomed-"  # so begin the ids of members that it evicts first
STEPS = (
    "before BEGIN",
    "after BEGIN",
    "before COMMIT",
    "after COMMIT",
    "before publishing",
    "while publishing",
    "after publishing",
    "before marking",
    "after marking",
)
