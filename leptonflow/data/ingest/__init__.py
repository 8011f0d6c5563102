"""Sources and landing: what lies in a folder or table, and how it becomes a closed batch."""
