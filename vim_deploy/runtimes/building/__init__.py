"""What every engine build shares."""
