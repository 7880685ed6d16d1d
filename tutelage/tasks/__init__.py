"""The tasks: one task, one file. `tutelage.data.task.TASKS` lists them by name."""
