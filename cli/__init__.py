"""Floor 4: the `leptonflow` command. Thin: parse, call, print. Nothing heavy is imported before it is needed."""
