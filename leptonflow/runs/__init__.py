"""The life of a run: plan and ids, verdict, record, status, explanation, reproduction, comparison."""
