"""Floor 3: Prefect flows, and the server they report to. What a stage does belongs to tasks and the engine."""
