"""Reports that people look at: one HTML file and its Markdown twin from a run's JSON."""
