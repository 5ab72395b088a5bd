"""HTTP API and dashboard: is handed what it shows."""
