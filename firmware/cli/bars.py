"""Progress bars on stderr for commands that take longer than a few seconds."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Bars:
    """A context in which ``bars(stage, done, total)`` shows one bar a stage; they vanish at its end."""

    def __init__(self, console: Console):
        self.progress = Progress(
            TextColumn("{task.description:<18}"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(), console=console, transient=True,
        )  # fmt: skip
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        self.progress.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.progress.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self.tasks:
            self.tasks[stage] = self.progress.add_task(stage, total=total)
        self.progress.update(self.tasks[stage], completed=done, total=total)

    def stage(self, name: str, done: int = 0, total: int = 1) -> None:
        """A stage begins, and the one before it has ended; or so much of it is done."""
        if name not in self.tasks:
            for task in self.tasks.values():
                self.progress.update(task, completed=self.progress.tasks[task].total)
        self(name, done, total)
