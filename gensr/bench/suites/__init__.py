"""What is timed: one module a suite, each with `cases(context) -> Iterator[Case]`."""
