"""One file a task; `inlay.evaluate.task.tasks` finds them."""
