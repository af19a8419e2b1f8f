"""The same job, done the obvious way: what the bridge is measured against."""
