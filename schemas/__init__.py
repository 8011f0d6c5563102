"""Floor 0: records, table schemas, pipeline configuration, settings, errors. Nothing of the engine belongs here."""
