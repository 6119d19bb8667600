"""What the process that is killed and the test that kills it both know."""

GROUP = "killed"
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
