"""Bounds that no sensible run meets.

A slip of the keyboard beyond them would never end, or take all memory.
"""

MOST_STEPS = 10_000_000  # an epoch
MOST_EXAMPLES = 2**20  # a step
NEVER = 1_000_000_000  # steps or evaluations; more than any run has
LONGEST_TAG = 40  # characters
LONGEST_NAME = 200  # bytes; a folder's may have 255, with the date before it and a number behind
