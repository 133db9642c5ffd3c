"""What people see of a run: progress, facts and the report."""
