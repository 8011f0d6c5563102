"""How a closed batch becomes an event on the Prefect server."""
