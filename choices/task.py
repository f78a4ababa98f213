"""Options of what is learned."""

from dataclasses import dataclass

from declare import Names, Section, declare


@dataclass(frozen=True)
class TaskOptions(Section):
    """What is learned"""

    tasks: Names = declare(("sst", "para", "sts"), "one or more tasks")
